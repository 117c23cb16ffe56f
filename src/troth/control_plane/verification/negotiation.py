# SPDX-License-Identifier: Apache-2.0
"""Content negotiation: which of the offered media types an Accept header takes.

Source: RFC 9110 section 12.5.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from troth.errors import DecodeError
from troth.formats.media_type import parse_media_type

__all__ = ["MAX_ACCEPT_CHARACTERS", "MAX_PREFERENCES", "Choice", "negotiate"]

MAX_ACCEPT_CHARACTERS = 4096
"""One Accept header."""

MAX_PREFERENCES = 32
"""Media types that one Accept header may list; browsers send eight."""

# Commas between list elements, but not those inside quoted strings.
_ELEMENTS = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
_WILDCARDS = re.compile(r"(\*|[A-Za-z0-9!#$&^_.+-]+)/\*[ \t]*(;[ \t]*q=(?P<q>[0-9.]+)[ \t]*)?")


@dataclass(frozen=True, slots=True)
class Choice:
    """The offered type that was chosen.

    Attributes:
        name: as offered, without parameters.
        parameters: what the caller wrote beside it; empty where it took the type by a wildcard.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def negotiate(accept: str, offered: Sequence[str]) -> Choice | None:
    """Return the type that the header prefers, or None where it takes none of them.

    Args:
        accept: the header; "" takes anything.
        offered: names without parameters, the best first.

    An element that is no media type takes nothing.
    """
    if not accept:
        return Choice(offered[0])
    if len(accept) > MAX_ACCEPT_CHARACTERS:
        return None
    best: tuple[float, int] = (0.0, 0)
    chosen: Choice | None = None
    ranges = [_range(each) for each in _ELEMENTS.findall(accept)[:MAX_PREFERENCES]]
    for name in offered:
        # The most specific range decides about a type: "*/*, text/plain;q=0" takes no text/plain.
        fitting = [each for each in ranges if each is not None and each.fits(name)]
        if not fitting:
            continue
        decisive = max(fitting, key=lambda each: each.precision)
        if (decisive.quality, decisive.precision) > best and decisive.quality > 0:
            best = (decisive.quality, decisive.precision)
            chosen = Choice(name, decisive.parameters)
    return chosen


@dataclass(frozen=True, slots=True)
class _Range:
    name: str
    parameters: Mapping[str, str]
    quality: float
    precision: int

    def fits(self, name: str) -> bool:
        if self.precision == 2:
            return self.name == name
        return self.name == "*/*" or name.startswith(self.name[:-1])


def _range(element: str) -> _Range | None:
    text = element.strip(" \t")
    if wildcard := _WILDCARDS.fullmatch(text):
        name = text.partition(";")[0].rstrip(" \t").lower()
        quality = _quality(wildcard["q"] or "1")
        return _Range(name, {}, quality, int(not name.startswith("*"))) if quality >= 0 else None
    try:
        parsed = parse_media_type(text)
    except DecodeError:
        return None
    parameters = dict(parsed.parameters)
    quality = _quality(parameters.pop("q", "1"))
    return _Range(parsed.name, parameters, quality, 2) if quality >= 0 else None


def _quality(text: str) -> float:
    return float(text) if _QUALITY.fullmatch(text) else -1.0
