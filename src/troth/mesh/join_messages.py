# SPDX-License-Identifier: Apache-2.0
"""What a node and the server say to each other when the node joins. JSON on the wire.

1. `SessionRequest` → `SessionReply`: the server gives a nonce.
2. The node makes a key, derives its challenge with `JOIN_LABEL` from that key and the nonce, lets
   its Attester make Evidence over it, and signs a certificate request with the key.
3. `JoinRequest` → `JoinReply`, or problem details with a refusal's id.

A node with a TPM whose attestation key the server does not know yet has it activated in between:
`ActivationMessage` → `ActivationReply`; the answer travels in the `JoinRequest`.

Renewing is the same again; the node then also authenticates with its present SVID.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from troth.mesh.member import MAX_SERVICES, Service

__all__ = [
    "JOIN_LABEL",
    "ActivationMessage",
    "ActivationReply",
    "AppraisalReply",
    "AppraisalRequest",
    "BundleMessage",
    "ClaimMessage",
    "JoinReply",
    "JoinRequest",
    "SessionReply",
    "SessionRequest",
]

JOIN_LABEL = b"troth join v1"
"""Label of the challenge (`derive_challenge`): Evidence made for joining serves nothing else."""


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Unknown members are errors: a misspelt one must not go unnoticed."""


class SessionRequest(_Message, frozen=True, kw_only=True):
    """Ask for a nonce.

    Attributes:
        node_name: what the node's operator calls it; a label for screens and logs.
    """

    node_name: Annotated[str, Meta(pattern=r"\A([a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?)?\Z")] = ""


class SessionReply(msgspec.Struct, frozen=True, kw_only=True):
    """A nonce that one Evidence may answer until it expires.

    Attributes:
        session: id of the session, a part of the next URL.
        nonce: base64url.
        expires: aware UTC.
    """

    session: str
    nonce: str
    expires: datetime


class ActivationMessage(_Message, frozen=True, kw_only=True):
    """Ask for a challenge that only the TPM with this attestation key can answer.

    Attributes:
        request: endorsement key, its certificates and attestation key (`ActivationRequest`), base64url.
    """

    request: Annotated[str, Meta(max_length=90_000)]


class ActivationReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the TPM has to open.

    Attributes:
        challenge: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, base64url.
    """

    challenge: str


class ClaimMessage(_Message, frozen=True, kw_only=True):
    """A device's claim certificate, and the proof that it holds the key (`claim_certificate`).

    Attributes:
        certificates: DER in base64url, the device's own first.
        signature: over the statement for this session and key, base64url.
    """

    certificates: Annotated[
        tuple[Annotated[str, Meta(max_length=16_384)], ...], Meta(min_length=1, max_length=8)
    ]
    signature: Annotated[str, Meta(max_length=1_400)]


class JoinRequest(_Message, frozen=True, kw_only=True):
    """Evidence and a request for an SVID.

    Attributes:
        csr: PKCS #10 request (DER, base64url) signed with the node's key. Its key is used and
            nothing else in it: the names are the server's to give.
        evidence: Evidence as base64url, or as a CMW record (RFC 9999): `[type, value, ?ind]`.
        media_type: of the Evidence; empty with a CMW record.
        services: what the node offers to its peers.
        activation: what the TPM found in this session's challenge, base64url, or "".
        join_token: one-time token that an operator gave for this device, or "".
        claim: certificate that shows which device this is, or None.
    """

    csr: str
    evidence: str | tuple[str | int, ...]
    media_type: Annotated[str, Meta(max_length=256)] = ""
    services: Annotated[tuple[Service, ...], Meta(max_length=MAX_SERVICES)] = ()
    activation: Annotated[str, Meta(max_length=86)] = ""
    join_token: Annotated[str, Meta(max_length=86)] = ""
    claim: ClaimMessage | None = None


class AppraisalRequest(_Message, frozen=True, kw_only=True):
    """A member asks for a background check of Evidence that a peer showed it.

    Attributes:
        evidence: base64url.
        media_type: of the Evidence; empty where it speaks for itself.
        challenge: what has to stand in its signed part, base64url. What it covers is the asking
            member's to know: the result therefore names no key and makes nobody a member.
    """

    evidence: str
    media_type: Annotated[str, Meta(max_length=256)] = ""
    challenge: Annotated[str, Meta(min_length=11, max_length=86)]


class AppraisalReply(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a background check: an Attestation Result as a signed JWT, without a key."""

    ear: str


class BundleMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The trust bundle twice: as SPIFFE writes it (JWKS, as text) and as PEM certificates."""

    spiffe: str
    pem: str


class JoinReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a node that was admitted gets.

    Attributes:
        node_id, generation, spiffe_id: who it is.
        svid: PEM chain, leaf first.
        ear: its Attestation Result as a signed JWT.
        bundle: whom to believe.
        expires: when SVID or result runs out, whichever is first.
        refresh_after_seconds: when to renew.
    """

    node_id: str
    generation: int
    spiffe_id: str
    svid: str
    ear: str
    bundle: BundleMessage
    expires: datetime
    refresh_after_seconds: float
