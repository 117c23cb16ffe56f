# SPDX-License-Identifier: Apache-2.0
"""What comes next in the feed, what came already, and what is missing."""

from __future__ import annotations

import pytest

from support.members import NOW
from troth.mesh.event import Event, FeedMessage, Heartbeat, Snapshot
from troth.mesh.feed_order import Placed, place
from troth.mesh.member import Member
from troth.mesh.node import NodeState

MEMBER = Member(
    node_id="n1",
    spiffe_id="spiffe://example.org/edge",
    state=NodeState.ADMITTED,
    reason=None,
    generation=1,
)


def event(sequence: int) -> Event:
    return Event(sequence=sequence, at=NOW, member=MEMBER)


@pytest.mark.parametrize(
    ("message", "known", "first", "placed"),
    [
        (event(4), 3, False, Placed.TAKE),
        (event(4), 3, True, Placed.TAKE),
        (event(3), 3, False, Placed.SKIP),
        (event(5), 3, False, Placed.LOST),
        (event(1), None, True, Placed.LOST),
        (Heartbeat(sequence=3), 3, False, Placed.TAKE),
        (Heartbeat(sequence=4), 3, False, Placed.LOST),
        (Heartbeat(sequence=2), 3, False, Placed.LOST),
        (Heartbeat(sequence=0), None, True, Placed.LOST),
        (Snapshot(sequence=9, members=()), None, True, Placed.TAKE),
        (Snapshot(sequence=2, members=()), 3, True, Placed.TAKE),
        (Snapshot(sequence=2, members=()), 3, False, Placed.LOST),
    ],
)
def test_a_message_is_placed_by_its_number(
    message: FeedMessage,
    known: int | None,
    first: bool,  # noqa: FBT001 - a column of the table
    placed: Placed,
) -> None:
    assert place(message, known=known, first=first) is placed
