# SPDX-License-Identifier: Apache-2.0
"""How commands print what a server said: JSON for programs, columns or lines for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from troth.cli.inputs import printable

__all__ = ["columns", "details", "format_option", "show"]

_LONGEST: Final = 120

F = TypeVar("F", bound=Callable[..., Any])


def format_option() -> Callable[[F], F]:
    """Return the option `--format`."""
    return click.option(
        "--format",
        "output",
        type=click.Choice(["text", "json"]),
        help="Default: text on a terminal, json elsewhere.",
    )


def show(value: object, text: Callable[[], str], output: str | None) -> None:
    """Print `value` as JSON, or what `text` makes of it."""
    if output is None:
        output = "text" if sys.stdout.isatty() else "json"
    click.echo(json.dumps(value, indent=1) if output == "json" else text())


def columns(rows: Sequence[Mapping[str, object]], names: Mapping[str, str], *, none: str) -> str:
    """Return rows as aligned columns.

    Args:
        rows: what to show.
        names: key in a row to the heading of its column, in order.
        none: what to say where there is no row.
    """
    if not rows:
        return none
    table = [list(names.values())]
    table += [[_cell(row.get(key)) for key in names] for row in rows]
    widths = [max(len(line[at]) for line in table) for at in range(len(names))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )
    return "\n".join(lines)


def details(value: Mapping[str, object], names: Mapping[str, str]) -> str:
    """Return one thing as lines "heading: value"; what is empty is left out."""
    shown = {heading: value.get(key) for key, heading in names.items()}
    lines: list[str] = []
    width = max((len(heading) for heading, each in shown.items() if each), default=0)
    for heading, each in shown.items():
        if each in (None, "", [], {}, False):
            continue
        items = each if isinstance(each, list) else [each]
        for number, item in enumerate(items):
            label = f"{heading}:" if number == 0 else ""
            lines.append(f"{label.ljust(width + 2)}{printable(str(item))}")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = "-" if value in (None, "") else printable(str(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
