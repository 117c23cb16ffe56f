# SPDX-License-Identifier: Apache-2.0
"""Identifiers of what was provisioned: "<CoRIM id>/<tag id>#<n>" and their prefixes."""

from __future__ import annotations

from troth.formats.corim.node import Node

__all__ = [
    "corim_identifier",
    "state_identifier",
    "tag_identifier",
    "tag_suffix",
    "value_identifier",
]

# The identifiers inside are free text of an Endorser, who must not be able to name one thing so
# that it reads as another.
_ESCAPES = str.maketrans({"%": "%25", "/": "%2F", "#": "%23"})


def corim_identifier(corim_id: str, place: Node) -> str:
    """Return the identifier under which a whole CoRIM is listed and withdrawn.

    Raises:
        DecodeError: characters that do not print, which would forge lines in a log.
    """
    if not corim_id.isprintable():
        raise place.error("an identifier with characters that do not print")
    return corim_id.translate(_ESCAPES)


def tag_identifier(corim: str, tag_id: str, place: Node) -> str:
    """Return the identifier of one tag.

    Raises:
        DecodeError: as `corim_identifier`.
    """
    return f"{corim}/{corim_identifier(tag_id, place)}"


def value_identifier(tag: str, number: int, *, kind: str = "") -> str:
    """Return the identifier of the `number`-th value ("") or key ("key") of a tag."""
    return f"{tag}#{kind}{number}"


def state_identifier(tag: str, index: int) -> str:
    """Return the identifier of the `index`-th reference triple of a tag."""
    return f"{tag}#state{index}"


def tag_suffix(tag: str) -> str:
    """Return the part of a tag's identifier that names the tag, whichever CoRIM it is in."""
    return tag.partition("/")[2]
