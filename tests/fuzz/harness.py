# SPDX-License-Identifier: Apache-2.0
"""The fuzzer: sample inputs, mutations of them, and the invariant."""

from __future__ import annotations

import os
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzz.mutation import mutate
from troth.errors import DecodeError, TrothError

_ROOT = Path(__file__).resolve().parents[2]
_LARGEST_SAMPLE = 65_536
_KEPT = 256


@dataclass(frozen=True)
class Target:
    """One decoder under test.

    Attributes:
        name: how it is chosen on the command line.
        decode: takes octets; what it returns does not matter.
        samples: inputs to start from.
        allowed: the exceptions that octets may cause, DecodeError unless it also verifies.
    """

    name: str
    decode: Callable[[bytes], object]
    samples: Sequence[bytes] = ()
    allowed: type[TrothError] | tuple[type[TrothError], ...] = DecodeError


@dataclass
class Outcome:
    """What one run over one target found.

    Attributes:
        target: its name.
        runs: inputs tried.
        accepted: how many of them decoded.
        failures: inputs that broke the invariant, each with what happened.
        slowest: the input that took the most CPU time.
        slowest_seconds: what it took when run again, the best of several.
        peak_bytes: the memory that it took at its peak.
    """

    target: str
    runs: int = 0
    accepted: int = 0
    failures: list[tuple[bytes, str]] = field(default_factory=list)
    slowest: bytes = b""
    slowest_seconds: float = 0.0
    peak_bytes: int = 0


def files(pattern: str) -> list[bytes]:
    """Return the shared vectors whose path matches, such as "psa/**/*.cose"; none if absent."""
    base = Path(os.environ.get("TROTH_VECTORS") or _ROOT.parent / "shared" / "vectors")
    found = sorted(path for path in base.glob(pattern) if path.is_file())
    return [path.read_bytes() for path in found if path.stat().st_size <= _LARGEST_SAMPLE]


def fuzz(target: Target, *, seed: int, go_on: Callable[[int], bool]) -> Outcome:
    """Run one target until `go_on`, told how many inputs there were, says no.

    An input that decodes joins the samples, so mutations pile up on what the decoder takes.
    """
    random = Random(f"{seed}:{target.name}")  # noqa: S311 - a repeatable run is the point
    outcome = Outcome(target.name)
    samples = [*target.samples] or [b"\x00"]
    longest = 0.0
    for data in _inputs(samples, random, outcome, go_on):
        started = time.process_time()
        accepted = _holds(target, data, outcome)
        took = time.process_time() - started
        if took > longest:
            longest, outcome.slowest = took, data
        if accepted:
            outcome.accepted += 1
            if len(samples) < len(target.samples) + _KEPT:
                samples.append(data)
            else:
                samples[random.randrange(len(target.samples), len(samples))] = data
    _measure(target, outcome)
    return outcome


def _inputs(
    samples: list[bytes], random: Random, outcome: Outcome, go_on: Callable[[int], bool]
) -> Iterator[bytes]:
    for sample in tuple(samples):
        outcome.runs += 1
        yield sample
    while go_on(outcome.runs):
        outcome.runs += 1
        yield mutate(random.choice(samples), samples, random)


def _holds(target: Target, data: bytes, outcome: Outcome) -> bool:
    """Try one input; return whether it was accepted, and note it if it broke the invariant."""
    try:
        target.decode(data)
    except target.allowed:
        return False
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt):
            raise
        outcome.failures.append((data, "".join(traceback.format_exception(exc, limit=-4))))
        return False
    return True


def _measure(target: Target, outcome: Outcome) -> None:
    scratch = Outcome(target.name)
    times = []
    for _ in range(5):
        started = time.process_time()
        _holds(target, outcome.slowest, scratch)
        times.append(time.process_time() - started)
    outcome.slowest_seconds = min(times)
    tracemalloc.start()
    _holds(target, outcome.slowest, scratch)
    outcome.peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
