# SPDX-License-Identifier: Apache-2.0
"""Media types with their parameters, in one spelling, and their CoAP Content-Format numbers.

Source: RFC 9110 sections 5.6.2 to 5.6.6 and 8.3.1; RFC 6838 section 4.2; RFC 7252 section 12.3;
the IANA CoAP Content-Formats registry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from troth.errors import DecodeError, LimitExceededError
from troth.formats.quoting import shown

__all__ = [
    "CONTENT_FORMATS",
    "CONTENT_FORMAT_NUMBERS",
    "MAX_MEDIA_TYPE_CHARACTERS",
    "MediaType",
    "content_format",
    "parse_media_type",
]

MAX_MEDIA_TYPE_CHARACTERS = 1024
"""The longest one in use names a profile by URI and has 60."""

# RFC 6838 section 4.2 restricts names further than RFC 9110's tokens.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_QUOTED = re.compile(r'"((?:[\t !#-\[\]-~]|\\[\t -~])*)"')
_GAP = re.compile(r"[ \t]*")


@dataclass(frozen=True, slots=True)
class MediaType:
    """One media type.

    `str()` gives the one spelling that Troth compares and writes: type, subtype and parameter
    names in lower case, "; " between parameters, values quoted only where they have to be.

    Attributes:
        name: "type/subtype" in lower case.
        parameters: values by lower-case name; a value's case is kept.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        parameters = (f"; {name}={_spelled(value)}" for name, value in self.parameters.items())
        return self.name + "".join(parameters)

    def __hash__(self) -> int:
        return hash(str(self))


def parse_media_type(text: str) -> MediaType:
    """Parse a media type such as a Content-Type header or a CMW's type carries.

    Raises:
        DecodeError: not a media type, or a parameter occurs twice.
        LimitExceededError: longer than `MAX_MEDIA_TYPE_CHARACTERS`.
    """
    if len(text) > MAX_MEDIA_TYPE_CHARACTERS:
        raise LimitExceededError(
            format="media type",
            limit="max_media_type_characters",
            value=MAX_MEDIA_TYPE_CHARACTERS,
        )
    full, _, rest = text.strip(" \t").partition(";")
    kind, slash, subtype = full.rstrip(" \t").partition("/")
    if not (slash and _NAME.fullmatch(kind) and _NAME.fullmatch(subtype)):
        raise DecodeError(f"{shown(text)} is not of the form type/subtype", format="media type")
    parameters: dict[str, str] = {}
    at = 0
    while at < len(rest):
        at = _parameter(rest, at, parameters, text)
    return MediaType(f"{kind}/{subtype}".lower(), MappingProxyType(parameters))


def _parameter(rest: str, at: int, parameters: dict[str, str], text: str) -> int:
    """Read one parameter of `rest` from `at` into `parameters`; return where the next begins."""
    at = _skip_gap(rest, at)
    if rest[at : at + 1] in {"", ";"}:  # RFC 9110 section 5.6.6 allows empty ones
        return at + 1
    name = _TOKEN.match(rest, at)
    if name is None or rest[name.end() : name.end() + 1] != "=":
        raise DecodeError(f"{shown(text)} has a malformed parameter", format="media type")
    at = name.end() + 1
    if quoted := _QUOTED.match(rest, at):
        value, at = re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    elif token := _TOKEN.match(rest, at):
        value, at = token[0], token.end()
    else:
        raise DecodeError(f"{shown(text)} has a malformed parameter", format="media type")
    if name[0].lower() in parameters:
        raise DecodeError(f"{shown(text)} has {name[0]} twice", format="media type")
    parameters[name[0].lower()] = value
    at = _skip_gap(rest, at)
    if rest[at : at + 1] not in {"", ";"}:
        raise DecodeError(f"{shown(text)} has a malformed parameter", format="media type")
    return at + 1


def _skip_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _spelled(value: str) -> str:
    if _TOKEN.fullmatch(value):
        return value
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'"{escaped}"'


CONTENT_FORMATS: Mapping[int, str] = MappingProxyType(
    {
        0: "text/plain; charset=utf-8",
        16: "application/cose; cose-type=cose-encrypt0",
        17: "application/cose; cose-type=cose-mac0",
        18: "application/cose; cose-type=cose-sign1",
        42: "application/octet-stream",
        50: "application/json",
        60: "application/cbor",
        61: "application/cwt",
        101: "application/cose-key",
        102: "application/cose-key-set",
        258: "application/swid+cbor",
        263: "application/eat+cwt",
        264: "application/eat+jwt",
        265: "application/eat-bun+cbor",
        266: "application/eat-bun+json",
        267: "application/eat-ucs+cbor",
        268: "application/eat-ucs+json",
        287: "application/pkix-cert",
        10003: 'application/eat+cwt; eat_profile="tag:psacertified.org,2023:psa#tfm"',
        10004: 'application/eat+cwt; eat_profile="tag:psacertified.org,2019:psa#legacy"',
        10005: "application/eat+cwt; eat_profile=2.16.840.1.113741.1.16.1",
        10570: "application/toc+cbor",
        10571: "application/ce+cbor",
    }
)
"""The registered Content-Formats that attestation messages come under, spelled as `MediaType`."""

CONTENT_FORMAT_NUMBERS: Mapping[str, int] = MappingProxyType(
    {text: number for number, text in CONTENT_FORMATS.items()}
)


def content_format(media_type: MediaType) -> int | None:
    """Return the Content-Format number of exactly this media type, or None."""
    return CONTENT_FORMAT_NUMBERS.get(str(media_type))
