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

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from cryptography import x509

from troth.errors import (
    BindingError,
    ChainError,
    DecodeError,
    PeerError,
    UnsupportedError,
    VerificationError,
)
from troth.formats import cmw
from troth.formats.ear.result import Ear
from troth.identity.attestation_result import attestation_result
from troth.identity.hardware_key import has_hardware_key
from troth.identity.svid_verifier import SvidVerifier
from troth.identity.trust_bundle import TrustBundleSource
from troth.identity.x509_path import VerifiedX509Svid
from troth.mesh.passport import Passport, PassportReader, result_of
from troth.mesh.peer_policy import Peer, PeerPolicy, PeerRule, ResultModel, authorize
from troth.tls.core.binding import BindingKind, ChannelBinding, Proof
from troth.tls.core.messages import Model, RequestParameters
from troth.tls.payload import ReferenceResolver, decode_payload
from troth.tls.peer import AttestedPeer, ChannelPeer
from troth.tls.policy import AttestationPolicy

__all__ = ["EAR_JWT", "BackgroundCheck", "Judge"]

EAR_JWT, EAR_CWT = "application/eat+jwt", "application/eat+cwt"


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
    proving: VerifiedX509Svid | None
    binding: BindingKind
    now: datetime

    @property
    def proof_key(self) -> str:
        """Which key proved: one in hardware by its authority's word, or one like TLS's."""
        if self.proving is None:
            return ""
        shown = self.peer.svid
        same = shown is not None and shown.svid.spki == self.proving.svid.spki
        return "separate" if not same and has_hardware_key(self.proving.svid) else "tls"

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
        return self.policy.demand(
            model, encodings=("deflate",), takes_references=self._resolver is not None
        )

    def identify(self, chain: Sequence[x509.Certificate], *, now: datetime) -> ChannelPeer:
        """Verify the SVID that TLS showed.

        Raises:
            DecodeError: it is none.
            ChainError: no authority of its trust domain vouches for it, or it is for a proof key,
                which has no business in TLS.
        """
        verified = self._svids.verify(chain, now=now)
        if has_hardware_key(verified.svid):
            raise ChainError(
                f"{verified.svid.spiffe_id}: TLS with a certificate for a proof key",
                remedy="use an SVID without the hardware-key mark for TLS",
            )
        return ChannelPeer.of(verified)

    def objections(self, peer: ChannelPeer, *, now: datetime) -> str:
        """Return why no proof could admit `peer`, by its SPIFFE ID alone, or ""."""
        # Step 1. Where no end is known, the proof will tell it.
        end = peer.not_after or datetime.max.replace(tzinfo=UTC)
        named = Peer(spiffe_id=str(peer.spiffe_id), svid_not_after=end)
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
        # Step 2. A proof of another connection has failed before this point.
        proving = self._proving(peer, proof, now)
        case = _Case(peer=peer, proving=proving, binding=binding.kind, now=now)
        # Step 3.
        if self.policy.proof_key == "separate" and case.proof_key != "separate":
            raise BindingError(
                "the proof was made with the TLS key, or with one that no authority calls separate",
                remedy="prove with a key in hardware whose certificate says so",
            )
        # Step 4.
        payload = await decode_payload(proof, self._resolver)
        record = cmw.decode(payload)
        result = isinstance(record, cmw.CmwRecord) and _is_result(record)
        model = Model.PASSPORT if result else Model.BACKGROUND_CHECK
        if model not in proof.request.parameters.models:
            raise PeerError(f"the peer sent a {model.value}, which was not asked for")
        if result and isinstance(record, cmw.CmwRecord):
            key = hashlib.sha256(proving.svid.spki).digest()
            passport = self._passports.read(record.value, key_digest=key, now=now)
            return self._conclude(case, passport, None)
        media_type, evidence = "", payload
        if isinstance(record, cmw.CmwRecord):
            media_type, evidence = record.media_type, record.value
        checked = await self._check(proving, evidence, media_type, proof, binding)
        return self._conclude(case, None, checked)

    def _proving(self, peer: ChannelPeer, proof: Proof, now: datetime) -> VerifiedX509Svid:
        proving = self._svids.verify([_certificate(der) for der in proof.chain], now=now)
        if proving.svid.spiffe_id != peer.spiffe_id:
            raise BindingError(
                f"TLS showed {peer.spiffe_id}, the proof is by {proving.svid.spiffe_id}"
            )
        shown = peer.svid.svid.node_id if peer.svid else ""
        proves = proving.svid.node_id
        if shown and proves and shown != proves:
            raise BindingError(f"TLS showed node {shown}, the proof is by node {proves}")
        return proving

    async def _check(
        self,
        proving: VerifiedX509Svid,
        evidence: bytes,
        media_type: str,
        proof: Proof,
        binding: ChannelBinding,
    ) -> Ear:
        if self._verifier is None:
            raise UnsupportedError(
                "the peer sent Evidence and this side has no Verifier", format="proof"
            )
        spki = proving.svid.spki
        return await self._verifier.appraise(
            evidence,
            media_type,
            challenge=lambda size: binding.expected_challenge(proof, spki, size),
            spki=spki,
        )

    def _carried(self, peer: ChannelPeer, now: datetime) -> Passport | None:
        """Return the result inside the SVID, if it is one that this side believes."""
        if peer.svid is None or not self.policy.verifiers:
            return None
        try:
            token = attestation_result(peer.svid.svid)
            if token is None:
                return None
            key = hashlib.sha256(peer.svid.svid.spki).digest()
            return self._passports.read(token, key_digest=key, now=now)
        except (DecodeError, VerificationError):
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
            node_id=shown.svid.node_id if shown else "",
            binding=case.binding,
            proof_key=case.proof_key,
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


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError("not an X.509 certificate", format="proof") from exc
