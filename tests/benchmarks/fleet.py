# SPDX-License-Identifier: Apache-2.0
"""A fleet of 200,000 nodes through an outage of the Verifier, simulated on the real rules.

Time and the network are simulated. When a node renews, when it tries again, what the server's
limits let through and which state a lapsed node is in, are decided by the functions that run:
`refresh_after`, `retry_seconds`, `RateLimiter` and `follow`.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.harness import Table
from benchmarks.picture import Curve, draw
from troth.control_plane.server.rate_limit import Rate, RateLimiter
from troth.mesh.deadline import REFRESH_FRACTION, refresh_after
from troth.mesh.node import Actor, Facts, NodeState, Reason, Trigger, follow
from troth.mesh.renewal import retry_seconds
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier

__all__ = ["Fleet", "Outcome", "fleet", "simulate"]

_NODES = 200_000
_PICTURES = Path(__file__).parents[2] / "docs" / "images"
_START = datetime(2026, 1, 1, tzinfo=UTC)
_FRESH = Facts(
    evidence_authentic=True,
    result_affirming=True,
    key_bound=True,
    boot_recorded=True,
    boot_unchanged=True,
    tier_reached=True,
    entry_matches=True,
    epoch_current=True,
)
# What one server of two cores is given here, as a multiple of the fleet's mean demand.
_ROOM = 1.5
# Fewer lapsed nodes than this share count as none.
_FEW = 0.001


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is simulated.

    Attributes:
        nodes: how many.
        life: of one result, seconds.
        outage: for how long nobody appraises, seconds.
        fraction: of the life after which a node renews; None for what Troth does.
        minutes: how long the simulation runs after the fleet has settled.
    """

    nodes: int = _NODES
    life: float = DEFAULT_LIFETIMES[Tier.MEASURED].result.total_seconds()
    outage: float = 1800.0
    fraction: float | None = None
    minutes: int = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened, per minute from the start of the outage.

    Attributes:
        lapsed: share of nodes without a result in force, at the end of each minute.
        demand: attempts in each minute, as a multiple of the mean of quiet times.
        ever: share of nodes that lapsed at any time.
        recovered: minutes from the end of the outage until fewer than one in a thousand lapse.
    """

    lapsed: Sequence[float]
    demand: Sequence[float]
    ever: float
    recovered: int | None


def fleet() -> list[Table]:
    """Run the outages, draw the curves, and say what they come to."""
    named = {
        "outage of 15 min": Fleet(outage=900),
        "outage of 30 min": Fleet(),
        "outage of 30 min, if nodes renewed at 1/2": Fleet(fraction=0.5),
        "outage of 60 min": Fleet(outage=3600, minutes=180),
    }
    outcomes = {
        name: simulate(wanted, random.Random(1))  # noqa: S311 - a simulation, the same each time
        for name, wanted in named.items()
    }
    facts = [("nodes; life of a result; room", f"{_NODES:,}; 1 h; {_ROOM} of the mean demand")]
    for name, outcome in outcomes.items():
        words = (
            f"{outcome.ever:.2%} of nodes lapse; attempts peak at {max(outcome.demand):.1f} times"
            f" the mean; all renewed {_minutes(outcome.recovered)} after its end"
        )
        facts.append((name, words))
    for file, title, unit, part in (
        ("fleet-lapsed.svg", "Nodes without a result in force", "%", _lapsed),
        ("fleet-demand.svg", "Attempts to renew, as a multiple of the mean", "x", _demand),
    ):
        curves = [Curve(name, part(outcome)) for name, outcome in outcomes.items()]
        (_PICTURES / file).write_text(draw(title, curves, unit=unit), encoding="utf-8")
    return [Table(title="A fleet through an outage of the Verifier (simulated)", facts=facts)]


def _lapsed(outcome: Outcome) -> list[float]:
    return [100 * share for share in outcome.lapsed]


def _demand(outcome: Outcome) -> list[float]:
    return list(outcome.demand)


def _minutes(count: int | None) -> str:
    return "not" if count is None else f"{count} min"


def simulate(wanted: Fleet, chance: random.Random) -> Outcome:
    """Run one fleet. The same `chance` gives the same outcome."""
    return _Run(wanted, chance).outcome()


class _Run:
    """Nodes by the second in which they act next; a second is short against all that is asked."""

    def __init__(self, wanted: Fleet, chance: random.Random) -> None:
        self.wanted, self.chance = wanted, chance
        self.settle = int(wanted.life)
        self.end = self.settle + wanted.minutes * 60
        self.expires = array("d", [0.0]) * wanted.nodes
        self.failed = array("i", [0]) * wanted.nodes
        self.states = [NodeState.ADMITTED] * wanted.nodes
        self.acting: list[list[int]] = [[] for _ in range(self.end + 1)]
        self.lapsing: list[list[int]] = [[] for _ in range(self.end + 1)]
        mean = wanted.nodes / (wanted.life * (wanted.fraction or REFRESH_FRACTION))
        self.mean = mean
        room = Rate(per_second=_ROOM * mean, burst=max(int(_ROOM * mean), 1))
        # One address for each node, so what all may do together is what binds.
        self.limiter = RateLimiter(each=Rate(per_second=10.0, burst=40), together=room)
        self.ever: set[int] = set()
        for node in range(wanted.nodes):
            self._renewed(node, chance.uniform(-wanted.life / 3, 0.0), first=True)

    def _renewed(self, node: int, at: float, *, first: bool = False) -> None:
        life = self.wanted.life
        self.failed[node] = 0
        self.expires[node] = at + life
        if self.states[node] is not NodeState.ADMITTED:
            self.states[node] = follow(
                self.states[node],
                Trigger.RECOVER,
                reason=Reason.RESULT_AFFIRMING,
                actor=Actor.SERVER,
                facts=_FRESH,
            )
        self._at(self.lapsing, at + life, node)
        wait = self._refresh()
        self._at(self.acting, max(at + wait, 0.0) if first else at + wait, node)

    def _refresh(self) -> float:
        if self.wanted.fraction is not None:
            return self.wanted.life * self.wanted.fraction * self.chance.uniform(0.9, 1.1)
        issued, expires = _START, _START + timedelta(seconds=self.wanted.life)
        jitter = 2 * self.chance.random() - 1
        return refresh_after(issued=issued, expires=expires, jitter=jitter).total_seconds()

    def _at(self, when: list[list[int]], second: float, node: int) -> None:
        number = int(second) + 1
        if number <= self.end:
            when[number].append(node)

    def outcome(self) -> Outcome:
        lapsed, demand, attempts = [], [], 0
        for second in range(1, self.end + 1):
            attempts += len(self.acting[second])
            for node in self.acting[second]:
                self._attempt(node, second)
            self.acting[second] = []
            for node in self.lapsing[second]:
                self._lapse(node, second)
            self.lapsing[second] = []
            if second > self.settle and (second - self.settle) % 60 == 0:
                gone = sum(state is not NodeState.ADMITTED for state in self.states)
                lapsed.append(gone / self.wanted.nodes)
                demand.append(attempts / 60 / self.mean)
                attempts = 0
            elif second <= self.settle:
                attempts = 0
        return Outcome(
            lapsed=lapsed,
            demand=demand,
            ever=len(self.ever) / self.wanted.nodes,
            recovered=_recovered(lapsed, int(self.wanted.outage / 60)),
        )

    def _attempt(self, node: int, second: int) -> None:
        away = self.settle < second <= self.settle + self.wanted.outage
        told: float | None = None
        if not away:
            wait = self.limiter.take(str(node), monotonic=float(second))
            if not wait:
                self._renewed(node, float(second))
                return
            told = float(int(wait) + 1)  # the server's answer is in whole seconds
        self.failed[node] += 1
        again = retry_seconds(self.failed[node], told=told, jitter=self.chance.random())
        self._at(self.acting, second + again, node)

    def _lapse(self, node: int, second: int) -> None:
        if self.expires[node] > second or self.states[node] is not NodeState.ADMITTED:
            return
        self.states[node] = follow(
            NodeState.ADMITTED, Trigger.DEGRADE, reason=Reason.RESULT_STALE, actor=Actor.SERVER
        )
        self.ever.add(node)


def _recovered(lapsed: Sequence[float], end: int) -> int | None:
    for minute in range(end, len(lapsed)):
        if max(lapsed[minute:]) < _FEW:
            return minute - end
    return None
