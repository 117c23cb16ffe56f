# SPDX-License-Identifier: Apache-2.0
"""The feed: what the server tells agents, in order and without gaps.

Each state change has the next number. A reader that misses a number, or is told a number lower
than one it knows, has lost something: it asks for a snapshot and starts over from there. Events
may come twice; a member's generation says which one is newer.

Between them come notices, which have no number: each says how something is now, and comes again on
every new connection.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from troth.errors import DecodeError
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.member import Member

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Bundles",
    "EntriesChanged",
    "Event",
    "FeedMessage",
    "FeedNotice",
    "Heartbeat",
    "Snapshot",
    "decode_bundles",
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


class Bundles(msgspec.Struct, frozen=True, kw_only=True, tag="bundles", tag_field="type"):
    """All trust bundles, as they are now; they replace all that were known.

    Attributes:
        revision: grows with every change of any bundle.
        own: bundle of the server's own trust domain, as SPIFFE writes it.
        federated: the others, by the name of their trust domain.
    """

    revision: int
    own: str
    federated: dict[str, str]


class EntriesChanged(msgspec.Struct, frozen=True, kw_only=True, tag="entries", tag_field="type"):
    """Registration entries have this number now: ask again which workloads are this node's."""

    revision: int


FeedMessage = Event | Snapshot | Heartbeat
FeedNotice = Bundles | EntriesChanged

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(FeedMessage | FeedNotice)


def encode_message(message: FeedMessage | FeedNotice) -> bytes:
    """Return one line of the feed, with its line end."""
    return _ENCODER.encode(message) + b"\n"


def decode_message(line: bytes) -> FeedMessage | FeedNotice:
    """Decode one line of the feed.

    Raises:
        DecodeError: not such a line.
    """
    try:
        message: FeedMessage | FeedNotice = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DecodeError(str(exc), format="feed message") from exc
    return message


def decode_bundles(
    message: Bundles, trust_domain: TrustDomain
) -> tuple[TrustBundle, dict[TrustDomain, TrustBundle]]:
    """Return our own bundle and the others that the server knows.

    Raises:
        DecodeError: one of them cannot be read.
    """
    own = TrustBundle.decode(message.own.encode(), trust_domain=trust_domain)
    foreign: dict[TrustDomain, TrustBundle] = {}
    for name, text in message.federated.items():
        domain = TrustDomain(name)
        if domain != trust_domain:  # nobody else speaks for our own
            foreign[domain] = TrustBundle.decode(text.encode(), trust_domain=domain)
    return own, foreign
