# SPDX-License-Identifier: Apache-2.0
"""From a proof that belongs to this channel to a decision about the peer.

1. The proving certificate is an SVID of its trust domain, for the SPIFFE ID that TLS showed.
2. A separate proof key, where the policy wants one.
3. A passport: signed by a believed Verifier, about the proof key. Or Evidence: appraised now, with
   the channel's own binder inside it.
4. The policy.

Step 3 of a background check needs this side's Verifier, which may be elsewhere; it is a port, and
its silence is `UnavailableError`, not a verdict.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from troth.errors import BindingError, DecodeError, LimitExceededError, UnsupportedError
from troth.formats import cbor, cmw
from troth.formats.ear.result import Ear
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundleSource
from troth.identity.x509_path import VerifiedX509Svid, verify_x509_svid
from troth.identity.x509_svid import X509Svid
from troth.mesh.passport import Passport, read_passport, result_of
from troth.mesh.peer_policy import Decision, Peer, ResultModel, authorize
from troth.tls.core.binding import BindingKind, ChannelBinding, Proof
from troth.tls.core.messages import MAX_PROOF_OCTETS
from troth.tls.policy import AttestationPolicy

__all__ = ["AttestedPeer", "BackgroundCheck", "Judge", "Judgement", "ReferenceResolver"]

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


ReferenceResolver = Callable[[str], Awaitable[bytes]]
"""Fetches a payload that was sent by reference; what it returns is checked against the digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedPeer:
    """Who the peer is and what was proved about it; nothing more than that.

    Attributes:
        spiffe_id: from its verified SVID.
        binding: what the proof is tied to; CREDENTIAL where only an SVID was asked for.
        proof_key: "tls" or "separate"; "" where nothing was proved beyond the SVID.
        result: the Attestation Result, or None.
        scheme, component, layer: of the result, or "".
        verifier: this side's name of the Verifier that was believed, or "".
        decision: this side's decision with its deadline.
    """

    spiffe_id: SpiffeId
    binding: BindingKind
    proof_key: str
    result: Ear | None
    scheme: str
    component: str
    layer: str
    decision: Decision
    verifier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What one judgement is about: who TLS showed, who proves, on what channel, when."""

    svid: VerifiedX509Svid
    proving: VerifiedX509Svid
    binding: BindingKind
    now: datetime

    @property
    def separate(self) -> bool:
        """Whether the proof key is not the TLS key."""
        return self.proving.svid.spki != self.svid.svid.spki


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The outcome: a peer whose `decision` says yes or no, with every objection."""

    peer: AttestedPeer


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
        self._bundles = bundles
        self._verifier = verifier
        self._resolver = resolver
        self._rules = policy.peer_policy(verifier.name if verifier else "")

    @property
    def takes_references(self) -> bool:
        """Whether payloads may come by reference."""
        return self._resolver is not None

    @property
    def can_check(self) -> bool:
        """Whether this side has a Verifier for background checks."""
        return self._verifier is not None

    def identify(self, chain: list[x509.Certificate], *, now: datetime) -> VerifiedX509Svid:
        """Verify the SVID that TLS showed.

        Raises:
            DecodeError, ChainError: it is none, or no authority of its trust domain vouches.
        """
        return verify_x509_svid(X509Svid(chain=chain), self._bundles, now=now)

    def judge_identity(self, svid: VerifiedX509Svid, *, now: datetime) -> Judgement:
        """Decide on the SVID alone."""
        case = _Case(svid=svid, proving=svid, binding=BindingKind.CREDENTIAL, now=now)
        return self._conclude(case, None, None)

    async def judge(
        self, svid: VerifiedX509Svid, proof: Proof, binding: ChannelBinding, *, now: datetime
    ) -> Judgement:
        """Decide on a proof.

        Raises:
            DecodeError, VerificationError: the proof is refused.
            UnavailableError: there can be no decision now.
        """
        # Step 1. The context string makes a proof of another connection fail before this point.
        proving = self._proving(svid, proof, now)
        case = _Case(svid=svid, proving=proving, binding=binding.kind, now=now)
        # Step 2.
        if self.policy.proof_key == "separate" and not case.separate:
            raise BindingError("the proof was made with the TLS key; a separate one is required")
        # Step 3.
        payload = await self._payload(proof)
        record = cmw.decode(payload)
        if not isinstance(record, cmw.CmwRecord):
            return await self._checked(case, payload, "", proof, binding)
        if not _is_result(record):
            return await self._checked(case, record.value, record.media_type, proof, binding)
        passport = read_passport(
            record.value,
            key_digest=hashlib.sha256(proving.svid.spki).digest(),
            verifiers=self.policy.verifiers,
            now=now,
        )
        return self._conclude(case, passport, None)

    def _proving(self, svid: VerifiedX509Svid, proof: Proof, now: datetime) -> VerifiedX509Svid:
        chain = [_certificate(der) for der in proof.chain]
        proving = verify_x509_svid(X509Svid(chain=chain), self._bundles, now=now)
        if proving.svid.spiffe_id != svid.svid.spiffe_id:
            raise BindingError(
                f"TLS showed {svid.svid.spiffe_id}, the proof is by {proving.svid.spiffe_id}"
            )
        return proving

    async def _checked(
        self, case: _Case, evidence: bytes, media_type: str, proof: Proof, binding: ChannelBinding
    ) -> Judgement:
        if self._verifier is None:
            raise UnsupportedError(
                "the peer sent Evidence and this side has no Verifier", format="proof"
            )
        spki = case.proving.svid.spki
        ear = await self._verifier.appraise(
            evidence,
            media_type,
            challenge=lambda size: binding.expected_challenge(proof, spki, size),
            spki=spki,
        )
        return self._conclude(case, None, ear)

    def _conclude(self, case: _Case, passport: Passport | None, checked: Ear | None) -> Judgement:
        # Step 4.
        result = passport.result if passport else None
        if checked is not None and self._verifier is not None:
            result = result_of(
                checked, verifier=self._verifier.name, model=ResultModel.BACKGROUND_CHECK
            )
        peer = Peer(
            spiffe_id=str(case.svid.svid.spiffe_id),
            svid_not_after=min(case.svid.not_after, case.proving.not_after),
            result=result,
        )
        ear = passport.ear if passport else checked
        proved = case.binding is not BindingKind.CREDENTIAL
        return Judgement(
            peer=AttestedPeer(
                spiffe_id=case.svid.svid.spiffe_id,
                binding=case.binding,
                proof_key=("separate" if case.separate else "tls") if proved else "",
                result=ear,
                scheme=ear.troth.scheme if ear else "",
                component=ear.troth.component if ear else "",
                layer=ear.troth.layer if ear else "",
                decision=authorize(peer, self._rules, now=case.now),
                verifier=result.verifier if result else "",
            )
        )

    async def _payload(self, proof: Proof) -> bytes:
        if proof.encoding == "deflate":
            return _inflate(proof.payload)
        if proof.encoding == "reference":
            return await self._resolve(proof.payload)
        if not proof.payload:
            raise UnsupportedError("the peer proved its key but sent no CMW", format="proof")
        return proof.payload

    async def _resolve(self, reference: bytes) -> bytes:
        tree = cbor.decode(reference, format="reference")
        if (
            self._resolver is None
            or not isinstance(tree, dict)
            or not isinstance(digest := tree.get(1), bytes)
            or not isinstance(address := tree.get(2), str)
        ):
            raise DecodeError("not {1: SHA-256 digest, 2: address}", format="reference")
        payload = await self._resolver(address)
        if hashlib.sha256(payload).digest() != digest:
            raise BindingError("what the reference led to has another digest")
        return payload


def _is_result(record: cmw.CmwRecord) -> bool:
    kind = record.media_type.partition(";")[0].strip().lower()
    marked = cmw.Indicator.ATTESTATION_RESULTS in record.indicator
    return kind == EAR_JWT or (kind == EAR_CWT and marked)


def _inflate(data: bytes) -> bytes:
    machine = zlib.decompressobj()
    try:
        payload = machine.decompress(data, MAX_PROOF_OCTETS)
    except zlib.error as exc:
        raise DecodeError("not a deflate stream", format="proof") from exc
    if machine.unconsumed_tail or not machine.eof:
        raise LimitExceededError(format="proof", limit="octets inflated", value=MAX_PROOF_OCTETS)
    if machine.unused_data:
        raise DecodeError("octets follow the deflate stream", format="proof")
    return payload


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError("not an X.509 certificate", format="proof") from exc
