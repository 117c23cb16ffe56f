# SPDX-License-Identifier: Apache-2.0
"""A peer in Go on the stock crypto/tls: no TLS stack needs extending."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.attested_world import Node, World
from troth.tls import AttestationRefusedError, AttestedStream, open_connection, start_server
from troth.tls.core.binding import BindingKind

GO = shutil.which("go")
pytestmark = pytest.mark.skipif(GO is None, reason="the go command is not installed")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The peer, built from the standard library alone, without a network."""
    path = tmp_path_factory.mktemp("go") / "peer"
    offline = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    subprocess.run(
        [str(GO), "build", "-o", str(path), "."],
        cwd=Path(__file__).parent / "go_peer",
        env=offline,
        check=True,
        timeout=110,
    )
    return path


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def edge(world: World) -> Node:
    return world.join("edge")


@pytest.fixture(scope="module")
def gopher(world: World) -> Node:
    return world.join("gopher")


def show(world: World, node: Node, folder: Path, passport: str) -> Path:
    (folder / "svid.pem").write_bytes(node.svid.encode_pem())
    (folder / "key.pem").write_bytes(node.svid.encode_private_key(Encoding.PEM))
    (folder / "ca.pem").write_bytes(world.authority.certificate.public_bytes(Encoding.PEM))
    (folder / "passport").write_text(passport)
    return folder


@asynccontextmanager
async def running(
    program: Path, role: str, address: str, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        str(program), role, address, str(folder), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def output(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(20):
        said, _ = await process.communicate()
    return said.decode()


async def echo(stream: AttestedStream) -> None:
    while data := await stream.reader.read(1 << 16):
        stream.writer.write(data)
    stream.writer.write_eof()


async def test_a_client_in_go_attests_and_is_attested(
    world: World, edge: Node, gopher: Node, program: Path, tmp_path: Path
) -> None:
    seen: list[AttestedStream] = []

    async def handler(stream: AttestedStream) -> None:
        seen.append(stream)
        await echo(stream)

    server = await start_server(
        handler, "127.0.0.1", credentials=world.credentials(edge), policy=world.policy()
    )
    folder = show(world, gopher, tmp_path, gopher.passport)
    address = f"127.0.0.1:{server.addresses[0][1]}"
    async with server, running(program, "client", address, folder) as process:
        said = await output(process)
        assert process.returncode == 0, said
        assert "peer spiffe://mesh.example/node/edge passport octets" in said
        assert "heard 16 octets" in said
    assert seen[0].peer.node_id == "gopher"
    assert seen[0].peer.binding is BindingKind.SESSION


async def test_a_server_in_go_attests_and_is_attested(
    world: World, edge: Node, gopher: Node, program: Path, tmp_path: Path
) -> None:
    folder = show(world, gopher, tmp_path, gopher.passport)
    async with running(program, "server", "127.0.0.1:0", folder) as process:
        assert process.stdout is not None
        async with asyncio.timeout(10):
            port = int((await process.stdout.readline()).decode().rpartition(":")[2])
        stream = await open_connection(
            "127.0.0.1", port, credentials=world.credentials(edge), policy=world.policy()
        )
        stream.writer.write(b"x" * 100_000)
        stream.writer.write_eof()
        assert await stream.reader.read(-1) == b"x" * 100_000
        assert stream.peer.node_id == "gopher"
        assert stream.peer.tier is not None
        stream.writer.close()
        assert "heard 100000 octets" in await output(process)
        assert process.returncode == 0


async def test_a_peer_in_go_with_anothers_passport_is_refused_and_told_the_class(
    world: World, edge: Node, gopher: Node, program: Path, tmp_path: Path
) -> None:
    folder = show(world, gopher, tmp_path, edge.passport)
    async with running(program, "server", "127.0.0.1:0", folder) as process:
        assert process.stdout is not None
        async with asyncio.timeout(10):
            port = int((await process.stdout.readline()).decode().rpartition(":")[2])
        with pytest.raises(AttestationRefusedError, match="about another key"):
            await open_connection(
                "127.0.0.1", port, credentials=world.credentials(edge), policy=world.policy()
            )
        assert "refused with class 1" in await output(process)
