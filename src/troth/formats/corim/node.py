# SPDX-License-Identifier: Apache-2.0
"""A decoded CBOR item that knows its place, so that a refusal can name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.cbor import Tag

__all__ = ["MAX_ENTRIES", "MAX_OCTETS", "MAX_TEXT", "Node"]

MAX_ENTRIES: Final = 8192
"""Members of any one array: a longer list of triples or measurements belongs in several files."""

MAX_TEXT: Final = 16_384
"""Octets of any one text: the longest that occurs is a certificate path in PEM."""

MAX_OCTETS: Final = 16_384
"""Octets of any one byte string inside a tag: the longest that occurs is a certificate."""


class Node:
    """One item with the path that led to it.

    Every accessor either returns the item as the wanted kind or raises, naming the place, such
    as "tags[0].triples.attest-key[2].environment.instance". Paths are only put together for a
    refusal.
    """

    __slots__ = ("_name", "_parent", "format", "value")

    def __init__(
        self,
        value: object,
        *,
        format: str,
        name: str = "",
        parent: Node | None = None,
    ) -> None:
        self.value = value
        self.format = format
        self._name = name
        self._parent = parent

    @property
    def path(self) -> str:
        """The place as text, "" for the whole."""
        names: list[str] = []
        node: Node | None = self
        while node is not None:
            names.append(node._name)  # noqa: SLF001 - a node of our own
            node = node._parent  # noqa: SLF001 - as above
        return "".join(reversed(names)).removeprefix(".")

    def error(self, message: str, *, remedy: str = "") -> DecodeError:
        """Make the refusal of this item."""
        place = self.path
        text = f"{place}: {message}" if place else message
        return DecodeError(text, format=self.format, remedy=remedy)

    def unsupported(self, message: str, *, remedy: str = "") -> UnsupportedError:
        """Make the refusal of an item that is well-formed but outside what Troth takes."""
        place = self.path
        text = f"{place}: {message}" if place else message
        return UnsupportedError(text, format=self.format, remedy=remedy)

    def child(self, name: str, value: object) -> Node:
        """Return `value` placed under this item, as ".name"."""
        return Node(value, format=self.format, name=f".{name}", parent=self)

    def element(self, index: int, value: object) -> Node:
        """Return `value` placed under this item, as "[index]"."""
        return Node(value, format=self.format, name=f"[{index}]", parent=self)

    def entries(self) -> Mapping[int | str | bytes, object]:
        """Return the item as a map that is not empty."""
        if not isinstance(self.value, Mapping):
            raise self.error(f"expected a map, found {_kind(self.value)}")
        if not self.value:
            raise self.error("an empty map")
        return self.value

    def member(self, key: int, name: str) -> Node:
        """Return the entry under `key`, which must be there."""
        entries = self.entries()
        if key not in entries:
            raise self.error(f"{name} (key {key}) is missing")
        return self.child(name, entries[key])

    def optional(self, key: int, name: str) -> Node | None:
        """Return the entry under `key`, or None where there is none."""
        entries = self.entries()
        return self.child(name, entries[key]) if key in entries else None

    def only(self, keys: frozenset[int]) -> None:
        """Refuse a map that has other keys, where the specification has no extension point."""
        for key in self.entries():
            if key not in keys:
                raise self.error(f"unknown key {key!r}")

    def extensions(self, keys: frozenset[int]) -> dict[int | str, object]:
        """Return the entries under other keys, where the specification has an extension point."""
        found: dict[int | str, object] = {}
        for key, value in self.entries().items():
            if key in keys:
                continue
            if isinstance(key, bytes):
                raise self.error("a map key that is a byte string")
            found[key] = value
        return found

    def elements(self, *, minimum: int = 1, maximum: int = MAX_ENTRIES) -> list[Node]:
        """Return the members of an array."""
        if isinstance(self.value, str | bytes) or not isinstance(self.value, Sequence):
            raise self.error(f"expected an array, found {_kind(self.value)}")
        if len(self.value) < minimum:
            wanted = "an empty array" if not self.value else f"fewer than {minimum} members"
            raise self.error(wanted)
        if len(self.value) > maximum:
            raise LimitExceededError(
                format=f"{self.format} {self.path}", limit="max_entries", value=maximum
            )
        return [self.element(index, value) for index, value in enumerate(self.value)]

    def pair(self, first: str, second: str) -> tuple[Node, Node]:
        """Return the members of an array of exactly two, under their names."""
        members = self.elements()
        if len(members) != 2:
            raise self.error(f"expected [{first}, {second}], found {len(members)} members")
        return self.child(first, members[0].value), self.child(second, members[1].value)

    def text(self, *, maximum: int = MAX_TEXT) -> str:
        """Return the item as text that is not empty."""
        if not isinstance(self.value, str):
            raise self.error(f"expected text, found {_kind(self.value)}")
        if not self.value:
            raise self.error("empty text")
        if len(self.value) > maximum:
            raise LimitExceededError(
                format=f"{self.format} {self.path}", limit="max_text", value=maximum
            )
        return self.value

    def octets(self, *, minimum: int = 1, maximum: int = MAX_OCTETS) -> bytes:
        """Return the item as a byte string of `minimum` … `maximum` octets."""
        if not isinstance(self.value, bytes):
            raise self.error(f"expected a byte string, found {_kind(self.value)}")
        if len(self.value) < minimum:
            raise self.error(f"{len(self.value)} octets; expected at least {minimum}")
        if len(self.value) > maximum:
            if maximum == MAX_OCTETS:
                raise LimitExceededError(
                    format=f"{self.format} {self.path}", limit="max_octets", value=maximum
                )
            raise self.error(f"{len(self.value)} octets; expected at most {maximum}")
        return self.value

    def integer(self) -> int:
        """Return the item as an integer; true and false are none."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.error(f"expected an integer, found {_kind(self.value)}")
        return self.value

    def unsigned(self) -> int:
        """Return the item as an integer that is not negative."""
        value = self.integer()
        if value < 0:
            raise self.error(f"expected an unsigned integer, found {value}")
        return value

    def boolean(self) -> bool:
        """Return the item as true or false."""
        if not isinstance(self.value, bool):
            raise self.error(f"expected true or false, found {_kind(self.value)}")
        return self.value

    def tag(self) -> Tag:
        """Return the item as a tagged one, whatever the number."""
        if not isinstance(self.value, Tag):
            raise self.error(f"expected a tagged item, found {_kind(self.value)}")
        return self.value

    def tagged(self, number: int) -> Node:
        """Return the content of an item with exactly this tag."""
        tag = self.tag()
        if tag.number != number:
            raise self.error(f"expected tag {number}, found tag {tag.number}")
        return Node(tag.value, format=self.format, name="", parent=self)


def _kind(value: object) -> str:
    if isinstance(value, Tag):
        return f"tag {value.number}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    names = {int: "an integer", float: "a float", str: "text", bytes: "a byte string"}
    if isinstance(value, Mapping):
        return "a map"
    return names.get(type(value), "an array")
