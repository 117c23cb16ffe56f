# SPDX-License-Identifier: Apache-2.0
"""A world small enough to visit all of it: what there is, and by which rules it moves.

Two nodes, whose agents are each other's relying parties, two Verifiers, one registry, one feed to
each agent. Time goes in ticks of the feed's longest silence. Everything that decides is the
product's: the transition table, the plans of a join, the reading of the feed, `authorize`. `Rules`
holds them, so that a test can put a broken one in the place of each.

What is left out: keys and signatures (results arrive as they were made), bytes, and the states
between the steps of one transaction, none of which allows anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

from troth.mesh.admission import Standing, Verdict
from troth.mesh.event import Event, FeedMessage, Heartbeat, Snapshot
from troth.mesh.feed_order import Placed, place
from troth.mesh.member import Member
from troth.mesh.node import TRANSITIONS, NodeState, Reason, Transition
from troth.mesh.peer_policy import (
    Peer,
    PeerPolicy,
    PeerResult,
    PeerRule,
    ResultModel,
    authorize,
)
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier

TICK = DEFAULT_LIFETIMES[Tier.MEASURED].feed_loss
START = datetime(2026, 11, 25, tzinfo=UTC)
SILENCE_TICKS = 1
RESULT_TICKS = 3
SVID_TICKS = 2
AGE_TICKS = 2
VERIFIERS = ("central", "site")


class Result(NamedTuple):
    """An Attestation Result. `verifier` is an index, times are ticks."""

    verifier: int
    epoch: int
    status: str
    issued: int


class Seen(NamedTuple):
    """A node as the feed tells it; `not_after` of its last SVID, or -1."""

    state: NodeState
    generation: int
    not_after: int
    result: Result | None


class Record(NamedTuple):
    """A node as the registry has it."""

    state: NodeState = NodeState.REGISTERED
    reason: Reason | None = None
    generation: int = 0
    boot: int | None = None
    boots: frozenset[int] = frozenset()
    not_after: int = -1
    result: Result | None = None

    @property
    def seen(self) -> Seen:
        return Seen(self.state, self.generation, self.not_after, self.result)


class Machine(NamedTuple):
    """What a node runs on: its boot session, the one of a copy of it, what Evidence would show."""

    boot: int = 0
    copy: int | None = None
    status: str = "affirming"


class Stood(NamedTuple):
    """The fields of `Standing`, in a form that is hashed fast."""

    state: NodeState
    reason: Reason | None
    boot_unchanged: bool
    boot_returned: bool
    key_copied: bool


@cache
def standing_of(stood: Stood) -> Standing:
    """Return what the product's plans take."""
    return Standing(**stood._asdict())


class Pending(NamedTuple):
    """A join that was appraised and has not reached the registry's transaction."""

    standing: Stood
    generation: int
    verdict: Verdict
    result: Result
    boot: int


class Reader(NamedTuple):
    """An agent's knowledge of the other node."""

    known: int | None = None
    first: bool = True
    heard: int | None = None
    view: Seen | None = None


class Entry(NamedTuple):
    """An event of the feed: event n is number n - 1 of the world's log."""

    node: int
    seen: Seen
    tick: int


class Truth(NamedTuple):
    """What only the checker knows of a node.

    `lost_at`: when it lost what lets it have connections. `expelled`: for good.
    `issued`: notAfter of its last SVID and the result that this was issued for.
    """

    lost_at: int | None = None
    expelled: bool = False
    issued: tuple[int, Result] | None = None


class Budget(NamedTuple):
    """How often each thing may happen."""

    ticks: int = 0
    joins: int = 0
    operator: int = 0
    withdrawals: int = 0
    reboots: int = 0
    spoils: int = 0
    copies: int = 0
    thefts: int = 0


class World(NamedTuple):
    """One state of everything."""

    left: Budget
    now: int = 0
    epoch: int = 0
    site_epoch: int = 0
    records: tuple[Record, Record] = (Record(), Record())
    machines: tuple[Machine, Machine] = (Machine(), Machine())
    pending: tuple[Pending | None, Pending | None] = (None, None)
    readers: tuple[Reader, Reader] = (Reader(), Reader())
    truths: tuple[Truth, Truth] = (Truth(), Truth())
    log: tuple[Entry, ...] = ()
    linked: bool = False


