# SPDX-License-Identifier: Apache-2.0
"""Visit the larger worlds: `python -m model`; `make model` does it."""

from __future__ import annotations

import sys
import time

from model.search import search
from model.worlds import LARGE, SMALL


def main() -> int:
    """Print what each world came to; return 1 if an invariant does not hold in one."""
    failed = 0
    for name, start in {**SMALL, **LARGE}.items():
        began = time.monotonic()
        report = search(start)
        sys.stdout.write(f"{name} ({time.monotonic() - began:.0f} s): {report}\n")
        sys.stdout.flush()
        failed += bool(report.broke)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
