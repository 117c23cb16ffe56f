# SPDX-License-Identifier: Apache-2.0
"""A node joins: nonce, Evidence, result, transition, SVID.

The order of a join, whose numbers the code wears:

1. the session is used up, whatever comes of it;
2. decode: certificate request and wrapper; what proves which device it is;
3. verify and appraise, off the event loop;
4. what the inventory says of the device, its registration entry, and the node;
5. the caller's SVID, if it showed one, is the node's;
6. plan the transitions, and apply them with the issue of the SVID in one transaction.

Until 3 is done nothing is known about the sender, and a refusal says nothing about any node. If
nodes, values or policy change between 3 and 6, the transaction does not come about and 3 to 6 are
done again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from troth.clock import Clock
from troth.control_plane.server.appraisal import Appraisal, EvidenceAppraiser
from troth.control_plane.server.appraisal_recorder import AppraisalRecorder
from troth.control_plane.server.config import LimitSection
from troth.control_plane.server.endorsement_set import EndorsementSet
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.inventory import Inventory, Proofs
from troth.control_plane.server.issuer import IssuedCertificate, SvidIssuer
from troth.control_plane.server.join_request import DecodedRequest, decode_request
from troth.control_plane.server.refusal import JoinRefusedError, refusal_cause
from troth.control_plane.server.worker import Worker
from troth.errors import (
    AuthorizationError,
    BindingError,
    CollateralError,
    ConflictError,
    DecodeError,
    FreshnessError,
    TrothError,
    UnavailableError,
)
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.mesh.admission import (
    JoinPlan,
    Refusal,
    Standing,
    Verdict,
    join_facts,
    plan_duplicate,
    plan_join,
)
from troth.mesh.deadline import connection_deadline, refresh_after
from troth.mesh.join_messages import (
    ActivationMessage,
    ActivationReply,
    JoinReply,
    JoinRequest,
    SessionReply,
    SessionRequest,
)
from troth.mesh.node import Facts, NodeState, Trigger, remediable
from troth.mesh.node_record import IssuedSvid, NodeRecord
from troth.mesh.registration_entry import RegistrationEntry, device_key, match_entry
from troth.mesh.registry import Change, JoinRefusal, JoinSession, NewNode, Registry
from troth.mesh.tier import Tier, TierLifetimes

__all__ = ["JoinService"]

_NONCE_BYTES = 32
_SESSION_ID_BYTES = 16
_NODE_ID_BYTES = 10
_REFUSAL_ID_BYTES = 8
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Who is joining: the entry that selects its device, and the node if it is known."""

    entry: RegistrationEntry
    device: str
    node: NodeRecord | None
    boot_returned: bool
    inventoried: str = ""
    """Id of its device in the inventory, "" where it is not in there."""
    copied: NodeRecord | None = None
    """Another device's node, whose key this one authenticated with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """What the join does to the node, and what is established about it."""

    plan: JoinPlan
    facts: Facts


class JoinService:
    """Lets nodes join and renew.

    Args:
        registry, registry_worker: membership, and the one thread that it is used from.
        appraiser, appraisal_worker: the Verifier, and its threads.
        issuer: makes SVIDs.
        hub: is woken after a change.
        admission: held while a transaction that admits is decided and applied; whoever withdraws
            something holds it too.
        clock, random: time and randomness.
        lifetimes: of SVIDs and connections, by tier.
        limits: what a join may cost.
        degraded_grace: how long a node that is degraded keeps its connections.
        disclose_findings: tell a node with authentic Evidence what was found.
        recorder: puts appraisals on record.
        endorsements: takes over what other servers on the same registry have changed.
        inventory: which machines may be here.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        registry_worker: Worker,
        appraiser: EvidenceAppraiser,
        appraisal_worker: Worker,
        issuer: SvidIssuer,
        hub: FeedHub,
        admission: asyncio.Lock,
        clock: Clock,
        random: Callable[[int], bytes],
        lifetimes: Mapping[Tier, TierLifetimes],
        limits: LimitSection,
        degraded_grace: timedelta,
        disclose_findings: bool,
        recorder: AppraisalRecorder,
        endorsements: EndorsementSet,
        inventory: Inventory,
    ) -> None:
        self._registry, self._registry_worker = registry, registry_worker
        self._appraiser, self._appraisal_worker = appraiser, appraisal_worker
        self._issuer, self._hub, self._admission = issuer, hub, admission
        self._clock, self._random = clock, random
        self._lifetimes, self._limits = lifetimes, limits
        self._degraded_grace = degraded_grace
        self._disclose, self._recorder = disclose_findings, recorder
        self._endorsements, self._inventory = endorsements, inventory

    async def open_session(self, request: SessionRequest, *, address: str) -> SessionReply:
        """Give a nonce to somebody at `address`.

        Raises:
            UnavailableError: too many sessions are open, or the registry cannot write.
        """
        now = self._clock.now()
        session = JoinSession(
            id=encode_base64url(self._random(_SESSION_ID_BYTES)),
            nonce=self._random(_NONCE_BYTES),
            node_name=request.node_name,
            address=address,
            created=now,
            expires=now + timedelta(seconds=self._limits.session_seconds),
        )
        await self._registry_worker.run(
            self._registry.open_session, session, max_open=self._limits.open_sessions
        )
        return SessionReply(
            session=session.id, nonce=encode_base64url(session.nonce), expires=session.expires
        )

    async def challenge(self, session_id: str, message: ActivationMessage) -> ActivationReply:
        """Challenge the TPM of a session's Attester; the answer comes with the join.

        Raises:
            FreshnessError: the session cannot be used.
            JoinRefusedError: refused, and on record.
            ConflictError: the session was challenged already.
            UnavailableError: not now.
        """
        now = self._clock.now()
        session = await self._registry_worker.run(
            self._registry.look_at_session, session_id, now=now
        )
        try:
            data = decode_base64url(message.request, format="activation request")
            challenge = await self._inventory.challenge(session_id, data, now=now)
        except (ConflictError, UnavailableError):
            raise
        except TrothError as exc:
            raise await self._refused(exc, session, stage="activate") from exc
        return ActivationReply(challenge=encode_base64url(challenge.encode()))

    async def join(self, session_id: str, request: JoinRequest, *, svid_key: str = "") -> JoinReply:
        """Admit the node and issue its SVID, or refuse.

        Args:
            session_id: from `open_session`.
            request: what the node sent.
            svid_key: digest of the key of the SVID that it authenticated with, or "".

        Raises:
            FreshnessError: the session cannot be used; nothing else was looked at.
            JoinRefusedError: refused, and on record.
            UnavailableError: the server could not decide; nothing was admitted.
        """
        session = await self._registry_worker.run(  # (1)
            self._registry.take_session, session_id, now=self._clock.now()
        )
        try:
            decoded = decode_request(  # (2)
                session, request, svid_key=svid_key, max_evidence_bytes=self._limits.evidence_bytes
            )
        except TrothError as exc:
            raise await self._refused(exc, session, stage="decode") from exc
        try:
            proofs = await self._inventory.proofs(decoded, now=self._clock.now())
        except (FreshnessError, UnavailableError):
            raise  # as with a session that is over: the node begins anew
        except TrothError as exc:
            raise await self._refused(exc, session, stage="activate", request=decoded) from exc
        for _ in range(_ATTEMPTS):
            try:
                return await self._attempt(decoded, proofs)
            except ConflictError:
                now = self._clock.now()
                await self._registry_worker.run(self._endorsements.look, now=now)
        raise UnavailableError(
            "nodes, values or policy keep changing under this join", retry_after_seconds=1.0
        )

    async def _attempt(self, request: DecodedRequest, proofs: Proofs) -> JoinReply:
        now = self._clock.now()
        try:
            appraisal = await self._appraisal_worker.run(  # (3)
                self._appraiser.appraise,
                request.evidence,
                media_type=request.media_type,
                spki=request.csr.spki,
                nonce=request.session.nonce,
                now=now,
            )
        except CollateralError as exc:
            # Undecided, on record so that an operator finds out which document is missing.
            raise await self._refused(
                exc, request.session, stage="verify", request=request
            ) from exc
        except UnavailableError:
            raise
        except TrothError as exc:
            stage = "decode" if isinstance(exc, DecodeError) else "verify"
            raise await self._refused(exc, request.session, stage=stage, request=request) from exc
        role = ""
        try:
            async with self._admission:
                try:
                    found = await self._find(appraisal, request, proofs, now)  # (4)
                    role = found.entry.spiffe_id
                    found = await self._check_svid(request.svid_key, found)  # (5)
                except (AuthorizationError, BindingError) as exc:
                    raise await self._refused(
                        exc, request.session, stage="entry", request=request, appraisal=appraisal
                    ) from exc
                reply = await self._admit(request, appraisal, found, now)  # (6)
        except ConflictError:
            raise  # it is appraised once more
        except TrothError:
            self._record(appraisal, role, now)
            raise
        self._record(appraisal, role, now)
        return reply

    def _record(self, appraisal: Appraisal, role: str, now: datetime) -> None:
        try:
            device = device_key(appraisal.result)
        except AuthorizationError:
            device = ""  # it was refused for that
        if appraisal.judgement is not None:
            self._recorder.note(appraisal.judgement, device=device, spiffe_id=role, at=now)

    async def _find(
        self, appraisal: Appraisal, request: DecodedRequest, proofs: Proofs, now: datetime
    ) -> _Found:
        known = await self._inventory.decide(appraisal.result, request, proofs, now=now)
        entries = await self._registry_worker.run(self._registry.entries)
        inventoried = known.id if known is not None else ""
        entry = match_entry(entries, appraisal.result, device_id=inventoried)
        device = device_key(appraisal.result)
        node = await self._registry_worker.run(
            self._registry.find_node, device=device, spiffe_id=entry.spiffe_id
        )
        boot_session = appraisal.remembered.boot_session
        returned = False
        if node is not None and boot_session:
            returned = await self._registry_worker.run(
                self._registry.boot_replaced, node.id, boot_session
            )
        return _Found(
            entry=entry,
            device=device,
            node=node,
            boot_returned=returned,
            inventoried=inventoried,
        )

    async def _check_svid(self, svid_key: str, found: _Found) -> _Found:
        """A node that renews shows its SVID; one that shows another node's is refused.

        The connection proves that its sender holds the key. Where the key is another device's, it
        has been copied.
        """
        if not svid_key:
            return found
        holder = await self._registry_worker.run(self._registry.find_node_by_key, svid_key)
        if holder is not None and holder.device != found.device:
            return replace(found, copied=holder)
        if holder is None or found.node is None or holder.id != found.node.id:
            raise AuthorizationError(
                "the SVID on this connection is not of the node whose Evidence this is",
                remedy="renew with the node's own SVID, or join without one",
            )
        return found

    async def _admit(
        self, request: DecodedRequest, appraisal: Appraisal, found: _Found, now: datetime
    ) -> JoinReply:
        judgement = _judge(appraisal, found)
        change = self._change(request, appraisal, found, judgement, now)
        if judgement.plan.refusal is not None:
            also = await self._duplicates(found, judgement.plan.refusal, now)
            change = replace(change, also=also)
            raise await self._refuse_node(change, appraisal, request, judgement.plan.refusal)
        issued: list[IssuedCertificate] = []

        def issue(node: NodeRecord) -> IssuedSvid:
            certificate, svid = self._issue(node, request, appraisal, now)
            issued.append(certificate)
            return svid

        try:
            node = await self._registry_worker.run(self._registry.apply, change, issue=issue)
        except AuthorizationError as exc:
            raise await self._refused(
                exc, request.session, stage="admit", request=request, appraisal=appraisal
            ) from exc
        self._hub.wake()
        return self._reply(node, issued[-1], appraisal, now)

    async def _duplicates(self, found: _Found, why: Refusal, now: datetime) -> tuple[Change, ...]:
        """Return the holds of the other nodes that a copied device or key concerns."""
        others = [found.copied] if found.copied is not None else []
        if why is Refusal.DUPLICATE and found.boot_returned:
            # The device exists twice, so its nodes in other roles do.
            known = await self._registry_worker.run(self._registry.nodes)
            own = found.node.id if found.node else ""
            others += [each for each in known if each.device == found.device and each.id != own]
        return tuple(
            Change(
                node_id=node.id,
                generation=node.generation,
                steps=steps,
                actor="server",
                at=now,
                details={"found_by": found.node.id if found.node else "a new node"},
            )
            for node in others
            if (steps := plan_duplicate(node.state, node.reason))
        )

    def _change(
        self,
        request: DecodedRequest,
        appraisal: Appraisal,
        found: _Found,
        judgement: _Judgement,
        now: datetime,
    ) -> Change:
        result = appraisal.remembered.result
        node, new = found.node, None
        if node is None:
            new = NewNode(
                id=f"n{self._random(_NODE_ID_BYTES).hex()}",
                device=found.device,
                entry_id=found.entry.id,
                spiffe_id=found.entry.spiffe_id,
                name=request.session.node_name,
            )
        node_id = new.id if new else node.id if node else ""
        degraded = any(step.trigger is Trigger.DEGRADE for step in judgement.plan.steps)
        return Change(
            node_id=node_id,
            generation=node.generation if node else 0,
            steps=judgement.plan.steps,
            facts=judgement.facts,
            actor=f"node {node_id}",
            at=now,
            new_node=new,
            require_epoch=result.epoch,
            require_device=found.inventoried,
            appraised=appraisal.remembered,
            services=request.services,
            entry_id=found.entry.id,
            connections_end=now + self._degraded_grace if degraded else None,
            details={
                "evidence_digest": hashlib.sha256(request.evidence).hexdigest(),
                "status": result.status,
                "tier": result.tier.value,
                "policy_id": result.policy_id,
                "policy_digest": result.policy_digest,
            },
        )

    def _issue(
        self, node: NodeRecord, request: DecodedRequest, appraisal: Appraisal, now: datetime
    ) -> tuple[IssuedCertificate, IssuedSvid]:
        result = appraisal.remembered.result
        lifetimes = self._lifetimes[result.tier]
        certificate = self._issuer.issue(
            spiffe_id=node.spiffe_id,
            node_id=node.id,
            request=request.csr,
            ear=appraisal.minimised,
            ttl=lifetimes.svid,
            now=now,
        )
        deadline = connection_deadline(
            svid_not_after=certificate.not_after,
            result_expires=result.expires,
            attested_at=result.issued,
            max_connection_age=lifetimes.connection,
        )
        return certificate, IssuedSvid(
            serial=certificate.serial,
            key_digest=certificate.key_digest,
            not_after=certificate.not_after,
            deadline=deadline.at,
        )

    def _reply(
        self, node: NodeRecord, issued: IssuedCertificate, appraisal: Appraisal, now: datetime
    ) -> JoinReply:
        expires = min(issued.not_after, appraisal.remembered.result.expires)
        return JoinReply(
            node_id=node.id,
            generation=node.generation,
            spiffe_id=node.spiffe_id,
            svid=issued.chain,
            ear=appraisal.ear,
            bundle=self._issuer.bundle(),
            expires=expires,
            refresh_after_seconds=refresh_after(issued=now, expires=expires).total_seconds(),
        )

    async def _refuse_node(
        self, change: Change, appraisal: Appraisal, request: DecodedRequest, why: Refusal
    ) -> JoinRefusedError:
        """Apply what a refused join does to its node, and put it on record with it."""
        cause = refusal_cause(why, appraisal.result)
        refusal = self._refusal(cause, request.session, "appraise", request, appraisal)
        if why in (Refusal.EXPELLED, Refusal.RETIRED, Refusal.HELD):
            # What such a node sends changes nothing about it, its last Evidence included.
            change = replace(change, appraised=None, services=None, entry_id=None)
        refusal = replace(refusal, node_id=change.node_id)
        await self._registry_worker.run(self._registry.apply, replace(change, refusal=refusal))
        self._hub.wake()
        return JoinRefusedError(cause, refusal, disclosed=self._disclose)

    async def _refused(
        self,
        cause: TrothError,
        session: JoinSession,
        *,
        stage: str,
        request: DecodedRequest | None = None,
        appraisal: Appraisal | None = None,
    ) -> JoinRefusedError:
        """Put a refusal on record that is no node's."""
        refusal = self._refusal(cause, session, stage, request, appraisal)
        await self._registry_worker.run(self._registry.record_refusal, refusal)
        return JoinRefusedError(cause, refusal, disclosed=self._disclose and appraisal is not None)

    def _refusal(
        self,
        cause: TrothError,
        session: JoinSession,
        stage: str,
        request: DecodedRequest | None,
        appraisal: Appraisal | None,
    ) -> JoinRefusal:
        return JoinRefusal(
            id=f"r{self._random(_REFUSAL_ID_BYTES).hex()}",
            at=self._clock.now(),
            code=cause.code,
            message=str(cause),
            remedy=cause.remedy,
            stage=stage,
            node_name=session.node_name,
            address=session.address,
            scheme=appraisal.result.scheme if appraisal else "",
            evidence_digest=hashlib.sha256(request.evidence).hexdigest() if request else "",
            findings=appraisal.result.findings if appraisal else (),
        )


def _judge(appraisal: Appraisal, found: _Found) -> _Judgement:
    result = appraisal.remembered.result
    verdict = Verdict.of(status=result.status, tier_reached=result.tier >= found.entry.min_tier)
    node = found.node
    before = node.appraised.boot_session if node and node.appraised else None
    standing = Standing(
        state=node.state if node else NodeState.REGISTERED,
        reason=node.reason if node else None,
        boot_unchanged=before == appraisal.remembered.boot_session,
        boot_returned=found.boot_returned,
        key_copied=found.copied is not None,
    )
    facts = join_facts(
        verdict,
        boot_unchanged=standing.boot_unchanged,
        remediable_now=standing.reason is None or remediable(standing.reason),
    )
    return _Judgement(plan=plan_join(standing, verdict), facts=facts)
