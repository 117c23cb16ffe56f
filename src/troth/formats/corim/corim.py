# SPDX-License-Identifier: Apache-2.0
"""CoRIM: a set of tags with identity, profile and validity.

Source: draft-ietf-rats-corim (0b855af) "Concise Reference Integrity Manifest (CoRIM)".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from troth.errors import LimitExceededError
from troth.formats import cbor
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.comid import Comid
from troth.formats.corim.common import (
    CorimEntity,
    Validity,
    decode_entity,
    decode_tag_id,
    decode_validity,
    tag_id_text,
)
from troth.formats.corim.identifier import Digest, decode_digest
from troth.formats.corim.node import Node
from troth.formats.limits import RIM_LIMITS, Limits

__all__ = ["MAX_TAGS", "MEDIA_TYPE", "Corim", "Locator", "OpaqueTag"]

MEDIA_TYPE: Final = "application/rim+cbor"

MAX_TAGS: Final = 256
"""Tags in one CoRIM."""

_KEYS: Final = frozenset(range(6))
_MAX_URI: Final = 2048
_NAMES: Final = {tags.COSWID: "CoSWID", tags.COTL: "CoTL"}


@dataclass(frozen=True, slots=True)
class OpaqueTag:
    """A tag that Troth keeps and does not read: CoSWID (505), CoTL (508), or an unknown one.

    Attributes:
        number: its CBOR tag number.
        content: what it holds, uninterpreted.
    """

    number: int
    content: object

    @property
    def kind(self) -> str:
        """The name of this kind of tag."""
        return _NAMES.get(self.number, f"tag {self.number}")


@dataclass(frozen=True, slots=True)
class Locator:
    """Where related manifests are; advice that Troth never follows by itself.

    Attributes:
        hrefs: alternative URIs.
        thumbprints: digests of what is there; none where nothing is promised.
    """

    hrefs: tuple[str, ...]
    thumbprints: tuple[Digest, ...] = ()

    def to_cbor(self) -> dict[int, object]:
        """Return the corim-locator-map."""
        uris = [Tag(tags.URI, href) for href in self.hrefs]
        encoded: dict[int, object] = {0: uris if len(uris) > 1 else uris[0]}
        prints = [[each.algorithm, each.value] for each in self.thumbprints]
        if prints:
            encoded[1] = prints if len(prints) > 1 else prints[0]
        return encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Corim:
    """One CoRIM, as decoded. Nothing in it is authentic by itself.

    Attributes:
        corim_id: text or the 16 octets of a UUID.
        tags: CoMIDs, and tags of other kinds as `OpaqueTag`, in their order.
        profile: a URI as text, an OID as Tag(111, …), or None. Whether Troth knows it is seen
            when the CoRIM is provisioned; a CoRIM of any profile can be shown.
        validity: when it may be used, or None where it does not say.
        entities: who made it.
        dependent_rims: related manifests.
        extensions: members that a profile adds, uninterpreted.
    """

    corim_id: str | bytes
    tags: tuple[Comid | OpaqueTag, ...]
    profile: str | Tag | None = None
    validity: Validity | None = None
    entities: tuple[CorimEntity, ...] = ()
    dependent_rims: tuple[Locator, ...] = ()
    extensions: Mapping[int | str, object] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The identifier as text."""
        return tag_id_text(self.corim_id)

    @property
    def profile_name(self) -> str:
        """The profile as text, an OID as "oid:" and the hex of its encoding; "" where absent."""
        if isinstance(self.profile, Tag):
            value = self.profile.value
            return f"oid:{value.hex()}" if isinstance(value, bytes) else "oid"
        return self.profile or ""

    @classmethod
    def decode(cls, data: bytes, *, limits: Limits = RIM_LIMITS) -> Corim:
        """Decode an unsigned CoRIM (tag 501).

        Checks the form, within the limits, of everything that the base specification defines.
        Checks neither authenticity (`SignedCorim`) nor validity nor the profile's rules (when it
        is provisioned).

        Raises:
            DecodeError: naming the member, such as "tags[1].triples.attest-key[0].keys[0]".
            LimitExceededError: a limit was crossed.
        """
        node = Node(cbor.decode(data, format="CoRIM", limits=limits), format="CoRIM")
        tag = node.tag()
        if tag.number == 18:
            raise node.unsupported("a signed CoRIM where an unsigned one is expected")
        return cls.from_node(node.tagged(tags.CORIM), limits=limits)

    @classmethod
    def from_node(cls, node: Node, *, limits: Limits = RIM_LIMITS) -> Corim:
        """Decode a corim-map that is already CBOR-decoded."""
        profile = node.optional(3, "profile")
        validity = node.optional(4, "rim-validity")
        return cls(
            corim_id=decode_tag_id(node.member(0, "id")),
            tags=_decode_tags(node.member(1, "tags"), limits),
            profile=_decode_profile(profile) if profile else None,
            validity=decode_validity(validity) if validity else None,
            entities=tuple(decode_entity(each) for each in _list(node, 5, "entities")),
            dependent_rims=tuple(_locator(each) for each in _list(node, 2, "dependent-rims")),
            extensions=node.extensions(_KEYS),
        )

    def to_cbor(self) -> Tag:
        """Return the tagged corim-map."""
        encoded: dict[int | str, object] = {
            0: self.corim_id,
            1: [_encode_tag(each) for each in self.tags],
        }
        if self.dependent_rims:
            encoded[2] = [each.to_cbor() for each in self.dependent_rims]
        if self.profile is not None:
            profile = self.profile
            encoded[3] = profile if isinstance(profile, Tag) else Tag(tags.URI, profile)
        if self.validity is not None:
            encoded[4] = self.validity.to_cbor()
        if self.entities:
            encoded[5] = [each.to_cbor() for each in self.entities]
        return Tag(tags.CORIM, encoded | dict(self.extensions))

    def encode(self) -> bytes:
        """Encode deterministically, with tag 501."""
        return cbor.encode(self.to_cbor())


