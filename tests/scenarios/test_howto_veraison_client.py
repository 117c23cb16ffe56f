# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/howto/use-a-veraison-client.md do what the page says, in one shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.appraisal import corims_of
from support.pages import commands, matches, steps
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.evidence.simulator.device_file import to_json

pytestmark = pytest.mark.timeout(120)

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/use-a-veraison-client.md"
TOOLS = ("bash", "curl", "jq", "openssl")
END = "-- end of one command --"


class Shell:
    """One bash, so that variables and jobs last from command to command."""

    def __init__(self, directory: Path) -> None:
        programs = str(Path(sys.executable).parent)
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """Return what a command prints on both outputs."""
        bash = self._bash
        assert bash.stdin is not None
        assert bash.stdout is not None
        bash.stdin.write(f"{command}\necho '{END}'\n")
        bash.stdin.flush()
        printed = []
        while (line := bash.stdout.readline()) != f"{END}\n":
            assert line, "the shell has ended"
            printed.append(line)
        return "".join(printed)

    def close(self) -> None:
        """End the shell and what it started."""
        assert self._bash.stdin is not None
        self._bash.stdin.write("jobs -p | xargs -r kill 2> /dev/null; wait\n")
        self._bash.stdin.close()
        self._bash.wait(30)
        if self._bash.stdout is not None:
            self._bash.stdout.close()


def test_every_command_of_the_page_prints_what_the_page_says(tmp_path: Path) -> None:
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"the page uses {', '.join(missing)}, which is not here")
    device = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
    (corim,) = corims_of(device)
    (tmp_path / "maker.cbor").write_bytes(corim.encode())
    (tmp_path / "device.json").write_text(to_json(device))
    (tmp_path / "device.json").chmod(0o600)
    shell, run = Shell(tmp_path), 0
    try:
        for kind, content in steps(PAGE.read_text()):
            if kind == "toml":
                name = content.partition("\n")[0].removeprefix("# ")
                (tmp_path / name).write_text(content)
                continue
            for command, expected in commands(content):
                printed = shell.run(command)
                assert matches(expected, printed), f"{command}\n{printed}"
                run += 1
    finally:
        shell.close()
    assert run == 31
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in log, log
