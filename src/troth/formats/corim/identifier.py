# SPDX-License-Identifier: Apache-2.0
"""Tagged identifiers and keys: class ids, instance ids, group ids and the key choices.

They stay `Tag` values: the tag says what the content is, comparison is that of the tagged item,
and a tag that this module does not know is kept as it came, since every one of these choices is
an extension point of the draft. The content under a known tag is checked for its form only; that
a key is a key is seen when it becomes a trust anchor.

Source: draft-ietf-rats-corim (0b855af) "Environments", "Crypto Keys", "Common Types".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.node import Node

__all__ = [
    "Digest",
    "decode_digest",
    "decode_digests",
    "decode_identifier",
    "decode_keys",
    "encode_digests",
]

MAX_DIGESTS: Final = 16
"""Digests of one object: one for each hash algorithm, and twelve are registered."""

MAX_KEYS: Final = 64
"""Keys in one list."""

_TEXT: Final = frozenset({tags.KEY, tags.CERTIFICATE, tags.CERTIFICATE_PATH})
_DIGEST: Final = frozenset(
    {tags.KEY_THUMBPRINT, tags.CERTIFICATE_THUMBPRINT, tags.CERTIFICATE_PATH_THUMBPRINT}
)


@dataclass(frozen=True, slots=True)
class Digest:
    """One digest with its algorithm as it was written.

    Attributes:
        algorithm: number or name of the Named Information registry, or another name.
        value: the digest. Its length is not compared with the algorithm's here.
    """

    algorithm: int | str
    value: bytes

    @property
    def name(self) -> str:
        """The algorithm under its one name, such as "sha-256"."""
        return tags.hash_name(self.algorithm)


def decode_digest(node: Node) -> Digest:
    """Decode [algorithm, value]."""
    algorithm, value = node.pair("algorithm", "value")
    kind = algorithm.value
    name = algorithm.text(maximum=64) if isinstance(kind, str) else algorithm.integer()
    return Digest(name, value.octets(maximum=64))


def decode_digests(node: Node) -> tuple[Digest, ...]:
    """Decode a list of digests of one object, each by another algorithm.

    Two digests by one algorithm are refused: "each entry MUST have a unique alg value".
    """
    digests = tuple(decode_digest(each) for each in node.elements(maximum=MAX_DIGESTS))
    names = [digest.name for digest in digests]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise node.element(index, None).error(f"a second digest by {name}")
    return digests


def encode_digests(digests: tuple[Digest, ...]) -> list[object]:
    """Return the list that `decode_digests` takes."""
    return [[digest.algorithm, digest.value] for digest in digests]


def decode_identifier(node: Node) -> Tag:
    """Decode a class, instance or group identifier, or a key."""
    tag = node.tag()
    number = tag.number
    content = node.tagged(number)
    if number == tags.UUID:
        content.octets(minimum=16, maximum=16)
    elif number == tags.UEID:
        content.octets(minimum=7, maximum=33)
    elif number in {tags.OID, tags.BYTES, tags.CERTIFICATE_DER}:
        content.octets()
    elif number in _TEXT:
        content.text()
    elif number in _DIGEST:
        decode_digest(content)
    elif number == tags.COSE_KEY:
        content.entries()
    return tag


def decode_keys(node: Node) -> tuple[Tag, ...]:
    """Decode a list of one or more keys, thumbprints or key identifiers."""
    return tuple(decode_identifier(each) for each in node.elements(maximum=MAX_KEYS))
