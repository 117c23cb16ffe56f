# SPDX-License-Identifier: Apache-2.0
"""What CoRIM, CoMID and the signature's metadata share: entities, validity, identifiers.

Source: draft-ietf-rats-corim (0b855af) "Common Types", "Tag Identity".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.node import Node

__all__ = [
    "CorimEntity",
    "Validity",
    "decode_entity",
    "decode_tag_id",
    "decode_validity",
    "tag_id_text",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SECONDS: Final = 253_402_300_799
"""The end of the year 9999, beyond which no datetime goes."""

_MAX_ID: Final = 512
"""Characters of an identifier; it ends up in every message about its values."""


@dataclass(frozen=True, slots=True)
class Validity:
    """A period, both ends included.

    Attributes:
        not_before: the begin, or None where it is open.
        not_after: the end.
    """

    not_before: datetime | None
    not_after: datetime

    def to_cbor(self) -> dict[int, object]:
        """Return the validity-map; parts of a second are dropped."""
        encoded: dict[int, object] = {1: _encode_time(self.not_after)}
        if self.not_before is not None:
            encoded[0] = _encode_time(self.not_before)
        return encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class CorimEntity:
    """An organization and what it did.

    Attributes:
        name: its name.
        uri: a URI of it, or None.
        roles: numbers from the role registry of the enclosing map.
        extensions: members that a profile adds, uninterpreted.
    """

    name: str
    uri: str | None = None
    roles: tuple[int | str, ...]
    extensions: Mapping[int | str, object] = field(default_factory=dict)

    def to_cbor(self) -> dict[int | str, object]:
        """Return the entity-map."""
        encoded: dict[int | str, object] = {0: self.name, 2: list(self.roles)}
        if self.uri is not None:
            encoded[1] = Tag(tags.URI, self.uri)
        return encoded | dict(self.extensions)


def decode_entity(node: Node) -> CorimEntity:
    """Decode an entity-map."""
    uri = node.optional(1, "reg-id")
    roles = tuple(
        each.text() if isinstance(each.value, str) else each.integer()
        for each in node.member(2, "role").elements(maximum=64)
    )
    return CorimEntity(
        name=node.member(0, "entity-name").text(maximum=1024),
        uri=uri.tagged(tags.URI).text(maximum=2048) if uri else None,
        roles=roles,
        extensions=node.extensions(frozenset({0, 1, 2})),
    )


def decode_validity(node: Node) -> Validity:
    """Decode a validity-map."""
    node.only(frozenset({0, 1}))
    not_before = node.optional(0, "not-before")
    start = decode_time(not_before) if not_before else None
    end = decode_time(node.member(1, "not-after"))
    if start is not None and start > end:
        raise node.error(f"not-before {start:%FT%TZ} is after not-after {end:%FT%TZ}")
    return Validity(start, end)


def decode_time(node: Node) -> datetime:
    """Decode tag 1, seconds since 1970, between 1970 and 9999."""
    seconds = node.tagged(tags.EPOCH_TIME)
    return decode_seconds(seconds)


def decode_seconds(node: Node) -> datetime:
    """Decode seconds since 1970, whole or not."""
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise node.error("expected seconds since 1970")
    if not 0 <= value <= _MAX_SECONDS:
        raise node.error(f"{value} seconds is not between the years 1970 and 9999")
    return _EPOCH + timedelta(seconds=value)


def decode_tag_id(node: Node) -> str | bytes:
    """Decode a text or UUID identifier."""
    if isinstance(node.value, str):
        return node.text(maximum=_MAX_ID)
    return node.octets(minimum=16, maximum=16)


def tag_id_text(identifier: str | bytes) -> str:
    """Return an identifier as text, a UUID in its usual form."""
    return identifier if isinstance(identifier, str) else str(UUID(bytes=identifier))


def _encode_time(when: datetime) -> Tag:
    return Tag(tags.EPOCH_TIME, int((when - _EPOCH).total_seconds()))
