# SPDX-License-Identifier: Apache-2.0
"""Resumption and early data, tried by OpenSSL's own client against our server."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.attested_world import Node, World
from support.waiting import until
from troth.tls import AttestedServer, start_server
from troth.tls.core.profile import EXPAT_03

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="the openssl command is not installed")


@pytest.fixture
async def server() -> AsyncIterator[tuple[World, Node, AttestedServer]]:
    world = World()
    node = world.join("edge")
    credentials = world.credentials(node)
    running = await start_server(
        lambda _: None, "127.0.0.1", credentials=credentials, policy=world.policy()
    )
    async with running:
        yield world, node, running


async def s_client(port: int, folder: Path, kept: Path, *options: str) -> str:
    """Connect as a client that keeps the ticket it is sent, and leave when it has one."""
    process = await asyncio.create_subprocess_exec(
        str(OPENSSL),
        "s_client",
        *("-connect", f"127.0.0.1:{port}", "-alpn", EXPAT_03.alpn),
        *("-cert", str(folder / "svid.pem"), "-key", str(folder / "key.pem")),
        *("-CAfile", str(folder / "ca.pem"), "-verify_return_error"),
        *("-sess_out", str(kept)),
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        await until(lambda: kept.exists() and kept.read_bytes().endswith(b"-----\n"), seconds=10)
        async with asyncio.timeout(10):
            said, _ = await process.communicate(b"Q\n")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode(errors="replace")


async def test_a_client_that_returns_a_ticket_gets_a_full_handshake(
    server: tuple[World, Node, AttestedServer], tmp_path: Path
) -> None:
    world, _, running = server
    client = world.join("foreign")
    (tmp_path / "svid.pem").write_bytes(client.svid.encode_pem())
    (tmp_path / "key.pem").write_bytes(client.svid.encode_private_key(Encoding.PEM))
    (tmp_path / "ca.pem").write_bytes(world.authority.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "early").write_bytes(b"GET / HTTP/1.0\r\n\r\n")
    port = running.addresses[0][1]
    kept = tmp_path / "first"
    first = await s_client(port, tmp_path, kept)
    assert "New, TLSv1.3" in first
    assert "Max Early Data: 0" in first
    returned = ["-sess_in", str(kept), "-early_data", str(tmp_path / "early")]
    second = await s_client(port, tmp_path, tmp_path / "second", *returned)
    assert "New, TLSv1.3" in second
    assert "Reused" not in second
    assert "Early data was not sent" in second
    assert "Verify return code: 0 (ok)" in second
