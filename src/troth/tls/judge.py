# SPDX-License-Identifier: Apache-2.0
"""From a proof that belongs to this channel to a decision about the peer.

1. The SPIFFE ID is one that the policy serves. Nobody else gets us to appraise anything.
2. The proving certificate is an SVID of its trust domain, for the SPIFFE ID that TLS showed, and
   for the same node where both name one.
3. A separate proof key, where the policy wants one.
4. The proof is of a model that was asked for. A passport: signed by a believed Verifier, about the
   proof key. Or Evidence: appraised now, with the channel's own binder inside it.
5. The policy.

Step 4 of a background check needs this side's Verifier, which may be elsewhere; it is a port, and
its silence is `UnavailableError`, not a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from troth.errors import (
    AuthorizationError,
    BindingError,
    ChainError,
    DecodeError,
    PeerError,
    UnsupportedError,
    VerificationError,
)
from troth.formats import cmw
from troth.formats.ear.result import Ear
from troth.identity.svid_verifier import RecognisedSvid, SvidVerifier
from troth.identity.trust_bundle import TrustBundleSource
from troth.mesh.passport import Passport, PassportReader, result_of
from troth.mesh.peer_policy import Peer, PeerPolicy, PeerRule, ResultModel, authorize, covers
from troth.tls.core.binding import BindingKind, ChannelBinding, Proof
from troth.tls.core.messages import Model, RequestParameters
from troth.tls.payload import ReferenceResolver, decode_payload, inline_payload
from troth.tls.peer import AttestedPeer, ChannelPeer
from troth.tls.policy import AttestationPolicy

__all__ = ["EAR_JWT", "BackgroundCheck", "Judge"]

EAR_JWT, EAR_CWT = "application/eat+jwt", "application/eat+cwt"

_SMALL_PAYLOAD_OCTETS = 4096


class BackgroundCheck(Protocol):
    """This side's Verifier, in process or remote."""

    @property
    def name(self) -> str:
        """What policies call it."""
        ...

    async def appraise(
        self, evidence: bytes, media_type: str, *, challenge: Callable[[int], bytes], spki: bytes
    ) -> Ear:
        """Appraise `evidence`; `challenge(size)` is what has to stand in its signed part.

        Raises:
            VerificationError, DecodeError: the Evidence is refused.
            UnavailableError: no answer can be had now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What one judgement is about: whom TLS showed, who proves, on what channel, when."""

    peer: ChannelPeer
    proving: RecognisedSvid | None
    binding: BindingKind
    now: datetime

    @property
    def proof_key(self) -> str:
        """Which key proved: one in hardware by its authority's word, or one like TLS's."""
        if self.proving is None:
            return ""
        shown = self.peer.svid
        same = shown is not None and shown.spki == self.proving.spki
        return "separate" if self.proving.hardware_key and not same else "tls"

    @property
    def not_after(self) -> datetime | None:
        """When what the peer stands on ends.

        A newer SVID of the peer replaces the one that TLS showed. A key in hardware does not: its
        certificate may outlive many TLS certificates, and a node that gets no more of those is out.
        """
        if self.proving is None:
            return self.peer.not_after
        if self.proof_key == "separate" and self.peer.not_after is not None:
            return min(self.peer.not_after, self.proving.not_after)
        return self.proving.not_after


