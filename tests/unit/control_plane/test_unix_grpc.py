# SPDX-License-Identifier: Apache-2.0
"""Who may connect to a Unix socket of ours, and what happens around a restart."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, StreamStreamMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream

from support.applications import RpcApplication
from support.waiting import until
from troth.control_plane.unix_grpc import (
    UnixGrpcServer,
    bind_private_socket,
    bounded,
    peer_of,
)
from troth.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tr", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def _echo(channel: Channel, text: str) -> str:
    method = StreamStreamMethod(channel, "/test.Echo/Echo", StringValue, StringValue)
    async with method.open() as stream:
        await stream.send_message(StringValue(value=text), end=True)
        message: Any = await stream.recv_message()
        return str(message.value)


async def test_a_process_of_our_own_user_is_served(directory: Path) -> None:
    server = UnixGrpcServer([RpcApplication()], directory / "s")
    await server.start()
    channel = Channel(path=str(directory / "s"))
    assert await _echo(channel, "hello") == "hello"
    channel.close()
    await server.stop()


async def test_a_process_of_another_user_is_refused_before_its_first_byte(directory: Path) -> None:
    """Our own process plays the stranger: only another user is allowed."""
    other = frozenset({os.getuid() + 1})
    server = UnixGrpcServer([RpcApplication()], directory / "s", allowed_uids=other)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(directory / "s"))
    assert await asyncio.wait_for(_until_end(reader), 5) == b""
    writer.close()
    channel = Channel(path=str(directory / "s"))
    with pytest.raises((StreamTerminatedError, ConnectionError)):
        await asyncio.wait_for(_echo(channel, "hello"), 5)
    channel.close()
    await server.stop()


async def _until_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_the_socket_file_is_for_its_owner_alone(directory: Path) -> None:
    server = UnixGrpcServer([], directory / "s")
    await server.start()
    assert (directory / "s").stat().st_mode & 0o777 == 0o600
    assert _names(directory) == ["s"]
    await server.stop()
    assert _names(directory) == []


async def test_a_path_where_another_serves_is_refused(directory: Path) -> None:
    first = UnixGrpcServer([RpcApplication()], directory / "s")
    await first.start()
    with pytest.raises(ConfigurationError, match="another process is serving there"):
        await UnixGrpcServer([], directory / "s").start()
    channel = Channel(path=str(directory / "s"))
    assert await _echo(channel, "still") == "still"
    channel.close()
    await first.stop()


async def test_what_a_killed_process_left_behind_is_replaced(directory: Path) -> None:
    bind_private_socket(directory / "s").close()
    assert (directory / "s").is_socket()
    server = UnixGrpcServer([RpcApplication()], directory / "s")
    await server.start()
    channel = Channel(path=str(directory / "s"))
    assert await _echo(channel, "hello") == "hello"
    channel.close()
    await server.stop()


async def test_a_socket_that_is_no_longer_ours_is_left_alone(directory: Path) -> None:
    server = UnixGrpcServer([], directory / "s")
    await server.start()
    (directory / "s").rename(directory / "old")
    successor = socket.socket(socket.AF_UNIX)
    successor.bind(str(directory / "s"))
    await server.stop()
    assert (directory / "s").is_socket()
    successor.close()


async def test_no_other_file_is_overwritten(directory: Path) -> None:
    (directory / "s").write_text("precious")
    with pytest.raises(ConfigurationError, match="no other file"):
        await UnixGrpcServer([], directory / "s").start()
    assert (directory / "s").read_text() == "precious"


@pytest.mark.parametrize("path", ["nowhere/s", "x" * 200])
async def test_a_place_where_no_socket_can_be_is_refused(directory: Path, path: str) -> None:
    with pytest.raises(ConfigurationError, match="socket path"):
        await UnixGrpcServer([], directory / path).start()


async def test_stopping_ends_open_streams_and_can_be_repeated(directory: Path) -> None:
    server = UnixGrpcServer([RpcApplication()], directory / "s")
    await server.start()
    channel = Channel(path=str(directory / "s"))
    method = StreamStreamMethod(channel, "/test.Echo/Echo", StringValue, StringValue)
    stream = method.open()
    await stream.__aenter__()
    await stream.send_message(StringValue(value="x"))
    await stream.recv_message()
    await asyncio.wait_for(server.stop(), 5)
    with pytest.raises(StreamTerminatedError):
        await stream.recv_message()
    channel.close()
    await server.stop()


async def test_hundreds_may_connect_at_once(directory: Path) -> None:
    server = UnixGrpcServer([RpcApplication()], directory / "s")
    await server.start()
    channels = [Channel(path=str(directory / "s")) for _ in range(300)]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(_echo(channel, "x") for channel in channels))
    assert answers == ["x"] * 300
    for channel in channels:
        channel.close()
    await server.stop()


class _Who(RpcApplication):
    """Answers with the caller's process, and reads at most a few octets."""

    def __mapping__(self) -> dict[str, Handler]:
        async def who(stream: Stream[Any, Any]) -> None:
            bounded(stream, 64)
            await stream.recv_message()
            peer = peer_of(stream)
            await stream.send_message(StringValue(value=f"{peer.pid} {peer.alive}"))

        kind = Cardinality.STREAM_STREAM
        return {"/test.Echo/Echo": Handler(who, kind, StringValue, StringValue)}


async def test_a_handler_knows_the_callers_process(directory: Path) -> None:
    server = UnixGrpcServer([_Who()], directory / "s")
    await server.start()
    channel = Channel(path=str(directory / "s"))
    assert await _echo(channel, "") == f"{os.getpid()} True"
    channel.close()
    await server.stop()


async def test_a_message_beyond_the_bound_is_refused_unread(directory: Path) -> None:
    server = UnixGrpcServer([_Who()], directory / "s")
    await server.start()
    channel = Channel(path=str(directory / "s"))
    assert await _echo(channel, "x" * 60)
    method = StreamStreamMethod(channel, "/test.Echo/Echo", StringValue, StringValue)

    async def promise_four_gigabytes() -> None:
        async with method.open() as stream:
            await stream.send_request()
            # The header alone is enough to be refused.
            await stream._stream.send_data(b"\x00\xff\xff\xff\xff")
            await stream.recv_message()

    with pytest.raises(GRPCError, match="longer than 64 octets") as refusal:
        await promise_four_gigabytes()
    assert refusal.value.status is Status.RESOURCE_EXHAUSTED
    channel.close()
    await server.stop()


async def test_a_public_socket_is_for_everybody_but_not_without_end(directory: Path) -> None:
    server = UnixGrpcServer([_Who()], directory / "s", public=True, connections_per_user=2)
    await server.start()
    assert (directory / "s").stat().st_mode & 0o777 == 0o666
    first, second = (Channel(path=str(directory / "s")) for _ in range(2))
    assert await _echo(first, "")
    assert await _echo(second, "")
    reader, writer = await asyncio.open_unix_connection(str(directory / "s"))
    assert await asyncio.wait_for(_until_end(reader), 5) == b""
    writer.close()
    second.close()
    third = Channel(path=str(directory / "s"))

    async def served() -> bool:
        try:
            return bool(await _echo(third, ""))
        except (StreamTerminatedError, ConnectionError):
            return False

    await until(served)
    for channel in (first, third):
        channel.close()
    await server.stop()
