# SPDX-License-Identifier: Apache-2.0
"""An agent for tests of the gate: speaks the link, decides by script, judges nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from troth.control_plane.gate.frames import (
    Admit,
    AgentFrame,
    Close,
    Closed,
    FrameDecoder,
    GateFrame,
    GateRole,
    Hello,
    Opening,
    PeerData,
    PeerIdentity,
    Refuse,
    Resume,
    Resumed,
    Send,
    Update,
    Welcome,
    encode,
)

__all__ = ["AgentSimulator", "Script", "SimulatedConnection", "decide"]


class SimulatedConnection:
    """One connection of a gate, as its agent sees it."""

    def __init__(self, opening: Opening | Resume, link: _Link) -> None:
        self.opening = opening
        self.link = link
        self.states: dict[str, str] = {"troth.tier": "measured"}
        loop = asyncio.get_running_loop()
        self.peer: asyncio.Future[PeerIdentity] = loop.create_future()
        self.closed: asyncio.Future[Closed] = loop.create_future()
        self.admitted = False
        self._messages: asyncio.Queue[bytes] = asyncio.Queue()
        self._partial = b""
        self.pieces = 0

    @property
    def number(self) -> int:
        return self.opening.connection

    @property
    def role(self) -> GateRole:
        return self.opening.role

    def write(self, *frames: AgentFrame) -> None:
        self.link.write(b"".join(encode(frame) for frame in frames))

    def send(self, message: bytes) -> None:
        self.write(Send(self.number, message))

    def admit(self, deadline_ms: int = 60_000, context: bytes = b"", **states: str) -> None:
        self.admitted = True
        marks = self.states | {f"troth.{key}": value for key, value in states.items()}
        self.write(Admit(self.number, deadline_ms, marks, context))

    def refuse(self, peer_class: int = 1, text: str = "not acceptable") -> None:
        self.write(Refuse(self.number, peer_class, text))

    def close(self, text: str = "expelled") -> None:
        self.write(Close(self.number, text))

    def update(self, deadline_ms: int | None = None, **states: str) -> None:
        marks = {f"troth.{key}": value for key, value in states.items()}
        self.write(Update(self.number, deadline_ms, marks))

    async def receive(self) -> bytes:
        return await self._messages.get()

    def take(self, frame: PeerData) -> None:
        self.pieces += 1
        self._partial += frame.data
        if not frame.more:
            self._messages.put_nowait(self._partial)
            self._partial = b""


Script = Callable[[SimulatedConnection], Awaitable[None]]


async def decide(connection: SimulatedConnection) -> None:
    """The shape of a real exchange: nonce, nonce and proof, proof; then both admit."""
    if connection.role is GateRole.CLIENT:
        connection.send(b"nonce of the client")
        await connection.receive()
        connection.send(b"proof of the client")
    else:
        await connection.receive()
        connection.send(b"nonce and proof of the server")
        await connection.receive()
    connection.admit()


class _Link:
    def __init__(self, agent: AgentSimulator, writer: asyncio.StreamWriter) -> None:
        self.agent = agent
        self.writer = writer
        self.connections: dict[int, SimulatedConnection] = {}
        self.hello: Hello | None = None
        self.resumed = asyncio.Event()
        self.unknown_closed: list[Closed] = []

    def write(self, data: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(data)

    def handle(self, frame: GateFrame) -> None:
        match frame:
            case Hello():
                self.hello = frame
                if self.agent.welcomes:
                    self.write(encode(Welcome()))
            case Opening():
                self._add(SimulatedConnection(frame, self), self.agent.script)
            case Resume():
                connection = SimulatedConnection(frame, self)
                connection.admitted = True
                self._add(connection, self.agent.on_resume)
            case Resumed():
                self.resumed.set()
            case Closed():
                self._end(frame)
            case PeerIdentity():
                self.connections[frame.connection].peer.set_result(frame)
            case PeerData():
                self.connections[frame.connection].take(frame)

    def _end(self, frame: Closed) -> None:
        connection = self.connections.pop(frame.connection, None)
        if connection is None:
            self.unknown_closed.append(frame)
        else:
            connection.closed.set_result(frame)

    def _add(self, connection: SimulatedConnection, script: Script | None) -> None:
        assert connection.number not in self.connections, "a connection number came twice"
        self.connections[connection.number] = connection
        self.agent.seen(connection, script)


class AgentSimulator:
    """Listens on a Unix socket; `script` plays the agent for every new connection."""

    def __init__(self, path: Path, script: Script = decide) -> None:
        self.path = path
        self.script: Script = script
        self.on_resume: Script | None = None
        self.welcomes = True
        self.reads = asyncio.Event()
        self.reads.set()
        self.connections: list[SimulatedConnection] = []
        self.links: list[_Link] = []
        self.errors: list[BaseException] = []
        self._arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """Die as a killed process does: every link ends at once, the socket refuses."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in self.links:
            link.writer.transport.abort()
        self.links.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def next_connection(self, role: GateRole | None = None) -> SimulatedConnection:
        """The next connection that has not been handed out yet."""
        async with self._arrived:
            while True:
                for connection in self.connections:
                    if role is None or connection.role is role:
                        self.connections.remove(connection)
                        return connection
                await self._arrived.wait()

    def seen(self, connection: SimulatedConnection, script: Script | None) -> None:
        self.connections.append(connection)
        self._spawn(self._notify())
        if script is not None:
            self._spawn(script(connection))

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    def _spawn(self, awaitable: Awaitable[None]) -> None:
        task = asyncio.ensure_future(awaitable)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, writer)
        self.links.append(link)
        decoder = FrameDecoder()
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(262_144):
                    for frame in decoder.feed(data):
                        link.handle(frame)
                    await self.reads.wait()
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001 - kept for the test to look at
            self.errors.append(error)
        finally:
            writer.close()
