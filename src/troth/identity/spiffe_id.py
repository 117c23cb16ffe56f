# SPDX-License-Identifier: Apache-2.0
"""SPIFFE IDs and the trust domains that they live in.

Source: SPIFFE-ID section 2 (spiffe/spiffe, July 2026).

Section 2.4 reads the scheme and the trust domain without case, section 2.1 demands lower case.
Troth takes lower case only, as go-spiffe does, so that one identity has one spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from troth.errors import DecodeError

__all__ = ["MAX_SPIFFE_ID_BYTES", "MAX_TRUST_DOMAIN_BYTES", "SpiffeId", "TrustDomain"]

MAX_SPIFFE_ID_BYTES: Final = 2048
MAX_TRUST_DOMAIN_BYTES: Final = 255

_FORMAT: Final = "SPIFFE ID"
_SCHEME: Final = "spiffe://"
# Used with fullmatch only: "$" would let a line feed through at the end.
_TRUST_DOMAIN: Final = re.compile("[a-z0-9._-]+")
_SEGMENT: Final = re.compile("[a-zA-Z0-9._-]+")
_SHOWN: Final = 128


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """The name of a trust domain, such as "example.org". Not a DNS name, even if it looks like one.

    Attributes:
        name: a-z, 0-9, dot, hyphen, underscore; 1 to 255 octets.

    Raises:
        DecodeError: another name.
    """

    name: str

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.name):
            raise DecodeError(
                f"trust domain {self.name[:_SHOWN]!r} is not of a-z, 0-9, '.', '-' and '_'",
                format=_FORMAT,
            )
        if len(self.name) > MAX_TRUST_DOMAIN_BYTES:
            raise DecodeError(
                f"the trust domain has {len(self.name)} octets, not {MAX_TRUST_DOMAIN_BYTES} "
                "or fewer",
                format=_FORMAT,
            )

    def __str__(self) -> str:
        return self.name

    @property
    def id(self) -> SpiffeId:
        """The SPIFFE ID of the trust domain itself, which only its authorities carry."""
        return SpiffeId(self, "")


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """The identity of a workload, or with an empty path of its trust domain.

    Equal to nothing but another `SpiffeId`; compare with text as `str(id)`, which is also its form
    in JSON.

    Attributes:
        trust_domain: the trust domain.
        path: "" or "/" and segments, case kept.

    Raises:
        DecodeError: not a valid path, or longer than 2048 octets in all.
    """

    trust_domain: TrustDomain
    path: str

    def __post_init__(self) -> None:
        if self.path:
            _check_path(self.path)
        size = len(_SCHEME) + len(self.trust_domain.name) + len(self.path)
        if size > MAX_SPIFFE_ID_BYTES:
            raise DecodeError(f"{size} octets, not {MAX_SPIFFE_ID_BYTES} or fewer", format=_FORMAT)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain.name}{self.path}"

    @classmethod
    def decode(cls, text: str) -> SpiffeId:
        """Read a SPIFFE ID from its URI.

        Raises:
            DecodeError: not to the letter a SPIFFE ID.
        """
        if not text.startswith(_SCHEME):
            raise DecodeError(f"{text[:_SHOWN]!r} does not begin with {_SCHEME}", format=_FORMAT)
        if len(text) > MAX_SPIFFE_ID_BYTES:
            raise DecodeError(
                f"{len(text)} characters, not {MAX_SPIFFE_ID_BYTES} or fewer", format=_FORMAT
            )
        name, slash, rest = text[len(_SCHEME) :].partition("/")
        return cls(TrustDomain(name), slash + rest)


def _check_path(path: str) -> None:
    """SPIFFE-ID section 2.2."""
    if not path.startswith("/"):
        raise DecodeError(f"path {path[:_SHOWN]!r} does not begin with '/'", format=_FORMAT)
    for segment in path[1:].split("/"):
        if not segment:
            raise DecodeError(f"path {path[:_SHOWN]!r} has an empty segment", format=_FORMAT)
        if segment in {".", ".."}:
            raise DecodeError(f"path {path[:_SHOWN]!r} has a relative segment", format=_FORMAT)
        if not _SEGMENT.fullmatch(segment):
            raise DecodeError(
                f"path segment {segment[:_SHOWN]!r} is not of letters, digits, '.', '-' and '_'",
                format=_FORMAT,
            )
