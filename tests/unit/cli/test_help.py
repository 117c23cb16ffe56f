# SPDX-License-Identifier: Apache-2.0
"""`--help` of every command is laid out as it was written."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from support.cli import run_cli
from troth.cli.main import main


def names(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from names(command, (*path, name))


def test_no_command_shows_a_mark_that_is_meant_for_click(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = list(names(main))
    assert ("envoy", "patch") in found
    for path in found:
        ran = run_cli(capsys, *path, "--help")
        assert ran.status == 0
        assert "\\b" not in ran.out, path


def test_the_statuses_of_a_command_stand_on_lines_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = run_cli(capsys, "verify", "--help").out.splitlines()
    assert "  Exit status:" in lines
    assert any(line.strip() == "0  affirming" for line in lines)
