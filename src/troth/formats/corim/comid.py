# SPDX-License-Identifier: Apache-2.0
"""CoMID: one tag about the hardware and firmware of a module.

Source: draft-ietf-rats-corim (0b855af) "Concise Module Identifier (CoMID)".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from troth.formats import cbor
from troth.formats.corim.common import (
    CorimEntity,
    decode_entity,
    decode_tag_id,
    tag_id_text,
)
from troth.formats.corim.node import Node
from troth.formats.corim.triples import Triples, decode_triples
from troth.formats.limits import RIM_LIMITS, Limits

__all__ = ["REPLACES", "SUPPLEMENTS", "Comid", "LinkedTag"]

SUPPLEMENTS: Final = 0
REPLACES: Final = 1

_KEYS: Final = frozenset(range(5))
_MAX_ENTITIES: Final = 64
_MAX_LINKED_TAGS: Final = 64


@dataclass(frozen=True, slots=True)
class LinkedTag:
    """A relation to another tag.

    Attributes:
        tag_id: the other tag.
        relation: `SUPPLEMENTS`, `REPLACES` or a number that a profile adds.
    """

    tag_id: str | bytes
    relation: int

    def to_cbor(self) -> dict[int, object]:
        """Return the linked-tag-map."""
        return {0: self.tag_id, 1: self.relation}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comid:
    """One tag.

    Attributes:
        tag_id: text or the 16 octets of a UUID.
        tag_version: revision of the tag, 0 at first.
        language: of the texts in it, or None.
        entities: who made the tag and the module.
        linked_tags: relations to other tags.
        triples: what it states.
        extensions: members that a profile adds, uninterpreted.
    """

    tag_id: str | bytes
    tag_version: int = 0
    language: str | None = None
    entities: tuple[CorimEntity, ...] = ()
    linked_tags: tuple[LinkedTag, ...] = ()
    triples: Triples
    extensions: Mapping[int | str, object] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The tag identifier as text."""
        return tag_id_text(self.tag_id)

    @classmethod
    def decode(cls, data: bytes, *, limits: Limits = RIM_LIMITS) -> Comid:
        """Decode the content of tag 506.

        Checks the form only: not that keys are keys, nor what a profile demands.

        Raises:
            DecodeError: naming the member, such as "triples.reference[0].environment".
            LimitExceededError: too long, too deep, too many members.
        """
        return cls.from_node(Node(cbor.decode(data, format="CoMID", limits=limits), format="CoMID"))

    @classmethod
    def from_node(cls, node: Node) -> Comid:
        """Decode a concise-mid-tag map that is already CBOR-decoded."""
        identity = node.member(1, "tag-identity")
        identity.only(frozenset({0, 1}))
        version = identity.optional(1, "tag-version")
        language = node.optional(0, "language")
        entities = node.optional(2, "entities")
        linked_tags = node.optional(3, "linked-tags")
        return cls(
            tag_id=decode_tag_id(identity.member(0, "tag-id")),
            tag_version=version.unsigned() if version else 0,
            language=language.text(maximum=64) if language else None,
            entities=(
                tuple(decode_entity(each) for each in entities.elements(maximum=_MAX_ENTITIES))
                if entities
                else ()
            ),
            linked_tags=(
                tuple(_decode_link(each) for each in linked_tags.elements(maximum=_MAX_LINKED_TAGS))
                if linked_tags
                else ()
            ),
            triples=decode_triples(node.member(4, "triples")),
            extensions=node.extensions(_KEYS),
        )

    def to_cbor(self) -> dict[int | str, object]:
        """Return the concise-mid-tag map."""
        identity: dict[int, object] = {0: self.tag_id}
        if self.tag_version:
            identity[1] = self.tag_version
        encoded: dict[int | str, object] = {1: identity, 4: self.triples.to_cbor()}
        if self.language is not None:
            encoded[0] = self.language
        if self.entities:
            encoded[2] = [each.to_cbor() for each in self.entities]
        if self.linked_tags:
            encoded[3] = [each.to_cbor() for each in self.linked_tags]
        return encoded | dict(self.extensions)

    def encode(self) -> bytes:
        """Encode deterministically."""
        return cbor.encode(self.to_cbor())


def _decode_link(node: Node) -> LinkedTag:
    node.only(frozenset({0, 1}))
    return LinkedTag(
        decode_tag_id(node.member(0, "linked-tag-id")), node.member(1, "tag-rel").integer()
    )
