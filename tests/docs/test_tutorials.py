# SPDX-License-Identifier: Apache-2.0
"""Runs every tutorial: its ```python blocks in order, each ```text block being what was printed."""

import ast
import contextlib
import inspect
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorial"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    return [
        Block(match[1], match[2], page.count("\n", 0, match.start()) + 2)
        for match in _FENCE.finditer(page)
    ]


async def run(page: str, name: str) -> None:
    space: dict[str, Any] = {"__name__": "tutorial"}
    printed = ""
    for block in blocks(page):
        if block.kind == "python":
            assert not printed, f"{name}: nobody shows what was printed: {printed}"
            # Blank lines in front, so that a traceback names the line of the page.
            source = "\n" * (block.line - 1) + block.text
            code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            # structlog prints until a program configures it; a page shows what its own code prints.
            with capture_logs(), contextlib.redirect_stdout(io.StringIO()) as out:
                outcome = eval(code, space)  # noqa: S307 - our own page
                if inspect.isawaitable(outcome):
                    await outcome
            printed = out.getvalue()
        elif block.kind == "text":
            assert printed == block.text, f"{name}, line {block.line}"
            printed = ""


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda page: page.stem)
async def test_a_tutorial_does_what_it_says(page: Path) -> None:
    text = page.read_text()
    assert any(block.kind == "python" for block in blocks(text))
    await run(text, str(page))


async def test_a_page_that_shows_another_output_fails() -> None:
    page = "```python\nprint(1)\n```\n\n```text\n2\n```\n"
    with pytest.raises(AssertionError, match="line 6"):
        await run(page, "page")
    await run(page.replace("2", "1"), "page")
