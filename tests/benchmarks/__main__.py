# SPDX-License-Identifier: Apache-2.0
"""`make bench`: run every benchmark, or those named, and print Markdown tables.

make bench                          all
make bench BENCH_ARGS="mesh"        one
make bench BENCH_ARGS="--write"     all, into docs/reference/performance.md; or those named
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.harness import Table, machine

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "performance.md"

# name: module:function; imported when run, so that one that lacks its parts spoils no other.
_BENCHMARKS = {
    "appraisal": "benchmarks.appraisal:appraisal",
    "endorsements": "benchmarks.endorsements:endorsement_lookup",
    "fleet": "benchmarks.fleet:fleet",
    "intel": "benchmarks.intel:intel",
    "mesh": "benchmarks.mesh:mesh",
    "spiffe": "benchmarks.spiffe:spiffe",
    "tls": "benchmarks.tls:tls",
    "tpm2": "benchmarks.tpm2:tpm2",
    "vendor-schemes": "benchmarks.vendor_schemes:vendor_schemes",
    "verifier": "benchmarks.verifier_api:verifier_api",
}


def main() -> None:
    """Parse the command line, run, print, and with --write keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, prog="make bench")
    parser.add_argument(
        "names", nargs="*", choices=[*_BENCHMARKS, []], help="which; all by default"
    )
    parser.add_argument("--write", action="store_true", help=f"put the tables into {_PAGE.name}")
    arguments = parser.parse_args()
    print(where := f"Measured on {machine()}.", "", sep="\n", flush=True)
    for name in arguments.names or _BENCHMARKS:
        print(f"({name} …)", file=sys.stderr, flush=True)
        pages = [where, ""]
        for table in _tables(name):
            pages.append(table.markdown())
            print(pages[-1], flush=True)
        if arguments.write:
            _keep(name, "\n".join(pages))


def _keep(name: str, text: str) -> None:
    """Put what one benchmark measured into the page, in the place of what it measured before."""
    page, mark = _PAGE.read_text(encoding="utf-8"), f"<!-- measured: {name} -->\n"
    head, _, rest = page.partition(mark)
    following = rest.partition("<!-- measured: ")
    tail = "".join(following[1:])
    _PAGE.write_text(f"{head.rstrip()}\n\n{mark}\n{text.rstrip()}\n\n{tail}", encoding="utf-8")


def _tables(name: str) -> Iterable[Table]:
    module, _, function = _BENCHMARKS[name].partition(":")
    run: Callable[[], Table | list[Table]] = getattr(importlib.import_module(module), function)
    outcome = run()
    return outcome if isinstance(outcome, list) else [outcome]


if __name__ == "__main__":
    main()
