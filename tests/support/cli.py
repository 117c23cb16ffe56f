# SPDX-License-Identifier: Apache-2.0
"""Runs the `troth` command in this process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from troth.cli.main import run

__all__ = ["Ran", "run_cli"]


@dataclass(frozen=True)
class Ran:
    """What one run of the command left behind."""

    status: int
    out: str
    err: str


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Run `troth` with these arguments."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, captured.out, captured.err)
