# SPDX-License-Identifier: Apache-2.0
"""Two agents' gate services, and a wire that plays both gates between them."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.attested_world import Node, World
from troth.control_plane.gate.connection import GateSide, OwnSide
from troth.control_plane.gate.frames import GateRole
from troth.control_plane.gate.service import GateService
from troth.tls.core.exchange import Timeouts
from troth.tls.judge import BackgroundCheck, Judge
from troth.tls.policy import AttestationPolicy

HEAD = struct.Struct("!IBBHQ")
HELLO, OPEN, PEER, DATA, CLOSED, RESUME, RESUMED = range(1, 8)
WELCOME, SEND, ADMIT, REFUSE, CLOSE, UPDATE = range(0x81, 0x87)


def attribute(tag: int, value: bytes) -> bytes:
    return struct.pack("!HH", tag, len(value)) + value


def attributes(body: bytes) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    while body:
        tag, size = struct.unpack_from("!HH", body)
        found.setdefault(tag, []).append(body[4 : 4 + size])
        body = body[4 + size :]
    return found


class Gate:
    """One end of the wire: what the module in Envoy would say and hear."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_unix_connection(self.path)
        self.task = asyncio.create_task(self._read())
        hello = attribute(1, (1).to_bytes(2)) + attribute(2, b"test")
        self.say(HELLO, 0, hello + attribute(3, (7).to_bytes(4)) + attribute(4, bytes(16)))
        kind, _, _ = await self.heard.get()
        assert kind == WELCOME

    def say(self, kind: int, connection: int, body: bytes = b"", flags: int = 0) -> None:
        self.writer.write(HEAD.pack(len(body), kind, flags, 0, connection) + body)

    def open(self, number: int, role: GateRole, label: str = "") -> None:
        body = attribute(5, bytes([role])) + attribute(6, label.encode())
        self.say(OPEN, number, body + attribute(10, number.to_bytes(8)))

    def peer(self, number: int, digest: bytes, spiffe_id: str) -> None:
        self.say(
            PEER, number, attribute(8, digest.hex().encode()) + attribute(9, spiffe_id.encode())
        )

    def data(self, number: int, message: bytes, *, pieces: int = 1) -> None:
        step = -(-len(message) // pieces)
        for begin in range(0, len(message), step):
            part = message[begin : begin + step]
            self.say(DATA, number, part, flags=int(begin + step < len(message)))

    def closed(self, number: int, reason: int = 1) -> None:
        self.say(CLOSED, number, attribute(16, bytes([reason])))

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self.reader.readexactly(HEAD.size)
                size, kind, _, _, connection = HEAD.unpack(head)
                body = await self.reader.readexactly(size)
                await self.heard.put((kind, connection, body))
        await self.heard.put((0, 0, b""))

    async def close(self) -> None:
        self.writer.close()
        await self.task


@dataclass
class Agent:
    """One node's gate service."""

    node: Node
    service: GateService
    gate: Gate
    own: OwnSide | None = None

    @property
    def spiffe_id(self) -> str:
        return str(self.node.svid.spiffe_id)

    @property
    def digest(self) -> bytes:
        return self.node.svid.fingerprint


@dataclass
class Outcome:
    """What each gate was told at the end."""

    client: tuple[int, dict[int, list[bytes]]] | None = None
    server: tuple[int, dict[int, list[bytes]]] | None = None
    messages: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def admitted(self) -> bool:
        return (
            self.client is not None
            and self.server is not None
            and self.client[0] == ADMIT
            and self.server[0] == ADMIT
        )

    def state(self, side: str) -> dict[str, str]:
        final = self.client if side == "client" else self.server
        assert final is not None
        found = {}
        for value in final[1].get(12, []):
            size = value[0]
            found[value[1 : 1 + size].decode()] = value[1 + size :].decode()
        return found


class Pair:
    """A client's and a server's agent with their gates connected."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.directory = directory
        self.numbers = iter(range(1, 10_000))

    async def agent(
        self,
        name: str,
        node: Node,
        policy: AttestationPolicy | None,
        *,
        timeouts: Timeouts | None = None,
        check: BackgroundCheck | None = None,
        **credentials: Any,
    ) -> Agent:
        own = OwnSide(
            credentials=self.world.credentials(node, **credentials), shown=[node.svid.fingerprint]
        )
        side = None
        if policy is not None:
            judge = Judge(policy, self.world.bundles, verifier=check or self.world.check)
            side = GateSide(judge=judge, svid_end=lambda _, now: now + self.world.lifetime)
        path = self.directory / f"{name}.gate"
        agent = Agent(node, None, Gate(path), own)  # type: ignore[arg-type]
        agent.service = GateService(
            path=path,
            own=lambda: agent.own,
            sides=lambda _role, _service, _spiffe_id: side,
            timeouts=timeouts,
        )
        await agent.service.start()
        await agent.gate.connect()
        return agent

    async def exchange(
        self,
        client: Agent,
        server: Agent,
        *,
        number: int | None = None,
        client_sees: tuple[bytes, str] | None = None,
        server_sees: tuple[bytes, str] | None = None,
        tamper: Callable[[str, bytes], bytes | None] = lambda _, message: message,
        pieces: int = 1,
        seconds: float = 5.0,
    ) -> Outcome:
        """Carry one exchange; return what the gates were told."""
        n = next(self.numbers) if number is None else number
        outcome = Outcome()
        client.gate.open(n, GateRole.CLIENT, server.spiffe_id)
        server.gate.open(n, GateRole.SERVER)
        server.gate.peer(n, *(server_sees or (client.digest, client.spiffe_id)))
        told = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while outcome.client is None or outcome.server is None:
                    for side, here, there in (
                        ("client", client, server),
                        ("server", server, client),
                    ):
                        with contextlib.suppress(asyncio.QueueEmpty):
                            kind, _, body = here.gate.heard.get_nowait()
                            if kind == SEND:
                                outcome.messages.append((side, body))
                                changed = tamper(side, body)
                                if side == "server" and not told:
                                    told = True
                                    seen = client_sees or (server.digest, server.spiffe_id)
                                    client.gate.peer(n, *seen)
                                if changed is not None:
                                    there.gate.data(n, changed, pieces=pieces)
                            elif kind in (ADMIT, REFUSE, CLOSE):
                                final = (kind, attributes(body))
                                if side == "client":
                                    outcome.client = final
                                else:
                                    outcome.server = final
                    await asyncio.sleep(0.001)
        return outcome


@contextlib.asynccontextmanager
async def pair(world: World) -> AsyncIterator[Pair]:
    """Give a pair in a short directory; services started in it are the test's to stop."""
    with tempfile.TemporaryDirectory(prefix="tg-", dir="/tmp") as directory:
        yield Pair(world, Path(directory))
