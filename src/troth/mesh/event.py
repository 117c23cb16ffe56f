# SPDX-License-Identifier: Apache-2.0
"""The feed: what the server tells agents, in order and without gaps.

Each state change has the next number. A reader that misses a number, or is told a number lower
than one it knows, has lost something: it asks for a snapshot and starts over from there. Events
may come twice; a member's generation says which one is newer.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from troth.errors import DecodeError
from troth.mesh.member import Member

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Event",
    "FeedMessage",
    "Heartbeat",
    "Snapshot",
    "decode_message",
    "encode_message",
]

# One line of the feed. A snapshot of 20,000 members with results is the largest thing sent.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="node", tag_field="type"):
    """A member changed.

    Attributes:
        sequence: its number; the one before it is one less.
        at: when the server committed it.
        member: the member as it is since then.
    """

    sequence: int
    at: datetime
    member: Member


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot", tag_field="type"):
    """All members as of `sequence`. What is not in it does not exist."""

    sequence: int
    members: tuple[Member, ...]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat", tag_field="type"):
    """The server is there, and `sequence` is the last number that it gave out."""

    sequence: int


FeedMessage = Event | Snapshot | Heartbeat

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(FeedMessage)


def encode_message(message: FeedMessage) -> bytes:
    """Return one line of the feed, with its line end."""
    return _ENCODER.encode(message) + b"\n"


def decode_message(line: bytes) -> FeedMessage:
    """Decode one line of the feed.

    Raises:
        DecodeError: not such a line.
    """
    try:
        message: FeedMessage = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DecodeError(str(exc), format="feed message") from exc
    return message
