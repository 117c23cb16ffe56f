# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/howto/change-a-policy-safely.md do what the page says, on a real server.

Where the page has the server restarted with another setting, so does the test.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from support.cli import Ran, run_cli
from support.pages import commands, expected_status, matches, steps
from support.server_world import World, new_key, world
from troth.adapters.server_client import RefusedByServerError
from troth.cli.operators import ADMIN_SOCKET_VARIABLE
from troth.control_plane.server.config import VerifierSection
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.evidence.simulator.options import default_component

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/change-a-policy-safely.md"
_PLAIN = {"export"}


class Story:
    """Two devices, one with an old boot loader, and the server that they join."""

    def __init__(self, here: World) -> None:
        self.here = here
        old = [default_component("BL", "2.0.4"), *PsaOptions().components[1:]]
        self.old = here.platform("old", PsaOptions(components=tuple(old)))
        self.new = here.platform("new")
        self.refusal = ""
        self._stack = AsyncExitStack()

    async def serve(self, **verifier: str) -> None:
        await self._stack.aclose()
        self.here.options["verifier"] = VerifierSection(corims=self.here.corims, **verifier)
        await self._stack.enter_async_context(self.here.serve())

    async def close(self) -> None:
        await self._stack.aclose()

    async def join(self, platform: SimulatedPlatform) -> None:
        client = self.here.client()
        try:
            await client.join(platform, new_key())
        except RefusedByServerError as exc:
            self.refusal = exc.refusal
        finally:
            await client.close()
        context = self.here.running.context
        await context.registry_worker.run(context.joins._recorder.write)

    async def apply(self, setting: str) -> None:
        """Do what a fenced part of server.toml says."""
        key = setting.partition("\n")[2].partition(" =")[0]
        await self.serve(**{key: "new.rego"})
        await self.join(self.old)


async def test_every_command_of_the_page_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    async with world() as here, AsyncExitStack() as stack:
        monkeypatch.setenv(ADMIN_SOCKET_VARIABLE, str(here.directory / "data" / "admin.sock"))
        story = Story(here)
        stack.push_async_callback(story.close)
        await story.serve()
        for platform in (story.old, story.new, story.new):
            await story.join(platform)
        run = 0
        for kind, content in steps(PAGE.read_text()):
            if kind == "toml":
                await story.apply(content)
            elif kind in ("rego", "yaml"):
                path = Path(content.partition("\n")[0].removeprefix("# "))
                path.parent.mkdir(exist_ok=True)
                path.write_text(content)
            else:
                for command, output in commands(content):
                    await check(story, command, output, capsys)
                    run += 1
    assert run == 7
    assert story.refusal


async def check(
    story: Story, command: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, expected = expected_status(output)
    words = shlex.split(command.replace("r…", story.refusal))[1:]
    if words[1] not in _PLAIN:
        words += ["--format", "text"]  # as on a terminal
    ran: Ran = await asyncio.to_thread(run_cli, capsys, *words)
    printed = ran.err + ran.out
    assert (ran.status, command) == (status, command), printed
    assert matches(expected, printed), f"{command}\n{printed}"
