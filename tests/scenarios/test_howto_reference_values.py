# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/howto/make-reference-values.md do what the page says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from support.cli import run_cli
from troth.evidence.simulator.options import PsaOptions
from troth.evidence.simulator.platform import SimulatedPlatform

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/make-reference-values.md"
_FENCE = re.compile(r"^```(console|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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
