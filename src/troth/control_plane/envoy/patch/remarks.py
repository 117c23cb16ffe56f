# SPDX-License-Identifier: Apache-2.0
"""What patching found at each place of a configuration: changed, left alone, or refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from troth.errors import ConfigurationError

__all__ = ["Kind", "Remark", "Remarks", "Tree", "objects", "type_name"]

Tree = dict[str, Any]
"""One object of Envoy's configuration, in the protobuf JSON mapping with snake_case names."""


class Kind(Enum):
    """What became of a place."""

    PATCHED = "patched"
    """It attests now."""
    NOTE = "note"
    """Something else about it that a person should know."""
    NOT_MESH = "not_mesh"
    """It is no mutual TLS, so there is nothing to attest; it is as it was."""
    LEFT = "left"
    """It is mutual TLS and could not be patched; it is as it was, and attests nobody."""
    INSECURE = "insecure"
    """It would undo attestation: nothing is written until it is changed."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that was found.

    Attributes:
        kind: what became of it.
        place: such as "listener web, filter chain 0".
        what: in words.
        remedy: what a person can do, or "".
    """

    kind: Kind
    place: str
    what: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it for programs."""
        found = {"kind": self.kind.value, "place": self.place, "what": self.what}
        return found | ({"remedy": self.remedy} if self.remedy else {})


@dataclass(slots=True)
class Remarks:
    """Collects what is found, in the order of the configuration."""

    found: list[Remark] = field(default_factory=list)

    def patched(self, place: str, what: str) -> None:
        """Say that a place attests now."""
        self.found.append(Remark(Kind.PATCHED, place, what))

    def note(self, place: str, what: str, remedy: str = "") -> None:
        """Say something that a person should know."""
        self.found.append(Remark(Kind.NOTE, place, what, remedy))

    def not_mesh(self, place: str, what: str) -> None:
        """Say that there is nothing to attest."""
        self.found.append(Remark(Kind.NOT_MESH, place, what))

    def left(self, place: str, what: str, remedy: str) -> None:
        """Say that a place could not be patched."""
        self.found.append(Remark(Kind.LEFT, place, what, remedy))

    def insecure(self, place: str, what: str, remedy: str) -> None:
        """Say that a place would undo attestation."""
        self.found.append(Remark(Kind.INSECURE, place, what, remedy))


def objects(tree: Tree, key: str, place: str) -> list[Tree]:
    """Return the list of objects at `key`; empty where there is none.

    Raises:
        ConfigurationError: something else stands there.
    """
    value = tree.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ConfigurationError(source=place, key=key, accepted="a list of objects")
    return value


def type_name(extension: object) -> str:
    """Return the message name of an extension's `typed_config`, without its package, or ""."""
    typed = extension.get("typed_config") if isinstance(extension, dict) else None
    url = typed.get("@type") if isinstance(typed, dict) else None
    return url.rpartition(".")[2] if isinstance(url, str) else ""
