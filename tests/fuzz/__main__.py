# SPDX-License-Identifier: Apache-2.0
"""Fuzz for a time: PYTHONPATH=tests python -m fuzz [--seconds N] [--seed N] [target …]."""

from __future__ import annotations

import argparse
import sys
import time

from fuzz.harness import Outcome, fuzz
from fuzz.targets import TARGETS


def main() -> int:
    """Share the time out among the targets; exit 1 if any input broke the invariant."""
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="to repeat a run")
    parser.add_argument("target", nargs="*", choices=[*names, []], help=", ".join(names))
    options = parser.parse_args()
    chosen = [target for target in TARGETS if target.name in (options.target or names)]
    sys.stdout.write(f"seed {options.seed}\n")
    failed = False
    for target in chosen:
        until = time.monotonic() + options.seconds / len(chosen)
        outcome = fuzz(
            target, seed=options.seed, go_on=lambda _, until=until: time.monotonic() < until
        )
        report(outcome)
        failed = failed or bool(outcome.failures)
    return 1 if failed else 0


def report(outcome: Outcome) -> None:
    """Print one target's numbers, and each kind of failure once with an input to repeat it."""
    sys.stdout.write(
        f"{outcome.target:20} {outcome.runs:9} inputs {outcome.accepted:8} accepted   slowest "
        f"{outcome.slowest_seconds * 1000:6.2f} ms  {outcome.peak_bytes / 1e6:6.2f} MB "
        f"({len(outcome.slowest)} bytes)  failures {len(outcome.failures)}\n"
    )
    for what, data in {what: data for data, what in outcome.failures}.items():
        sys.stdout.write(f"--- bytes.fromhex({data.hex()!r})\n{what}\n")


if __name__ == "__main__":
    sys.exit(main())