class Judge:
    """Judges the peers of one direction by one policy."""

    def __init__(
        self,
        policy: AttestationPolicy,
        bundles: TrustBundleSource,
        *,
        verifier: BackgroundCheck | None = None,
        resolver: ReferenceResolver | None = None,
    ) -> None:
        """Prepare; `verifier` is needed for background checks, `resolver` for references."""
        self.policy = policy
        self._svids = SvidVerifier(bundles)
        self._passports = PassportReader(policy.verifiers)
        self._verifier = verifier
        self._resolver = resolver
        self._rules = policy.peer_policy(verifier.name if verifier else "")
        self._demands = {
            model: policy.demand(
                model, encodings=("deflate",), takes_references=resolver is not None
            )
            for model in (None, *Model)
        }
        self._names = PeerPolicy(
            rules=(PeerRule(peers=tuple(policy.peers), model=ResultModel.SVID_ONLY),)
        )

    @property
    def can_check(self) -> bool:
        """Whether this side has a Verifier for background checks."""
        return self._verifier is not None

    def demand(self, model: Model | None = None) -> RequestParameters | None:
        """Return what to ask the peer for, or None where its SVID is enough.

        Args:
            model: ask for this one only.
        """
        return self._demands[model]

    def forget(self) -> None:
        """Forget whom this judge has recognised, and which results it found genuine."""
        self._svids.forget()
        self._passports.forget()

    def identify(self, chain: Sequence[bytes], *, now: datetime) -> ChannelPeer:
        """Verify the SVID that TLS showed: DER certificates, leaf first.

        Raises:
            DecodeError: it is none.
            ChainError: no authority of its trust domain vouches for it, or it is for a proof key,
                which has no business in TLS.
        """
        shown = self._svids.verify(chain, now=now)
        if shown.hardware_key:
            raise ChainError(
                f"{shown.spiffe_id}: TLS with a certificate for a proof key",
                remedy="use an SVID without the hardware-key mark for TLS",
            )
        return ChannelPeer.of(shown)

    def objections(self, peer: ChannelPeer, *, now: datetime) -> str:
        """Return why no proof could admit `peer`, by its SPIFFE ID alone, or ""."""
        # Step 1.
        name = str(peer.spiffe_id)
        if any(covers(pattern, name) for pattern in self.policy.peers):
            return ""
        # Nobody asks how long it lasts, so any end will do.
        named = Peer(spiffe_id=name, svid_not_after=datetime.max.replace(tzinfo=UTC))
        found = authorize(named, self._names, now=now).objections
        return "; ".join(str(objection) for objection in found)

    def judge_identity(self, peer: ChannelPeer, *, now: datetime) -> AttestedPeer:
        """Decide on the SVID alone. A result inside it is reported, and bounds the connection.

        Raises:
            ChainError: the owner of the TLS session does not tell how long the SVID lasts.
        """
        if peer.not_after is None:
            raise ChainError(f"{peer.spiffe_id}: nobody says when its SVID ends")
        passport = self._carried(peer, now)
        binding = BindingKind.CREDENTIAL if passport else BindingKind.NONE
        case = _Case(peer=peer, proving=None, binding=binding, now=now)
        return self._conclude(case, passport, None)

    async def judge(
        self, peer: ChannelPeer, proof: Proof, binding: ChannelBinding, *, now: datetime
    ) -> AttestedPeer:
        """Decide on a proof; the decision may be no.

        Raises:
            DecodeError, VerificationError, PeerError: the proof is refused.
            UnavailableError: there can be no decision now.
        """
        case, proving = self._begin(peer, proof, binding, now)
        payload = await decode_payload(proof, self._resolver)
        record = self._asked_for(payload, proof)
        if isinstance(record, cmw.CmwRecord) and _is_result(record):
            return self._by_passport(case, proving, record)
        media_type, evidence = "", payload
        if isinstance(record, cmw.CmwRecord):
            media_type, evidence = record.media_type, record.value
        checked = await self._check(proving, evidence, media_type, proof, binding)
        return self._conclude(case, None, checked)

    def judge_at_once(
        self, peer: ChannelPeer, proof: Proof, binding: ChannelBinding, *, now: datetime
    ) -> AttestedPeer | None:
        """Decide as `judge` would where nothing has to be waited for, or return None.

        Raises:
            DecodeError, VerificationError, PeerError: the proof is refused.
        """
        if proof.encoding == "reference" or Model.PASSPORT not in proof.request.parameters.models:
            return None
        case, proving = self._begin(peer, proof, binding, now)
        record = self._asked_for(inline_payload(proof), proof)
        if isinstance(record, cmw.CmwRecord) and _is_result(record):
            return self._by_passport(case, proving, record)
        return None

    def _begin(
        self, peer: ChannelPeer, proof: Proof, binding: ChannelBinding, now: datetime
    ) -> tuple[_Case, RecognisedSvid]:
        # Step 2. A proof of another connection has failed before this point.
        proving = self._proving(peer, proof, now)
        case = _Case(peer=peer, proving=proving, binding=binding.kind, now=now)
        # Step 3.
        if self.policy.proof_key == "separate" and case.proof_key != "separate":
            raise BindingError(
                "the proof was made with the TLS key, or with one that no authority calls separate",
                remedy="prove with a key in hardware whose certificate says so",
            )
        return case, proving

    @staticmethod
    def _asked_for(payload: bytes, proof: Proof) -> cmw.CmwRecord | cmw.CmwCollection:
        # Step 4.
        record = _record(payload)
        result = isinstance(record, cmw.CmwRecord) and _is_result(record)
        model = Model.PASSPORT if result else Model.BACKGROUND_CHECK
        if model not in proof.request.parameters.models:
            raise PeerError(f"the peer sent a {model.value}, which was not asked for")
        return record

    def _by_passport(
        self, case: _Case, proving: RecognisedSvid, record: cmw.CmwRecord
    ) -> AttestedPeer:
        passport = self._passports.read(record.value, key_digest=proving.key_digest, now=case.now)
        return self._conclude(case, passport, None)

    def _proving(self, peer: ChannelPeer, proof: Proof, now: datetime) -> RecognisedSvid:
        proving = self._svids.verify(proof.chain, now=now)
        if proving.spiffe_id != peer.spiffe_id:
            raise BindingError(f"TLS showed {peer.spiffe_id}, the proof is by {proving.spiffe_id}")
        shown, proves = peer.svid.node_id if peer.svid else "", proving.node_id
        if shown and proves and shown != proves:
            raise BindingError(f"TLS showed node {shown}, the proof is by node {proves}")
        return proving

    async def _check(
        self,
        proving: RecognisedSvid,
        evidence: bytes,
        media_type: str,
        proof: Proof,
        binding: ChannelBinding,
    ) -> Ear:
        if self._verifier is None:
            raise UnsupportedError(
                "the peer sent Evidence and this side has no Verifier", format="proof"
            )
        spki = proving.spki
        return await self._verifier.appraise(
            evidence,
            media_type,
            challenge=lambda size: binding.expected_challenge(proof, spki, size),
            spki=spki,
        )

    def _carried(self, peer: ChannelPeer, now: datetime) -> Passport | None:
        """Return the result inside the SVID, if it is one that this side believes."""
        if peer.svid is None or peer.svid.token is None or not self.policy.verifiers:
            return None
        try:
            return self._passports.read(peer.svid.token, key_digest=peer.svid.key_digest, now=now)
        except (AuthorizationError, DecodeError, VerificationError):
            # Nothing was asked for, so nothing is refused: the peer just has no result.
            return None

    def _conclude(
        self, case: _Case, passport: Passport | None, checked: Ear | None
    ) -> AttestedPeer:
        # Step 5.
        result = passport.result if passport else None
        if checked is not None and self._verifier is not None:
            result = result_of(
                checked, verifier=self._verifier.name, model=ResultModel.BACKGROUND_CHECK
            )
        peer = Peer(
            spiffe_id=str(case.peer.spiffe_id),
            svid_not_after=case.not_after or case.now,
            result=result,
        )
        ear = passport.ear if passport else checked
        shown = case.proving or case.peer.svid
        return AttestedPeer(
            spiffe_id=case.peer.spiffe_id,
            node_id=shown.node_id if shown else "",
            binding=case.binding,
            proof_key=case.proof_key,
            proof_key_digest=case.proving.key_digest if case.proving else b"",
            result=ear,
            model=result.model if result else None,
            verifier=result.verifier if result else "",
            tier=result.tier if result else None,
            scheme=ear.troth.scheme if ear else "",
            component=ear.troth.component if ear else "",
            layer=ear.troth.layer if ear else "",
            decision=authorize(peer, self._rules, now=case.now),
        )


def _is_result(record: cmw.CmwRecord) -> bool:
    kind = record.media_type.partition(";")[0].strip().lower()
    marked = cmw.Indicator.ATTESTATION_RESULTS in record.indicator
    return kind == EAR_JWT or (kind == EAR_CWT and marked)


def _record(payload: bytes) -> cmw.CmwRecord | cmw.CmwCollection:
    if len(payload) <= _SMALL_PAYLOAD_OCTETS:
        return _small_record(payload)
    return cmw.decode(payload)


# A passport comes again and again in the same octets; Evidence does not, and is larger.
@lru_cache(maxsize=1024)
def _small_record(payload: bytes) -> cmw.CmwRecord | cmw.CmwCollection:
    return cmw.decode(payload)
