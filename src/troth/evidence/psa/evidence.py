# SPDX-License-Identifier: Apache-2.0
"""A PSA attestation token, decoded: the envelope and the claims in it.

Source: RFC 9783 section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from troth.errors import DecodeError
from troth.evidence.evidence import Evidence
from troth.evidence.media_type import refuse_other_profile
from troth.evidence.psa.claims import PROFILES, PsaClaims, decode_claims
from troth.formats import cbor
from troth.formats.cose import Mac0, Sign1
from troth.formats.limits import Limits

__all__ = ["LIMITS", "PsaEvidence", "decode"]

LIMITS = Limits(max_bytes=16_384, max_items=2_048, max_depth=8)
"""A token is built in the memory of a microcontroller; the largest published one has 0.7 KB."""

_FORMAT = "PSA token"


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaEvidence(Evidence):
    """One token.

    Attributes:
        envelope: COSE_Sign1, or COSE_Mac0 where the attestation key is symmetric.
        claims: its payload.
    """

    envelope: Sign1 | Mac0
    claims: PsaClaims


def decode(data: bytes, *, media_type: str = "") -> PsaEvidence:
    """Decode one token and check the form of all that is in it.

    Args:
        data: the token, whole.
        media_type: that it came under; "" where it came under none.

    Raises:
        DecodeError: not a PSA token, or the media type is of another profile.
        UnsupportedError: well-formed, but a profile or an item that Troth does not take.
        LimitExceededError: a limit was crossed.
    """
    item = cbor.decode(data, format=_FORMAT, limits=LIMITS)
    if not isinstance(item, cbor.Tag) or item.number not in {Sign1.TAG, Mac0.TAG}:
        raise DecodeError(
            "is neither a tagged COSE_Sign1 (18) nor a tagged COSE_Mac0 (17)", format=_FORMAT
        )
    kind = Sign1 if item.number == Sign1.TAG else Mac0
    envelope = kind.from_value(item, format=_FORMAT)
    payload = cbor.decode(envelope.payload, format="PSA claims", limits=LIMITS)
    claims = decode_claims(payload)
    profile = PROFILES[claims.profile]
    refuse_other_profile(media_type, profile.name, profile.media_type_profile, format=_FORMAT)
    return PsaEvidence(
        scheme="psa",
        media_type=media_type or profile.media_type,
        raw=data,
        envelope=envelope,
        claims=claims,
    )
