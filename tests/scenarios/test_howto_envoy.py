# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/howto/put-the-gate-into-an-existing-envoy.md do what the page says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from support.cli import run_cli
from support.envoy_mesh import envoy_binary
from support.gate import need_gate
from support.pages import commands, expected_status, matches, steps
from troth.adapters.envoy_trial import validate_configuration

pytestmark = pytest.mark.envoy

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/put-the-gate-into-an-existing-envoy.md"
GATE = '[gate]\nsocket = "/run/troth/gate"\n'


def test_every_command_of_the_page_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_gate()
    binary = envoy_binary()
    monkeypatch.chdir(tmp_path)
    run = 0
    for kind, content in steps(PAGE.read_text()):
        if kind in ("yaml", "toml"):
            Path(content.partition("\n")[0].removeprefix("# ")).write_text(content)
            if kind == "toml":
                assert GATE in content
                Path("permissive.toml").write_text(
                    content.replace(GATE, f"{GATE}permissive = true\n")
                )
                Path("no-code.toml").write_text(content.replace(GATE, "[ext_authz]\n"))
            continue
        for command, output in commands(content):
            status, expected = expected_status(output)
            words = shlex.split(command)[1:]
            if "preflight" in words or "--validate" in words:
                words += ["--envoy", str(binary)]
            ran = run_cli(capsys, *words)
            assert (ran.status, command) == (status, command), ran.err
            printed = ran.err + ran.out
            assert matches(expected, printed), f"{command}\n{printed}"
            run += 1
    assert run == 8
    for name in ("patched", "permissive", "no-code", "generated"):
        trial = validate_configuration(binary, yaml.safe_load(Path(f"{name}.yaml").read_text()))
        assert trial.accepted, trial.reason
