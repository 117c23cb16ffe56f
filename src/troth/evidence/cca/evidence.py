# SPDX-License-Identifier: Apache-2.0
"""A CCA attestation token, decoded: the wrapper, and the platform and realm tokens in it.

Source: Arm RMM Specification (DEN0137) section A7.2.3; draft-ffm-rats-cca-token section 4; the
tokens of TF-RMM, whose current form is tag 907 and whose older one is tag 399.
"""

from __future__ import annotations

from dataclasses import dataclass

from troth.errors import DecodeError, UnsupportedError
from troth.evidence.cca.platform_claims import (
    PLATFORM_PROFILES,
    PlatformClaims,
    decode_platform_claims,
)
from troth.evidence.cca.realm_claims import RealmClaims, decode_realm_claims
from troth.evidence.evidence import Evidence
from troth.evidence.media_type import refuse_other_profile
from troth.formats import cbor
from troth.formats.cose import Sign1
from troth.formats.eat import eat_media_type
from troth.formats.limits import Limits
from troth.formats.quoting import shown

__all__ = [
    "COLLECTION_TAG",
    "EAT_CWT",
    "LIMITS",
    "PLATFORM_LABEL",
    "REALM_LABEL",
    "RECORDS_TAG",
    "CcaEvidence",
    "PlatformToken",
    "RealmToken",
    "decode",
    "decode_platform_token",
]

LIMITS = Limits(max_bytes=32_768, max_items=4_096, max_depth=8)
"""The RMM builds a token in one page of 4 KiB; larger pages are being talked about."""

RECORDS_TAG = 907
"""Tag of the current wrapper: each entry is a CMW record `[263, octets]`."""

COLLECTION_TAG = 399
"""Tag of the older wrapper: each entry is the octets."""

PLATFORM_LABEL, REALM_LABEL = 44234, 44241

EAT_CWT = 263
"""CoAP Content-Format of application/eat+cwt, which types the entries of a tag 907 wrapper."""

_FORMAT = "CCA token"
_MEDIA_TYPE = eat_media_type(PLATFORM_PROFILES[0])
_PLATFORM_FORMAT, _REALM_FORMAT = "CCA platform token", "CCA realm token"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformToken:
    """The part that the platform's root of trust signed.

    Attributes:
        envelope: COSE_Sign1 under the CPAK.
        claims: its payload.
    """

    envelope: Sign1
    claims: PlatformClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmToken:
    """The part that the Realm Management Monitor signed.

    Attributes:
        envelope: COSE_Sign1 under the RAK.
        claims: its payload.
    """

    envelope: Sign1
    claims: RealmClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaEvidence(Evidence):
    """Both tokens. That they belong together is for `verify()` to establish.

    Attributes:
        wrapper_tag: RECORDS_TAG or COLLECTION_TAG.
        platform: the platform token.
        realm: the realm token.
    """

    wrapper_tag: int
    platform: PlatformToken
    realm: RealmToken


def decode(data: bytes, *, media_type: str = "") -> CcaEvidence:
    """Decode one token and check the form of all that is in it.

    Args:
        data: the token, whole.
        media_type: that it came under; "" where it came under none.

    Raises:
        DecodeError: not a CCA token, or the media type is of another profile.
        UnsupportedError: well-formed, but a profile or an item that Troth does not take; a
            platform token alone is one.
        LimitExceededError: a limit was crossed.
    """
    item = cbor.decode(data, format=_FORMAT, limits=LIMITS)
    entries, wrapper_tag = _wrapper(item)
    platform = _platform_token(entries[PLATFORM_LABEL])
    realm = _realm_token(entries[REALM_LABEL])
    # The media type names the platform's profile, but the two generations of it are one format
    # and are mixed up in the field; naming the realm's is as good.
    refuse_other_profile(
        media_type,
        platform.claims.profile,
        realm.claims.profile,
        *PLATFORM_PROFILES,
        format=_FORMAT,
    )
    return CcaEvidence(
        scheme="cca",
        media_type=media_type or _MEDIA_TYPE,
        raw=data,
        wrapper_tag=wrapper_tag,
        platform=platform,
        realm=realm,
    )


def decode_platform_token(data: bytes) -> PlatformToken:
    """Decode a platform token that stands alone, as the platform hands it to the RMM.

    For tools that look into one. It carries no challenge of a caller and says nothing about a
    realm, so it is no Evidence that `verify()` would take.

    Raises:
        DecodeError: as `decode`.
    """
    return _platform_token(data)


def _wrapper(item: object) -> tuple[dict[int, bytes], int]:
    if isinstance(item, cbor.Tag) and item.number == Sign1.TAG:
        raise UnsupportedError(
            "is one COSE_Sign1, such as a platform token without its realm token; Evidence of a "
            "realm is a collection of both, tag 907 or 399",
            format=_FORMAT,
            remedy="Ask for the token inside a realm, where the RMM adds the realm's part.",
        )
    if not isinstance(item, cbor.Tag) or item.number not in {RECORDS_TAG, COLLECTION_TAG}:
        raise DecodeError("is not a collection of tag 907 or 399", format=_FORMAT)
    if not isinstance(item.value, dict):
        raise DecodeError(f"tag {item.number} does not hold a map", format=_FORMAT)
    for label, name in ((PLATFORM_LABEL, "platform token"), (REALM_LABEL, "realm token")):
        if label not in item.value:
            raise DecodeError(f"entry {label} ({name}) is missing", format=_FORMAT)
    if len(item.value) != 2:
        others = [label for label in item.value if label not in {PLATFORM_LABEL, REALM_LABEL}]
        # Nothing would sign them, nor tie them to the two tokens.
        raise UnsupportedError(f"entries that Troth does not know: {shown(others)}", format=_FORMAT)
    return {
        label: _entry(value, f"entry {label}", item.number) for label, value in item.value.items()
    }, item.number


def _entry(value: object, name: str, tag: int) -> bytes:
    if tag == COLLECTION_TAG:
        if not isinstance(value, bytes):
            raise DecodeError(f"{name} is not a byte string, as tag {tag} has it", format=_FORMAT)
        return value
    match value:
        case [int() as content_format, bytes() as token] if content_format == EAT_CWT:
            return token
    raise DecodeError(
        f"{name} is not [{EAT_CWT}, byte string], as tag {tag} has it", format=_FORMAT
    )


def _platform_token(data: bytes) -> PlatformToken:
    envelope = Sign1.decode(data, format=_PLATFORM_FORMAT, limits=LIMITS)
    try:
        payload = cbor.decode(envelope.payload, format="CCA platform claims", limits=LIMITS)
    except DecodeError as exc:
        if isinstance(exc.__cause__, UnicodeDecodeError):
            raise DecodeError(
                f"{exc}; firmware of 2025 and 2026 is known to emit claim 2402 "
                "(cca-platform-hash-algo-id) so",
                format=_PLATFORM_FORMAT,
                remedy="Update the platform's firmware; no decoder may take text that is not UTF-8.",
            ) from exc
        raise
    return PlatformToken(envelope=envelope, claims=decode_platform_claims(payload))


def _realm_token(data: bytes) -> RealmToken:
    envelope = Sign1.decode(data, format=_REALM_FORMAT, limits=LIMITS)
    payload = cbor.decode(envelope.payload, format="CCA realm claims", limits=LIMITS)
    return RealmToken(envelope=envelope, claims=decode_realm_claims(payload))
