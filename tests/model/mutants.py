# SPDX-License-Identifier: Apache-2.0
"""Rules with one thing wrong in each; the search has to find what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from model.world import START, Budget, Rules, World, joined
from troth.mesh.event import FeedMessage, Heartbeat
from troth.mesh.feed_order import Placed, place
from troth.mesh.node import TRANSITIONS, NodeState, Transition, Trigger
from troth.mesh.peer_policy import Peer, PeerPolicy, authorize

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """What is wrong, where it shows, and the invariant that it breaks."""

    rules: Rules
    start: World
    breaks: str


def _table(trigger: Trigger, **changes: Any) -> tuple[Transition, ...]:
    return tuple(replace(row, **changes) if row.trigger is trigger else row for row in TRANSITIONS)


def _peer(change: Callable[[Peer], Peer]) -> Callable[[Peer, PeerPolicy, datetime], bool]:
    def decide(peer: Peer, policy: PeerPolicy, now: datetime) -> bool:
        return authorize(change(peer), policy, now=now).admitted

    return decide


def _verifier_ignored(peer: Peer) -> Peer:
    return replace(peer, result=replace(peer.result, verifier="central") if peer.result else None)


def _at_the_start(peer: Peer, policy: PeerPolicy, _: datetime) -> bool:
    return authorize(peer, policy, now=START).admitted


def _gaps_ignored(message: FeedMessage, known: int | None, first: bool) -> Placed:  # noqa: FBT001
    placed = place(message, known=known, first=first)
    later = known is not None and message.sequence > known
    return Placed.TAKE if placed is Placed.LOST and later else placed


def _heartbeats_believed(message: FeedMessage, known: int | None, first: bool) -> Placed:  # noqa: FBT001
    if isinstance(message, Heartbeat) and known is not None:
        return Placed.SKIP if message.sequence == known else Placed.TAKE
    return place(message, known=known, first=first)


def _old_snapshots(message: FeedMessage, known: int | None, first: bool) -> Placed:  # noqa: FBT001, ARG001
    return place(message, known=known, first=True)


def _last_one_wins(message: FeedMessage, known: int | None, first: bool) -> Placed:  # noqa: FBT001, ARG001
    return Placed.TAKE


_JOINS = World(left=Budget(joins=2))
_EXPULSION = joined(Budget(ticks=1, operator=1))

MUTANTS: Mapping[str, Mutant] = {
    "expel leads to where one may come back from": Mutant(
        Rules(table=_table(Trigger.EXPEL, target=NodeState.REGISTERED)),
        World(left=Budget(joins=1, operator=1)),
        "I2",
    ),
    "an SVID is issued without comparing what was read": Mutant(
        Rules(compares_generation=False, applies_to_present_state=False),
        World(left=Budget(joins=1, operator=1)),
        "I5",
    ),
    "the epoch is not compared": Mutant(
        Rules(compares_epoch=False), World(left=Budget(joins=1, withdrawals=1)), "I1"
    ),
    "a withdrawn value changes nothing": Mutant(
        Rules(table=_table(Trigger.QUARANTINE, target=NodeState.DEGRADED)),
        World(left=Budget(joins=1, withdrawals=1)),
        "I1",
    ),
    "a copied key holds only who shows it": Mutant(
        Rules(holds_both=False), World(left=Budget(joins=2, thefts=1)), "I1"
    ),
    "a hold is no quarantine": Mutant(
        Rules(table=_table(Trigger.HOLD, target=NodeState.DEGRADED)),
        World(left=Budget(joins=2, thefts=1)),
        "I1",
    ),
    "a relying party overlooks gaps in the feed": Mutant(Rules(place=_gaps_ignored), _JOINS, "I2"),
    "a relying party believes any heartbeat": Mutant(
        Rules(place=_heartbeats_believed), _JOINS, "I2"
    ),
    "a relying party takes old snapshots": Mutant(Rules(place=_old_snapshots), _JOINS, "I2"),
    "a relying party takes whatever comes last": Mutant(Rules(place=_last_one_wins), _JOINS, "I2"),
    "a relying party goes on while the feed is silent": Mutant(
        Rules(heeds_silence=False), _EXPULSION, "I5"
    ),
    "a relying party does not look at the state": Mutant(
        Rules(authorize=_peer(lambda peer: replace(peer, state=None))), _EXPULSION, "I3"
    ),
    "a relying party believes every Verifier": Mutant(
        Rules(authorize=_peer(_verifier_ignored)), _JOINS, "I3"
    ),
    "a relying party's clock stands still": Mutant(
        Rules(authorize=_at_the_start), joined(Budget(ticks=2)), "I4"
    ),
}
