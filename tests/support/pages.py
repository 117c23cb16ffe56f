# SPDX-License-Identifier: Apache-2.0
"""Pages whose commands are run: their fenced parts, and what a command prints."""

from __future__ import annotations

import re

__all__ = ["commands", "expected_status", "matches", "steps"]

_FENCE = re.compile(r"^```(console|yaml|rego|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps(text: str) -> list[tuple[str, str]]:
    """Return the fenced parts of a page: kind and content."""
    return [(match[1], match[2]) for match in _FENCE.finditer(text)]


def commands(console: str) -> list[tuple[str, str]]:
    """Return the commands of a console part with what they print."""
    found = re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    return [(each.partition("\n")[0], each.partition("\n")[2]) for each in found]


def expected_status(output: str) -> tuple[int, str]:
    """Split "[exit status N]" off the output."""
    match = re.search(r"^\[exit status (\d+)\]\n", output, re.MULTILINE)
    return (int(match[1]), output.replace(match[0], "")) if match else (0, output)


def matches(expected: str, actual: str) -> bool:
    """Compare with "…" standing for anything."""
    pattern = ".*?".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, actual, re.DOTALL) is not None
