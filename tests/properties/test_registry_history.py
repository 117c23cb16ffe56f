# SPDX-License-Identifier: Apache-2.0
"""The real registry under any order of joins, operators' verbs, withdrawals and restarts."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from support.members import APPRAISED, NOW, RESULT, new_node, svid_for
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.errors import ConflictError
from troth.mesh.admission import (
    Standing,
    Step,
    Verdict,
    join_facts,
    plan_duplicate,
    plan_join,
    plan_reappraisal,
)
from troth.mesh.event import Event
from troth.mesh.member import Member
from troth.mesh.node import Actor, NodeState, Reason, Trigger, remediable
from troth.mesh.node_record import IssuedSvid, NodeRecord, member_of
from troth.mesh.registry import Change, LogHead, Withdrawal

NAMES = st.sampled_from(["n1", "n2", "n3"])
VERBS = {
    Trigger.EXPEL: Reason.OPERATOR_REQUEST,
    Trigger.REATTEST: Reason.OPERATOR_REQUEST,
    Trigger.RETIRE: Reason.OPERATOR_REQUEST,
}


class RegistryHistory(RuleBasedStateMachine):
    """What was once true and must stay true, whatever comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="troth"))
        self.registry = self.open()
        self.known: dict[str, Member] = {}
        self.sequence = 0
        self.issued: list[tuple[str, NodeState]] = []
        self.gone: set[str] = set()
        self.head = LogHead(sequence=0, digest="0" * 64)
        self.count = 0

    def open(self) -> SqlRegistry:
        return SqlRegistry(sqlite_url(self.directory / "registry.db"))

    def teardown(self) -> None:
        self.registry.close()
        shutil.rmtree(self.directory)

    def find(self, name: str) -> NodeRecord | None:
        device = f"psa:signer:{name}"
        return self.registry.find_node(device=device, spiffe_id=new_node(name).spiffe_id)

    def issue(self, node: NodeRecord) -> IssuedSvid:
        self.count += 1
        self.issued.append((node.id, node.state))
        return svid_for(node, serial=str(self.count))

    @rule(
        name=NAMES,
        verdict=st.sampled_from(Verdict),
        boot=st.sampled_from([b"b1", b"b2"]),
        stale_epoch=st.booleans(),
        late=st.integers(0, 1),
    )
    def join(
        self,
        name: str,
        verdict: Verdict,
        boot: bytes,
        stale_epoch: bool,  # noqa: FBT001 - drawn by Hypothesis
        late: int,
    ) -> None:
        """A join as the server makes it; `late` and `stale_epoch` are races that it may lose."""
        node = self.find(name)
        before = node.appraised.boot_session if node and node.appraised else None
        standing = Standing(
            state=node.state if node else NodeState.REGISTERED,
            reason=node.reason if node else None,
            boot_unchanged=before == boot,
            boot_returned=bool(node and self.registry.boot_replaced(node.id, boot)),
        )
        plan = plan_join(standing, verdict)
        epoch = self.registry.epoch - int(stale_epoch)
        change = Change(
            node_id=name,
            generation=(node.generation if node else 0) - (late if node else 0),
            steps=plan.steps,
            facts=join_facts(
                verdict,
                boot_unchanged=standing.boot_unchanged,
                remediable_now=standing.reason is None or remediable(standing.reason),
            ),
            actor=f"node {name}",
            at=NOW,
            new_node=None if node else new_node(name),
            require_epoch=epoch,
            appraised=replace(APPRAISED, boot_session=boot, result=replace(RESULT, epoch=epoch)),
        )
        admitted = plan.refusal is None
        try:
            after = self.registry.apply(change, issue=self.issue if admitted else None)
        except ConflictError:
            assert stale_epoch or (late and node)
            return
        assert not stale_epoch
        assert not (late and node)
        assert (after.state is NodeState.ADMITTED) >= admitted
        assert name not in self.gone or not admitted

    @rule(name=NAMES, verb=st.sampled_from(list(VERBS)))
    def operate(self, name: str, verb: Trigger) -> None:
        node = self.find(name)
        if node is None:
            return
        step = Step(trigger=verb, reason=VERBS[verb], actor=Actor.OPERATOR)
        change = Change(
            node_id=name, generation=node.generation, steps=(step,), actor="operator 0", at=NOW
        )
        try:
            after = self.registry.apply(change)
        except ConflictError:
            return
        if after.state in (NodeState.EXPELLED, NodeState.RETIRED):
            self.gone.add(name)

    @rule(pair=st.permutations(["n1", "n2", "n3"]), late=st.booleans())
    def a_key_is_seen_on_two_machines(
        self,
        pair: list[str],
        late: bool,  # noqa: FBT001 - drawn by Hypothesis
    ) -> None:
        """Both are held in one transaction; where the second has changed, neither is."""
        nodes = [node for name in pair[:2] if (node := self.find(name)) is not None]
        holds = [
            Change(
                node_id=node.id,
                generation=node.generation,
                steps=plan_duplicate(node.state, node.reason),
                actor="server",
                at=NOW,
            )
            for node in nodes
        ]
        if len(holds) < len(pair[:2]):
            return
        if late:
            holds[1] = replace(holds[1], generation=holds[1].generation - 1)
        before = self.registry.nodes()
        try:
            self.registry.apply(replace(holds[0], also=(holds[1],)))
        except ConflictError:
            assert late
            assert self.registry.nodes() == before
            return
        assert not late
        for node in nodes:
            after = self.registry.node(node.id)
            gone = (NodeState.EXPELLED, NodeState.RETIRED, NodeState.QUARANTINED)
            assert after.state in gone
            assert plan_duplicate(after.state, after.reason) == ()

    @rule(
        verdicts=st.fixed_dictionaries(
            {name: st.sampled_from(Verdict) for name in ("n1", "n2", "n3")}
        )
    )
    def withdraw(self, verdicts: dict[str, Verdict]) -> None:
        changes = []
        for node in self.registry.nodes():
            steps = plan_reappraisal(
                node.state, verdicts[node.id], reason=Reason.REFERENCE_VALUE_WITHDRAWN
            )
            if steps:
                changes.append(
                    Change(
                        node_id=node.id,
                        generation=node.generation,
                        steps=steps,
                        actor="operator 0",
                        at=NOW,
                    )
                )
        self.count += 1
        before = self.registry.epoch
        after = self.registry.withdraw(
            Withdrawal(actor="operator 0", at=NOW, parts=(f"value {self.count}",)),
            changes,
            require_epoch=before,
            require_sequence=self.registry.snapshot().sequence,
        )
        assert after == before + 1

    @rule()
    def lapse(self) -> None:
        for node in self.registry.lapsed(NOW + timedelta(hours=2), limit=9):
            step = Step(trigger=Trigger.DEGRADE, reason=Reason.RESULT_STALE)
            self.registry.apply(
                Change(
                    node_id=node.id,
                    generation=node.generation,
                    steps=(step,),
                    actor="server",
                    at=NOW,
                )
            )

    @precondition(lambda self: self.count % 3 == 0)
    @rule()
    def restart(self) -> None:
        self.registry.close()
        self.registry = self.open()

    @invariant()
    def svids_are_issued_to_admitted_nodes_only(self) -> None:
        assert all(state is NodeState.ADMITTED for _, state in self.issued)

    @invariant()
    def the_gone_stay_gone(self) -> None:
        for name in self.gone:
            node = self.find(name)
            assert node is not None
            assert node.state in (NodeState.EXPELLED, NodeState.RETIRED)

    @invariant()
    def the_feed_has_no_gaps_and_leads_to_what_is(self) -> None:
        events: tuple[Event, ...] = self.registry.events(after=self.sequence, limit=1000)
        for event in events:
            assert event.sequence == self.sequence + 1
            known = self.known.get(event.member.node_id)
            assert known is None or event.member.generation > known.generation
            self.sequence = event.sequence
            self.known[event.member.node_id] = event.member
        for node in self.registry.nodes():
            seen, now = self.known[node.id], member_of(node)
            assert (seen.state, seen.generation, seen.key_digest) == (
                now.state,
                now.generation,
                now.key_digest,
            )

    @invariant()
    def the_log_goes_on_from_every_head(self) -> None:
        self.head = self.registry.verify_log(head=self.head)


TestRegistryHistory = RegistryHistory.TestCase
TestRegistryHistory.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
