# SPDX-License-Identifier: Apache-2.0
"""Selectors: what an attestor found out about a node or a workload, as registration matches it.

Source: SPIRE's selectors ("k8s:ns:default"); SPIFFE leaves them to the implementation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from troth.errors import DecodeError

__all__ = ["MAX_SELECTOR_CHARACTERS", "Selector"]

MAX_SELECTOR_CHARACTERS: Final = 1024

_TYPE: Final = re.compile("[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """One property, such as type "k8s" with value "ns:default".

    Attributes:
        type: the attestor that vouches for it; no colon.
        value: what it found; printable, compared octet by octet.

    Raises:
        DecodeError: another type, or a value that is empty or cannot be shown.
    """

    type: str
    value: str

    def __post_init__(self) -> None:
        if not _TYPE.fullmatch(self.type):
            raise DecodeError(f"type {self.type[:64]!r} is not a word", format="selector")
        if not self.value or not self.value.isprintable():
            raise DecodeError(
                f"value {self.value[:64]!r} is empty or not printable", format="selector"
            )
        if len(self.type) + len(self.value) >= MAX_SELECTOR_CHARACTERS:
            raise DecodeError(f"more than {MAX_SELECTOR_CHARACTERS} characters", format="selector")

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"

    @classmethod
    def decode(cls, text: str) -> Selector:
        """Read "type:value"; the value may have colons.

        Raises:
            DecodeError: not a selector.
        """
        kind, colon, value = text.partition(":")
        if not colon:
            raise DecodeError(f"{text[:64]!r} is not of the form type:value", format="selector")
        return cls(kind, value)
