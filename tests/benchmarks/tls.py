# SPDX-License-Identifier: Apache-2.0
"""What attestation adds to a TLS connection: CPU, octets, memory, throughput.

Both ends of a connection run in one thread, over a network in memory, so that a case costs the CPU
time of both and nothing of a kernel. The floor is mutual TLS by the same pyOpenSSL engine, on the
same event loop, with the same certificates. Fresh Evidence is 4 KiB that cost nothing to make or
appraise: what quotes and appraisals cost is measured where they are (`appraisal`).
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.harness import Case, Table, measure
from troth.formats.ear.result import Ear
from troth.formats.exported_authenticator import Role
from troth.testing.lab import Lab, Node
from troth.tls import AttestationPolicy, start_server
from troth.tls.asyncio.connection import AttestedConnection, ConnectionOptions
from troth.tls.asyncio.engine import TlsContext, TlsEngine
from troth.tls.asyncio.streams import connect, connection_options
from troth.tls.core.profile import EXPAT_03
from troth.tls.credentials import Credentials

_CHUNK = 1 << 16
_BULK = 16 * _CHUNK
_IDLE = 300
_QUOTES_PER_SECOND = 25.0
_CALLERS = 16
_SECONDS = 4.0


class _Wire(asyncio.Transport):
    """One end of a network in memory; counts what is written."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.peer: _Wire
        self.protocol: asyncio.Protocol
        self.octets = 0
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.octets += len(data)
        self._loop.call_soon(self.peer._deliver, bytes(data))

    def _deliver(self, data: bytes) -> None:
        if not self._closing:
            self.protocol.data_received(data)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)
            self._loop.call_soon(self.peer.close)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """The sink reads everything."""

    def resume_reading(self) -> None:
        """The sink reads everything."""


def _join(loop: asyncio.AbstractEventLoop, one: Any, other: Any) -> tuple[_Wire, _Wire]:
    wires = _Wire(loop), _Wire(loop)
    wires[0].peer, wires[1].peer = wires[1], wires[0]
    wires[0].protocol, wires[1].protocol = one, other
    for wire in reversed(wires):
        wire.protocol.connection_made(wire)
    return wires


class _Sink(asyncio.Protocol):
    """Counts what it gets."""

    def __init__(self, *_: object) -> None:
        self.received = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)


class _Plain(asyncio.Protocol):
    """Mutual TLS by the engine of Troth, and nothing else."""

    def __init__(self, context: TlsContext) -> None:
        self.engine = TlsEngine(context)
        self.opened = asyncio.get_running_loop().create_future()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self.engine.receive(data)
        if self.opened.done():
            self.received += sum(map(len, self.engine.read()))
        elif self.engine.handshake():
            self.opened.set_result(None)
        self.flush()

    def connection_lost(self, _: Exception | None) -> None:
        return

    def flush(self) -> None:
        if data := self.engine.outgoing():
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        self.engine.write(data)
        self.flush()


class _Stdlib(asyncio.Protocol):
    """Mutual TLS by the standard library's ssl module."""

    def __init__(self, context: ssl.SSLContext, *, server: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server)
        self.opened = asyncio.get_running_loop().create_future()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self.incoming.write(data)
        try:
            if not self.opened.done():
                self.tls.do_handshake()
                self.opened.set_result(None)
            while part := self.tls.read(_CHUNK):
                self.received += len(part)
        except ssl.SSLWantReadError:
            pass
        self.flush()

    def connection_lost(self, _: Exception | None) -> None:
        return

    def flush(self) -> None:
        if data := self.outgoing.read():
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()


class _FreeAttester:
    """4 KiB of Evidence at no cost."""

    scheme, media_type, challenge_size = "psa", "application/psa-attestation-token", 32

    def __init__(self, platform: Any) -> None:
        self.describe = platform.describe
        self.media_type = platform.media_type

    def attest(self, challenge: bytes) -> bytes:
        return challenge * 128


class _FreeVerifier:
    """Finds everything in order, at no cost."""

    name = "here"

    def __init__(self, ear: Ear) -> None:
        self._ear = ear

    async def appraise(
        self, evidence: bytes, media_type: str, *, challenge: Callable[[int], bytes], spki: bytes
    ) -> Ear:
        del media_type, spki
        assert evidence.startswith(challenge(32))
        return self._ear


