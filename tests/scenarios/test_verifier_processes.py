# SPDX-License-Identifier: Apache-2.0
"""`troth verifier` as its user runs it: several processes that are one Verifier."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.appraisal import corims_of
from support.waiting import until
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.formats.base64url import encode_base64url
from troth.formats.jose import verify_jwt
from troth.formats.keys import load_keys

pytestmark = pytest.mark.timeout(120)

NONCE = b"n" * 32
PSA = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
NEW = "/challenge-response/v1/newSession"


class Verifier:
    """The running command."""

    def __init__(self, directory: Path, process: asyncio.subprocess.Process) -> None:
        self.directory, self.process = directory, process
        self.line: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return str(self.line["url"])

    async def fresh(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask on a new connection: the kernel chooses a worker for each."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as web:
            return await web.request(method, path, **options)

    async def operate(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.AsyncHTTPTransport(uds=str(self.line["admin_socket"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as operator:
            return await operator.request(method, path, **options)

    async def open(self) -> str:
        response = await self.fresh("POST", NEW, params={"nonce": encode_base64url(NONCE)})
        assert response.status_code == 201, response.text
        return f"/challenge-response/v1/{response.headers['location']}"

    async def submit(self, session: str) -> httpx.Response:
        return await self.fresh(
            "POST",
            session,
            content=PSA.attest(NONCE),
            headers={"content-type": PSA.media_type},
        )

    async def status(self) -> str:
        """Verify once and return what the result says."""
        response = await self.submit(await self.open())
        assert response.status_code == 200, response.text
        keys = load_keys(Path(self.line["result_keys"]).read_bytes(), source="result keys")
        _, claims = verify_jwt(response.json()["result"], keys)
        return str(claims["submods"]["PSA_IOT"]["ear.status"])

    def workers(self) -> list[int]:
        """Return the processes of the workers, the first worker's first."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"--worker" in words:
                    found.append((int(words[words.index(b"--worker") + 1]), int(entry.name)))
        return [pid for _, pid in sorted(found)]


async def start(config: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "troth", "verifier", "--config", str(config), "--workers", "2"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def verifier() -> AsyncIterator[Verifier]:
    """Run it on a short directory, endorsing `PSA`; whatever is left of it is killed."""
    directory = Path(tempfile.mkdtemp(prefix="troth"))
    (corim,) = corims_of(PSA)
    (directory / "maker.cbor").write_bytes(corim.encode())
    config = directory / "verifier.toml"
    config.write_text(
        f'data_dir = "{directory}/data"\nlisten = "127.0.0.1:0"\nallow_simulator = true\n'
        f'corims = ["{directory}/maker.cbor"]\nready_file = "{directory}/ready.json"\n'
    )
    process = await start(config)
    made = Verifier(directory, process)
    left: list[int] = []
    try:
        assert process.stdout is not None
        made.line = json.loads(await process.stdout.readline())
        left = made.workers()
        yield made
    finally:
        for pid in [*left, *made.workers()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        shutil.rmtree(directory)


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_its_workers_are_one_verifier() -> None:
    async with verifier() as running:
        assert running.line["workers"] == 2
        assert json.loads((running.directory / "ready.json").read_text()) == running.line
        assert len(running.workers()) == 2

        # A session that one opened is every other's, and answers once.
        sessions = [await running.open() for _ in range(4)]
        for session in sessions:
            answers = await asyncio.gather(*(running.submit(session) for _ in range(8)))
            assert Counter(each.status_code for each in answers) == {200: 1, 409: 7}
            (result,) = {each.json()["result"] for each in answers if each.status_code == 200}
            looks = await asyncio.gather(*(running.fresh("GET", session) for _ in range(4)))
            assert {each.json()["result"] for each in looks} == {result}

        # What operators tell one is told all before they are answered.
        response = await running.operate("DELETE", "/v1/corims", params={"id": "maker"})
        assert response.status_code == 200, response.text
        outcomes = await asyncio.gather(*(running.status() for _ in range(12)))
        assert set(outcomes) == {"contraindicated"}

        # Each counts for all.
        text = (await running.operate("GET", "/metrics")).text
        assert "troth_verification_sessions_total 16.0" in text


async def test_it_ends_when_it_is_told_and_leaves_nothing_behind() -> None:
    async with verifier() as running:
        pids = running.workers()
        running.process.terminate()
        await running.process.communicate()
        assert running.process.returncode == 0
        assert gone(pids)
        data = running.directory / "data"
        assert not (data / "run").exists()
        assert not (data / "admin.sock").exists()
        assert (data / "verifier.db").exists()


async def test_killed_it_takes_its_workers_along() -> None:
    async with verifier() as running:
        pids = running.workers()
        running.process.kill()
        await running.process.communicate()
        await until(lambda: gone(pids), seconds=20, interval=0.1)


@pytest.mark.parametrize("which", [0, 1])
async def test_a_worker_that_dies_is_replaced_and_the_other_serves_meanwhile(which: int) -> None:
    async with verifier() as running:
        session = await running.open()
        victim = running.workers()[which]
        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in running.workers(), seconds=10, interval=0.01)

        # Connections that had been given to the dead one break; new ones do not.
        assert (await running.submit(session)).status_code == 200
        assert (await running.submit(session)).status_code == 409
        await until(lambda: len(running.workers()) == 2, seconds=20, interval=0.1)

        async def operated() -> bool:
            try:
                return (await running.operate("GET", "/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await until(operated, seconds=30, interval=0.1)
        assert {await running.status() for _ in range(4)} == {"affirming"}


async def test_a_data_directory_has_one_verifier() -> None:
    async with verifier() as running:
        other = await start(running.directory / "verifier.toml")
        _, err = await other.communicate()
        assert other.returncode == 3
        assert b"no other Verifier runs on" in err
        assert await running.status() == "affirming"
