# SPDX-License-Identifier: Apache-2.0
"""Compare a piece of work with its floor in one run.

Absolute numbers on shared machines drift; ratios measured side by side do not. So every case names
a floor (the bare signatures, plain TLS, a peer), cases and floors take turns in shuffled rounds,
and the medians are compared.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["Case", "Row", "Table", "machine", "measure"]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure.

    Attributes:
        name: what a reader sees.
        work: one operation, called again and again.
        floor: name of the case that it is compared with, or "" for a floor itself.
        aim: lowest ratio to the floor that the project set itself, or None.
        aim_per_second: lowest absolute rate that the project set itself, or None.
    """

    name: str
    work: Callable[[], object]
    floor: str = ""
    aim: float | None = None
    aim_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome for one case."""

    case: Case
    per_second: float
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Table:
    """A titled set of outcomes; free-form rows for what is not a rate."""

    title: str
    rows: Sequence[Row] = ()
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)

    def markdown(self) -> str:
        """Return the table as docs/reference/performance.md carries it."""
        lines = [f"### {self.title}", ""]
        if self.rows:
            lines += ["| case | per second | ratio to its floor | aim |", "|---|---|---|---|"]
            for row in self.rows:
                ratio = (
                    f"{row.ratio:.2f} of “{row.case.floor}”" if row.ratio is not None else "floor"
                )
                lines.append(f"| {row.case.name} | {row.per_second:,.0f} | {ratio} | {_aim(row)} |")
            lines.append("")
        if self.facts:
            lines += ["| what | measured |", "|---|---|"]
            lines += [f"| {name} | {value} |" for name, value in self.facts]
            lines.append("")
        return "\n".join(lines)


def _aim(row: Row) -> str:
    parts = []
    if row.case.aim is not None and row.ratio is not None:
        met = "met" if row.ratio >= row.case.aim else "missed"
        parts.append(f"≥ {row.case.aim:.2f}: {met}")
    if row.case.aim_per_second is not None:
        met = "met" if row.per_second >= row.case.aim_per_second else "missed"
        parts.append(f"≥ {row.case.aim_per_second:,.0f}/s: {met}")
    return "; ".join(parts)


def measure(
    title: str, cases: Sequence[Case], *, rounds: int = 7, seconds_per_cell: float = 0.25
) -> Table:
    """Run all cases in shuffled rounds and compare the medians."""
    rates: dict[str, list[float]] = {case.name: [] for case in cases}
    order = list(cases)
    shuffle = random.Random(1).shuffle  # noqa: S311 - an order, not a secret
    for case in cases:
        _rate(case.work, seconds_per_cell / 5)
    for _ in range(rounds):
        shuffle(order)
        for case in order:
            rates[case.name].append(_rate(case.work, seconds_per_cell))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return Table(
        title,
        tuple(
            Row(
                case,
                medians[case.name],
                medians[case.name] / medians[case.floor] if case.floor else None,
            )
            for case in cases
        ),
    )


def _rate(work: Callable[[], object], seconds: float) -> float:
    """Operations per second of CPU time of this thread."""
    count, batch = 0, 1
    begin = time.thread_time()
    while (spent := time.thread_time() - begin) < seconds:
        for _ in range(batch):
            work()
        count += batch
        batch = min(batch * 2, 64)
    return count / spent


def machine() -> str:
    """Describe the class of machine, not the machine."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return (
        f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}, "
        f"{datetime.now(UTC):%Y-%m-%d}"
    )
