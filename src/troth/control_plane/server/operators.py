# SPDX-License-Identifier: Apache-2.0
"""What operators do to the membership: withdraw, provision, expel, reattest, register.

Each acts on the registry as it is at that moment; who loses a race reads again and decides again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from troth.clock import Clock
from troth.control_plane.server.appraisal import EvidenceAppraiser
from troth.control_plane.server.endorsement_set import EndorsementSet, Overlap
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.worker import Worker
from troth.endorsement.repository import Provisioned, Withdrawn
from troth.errors import (
    ConflictError,
    DecodeError,
    TrothError,
    UnavailableError,
    VerificationError,
)
from troth.mesh.admission import Step, Verdict, plan_reappraisal
from troth.mesh.node import NodeState, Reason
from troth.mesh.node_record import AppraisedEvidence, NodeRecord
from troth.mesh.registration_entry import RegistrationEntry
from troth.mesh.registry import Change, Delivery, JoinRefusal, Registry, Withdrawal
from troth.mesh.tier import Tier
from troth.verifier.finding import Finding

__all__ = ["AffectedNode", "Operators", "WithdrawalOutcome"]

_ATTEMPTS = 5
_LIVE = frozenset({NodeState.ATTESTING, NodeState.ATTESTED, NodeState.ADMITTED, NodeState.DEGRADED})


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectedNode:
    """A node whose last Evidence was appraised again.

    Attributes:
        node_id, spiffe_id, name: which.
        state: where it stands now.
        refusal: id under which `troth explain` finds why, or "" where it stands as before.
        sequence: number of its event, or 0.
    """

    node_id: str
    spiffe_id: str
    name: str
    state: NodeState
    refusal: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalOutcome:
    """What a withdrawal did.

    Attributes:
        id: what was withdrawn.
        reference_values, trust_anchors: identifiers of what is gone.
        epoch: of the registry since then.
        nodes: every node that was appraised again.
        sequence: number of the last event; delivered to all means that no proxy is left that
            does not know.
        at: when it was committed.
    """

    id: str
    reference_values: tuple[str, ...]
    trust_anchors: tuple[str, ...]
    epoch: int
    nodes: tuple[AffectedNode, ...]
    sequence: int
    at: datetime


class Operators:
    """The operators' verbs.

    Args:
        registry, registry_worker: membership, and the one thread that it is used from.
        endorsements, appraiser, appraisal_worker: what is believed, and the Verifier's threads.
        hub: is woken after a change.
        admission: as the join's.
        clock: time.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        registry_worker: Worker,
        endorsements: EndorsementSet,
        appraiser: EvidenceAppraiser,
        appraisal_worker: Worker,
        hub: FeedHub,
        admission: asyncio.Lock,
        clock: Clock,
    ) -> None:
        self._registry, self._registry_worker = registry, registry_worker
        self._endorsements, self._appraiser = endorsements, appraiser
        self._appraisal_worker, self._hub = appraisal_worker, hub
        self._admission, self._clock = admission, clock

    async def provision(
        self, data: bytes, *, source: str, actor: str, overlap: Overlap | None = None
    ) -> Provisioned:
        """Take in a CoRIM; see `EndorsementSet.provision`.

        Where it declares to replace tags of others, what nodes attested with is appraised again,
        as after a withdrawal of these tags.
        """
        async with self._admission:
            now = self._clock.now()
            provisioned = await self._registry_worker.run(
                self._endorsements.provision,
                data,
                source=source,
                actor=actor,
                now=now,
                overlap=overlap,
            )
            if provisioned.withdrawn:
                replaced = Withdrawal(
                    actor=actor,
                    at=now,
                    parts=provisioned.withdrawn,
                    why=f"replaced by {provisioned.id}",
                )
                await self._quarantine_after(replaced)
        self._hub.wake()
        return provisioned

    async def _quarantine_after(self, replaced: Withdrawal) -> None:
        nodes = await self._registry_worker.run(self._registry.nodes)
        entries = await self._registry_worker.run(self._registry.entries)
        live = [node for node in nodes if node.state in _LIVE]
        changes = await self._appraisal_worker.run(
            self._reappraise, live, _floors(entries), replaced
        )
        for change in changes:
            # A node that has moved since was appraised under the narrower set, or is gone.
            with contextlib.suppress(ConflictError):
                await self._registry_worker.run(self._registry.apply, change)

    async def withdraw(self, identifier: str, *, actor: str, why: str) -> WithdrawalOutcome:
        """Withdraw a Reference Value, key, tag or CoRIM, and act on every node that stood on it.

        Each such node's recorded Evidence is appraised again at once. The withdrawal, the nodes'
        transitions and their events are one transaction.

        Raises:
            ConflictError: nothing of this identifier is in force.
            UnavailableError: nothing was changed.
        """
        async with self._admission:
            now = self._clock.now()
            withdrawal = await self._registry_worker.run(
                self._endorsements.withdrawal, identifier, actor=actor, now=now, why=why
            )
            gone = await self._registry_worker.run(self._endorsements.narrow, identifier, now=now)
            try:
                outcome = await self._act_on(gone, withdrawal)
            except TrothError:
                # What is in memory must not differ from what is on disk for longer than this.
                await self._registry_worker.run(self._endorsements.load, now=now)
                raise
        self._hub.wake()
        return outcome

    async def _act_on(self, gone: Withdrawn, withdrawal: Withdrawal) -> WithdrawalOutcome:
        for _ in range(_ATTEMPTS):
            epoch = self._endorsements.epoch
            sequence = (await self._registry_worker.run(self._registry.snapshot)).sequence
            nodes = await self._registry_worker.run(self._registry.nodes)
            entries = await self._registry_worker.run(self._registry.entries)
            concerned = [node for node in nodes if _concerned(node, gone)]
            changes = await self._appraisal_worker.run(
                self._reappraise, concerned, _floors(entries), withdrawal
            )
            try:
                self._endorsements.epoch = await self._registry_worker.run(
                    self._registry.withdraw,
                    withdrawal,
                    changes,
                    require_epoch=epoch,
                    require_sequence=sequence,
                )
            except ConflictError:
                # Another server on the same registry was faster.
                await self._registry_worker.run(self._reload_without, gone.id, withdrawal.at)
                continue
            return await self._outcome(gone, withdrawal, concerned, changes)
        raise UnavailableError(
            "the registry keeps changing under this withdrawal", retry_after_seconds=1.0
        )

    def _reload_without(self, identifier: str, now: datetime) -> None:
        self._endorsements.load(now=now)
        with contextlib.suppress(ConflictError):  # the other server may have withdrawn it
            self._endorsements.narrow(identifier, now=now)

    def _reappraise(
        self, nodes: Sequence[NodeRecord], floors: dict[str, Tier], withdrawal: Withdrawal
    ) -> list[Change]:
        changes = []
        for node in nodes:
            if node.appraised is None:
                continue
            reason, verdict, findings = self._verdict(node, node.appraised, floors, withdrawal.at)
            steps = plan_reappraisal(node.state, verdict, reason=reason)
            if not steps:
                continue
            refusal = _refusal(node, node.appraised, steps[-1], findings, withdrawal)
            changes.append(
                Change(
                    node_id=node.id,
                    generation=node.generation,
                    steps=steps,
                    actor=withdrawal.actor,
                    at=withdrawal.at,
                    refusal=refusal,
                    details={"refusal": refusal.id, "why": withdrawal.why},
                )
            )
        return changes

    def _verdict(
        self,
        node: NodeRecord,
        appraised: AppraisedEvidence,
        floors: dict[str, Tier],
        now: datetime,
    ) -> tuple[Reason, Verdict, tuple[Finding, ...]]:
        try:
            result = self._appraiser.again(appraised, now=now)
        except (VerificationError, DecodeError) as exc:
            finding = Finding(
                claim="trust anchor",
                expected="a trust anchor in force that verifies the recorded Evidence",
                actual=str(exc),
                rule="withdrawal",
                remedy=exc.remedy or "provision a trust anchor for this device if it is good",
            )
            return Reason.TRUST_ANCHOR_WITHDRAWN, Verdict.CONTRAINDICATED, (finding,)
        floor = floors.get(node.entry_id)
        verdict = Verdict.of(
            status=result.status.word, tier_reached=floor is not None and result.tier >= floor
        )
        return Reason.REFERENCE_VALUE_WITHDRAWN, verdict, result.findings

    async def _outcome(
        self,
        gone: Withdrawn,
        withdrawal: Withdrawal,
        concerned: Sequence[NodeRecord],
        changes: Sequence[Change],
    ) -> WithdrawalOutcome:
        refusals = {change.node_id: change.refusal for change in changes}
        affected = []
        for node in concerned:
            refusal = refusals.get(node.id)
            sequence = 0
            if refusal is not None:
                sequence = await self._registry_worker.run(self._registry.last_event_of, node.id)
            affected.append(
                AffectedNode(
                    node_id=node.id,
                    spiffe_id=node.spiffe_id,
                    name=node.name,
                    state=NodeState.QUARANTINED if refusal is not None else node.state,
                    refusal=refusal.id if refusal is not None else "",
                    sequence=sequence,
                )
            )
        return WithdrawalOutcome(
            id=gone.id,
            reference_values=tuple(value.id for value in gone.reference_values),
            trust_anchors=tuple(anchor.id for anchor in gone.trust_anchors),
            epoch=self._endorsements.epoch,
            nodes=tuple(affected),
            sequence=max((node.sequence for node in affected), default=0),
            at=withdrawal.at,
        )

    async def move(self, node_id: str, step: Step, *, actor: str) -> tuple[NodeRecord, int]:
        """Apply one operator's step to a node; return it and the number of its event.

        Raises:
            ConflictError: there is no such node, or its state does not allow the step.
        """
        async with self._admission:
            node = await self._registry_worker.run(self._registry.node, node_id)
            change = Change(
                node_id=node.id,
                generation=node.generation,
                steps=(step,),
                actor=actor,
                at=self._clock.now(),
            )
            changed = await self._registry_worker.run(self._registry.apply, change)
        self._hub.wake()
        sequence = await self._registry_worker.run(self._registry.last_event_of, node_id)
        return changed, sequence

    async def create_entry(self, entry: RegistrationEntry, *, actor: str) -> None:
        """Add a registration entry.

        Raises:
            ConflictError: its id is taken.
        """
        await self._registry_worker.run(
            self._registry.create_entry, entry, actor=actor, at=self._clock.now()
        )

    async def amend_entry(self, entry: RegistrationEntry, *, actor: str) -> None:
        """Change the floor and the hint of the node entry with this id.

        A floor that is raised counts from each node's next join on.

        Raises:
            ConflictError: there is none of that id, or it is for other devices or another identity.
        """
        await self._registry_worker.run(
            self._registry.amend_entry, entry, actor=actor, at=self._clock.now()
        )

    async def delete_entry(self, entry_id: str, *, actor: str) -> tuple[str, ...]:
        """Delete an entry; return the ids of the nodes that are quarantined by it.

        Raises:
            ConflictError: there is none of that id.
        """
        async with self._admission:
            affected = await self._registry_worker.run(
                self._registry.delete_entry, entry_id, actor=actor, at=self._clock.now()
            )
        self._hub.wake()
        return affected

    async def delivery(self, sequence: int, *, wait_seconds: float) -> Delivery:
        """Say how far event `sequence` has come; wait for it to be everywhere that long."""
        deadline = self._clock.monotonic() + wait_seconds
        while True:
            changed = self._hub.changed
            delivery = await self._registry_worker.run(
                self._registry.delivery, sequence, now=self._clock.now()
            )
            left = deadline - self._clock.monotonic()
            if delivery.done or left <= 0:
                return delivery
            try:
                # A lease may end without anything being said.
                async with asyncio.timeout(min(left, 1.0)):
                    await changed.wait()
            except TimeoutError:
                continue


def _concerned(node: NodeRecord, gone: Withdrawn) -> bool:
    if node.appraised is None or node.state not in _LIVE:
        return False
    if any(anchor.scheme == node.appraised.scheme for anchor in gone.trust_anchors):
        return True
    matched = set(node.appraised.result.reference_values)
    return any(value.id in matched for value in gone.reference_values)


def _floors(entries: Sequence[RegistrationEntry]) -> dict[str, Tier]:
    return {entry.id: entry.min_tier for entry in entries}


def _refusal(
    node: NodeRecord,
    appraised: AppraisedEvidence,
    step: Step,
    findings: tuple[Finding, ...],
    withdrawal: Withdrawal,
) -> JoinRefusal:
    return JoinRefusal(
        id=f"r{secrets.token_hex(8)}",
        at=withdrawal.at,
        code="refused",
        message=f"{step.reason.value.replace('_', ' ')}: the recorded Evidence is not good any more",
        remedy="update the machine to what is in force and let it attest again",
        stage="reappraise",
        node_id=node.id,
        node_name=node.name,
        scheme=appraised.scheme,
        evidence_digest=hashlib.sha256(appraised.evidence).hexdigest(),
        findings=findings,
    )
