# SPDX-License-Identifier: Apache-2.0
"""The command line, run in this process."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from troth.cli.main import run

__all__ = ["Ran", "troth"]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left: exit status, standard output, standard error."""

    code: int
    out: str
    err: str


def troth(*arguments: str) -> Ran:
    """Run `troth ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run(arguments)
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 1
        else:
            code = 0
    return Ran(code, out.getvalue(), err.getvalue())