def _authorize(peer: Peer, policy: PeerPolicy, now: datetime) -> bool:
    return authorize(peer, policy, now=now).admitted


def _place(message: FeedMessage, known: int | None, first: bool) -> Placed:  # noqa: FBT001
    return place(message, known=known, first=first)


def joined(budget: Budget) -> World:
    """Return a world in which both nodes are admitted and both agents know it."""
    result = Result(0, 0, "affirming", 0)
    record = Record(
        state=NodeState.ADMITTED,
        reason=Reason.POLICY_MET,
        generation=3,
        boot=0,
        boots=frozenset({0}),
        not_after=SVID_TICKS,
        result=result,
    )
    truth = Truth(issued=(SVID_TICKS, result))
    reader = Reader(known=2, first=False, heard=0, view=record.seen)
    return World(
        left=budget,
        records=(record, record),
        readers=(reader, reader),
        truths=(truth, truth),
        log=(Entry(0, record.seen, 0), Entry(1, record.seen, 0)),
    )


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Everything that decides. The defaults are the product's.

    Attributes:
        table: the transitions.
        place: how a message of the feed is read.
        authorize: how a relying party decides.
        compares_generation, compares_epoch: guards of the registry's transaction.
        applies_to_present_state: the row has to leave from the state that the node has now, and
            not from the one that the caller read.
        holds_both: a copied key holds its owner too.
        heeds_silence: a relying party stops when the feed is silent.
        late_ticks: how much later than it was sent a message may arrive.
    """

    table: Sequence[Transition] = TRANSITIONS
    place: Callable[[FeedMessage, int | None, bool], Placed] = _place
    authorize: Callable[[Peer, PeerPolicy, datetime], bool] = _authorize
    compares_generation: bool = True
    compares_epoch: bool = True
    applies_to_present_state: bool = True
    holds_both: bool = True
    heeds_silence: bool = True
    late_ticks: int = 0


def policy_of(node: int) -> PeerPolicy:
    """Return what `node` asks of the other: the two differ, as mixed pairs do."""
    believed = frozenset(VERIFIERS) if node == 0 else frozenset(VERIFIERS[:1])
    rule = PeerRule(
        peers=("spiffe://example.org/*",),
        min_tier=Tier.MEASURED,
        verifiers=believed,
        allow_degraded=node == 0,
        max_connection_age=AGE_TICKS * TICK,
    )
    return PeerPolicy(rules=(rule,))


POLICIES = (policy_of(0), policy_of(1))


def at(tick: int) -> datetime:
    """Return the time of a tick."""
    return START + tick * TICK


@cache
def peer_of(seen: Seen) -> Peer:
    """Return what a relying party knows of a node that it sees as `seen`."""
    result = None
    if seen.result is not None:
        result = PeerResult(
            model=ResultModel.PASSPORT,
            status=seen.result.status,
            tier=Tier.MEASURED,
            verifier=VERIFIERS[seen.result.verifier],
            issued=at(seen.result.issued),
            expires=at(seen.result.issued + RESULT_TICKS),
        )
    not_after = at(seen.not_after) if seen.not_after >= 0 else START - timedelta(days=1)
    return Peer(
        spiffe_id="spiffe://example.org/edge",
        svid_not_after=not_after,
        state=seen.state,
        result=result,
    )


_MEMBER = Member(
    node_id="n",
    spiffe_id="spiffe://example.org/edge",
    state=NodeState.ADMITTED,
    reason=None,
    generation=0,
)


@cache
def event(sequence: int) -> Event:
    """Return a message of the feed; what it carries is in the world's log."""
    return Event(sequence=sequence, at=START, member=_MEMBER)


@cache
def heartbeat(sequence: int) -> Heartbeat:
    """Return a heartbeat."""
    return Heartbeat(sequence=sequence)


@cache
def snapshot(sequence: int) -> Snapshot:
    """Return a snapshot; what it carries is in the world's log."""
    return Snapshot(sequence=sequence, members=())


def membership(log: Sequence[Entry], node: int) -> Seen:
    """Return what the events of `log`, applied in order, say about `node`."""
    return next((entry.seen for entry in reversed(log) if entry.node == node), Record().seen)