@dataclass
class _Bench:
    """What the cases share."""

    lab: Lab = field(default_factory=lambda: Lab(lifetime=timedelta(hours=1)))

    def __post_init__(self) -> None:
        self.client, self.server = self.lab.join("client"), self.lab.join("server")
        key = self.client.svid.spki
        self.ear = self.lab.appraise(self.client.platform, key).to_ear()
        self.loop = asyncio.new_event_loop()

    def context(self, role: Role, node: Node) -> TlsContext:
        return TlsContext(
            role=role,
            chain=node.svid.chain,
            private_key=node.svid.private_key,
            authorities=[self.lab.authority.certificate],
            alpn=EXPAT_03.alpn,
        )

    def stdlib(self, role: Role, node: Node) -> ssl.SSLContext:
        kind = ssl.PROTOCOL_TLS_CLIENT if role is Role.CLIENT else ssl.PROTOCOL_TLS_SERVER
        context = ssl.SSLContext(kind)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.options |= ssl.OP_NO_TICKET
        if role is Role.SERVER:
            context.num_tickets = 0
        pem = self.lab.authority.certificate.public_bytes(Encoding.PEM).decode()
        context.load_verify_locations(cadata=pem)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "svid.pem"
            path.write_bytes(node.svid.encode_private_key(Encoding.PEM) + node.svid.encode_pem())
            context.load_cert_chain(path)
        return context

    def options(self, role: Role, model: str) -> ConnectionOptions:
        node = self.client if role is Role.CLIENT else self.server
        credentials = self.lab.credentials(node, attester=_FreeAttester(node.platform))
        return connection_options(
            role,
            credentials=credentials,
            policy=self.lab.policy(model=model),
            verifier=_FreeVerifier(self.ear),
        )

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    # One connection of each kind.

    async def plain(self, client: TlsContext, server: TlsContext) -> tuple[Any, Any, Any]:
        one, other = _Plain(client), _Plain(server)
        wires = _join(self.loop, one, other)
        await one.opened
        await other.opened
        return one, other, wires

    async def by_stdlib(
        self, client: ssl.SSLContext, server: ssl.SSLContext
    ) -> tuple[Any, Any, Any]:
        one, other = _Stdlib(client, server=False), _Stdlib(server, server=True)
        wires = _join(self.loop, one, other)
        await one.opened
        await other.opened
        return one, other, wires

    async def attested(
        self, client: ConnectionOptions, server: ConnectionOptions
    ) -> tuple[Any, Any, Any]:
        one, other = AttestedConnection(client, _Sink), AttestedConnection(server, _Sink)
        wires = _join(self.loop, one, other)
        await one.opened
        await other.opened
        return one, other, wires

    async def once(self, connecting: Coroutine[Any, Any, tuple[Any, Any, Any]]) -> None:
        _, _, wires = await connecting
        wires[0].close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def tls() -> list[Table]:
    """Measure everything."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[])
    bench = _Bench()
    return [_connections(bench), _throughput(bench), _sizes(bench), _rates(bench)]


def _forgetful(options: ConnectionOptions) -> ConnectionOptions:
    """Let the judge forget everybody, as if each connection were with a stranger."""
    options.judge.forget()
    return options


_FLOOR = "mutual TLS 1.3, pyOpenSSL"


def _connections(bench: _Bench) -> Table:
    plain = [bench.context(Role.CLIENT, bench.client), bench.context(Role.SERVER, bench.server)]
    stdlib = [bench.stdlib(Role.CLIENT, bench.client), bench.stdlib(Role.SERVER, bench.server)]
    by_model = {
        model: [bench.options(role, model) for role in (Role.CLIENT, Role.SERVER)]
        for model in ("svid_only", "passport", "background_check")
    }

    def attested(model: str, *, strangers: bool = False) -> Callable[[], object]:
        client, server = by_model[model]

        def work() -> None:
            if strangers:
                _forgetful(client)
                _forgetful(server)
            bench.run(bench.once(bench.attested(client, server)))

        return work

    return measure(
        "Attested TLS: CPU of one connection, both ends",
        [
            Case(_FLOOR, lambda: bench.run(bench.once(bench.plain(*plain)))),
            Case(
                "mutual TLS 1.3, standard library (the interpreter's OpenSSL)",
                lambda: bench.run(bench.once(bench.by_stdlib(*stdlib))),
                floor=_FLOOR,
            ),
            Case("attested, SVIDs only", attested("svid_only"), floor=_FLOOR),
            Case("attested, a passport each way", attested("passport"), floor=_FLOOR, aim=1 / 1.5),
            Case(
                "attested, a passport each way, between strangers",
                attested("passport", strangers=True),
                floor=_FLOOR,
            ),
            Case(
                "attested, 4 KiB of fresh Evidence each way",
                attested("background_check"),
                floor=_FLOOR,
                aim=1 / 1.7,
            ),
        ],
    )


async def _over_tcp(
    bench: _Bench, client: Callable[[], Any], server: Callable[[], Any], stack: AsyncExitStack
) -> tuple[Any, Any]:
    """Connect two protocols over loopback; returns them when both are open."""
    made: list[Any] = []

    def accept() -> Any:
        made.append(server())
        return made[0]

    listener = await bench.loop.create_server(accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    transport, one = await bench.loop.create_connection(client, "127.0.0.1", port)
    stack.callback(transport.abort)
    listener.close()
    await one.opened
    await made[0].opened
    return one, made[0]


async def _push(
    transport: Any, write: Callable[[bytes], None], received: Callable[[], int]
) -> None:
    wanted = received() + _BULK
    for _ in range(_BULK // _CHUNK):
        write(_DATA)
        while transport.get_write_buffer_size() > _CHUNK:
            await asyncio.sleep(0)
    while received() < wanted:
        await asyncio.sleep(0)


_DATA = os.urandom(_CHUNK)


def _throughput(bench: _Bench) -> Table:
    plain = [bench.context(Role.CLIENT, bench.client), bench.context(Role.SERVER, bench.server)]
    stdlib = [bench.stdlib(Role.CLIENT, bench.client), bench.stdlib(Role.SERVER, bench.server)]
    options = [bench.options(role, "passport") for role in (Role.CLIENT, Role.SERVER)]
    stack = AsyncExitStack()

    def join(client: Callable[[], Any], server: Callable[[], Any]) -> tuple[Any, Any]:
        ends: tuple[Any, Any] = bench.run(_over_tcp(bench, client, server, stack))
        return ends

    one, other = join(lambda: _Plain(plain[0]), lambda: _Plain(plain[1]))
    std_one, std_other = join(
        lambda: _Stdlib(stdlib[0], server=False), lambda: _Stdlib(stdlib[1], server=True)
    )
    att_one, att_other = join(
        lambda: AttestedConnection(options[0], _Sink), lambda: AttestedConnection(options[1], _Sink)
    )
    top, sink = att_one.application.transport, att_other.application
    floor = "1 MiB by pyOpenSSL, in writes of 64 KiB"
    table = measure(
        "Attested TLS: throughput on loopback, both ends in one thread (per second: MiB)",
        [
            Case(floor, lambda: bench.run(_push(one.transport, one.write, lambda: other.received))),
            Case(
                "1 MiB by the standard library",
                lambda: bench.run(
                    _push(std_one.transport, std_one.write, lambda: std_other.received)
                ),
                floor=floor,
            ),
            Case(
                "1 MiB on an attested connection",
                lambda: bench.run(_push(top, top.write, lambda: sink.received)),
                floor=floor,
                aim=0.97,
            ),
        ],
    )
    bench.run(stack.aclose())
    return table


def _sizes(bench: _Bench) -> Table:
    facts: list[tuple[str, str]] = []
    plain = [bench.context(Role.CLIENT, bench.client), bench.context(Role.SERVER, bench.server)]
    kinds: dict[str, Callable[[], Coroutine[Any, Any, tuple[Any, Any, Any]]]] = {
        _FLOOR: lambda: bench.plain(*plain)
    }
    for name, model in (
        ("attested, SVIDs only", "svid_only"),
        ("attested, a passport each way", "passport"),
        ("attested, 4 KiB of fresh Evidence each way", "background_check"),
    ):
        options = [bench.options(role, model) for role in (Role.CLIENT, Role.SERVER)]
        kinds[name] = lambda pair=options: bench.attested(*pair)  # type: ignore[misc]
    memory: dict[str, float] = {}
    for name, make in kinds.items():
        _, _, wires = bench.run(make())
        sent = f"{wires[0].octets:,} from the client, {wires[1].octets:,} from the server"
        facts.append((f"octets of {name}", sent))
        memory[name] = _memory(bench, make)
    floor = memory[_FLOOR]
    for name, value in memory.items():
        more = "" if name == _FLOOR else f" ({value - floor:+.0f} KiB; aim: at most 59 KiB more)"
        facts.append((f"memory of an idle end, {name}", f"{value:.0f} KiB{more}"))
    return Table("Attested TLS: octets and memory of one connection", facts=facts)


def _memory(bench: _Bench, make: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    """KiB of resident memory for one end of an idle connection."""

    async def many() -> list[Any]:
        kept = [await make() for _ in range(_IDLE)]
        gc.collect()
        return kept

    bench.run(many())
    gc.collect()
    before = _resident()
    kept = bench.run(many())
    after = _resident()
    # The first round has warmed allocators up, and what it freed is used again; so keep two sets.
    more = bench.run(many())
    last = _resident()
    del kept, more
    gc.collect()
    return max(last - after, after - before) / _IDLE / 2 / 1024


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class _LimitedAttester(_FreeAttester):
    """A device that makes so many quotes a second, one after the other."""

    def __init__(self, platform: Any) -> None:
        super().__init__(platform)
        self._device = Lock()

    def attest(self, challenge: bytes) -> bytes:
        with self._device:
            time.sleep(1 / _QUOTES_PER_SECOND)
        return super().attest(challenge)


def _rates(bench: _Bench) -> Table:
    """Connections per second of wall time, two processes on loopback."""
    facts = []
    for name, model, aim in (
        ("a passport each way", "passport", "≥ 500/s"),
        (
            f"fresh Evidence of the server, which can make {_QUOTES_PER_SECOND:.0f} quotes/s",
            "background_check",
            "",
        ),
    ):
        rate, latency = _loopback(bench, model)
        met = "" if not aim else f"; aim {aim}: {'met' if rate >= 500 else 'missed'}"
        facts.append(
            (
                f"connections per second, {_CALLERS} callers, {name}",
                f"{rate:,.0f}, median {latency * 1000:.1f} ms{met}",
            )
        )
    return Table("Attested TLS: two processes on loopback (wall time, both ends)", facts=facts)


def _loopback(bench: _Bench, model: str) -> tuple[float, float]:
    server_policy: AttestationPolicy = bench.lab.policy(
        model="passport" if model == "passport" else "svid_only"
    )
    server_credentials: Credentials = replace(
        bench.lab.credentials(bench.server),
        attester=_LimitedAttester(bench.server.platform),
    )
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_serve, args=(theirs, server_credentials, server_policy))
    process.start()
    try:
        port = ours.recv()
        return asyncio.run(_call(bench, port, model))
    finally:
        ours.send("end")
        process.join(10)


def _serve(pipe: Any, credentials: Credentials, policy: AttestationPolicy) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await start_server(
                lambda _: None, "127.0.0.1", credentials=credentials, policy=policy
            )
            await stack.enter_async_context(server)
            pipe.send(server.addresses[0][1])
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


async def _call(bench: _Bench, port: int, model: str) -> tuple[float, float]:
    options = connection_options(
        Role.CLIENT,
        credentials=bench.lab.credentials(bench.client),
        policy=bench.lab.policy(model=model),
        verifier=_FreeVerifier(bench.ear),
    )
    latencies: list[float] = []
    end = time.monotonic() + _SECONDS

    async def caller() -> None:
        while (begin := time.monotonic()) < end:
            stream = await connect("127.0.0.1", port, options)
            latencies.append(time.monotonic() - begin)
            stream.writer.close()
            await stream.connection.wait_closed()

    begin = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    spent = time.monotonic() - begin
    latencies.sort()
    return len(latencies) / spent, latencies[len(latencies) // 2]
