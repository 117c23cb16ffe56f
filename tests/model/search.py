# SPDX-License-Identifier: Apache-2.0
"""Visit every world that can be reached, nearest first, and check the invariants in each.

I1  No SVID without an affirming result of the present epoch, nor for a boot session that was
    replaced, nor beside a copy that has shown itself. Checked when one is issued.
I2  One membership: generations only grow, the events in order give the registry's states, and
    who has read the feed up to event n knows exactly what the registry said then.
I3  A connection begins only where each side's own policy is met. Checked when one begins.
I4  No connection outlives the last SVID, the result, or the age that the policy allows.
I5  An expelled node gets no SVID, and whoever loses its membership loses its connections with
    honest peers within the feed's longest silence, plus the time that the feed may be late.
"""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import dataclass

from model.moves import evil, moves
from model.world import AGE_TICKS, RESULT_TICKS, SILENCE_TICKS, Rules, World, membership


@dataclass(frozen=True)
class Report:
    """What a search found.

    Attributes:
        worlds, steps: how much was visited.
        broke: the invariant that does not hold, or "".
        trace: a shortest way there.
        linked: worlds in which the nodes are connected.
    """

    worlds: int
    steps: int
    broke: str = ""
    trace: tuple[str, ...] = ()
    linked: int = 0

    def __str__(self) -> str:
        if not self.broke:
            return f"{self.worlds} worlds, {self.steps} steps: I1 to I5 hold"
        lines = [f"{number:3} {label}" for number, label in enumerate(self.trace, 1)]
        return "\n".join([self.broke, *lines])


class TooLargeError(Exception):
    """There are more worlds than were allowed: nothing is proved."""


def search(start: World, rules: Rules | None = None, *, most: int = 5_000_000) -> Report:
    """Visit every world that `start` and its budget lead to, or stop at the first that breaks an invariant.

    Raises:
        TooLargeError: there are more than `most`.
    """
    collects = gc.isenabled()
    gc.disable()  # there are millions of tuples and not one cycle
    try:
        return _search(start, rules or Rules(), most)
    finally:
        if collects:
            gc.enable()


def _search(start: World, rules: Rules, most: int) -> Report:
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    waiting = deque([start])
    steps = linked = 0
    while waiting:
        world = waiting.popleft()
        for move in moves(world, rules):
            steps += 1
            broke = move.broke
            if move.world not in came_from:
                came_from[move.world] = (world, move.label)
                waiting.append(move.world)
                linked += move.world.linked
                broke = broke or broken(move.world, rules)
            if broke:
                trace = (*_trace(came_from, world), move.label)
                return Report(len(came_from), steps, broke, trace)
        if len(came_from) > most:
            raise TooLargeError(f"more than {most} worlds")
    return Report(len(came_from), steps, linked=linked)


def broken(world: World, rules: Rules) -> str:
    """Return which of the invariants of a single world does not hold, or ""."""
    return _membership(world) or (_connection(world, rules) if world.linked else "")


def _membership(world: World) -> str:
    last = [-1, -1]
    for entry in world.log:
        if entry.seen.generation <= last[entry.node]:
            return f"I2: the generation of node {entry.node} does not grow"
        last[entry.node] = entry.seen.generation
    for node in (0, 1):
        if membership(world.log, node).state is not world.records[node].state:
            return f"I2: the feed does not say what the registry says about node {node}"
        if world.truths[node].expelled and world.records[node].state not in ("expelled", "retired"):
            return f"I2: node {node} came back from expulsion"
    for side, reader in enumerate(world.readers):
        if reader.known is not None:
            said = membership(world.log[: reader.known], 1 - side)
            if reader.view != said:
                return f"I2: agent {side} is at event {reader.known} and knows something else"
    return ""


def _connection(world: World, rules: Rules) -> str:
    for side in (0, 1):
        if evil(world, side):
            continue
        truth = world.truths[1 - side]
        if truth.issued is None:
            return f"I3: node {side} talks with one that never had an SVID"
        not_after, result = truth.issued
        if world.now >= min(not_after, result.issued + RESULT_TICKS, result.issued + AGE_TICKS):
            return f"I4: the connection of node {side} outlived what it was admitted on"
        bound = SILENCE_TICKS + rules.late_ticks
        if truth.lost_at is not None and world.now - truth.lost_at >= bound:
            return f"I5: node {side} still talks with one that lost its membership"
    return ""


def _trace(came_from: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    labels = []
    step = came_from[world]
    while step is not None:
        world, label = step
        labels.append(label)
        step = came_from[world]
    return tuple(reversed(labels))
