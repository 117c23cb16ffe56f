# SPDX-License-Identifier: Apache-2.0
"""A join request taken apart; nothing in it is believed yet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats import cmw
from troth.formats.base64url import decode_base64url
from troth.identity.certificate_request import CertificateRequest, decode_csr
from troth.mesh.claim_certificate import Claim
from troth.mesh.join_messages import ClaimMessage, JoinRequest
from troth.mesh.member import Service
from troth.mesh.registry import JoinSession

__all__ = ["DecodedRequest", "decode_request", "token_digest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedRequest:
    """A join request that has the right form.

    Attributes:
        session: the session that it answers, used up.
        svid_key: digest of the key of the SVID that the sender authenticated with, or "".
        csr: the key that an SVID is wanted for; the sender holds it.
        evidence, media_type: the Evidence, undecoded.
        services: what the node offers.
        activation: what its TPM answered, or b"".
        token: digest of its join token, or "".
        claim: its claim certificate, or None.
    """

    session: JoinSession
    svid_key: str
    csr: CertificateRequest
    evidence: bytes = field(repr=False)
    media_type: str
    services: tuple[Service, ...]
    activation: bytes = field(default=b"", repr=False)
    token: str = ""
    claim: Claim | None = None


def decode_request(
    session: JoinSession, request: JoinRequest, *, svid_key: str, max_evidence_bytes: int
) -> DecodedRequest:
    """Take a request apart and check that its sender holds the key.

    Raises:
        DecodeError: not base64url, no certificate request, no CMW record.
        UnsupportedError: a key or a kind of message that is not taken.
        SignatureError: the sender does not hold the key.
        LimitExceededError: too much Evidence.
    """
    csr = decode_csr(decode_base64url(request.csr, format="join request csr"))
    evidence, media_type = _evidence_of(request)
    if len(evidence) > max_evidence_bytes:
        raise LimitExceededError(
            format="Evidence", limit="evidence_bytes", value=max_evidence_bytes
        )
    return DecodedRequest(
        session=session,
        svid_key=svid_key,
        csr=csr,
        evidence=evidence,
        media_type=media_type,
        services=request.services,
        activation=decode_base64url(request.activation, format="activation"),
        token=token_digest(request.join_token) if request.join_token else "",
        claim=_claim_of(request.claim) if request.claim is not None else None,
    )


def token_digest(token: str) -> str:
    """Return what is kept of a join token. It is random, so that its digest gives nothing away."""
    return hashlib.sha256(token.encode()).hexdigest()


def _claim_of(message: ClaimMessage) -> Claim:
    return Claim(
        certificates=tuple(
            decode_base64url(each, format="claim certificate") for each in message.certificates
        ),
        signature=decode_base64url(message.signature, format="claim signature"),
    )


def _evidence_of(request: JoinRequest) -> tuple[bytes, str]:
    """Return the Evidence and its media type, out of a CMW record or as they are."""
    if isinstance(request.evidence, str):
        if not request.media_type:
            raise DecodeError("Evidence without media_type", format="join request")
        return decode_base64url(request.evidence, format="Evidence"), request.media_type
    record = cmw.from_json_value(list(request.evidence))
    if not isinstance(record, cmw.CmwRecord):
        raise UnsupportedError("expected one CMW record", format="join request")
    if record.indicator not in (cmw.Indicator.UNSTATED, cmw.Indicator.EVIDENCE):
        raise UnsupportedError("the CMW record holds no Evidence", format="join request")
    if not record.media_type:
        raise UnsupportedError(
            f"Content-Format {record.type} is none that we know", format="join request"
        )
    return record.value, record.media_type
