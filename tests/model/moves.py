# SPDX-License-Identifier: Apache-2.0
"""Everything that can happen next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from model.world import (
    POLICIES,
    RESULT_TICKS,
    SILENCE_TICKS,
    SVID_TICKS,
    Entry,
    Pending,
    Reader,
    Record,
    Result,
    Rules,
    Stood,
    World,
    at,
    event,
    heartbeat,
    membership,
    peer_of,
    snapshot,
    standing_of,
)
from troth.errors import AuthorizationError, ConflictError
from troth.mesh.admission import (
    Step,
    Verdict,
    join_facts,
    plan_duplicate,
    plan_join,
    plan_reappraisal,
)
from troth.mesh.event import FeedMessage, Snapshot
from troth.mesh.feed_order import Placed
from troth.mesh.node import (
    PERMISSIONS,
    Actor,
    Facts,
    NodeState,
    Reason,
    Trigger,
    follow,
    remediable,
)

T = TypeVar("T")

EXPEL = Step(trigger=Trigger.EXPEL, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR)
REATTEST = Step(trigger=Trigger.REATTEST, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR)
LAPSE = Step(trigger=Trigger.DEGRADE, reason=Reason.RESULT_STALE)
STALL = Step(trigger=Trigger.GIVE_UP, reason=Reason.TIMED_OUT)


class Move(NamedTuple):
    """Something that happened, the world after it, and what it broke by happening."""

    label: str
    world: World
    broke: str = ""


def moves(world: World, rules: Rules) -> Iterator[Move]:
    """Yield everything that can happen to `world`."""
    for node in (0, 1):
        yield from _joins(world, node)
        yield from _commit(world, node, rules)
        yield from _operator(world, node, rules)
        yield from _by_itself(world, node, rules)
        yield from _to_the_machine(world, node, rules)
        yield from _feed(world, node, rules)
    if world.site_epoch != world.epoch:
        yield Move(
            "the site's Verifier learns the new values", world._replace(site_epoch=world.epoch)
        )
    if not world.linked and all(_accepts(world, side, rules) for side in (0, 1)):
        yield Move("the nodes connect", world._replace(linked=True), _admitted_wrongly(world))
    if world.left.ticks:
        yield Move("a tick passes", _settled(_later(world, rules), rules))


def evil(world: World, node: int) -> bool:
    """Say whether the agent on `node` does whatever it likes."""
    return world.machines[node].status == "contraindicated" or world.truths[node].expelled


def _spend(world: World, what: str) -> World:
    left = world.left._replace(**{what: getattr(world.left, what) - 1})
    return world._replace(left=left)


def _later(world: World, rules: Rules) -> World:
    """Let a tick pass, and forget what makes no difference any more: worlds become equal."""
    now = world.now + 1
    readers = [
        reader._replace(heard=None)
        if rules.heeds_silence and reader.heard is not None and now - reader.heard >= SILENCE_TICKS
        else reader
        for reader in world.readers
    ]
    oldest = now - rules.late_ticks
    log = [entry if entry.tick >= oldest else entry._replace(tick=-1) for entry in world.log]
    return _spend(world, "ticks")._replace(
        now=now, readers=(readers[0], readers[1]), log=tuple(log)
    )


def _put(pair: tuple[T, T], index: int, value: T) -> tuple[T, T]:
    return (value, pair[1]) if index == 0 else (pair[0], value)


# Joining


def _joins(world: World, node: int) -> Iterator[Move]:
    if not world.left.joins or world.pending[node] is not None:
        return
    machine = world.machines[node]
    senders = [("", machine.boot, False)]
    if machine.copy is not None:
        senders.append((" (the copy)", machine.copy, False))
    if world.left.thefts and world.truths[1 - node].issued is not None:
        senders.append((" with the other's key", machine.boot, True))
    for name, boot, theft in senders:
        for verifier, epoch in enumerate((world.epoch, world.site_epoch)):
            result = Result(verifier, epoch, machine.status, world.now)
            record = world.records[node]
            standing = Stood(
                state=record.state,
                reason=record.reason,
                boot_unchanged=record.boot == boot,
                boot_returned=boot in record.boots and record.boot != boot,
                key_copied=theft,
            )
            verdict = Verdict.of(status=machine.status, tier_reached=True)
            pending = Pending(standing, record.generation, verdict, result, boot)
            after = _spend(world, "joins")
            if theft:
                after = _spend(after, "thefts")
            after = after._replace(pending=_put(world.pending, node, pending))
            yield Move(f"node {node}{name} is appraised by Verifier {verifier}", after)


def _commit(world: World, node: int, rules: Rules) -> Iterator[Move]:
    pending = world.pending[node]
    if pending is None:
        return
    label = f"the join of node {node} reaches the registry"
    done = world._replace(pending=_put(world.pending, node, None))
    record = world.records[node]
    conflict = (rules.compares_generation and record.generation != pending.generation) or (
        rules.compares_epoch and pending.result.epoch != world.epoch
    )
    if conflict:
        yield Move(f"{label} and is refused", done)
        return
    plan = plan_join(standing_of(pending.standing), pending.verdict)
    facts = join_facts(
        pending.verdict,
        boot_unchanged=pending.standing.boot_unchanged,
        remediable_now=pending.standing.reason is None or remediable(pending.standing.reason),
    )
    state = record.state if rules.applies_to_present_state else pending.standing.state
    moved = _stepped(record, state, plan.steps, facts, rules)
    if moved is None:
        yield Move(f"{label} and is refused", done)
        return
    dead = record.state in (NodeState.EXPELLED, NodeState.RETIRED)
    if plan.steps and not (dead and rules.applies_to_present_state):
        moved = moved._replace(
            boot=pending.boot, boots=moved.boots | {pending.boot}, result=pending.result
        )
    broke = ""
    truth = done.truths[node]
    if plan.refusal is None:
        if PERMISSIONS[moved.state].svid != "yes":
            yield Move(f"{label} and is refused", done)
            return
        broke = _issued_wrongly(world, node, pending)
        not_after = min(world.now + SVID_TICKS, pending.result.issued + RESULT_TICKS)
        moved = moved._replace(not_after=not_after)
        truth = truth._replace(issued=(not_after, pending.result))
    done = done._replace(truths=_put(done.truths, node, truth))
    done = _written(done, node, moved)
    if pending.standing.key_copied and rules.holds_both:
        done = _moved(done, 1 - node, plan_duplicate, rules)
    if not broke and pending.standing.key_copied:
        broke = _copy_ignored(done, node)
    yield Move(label, _settled(done, rules), broke)


def _stepped(
    record: Record, state: NodeState, steps: Sequence[Step], facts: Facts, rules: Rules
) -> Record | None:
    """Return the record after `steps`, or None where the table refuses."""
    reason, boots = record.reason, record.boots
    for step in steps:
        try:
            state = follow(
                state,
                step.trigger,
                reason=step.reason,
                actor=step.actor,
                facts=facts,
                table=rules.table,
            )
        except (ConflictError, AuthorizationError):
            return None
        reason = step.reason
        boots = frozenset() if step.trigger is Trigger.REATTEST else boots
    return record._replace(
        state=state, reason=reason, generation=record.generation + len(steps), boots=boots
    )


def _moved(world: World, node: int, plan: Any, rules: Rules) -> World:
    record = world.records[node]
    steps = plan(record.state, record.reason)
    after = _stepped(record, record.state, steps, Facts(), rules) if steps else None
    return world if after is None else _written(world, node, after)


def _written(world: World, node: int, record: Record) -> World:
    """Write the record, its event and what it means, as one transaction does."""
    before = world.records[node]
    truth = world.truths[node]
    allows = PERMISSIONS[record.state].new_connections != "no"
    if allows:
        truth = truth._replace(lost_at=None)
    elif truth.lost_at is None:
        truth = truth._replace(lost_at=world.now)
    log = world.log
    if record.generation != before.generation:
        log = (*log, Entry(node, record.seen, world.now))
    return world._replace(
        records=_put(world.records, node, record), truths=_put(world.truths, node, truth), log=log
    )


# Operators, time, and what befalls machines


def _operator(world: World, node: int, rules: Rules) -> Iterator[Move]:
    record = world.records[node]
    if world.left.operator:
        for step in (EXPEL, REATTEST):
            after = _stepped(record, record.state, (step,), Facts(), rules)
            if after is not None:
                done = _written(_spend(world, "operator"), node, after)
                if step is EXPEL:
                    truth = done.truths[node]._replace(expelled=True)
                    done = done._replace(truths=_put(done.truths, node, truth))
                yield Move(
                    f"an operator pulls {step.trigger} of node {node}", _settled(done, rules)
                )
    if world.left.withdrawals:
        # What this node's machine is measured by is withdrawn; its result is appraised again and
        # the epoch raised in one transaction.
        machine = world.machines[node]._replace(status="contraindicated")
        done = _spend(world, "withdrawals")._replace(
            epoch=world.epoch + 1, machines=_put(world.machines, node, machine)
        )
        steps = plan_reappraisal(
            record.state, Verdict.CONTRAINDICATED, reason=Reason.REFERENCE_VALUE_WITHDRAWN
        )
        after = _stepped(record, record.state, steps, Facts(), rules) if steps else None
        done = done if after is None else _written(done, node, after)
        broke = ""
        if PERMISSIONS[done.records[node].state].svid != "no":
            broke = f"I1: node {node} keeps its SVID although what it stands on was withdrawn"
        label = f"a value that node {node} stands on is withdrawn"
        yield Move(label, _settled(done, rules), broke)


def _by_itself(world: World, node: int, rules: Rules) -> Iterator[Move]:
    record = world.records[node]
    if record.state is NodeState.ADMITTED and world.now >= record.not_after:
        after = _stepped(record, record.state, (LAPSE,), Facts(), rules)
        if after is not None:
            yield Move(f"node {node} lapses", _settled(_written(world, node, after), rules))
    if record.state in (NodeState.ATTESTING, NodeState.ATTESTED):
        after = _stepped(record, record.state, (STALL,), Facts(), rules)
        if after is not None:
            yield Move(f"node {node} is given up", _settled(_written(world, node, after), rules))


def _to_the_machine(world: World, node: int, rules: Rules) -> Iterator[Move]:
    machine = world.machines[node]
    fresh = max(machine.boot, machine.copy or 0) + 1
    if world.left.reboots:
        booted = _spend(world, "reboots")._replace(
            machines=_put(world.machines, node, machine._replace(boot=fresh)),
            readers=_put(world.readers, node, Reader()),
            linked=False,
        )
        yield Move(f"node {node} boots again", booted)
    if world.left.copies and machine.copy is None:
        copied = _spend(world, "copies")._replace(
            machines=_put(world.machines, node, machine._replace(copy=fresh))
        )
        yield Move(f"node {node} is copied", copied)
    if world.left.spoils and machine.status == "affirming":
        for status in ("warning", "contraindicated"):
            spoiled = _spend(world, "spoils")._replace(
                machines=_put(world.machines, node, machine._replace(status=status))
            )
            yield Move(f"node {node} becomes {status}", _settled(spoiled, rules))


# The feed, and what relying parties make of it


def _feed(world: World, side: int, rules: Rules) -> Iterator[Move]:
    reader = world.readers[side]
    if evil(world, side):
        return  # whatever it knows, it does as it likes
    made = {reader}
    for what, message, content in _on_the_way(world, rules):
        placed = rules.place(message, reader.known, reader.first)
        if placed is Placed.SKIP:
            after = reader._replace(first=False)
        elif placed is Placed.LOST:
            after = reader._replace(known=None, first=True)
        else:
            view = reader.view
            if content is None or content.node == 1 - side:
                view = content.seen if content else view
            if isinstance(message, Snapshot):
                view = membership(world.log[: message.sequence], 1 - side)
            after = Reader(known=message.sequence, first=False, heard=world.now, view=view)
        if after not in made:
            made.add(after)
            told = world._replace(readers=_put(world.readers, side, after))
            back = None not in (reader.known, after.known) and after.known < reader.known
            broke = f"I2: agent {side} went back to what it knew earlier" if back else ""
            label = f"agent {side} gets {what} {message.sequence}: {placed}"
            yield Move(label, _settled(told, rules), broke)


def _on_the_way(world: World, rules: Rules) -> Iterator[tuple[str, FeedMessage, Entry | None]]:
    """Yield what may arrive: in any order, any number of times, or never."""
    oldest = world.now - rules.late_ticks
    before = len([entry for entry in world.log if entry.tick < oldest])
    for number in range(before, len(world.log)):
        yield "event", event(number + 1), world.log[number]
    for number in range(before, len(world.log) + 1):
        yield "a heartbeat at", heartbeat(number), None
        yield "a snapshot of", snapshot(number), None


def _accepts(world: World, side: int, rules: Rules) -> bool:
    """Say whether the agent on `side` lets a connection with the other be."""
    if world.truths[1 - side].issued is None:
        return False  # there is nothing to show
    if evil(world, side):
        return True
    reader = world.readers[side]
    if reader.view is None or reader.heard is None:
        return False
    if rules.heeds_silence and world.now - reader.heard >= SILENCE_TICKS:
        return False
    return _authorized(reader.view, side, world.now, rules)


_FORGOTTEN = Reader()
_DECISIONS: dict[tuple[int, Any, int, int], bool] = {}


def _authorized(view: Any, side: int, now: int, rules: Rules) -> bool:
    key = (id(rules.authorize), view._replace(generation=0), side, now)
    found = _DECISIONS.get(key)
    if found is None:
        found = rules.authorize(peer_of(key[1]), POLICIES[side], at(now))
        _DECISIONS[key] = found
    return found


def _settled(world: World, rules: Rules) -> World:
    """End the connection where either side does not accept it any more."""
    for side in (0, 1):
        if evil(world, side) and world.readers[side] != _FORGOTTEN:
            world = world._replace(readers=_put(world.readers, side, _FORGOTTEN))
    if world.linked and not all(_accepts(world, side, rules) for side in (0, 1)):
        return world._replace(linked=False)
    return world


# What happening alone can break


def _issued_wrongly(world: World, node: int, pending: Pending) -> str:
    if world.truths[node].expelled:
        return "I5: an SVID was issued to an expelled node"
    if pending.result.status != "affirming":
        return f"I1: an SVID was issued on a result that is {pending.result.status}"
    if pending.result.epoch != world.epoch:
        return "I1: an SVID was issued on a result of an earlier epoch"
    record = world.records[node]
    if pending.boot in record.boots and record.boot != pending.boot:
        return "I1: an SVID was issued to a boot session that another one has replaced"
    return ""


def _copy_ignored(world: World, node: int) -> str:
    """Say which node still stands although its key was shown from two machines."""
    for each in (node, 1 - node):
        if PERMISSIONS[world.records[each].state].svid != "no":
            return f"I1: node {each} keeps its SVID although its key is on two machines"
    return ""


def _admitted_wrongly(world: World) -> str:
    """Compare with the two policies in plain words, without `authorize`."""
    for side in (0, 1):
        if evil(world, side):
            continue
        view = world.readers[side].view
        believed = (0, 1) if side == 0 else (0,)
        states = {NodeState.ADMITTED} | ({NodeState.DEGRADED} if side == 0 else set())
        if view is None or view.result is None or view.state not in states:
            return f"I3: node {side} connected with one that it does not see admitted"
        if view.result.verifier not in believed or view.result.status != "affirming":
            return f"I3: node {side} connected on a result that its policy does not believe"
    return ""
