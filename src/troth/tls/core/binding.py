# SPDX-License-Identifier: Apache-2.0
"""How an exchange is tied to its channel: the port, and what passes through it.

The exchange itself does not know whether a proof covers the exporter of a TLS session or the
certificates of two proxies. A `ChannelBinding` does: it makes and reads requests and proofs, and
says what challenge Evidence has to carry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from troth.formats.exported_authenticator import Role
from troth.tls.core.messages import RequestParameters

__all__ = ["BindingKind", "ChannelBinding", "PendingProof", "Proof", "Request"]


class BindingKind(Enum):
    """What a proof is tied to; docs/explanation/security.md says what each is worth.

    NONE: nothing was proved but the SVID. CREDENTIAL: a result was issued for the SVID's key.
    """

    NONE = "none"
    CREDENTIAL = "credential"
    KEY = "key"
    SESSION = "session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as its binding made or read it.

    Attributes:
        requester: which end made it.
        context: unpredictable, unique on this channel in both directions.
        parameters: what the requester accepts.
        raw: the whole message.
        detail: what the binding read in `raw`; nobody else looks at it.
    """

    requester: Role
    context: bytes
    parameters: RequestParameters
    raw: bytes = field(repr=False)
    detail: object = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingProof:
    """A proof that lacks its signature.

    Attributes:
        to_sign: octets for the proof key.
        prefix: what has been put together so far, for `finish_proof`.
        request: the request that it answers.
    """

    to_sign: bytes = field(repr=False)
    prefix: bytes = field(repr=False)
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof whose maker was shown to hold the leaf's private key, on this very channel.

    Nothing is known yet about the certificate chain or the attestation payload.

    Attributes:
        chain: DER certificates, leaf first.
        payload: the CMW, still encoded; b"" where the peer sent none.
        encoding: how `payload` is wrapped: "" plain, "deflate", or "reference".
        request: our request that it answers.
        covered: what the binding took from the proof for `expected_challenge`; b"" for most.
    """

    chain: Sequence[bytes] = field(repr=False)
    payload: bytes = field(repr=False)
    encoding: str = ""
    request: Request
    covered: bytes = field(default=b"", repr=False)


class ChannelBinding(Protocol):
    """Ties requests and proofs to one channel.

    Attributes:
        kind: what the proofs are worth.
        role: this end of the channel.
        max_payload_octets: the longest attestation payload that a proof can hold.
    """

    @property
    def kind(self) -> BindingKind:
        """What the proofs are tied to."""
        ...

    @property
    def role(self) -> Role:
        """This end of the channel."""
        ...

    @property
    def max_payload_octets(self) -> int:
        """The longest attestation payload that a proof can hold."""
        ...

    def make_request(self, context: bytes, parameters: RequestParameters) -> Request:
        """Make this side's request."""
        ...

    def read_request(self, data: bytes) -> Request:
        """Read the peer's request.

        Raises:
            DecodeError: malformed.
        """
        ...

    def challenge(self, request: Request, spki: bytes, size: int) -> bytes:
        """Return what this side's Evidence, answering the peer's `request`, must carry.

        Args:
            request: the peer's request.
            spki: DER SubjectPublicKeyInfo of the proof key.
            size: octets that the scheme's challenge has.
        """
        ...

    def expected_challenge(self, proof: Proof, spki: bytes, size: int) -> bytes:
        """Return what the Evidence in the peer's `proof` must carry.

        Args:
            proof: as `read_proof` returned it.
            spki: DER SubjectPublicKeyInfo of the proof key, from the proof's own chain.
            size: octets that the scheme's challenge has.
        """
        ...

    def begin_proof(
        self, request: Request, chain: Sequence[bytes], payload: bytes, encoding: str = ""
    ) -> PendingProof:
        """Put together a proof for the peer's `request`, up to the signature."""
        ...

    def finish_proof(self, pending: PendingProof, algorithm: str, signature: bytes) -> bytes:
        """Complete the proof with `signature` (JOSE form: r||s for ECDSA)."""
        ...

    def decline(self, request: Request) -> bytes:
        """Make an authenticated refusal to prove anything."""
        ...

    def read_proof(self, request: Request, data: bytes) -> Proof:
        """Check that `data` answers this side's `request`, on this channel.

        Raises:
            DecodeError, PeerError, VerificationError: it does not; PeerError with the alert
                "certificate_required" where the peer declined.
        """
        ...
