# SPDX-License-Identifier: Apache-2.0
"""The admin client against servers that behave, and that do not."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from troth.adapters import envoy_admin
from troth.adapters.envoy_admin import EnvoyAdmin
from troth.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def path() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tr", dir="/tmp"))
    yield directory / "admin"
    shutil.rmtree(directory)


async def _ask(path: Path, answer: bytes) -> tuple[int, str]:
    requests = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        return await EnvoyAdmin(path).ask("/ready")
    finally:
        server.close()
        assert requests[0].startswith(b"GET /ready HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (HEAD + b"\r\nLIVE\n", (200, "LIVE\n")),
        (CHUNKED + b"5\r\nLIVE\n\r\n0\r\n\r\n", (200, "LIVE\n")),
        (CHUNKED + b"2\r\nLI\r\nA\r\nVE\r\n345678\r\n0\r\n\r\n", (200, "LIVE\r\n345678")),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nWAIT", (503, "WAIT")),
    ],
)
async def test_an_answer_is_read(path: Path, answer: bytes, expected: tuple[int, str]) -> None:
    assert await _ask(path, answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        HEAD,
        b"HTTP/1.1 two\r\n\r\n",
        CHUNKED + b"5\r\nLIV",
        CHUNKED + b"x\r\n",
        CHUNKED + b"-1\r\nLIVE\r\n",
        CHUNKED,
    ],
)
async def test_what_is_no_answer_of_envoy_is_an_error(path: Path, answer: bytes) -> None:
    with pytest.raises(ProxyError, match="is not Envoy"):
        await _ask(path, answer)


async def test_an_endless_answer_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_admin, "MAX_ANSWER_BYTES", 1000)
    with pytest.raises(ProxyError, match="more than 1000 bytes"):
        await _ask(path, HEAD + b"\r\n" + bytes(1000))


async def test_silence_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_admin, "_TIMEOUT_SECONDS", 0.05)
    release = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    with pytest.raises(ProxyError, match="did not answer /ready within"):
        await EnvoyAdmin(path).get("/ready")
    release.set()
    server.close()


async def test_nobody_there_is_an_error(path: Path) -> None:
    with pytest.raises(ProxyError, match="No such file"):
        await EnvoyAdmin(path).get("/ready")