def _list(node: Node, key: int, name: str) -> list[Node]:
    member = node.optional(key, name)
    return member.elements(maximum=MAX_TAGS) if member else []


def _decode_tags(node: Node, limits: Limits) -> tuple[Comid | OpaqueTag, ...]:
    budget = _Budget(limits)
    return tuple(_decode_tag(each, budget) for each in node.elements(maximum=MAX_TAGS))


def _decode_tag(node: Node, budget: _Budget) -> Comid | OpaqueTag:
    tag = node.tag()
    if tag.number != tags.COMID:
        return OpaqueTag(tag.number, tag.value)
    content = node.tagged(tags.COMID).octets(maximum=budget.limits.max_bytes)
    value = cbor.decode(content, format=f"CoMID in {node.path}", limits=budget.remaining())
    budget.charge(value)
    return Comid.from_node(node.child("comid", value))


class _Budget:
    """Items that the tags of one CoRIM may have together.

    Each tag is CBOR inside a byte string and so a decoding of its own: without a common budget a
    file of many tags would cost many times the limit.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._items = limits.max_items

    def remaining(self) -> Limits:
        if self._items < 1:
            raise LimitExceededError(format="CoRIM", limit="max_items", value=self.limits.max_items)
        return Limits(
            max_bytes=self.limits.max_bytes,
            max_items=self._items,
            max_depth=self.limits.max_depth,
        )

    def charge(self, value: object) -> None:
        self._items -= _count(value)


def _count(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + _count(member) for member in value.values())
    if isinstance(value, list):
        return 1 + sum(_count(member) for member in value)
    if isinstance(value, Tag):
        return 1 + _count(value.value)
    return 1


def _encode_tag(tag: Comid | OpaqueTag) -> Tag:
    if isinstance(tag, OpaqueTag):
        return Tag(tag.number, tag.content)
    return Tag(tags.COMID, tag.encode())


def _decode_profile(node: Node) -> str | Tag:
    tag = node.tag()
    if tag.number == tags.URI:
        return node.tagged(tags.URI).text(maximum=_MAX_URI)
    node.tagged(tags.OID).octets(maximum=256)
    return tag


def _locator(node: Node) -> Locator:
    node.only(frozenset({0, 1}))
    href = node.member(0, "href")
    alternatives = [href] if isinstance(href.value, Tag) else href.elements(maximum=64)
    thumbprint = node.optional(1, "thumbprint")
    return Locator(
        tuple(each.tagged(tags.URI).text(maximum=_MAX_URI) for each in alternatives),
        _thumbprints(thumbprint) if thumbprint else (),
    )


def _thumbprints(node: Node) -> tuple[Digest, ...]:
    # One digest is [algorithm, octets], several are a list of such: the first member tells.
    first = node.elements()[0]
    if isinstance(first.value, int | str):
        return (decode_digest(node),)
    return tuple(decode_digest(each) for each in node.elements(maximum=64))
