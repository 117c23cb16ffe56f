# SPDX-License-Identifier: Apache-2.0
"""What a reader of the feed does with the next message, by its number.

The feed is a gap-free sequence, so a reader that knows event n can tell what n + 1 is, what it has
had already, and that something is missing. Only a message that is taken proves that the feed is
alive: a repetition could be an old one.

tests/model explores this rule together with the table of node transitions.
"""

from __future__ import annotations

from enum import StrEnum

from troth.mesh.event import Event, FeedMessage, Snapshot

__all__ = ["Placed", "place"]


class Placed(StrEnum):
    """What to do with a message."""

    TAKE = "take"
    SKIP = "skip"
    LOST = "lost"


def place(message: FeedMessage, *, known: int | None, first: bool) -> Placed:
    """Say what to do with `message`.

    Args:
        message: as it came.
        known: number of the last event that was taken, or None where a snapshot is needed.
        first: it is the first message on its connection.

    Returns:
        TAKE: it is what comes next. SKIP: it is known already. LOST: something is missing; forget
        `known`, and ask for a snapshot on a new connection.
    """
    if isinstance(message, Snapshot):
        # A server sends one at the start only. Later it is an old one that came again, and would
        # bring back who has been expelled since.
        return Placed.TAKE if first else Placed.LOST
    if known is None:
        return Placed.LOST
    if isinstance(message, Event):
        if message.sequence <= known:
            return Placed.SKIP
        return Placed.TAKE if message.sequence == known + 1 else Placed.LOST
    return Placed.TAKE if message.sequence == known else Placed.LOST
