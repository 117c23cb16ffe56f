# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/howto/make-reference-values.md do what the page says."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from support.cli import run_cli
from support.pages import commands, expected_status, matches, steps
from troth.evidence.simulator.options import PsaOptions
from troth.evidence.simulator.platform import SimulatedPlatform

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/make-reference-values.md"


def test_every_command_of_the_page_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the page makes its signing key with the openssl command, which is not here")
    node = SimulatedPlatform.create(PsaOptions(), random=Random(1).randbytes)  # noqa: S311 - the same in each run
    (tmp_path / "token.cbor").write_bytes(node.attest(bytes(64)))
    (tmp_path / "iak.pem").write_text(node.reference().public_key_pem)
    monkeypatch.chdir(tmp_path)
    run = 0
    for kind, content in steps(PAGE.read_text()):
        if kind == "yaml":
            Path(content.partition("\n")[0].removeprefix("# ")).write_text(content)
            continue
        for command, output in commands(content):
            status, expected = expected_status(output)
            words = shlex.split(command)
            if words[0] == "troth":
                ran = run_cli(capsys, *words[1:])
                # A terminal shows both in the order in which they were written; warnings come
                # first here.
                assert (ran.status, command) == (status, command), ran.err
                printed = ran.err + ran.out
                assert matches(expected, printed), f"{command}\n{printed}"
            else:
                subprocess.run(words, check=True, capture_output=True)
            run += 1
    assert run == 9


def test_a_page_that_says_something_else_is_noticed() -> None:
    assert matches("a …\nb\n", "a x y\nb\n")
    assert not matches("a …\nb\n", "a x y\nc\n")
    assert commands("$ one\nx\n$ two\n") == [("one", "x\n"), ("two", "")]
    assert expected_status("x\n[exit status 1]\n") == (1, "x\n")
