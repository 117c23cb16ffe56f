# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/explanation/security.md, as the tests read them."""

from __future__ import annotations

from pathlib import Path

from troth.tls.core.messages import Verdict

__all__ = ["WORDS_OF_VERDICTS", "rows"]

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"
WORDS_OF_VERDICTS = {verdict.name.lower(): verdict for verdict in Verdict}


def rows(header: str) -> list[list[str]]:
    """Return the cells of the table whose header row begins with `header`, header row first."""
    lines = PAGE.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"| {header} |"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return [table[0], *table[2:]]
