# SPDX-License-Identifier: Apache-2.0
"""Entity Attestation Token: claim keys, claim names and media types.

What a claim means is its scheme's business; how a token is protected is `cose`'s and `jose`'s.

Source: RFC 9711 section 4 and appendix (IANA claims); RFC 8392 section 4; RFC 8747 section 3.1;
RFC 9782 (media types).
"""

from __future__ import annotations

import re
from enum import IntEnum

from troth.errors import DecodeError
from troth.formats.media_type import (
    CONTENT_FORMATS,
    MediaType,
    content_format,
    parse_media_type,
)

__all__ = [
    "CONTENT_FORMATS",
    "EAT_CWT",
    "EAT_JWT",
    "ClaimKey",
    "DebugStatus",
    "claim_key",
    "claim_name",
    "content_format",
    "eat_media_type",
    "normalise_media_type",
]

EAT_CWT = "application/eat+cwt"
EAT_JWT = "application/eat+jwt"


class ClaimKey(IntEnum):
    """CBOR key of a claim; the lower-case name is its name in JSON (see `claim_name`)."""

    ISS = 1
    SUB = 2
    AUD = 3
    EXP = 4
    NBF = 5
    IAT = 6
    CTI = 7
    CNF = 8
    EAT_NONCE = 10
    UEID = 256
    SUEIDS = 257
    OEMID = 258
    HWMODEL = 259
    HWVERSION = 260
    UPTIME = 261
    OEMBOOT = 262
    DBGSTAT = 263
    LOCATION = 264
    EAT_PROFILE = 265
    SUBMODS = 266
    BOOTCOUNT = 267
    BOOTSEED = 268
    DLOAS = 269
    SWNAME = 270
    SWVERSION = 271
    MANIFESTS = 272
    MEASUREMENTS = 273
    MEASRES = 274
    INTUSE = 275


class DebugStatus(IntEnum):
    """Values of `dbgstat` (RFC 9711 section 4.2.9). Only the last two cannot be undone."""

    ENABLED = 0
    DISABLED = 1
    DISABLED_SINCE_BOOT = 2
    DISABLED_PERMANENTLY = 3
    DISABLED_FULLY_AND_PERMANENTLY = 4


# RFC 8392 section 3.1.7: the CWT claim is cti, the JWT claim jti.
_NAMES: dict[int, str] = {
    key: "jti" if key is ClaimKey.CTI else key.name.lower() for key in ClaimKey
}
_KEYS = {name: key for key, name in _NAMES.items()}

# Spellings of older drafts that are still sent: "eat-cwt" and "eat_cwt" before RFC 9782 settled
# on the "+" suffix, and "profile" before the parameter was called after the claim.
_OLD_NAMES = {
    "application/eat-cwt": EAT_CWT,
    "application/eat_cwt": EAT_CWT,
    "application/eat-jwt": EAT_JWT,
    "application/eat_jwt": EAT_JWT,
}
_EAT_NAME = re.compile(
    r"application/eat(?:\+cwt|\+jwt|-bun\+cbor|-bun\+json|-ucs\+cbor|-ucs\+json)"
)


def claim_name(key: int) -> str:
    """Return the JSON name of a claim's CBOR key, or "" where RFC 9711 has none."""
    return _NAMES.get(key, "")


def claim_key(name: str) -> int | None:
    """Return the CBOR key of a claim's JSON name, or None where RFC 9711 has none."""
    return _KEYS.get(name)


def eat_media_type(profile: str = "", *, name: str = EAT_CWT) -> str:
    """Return the media type of an EAT with this `eat_profile`, in the one spelling."""
    return str(MediaType(name, {"eat_profile": profile} if profile else {}))


def normalise_media_type(text: str) -> str:
    """Return a media type in the one spelling, with the names that RFC 9782 settled on.

    ``application/eat-cwt; profile=http://…`` and its kin become
    ``application/eat+cwt; eat_profile="http://…"``. Types that are not EAT keep their parameters.

    Raises:
        DecodeError: not a media type, or both the old and the new parameter are there.
    """
    given = parse_media_type(text)
    name = _OLD_NAMES.get(given.name, given.name)
    if not _EAT_NAME.fullmatch(name) or "profile" not in given.parameters:
        return str(MediaType(name, given.parameters))
    if "eat_profile" in given.parameters:
        raise DecodeError("both profile and eat_profile are given", format="media type")
    renamed = {
        "eat_profile" if parameter == "profile" else parameter: value
        for parameter, value in given.parameters.items()
    }
    return str(MediaType(name, renamed))
