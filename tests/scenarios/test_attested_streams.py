# SPDX-License-Identifier: Apache-2.0
"""Python programs that open attested connections, over real sockets."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from support.attested_pair import ShiftedClock
from support.attested_world import DOMAIN, Node, World
from support.waiting import until
from troth.errors import ConfigurationError, TrothError
from troth.evidence.simulator import CcaOptions
from troth.formats.exported_authenticator import Role
from troth.tls import (
    AttestationPolicy,
    AttestationRefusedError,
    AttestedServer,
    AttestedStream,
    LocalVerifier,
    open_connection,
    start_server,
)
from troth.tls.asyncio.engine import TlsEngine
from troth.tls.asyncio.streams import connection_options
from troth.tls.core.binding import BindingKind
from troth.tls.core.framing import FrameKind, FrameReader
from troth.tls.core.messages import Message, MessageKind, Verdict, decode_message
from troth.tls.judge import Judge


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def cloud(world: World) -> Node:
    return world.join("cloud", world.platform(CcaOptions()))


@pytest.fixture(scope="module")
def edge(world: World) -> Node:
    return world.join("edge", world.platform())


async def echo(stream: AttestedStream) -> None:
    while data := await stream.reader.read(1 << 16):
        stream.writer.write(data)
        await stream.writer.drain()


@asynccontextmanager
async def serving(
    world: World, node: Node, policy: AttestationPolicy, handler: Any = echo, **options: Any
) -> AsyncIterator[tuple[AttestedServer, int]]:
    credentials = options.pop("credentials", None) or world.credentials(node)
    server = await start_server(
        handler,
        "127.0.0.1",
        credentials=credentials,
        policy=policy,
        verifier=options.pop("verifier", world.check),
        **options,
    )
    async with server:
        yield server, server.addresses[0][1]


async def call(
    world: World, node: Node, port: int, policy: AttestationPolicy, **options: Any
) -> AttestedStream:
    return await open_connection(
        "127.0.0.1",
        port,
        credentials=options.pop("credentials", None) or world.credentials(node),
        policy=policy,
        verifier=options.pop("verifier", world.check),
        **options,
    )


MODELS = ["passport", "background_check", "any", "svid_only"]


@pytest.mark.parametrize(("client", "server"), list(itertools.product(MODELS, repeat=2)))
async def test_any_pattern_works_with_any_other_in_the_other_direction(
    world: World, cloud: Node, edge: Node, client: Any, server: Any
) -> None:
    seen: list[Any] = []

    async def handler(stream: AttestedStream) -> None:
        seen.append(stream.peer)
        await echo(stream)

    async with serving(world, edge, world.policy(model=server), handler) as (_, port):
        stream = await call(world, cloud, port, world.policy(model=client))
        stream.writer.write(b"hello")
        assert await stream.reader.readexactly(5) == b"hello"
        stream.writer.close()
    expected = {"svid_only": BindingKind.CREDENTIAL}
    assert stream.peer.binding is expected.get(client, BindingKind.SESSION)
    assert seen[0].binding is expected.get(server, BindingKind.SESSION)
    assert str(stream.peer.spiffe_id) == f"spiffe://{DOMAIN}/node/edge"
    if client != "svid_only":
        assert stream.peer.scheme == "psa"
        assert stream.peer.proof_key == "tls"
    if server != "svid_only":
        assert seen[0].scheme == "cca"


async def test_a_client_that_serves_nobody_is_refused_and_both_learn_it(
    world: World, cloud: Node, edge: Node
) -> None:
    async with serving(world, edge, world.policy(peers=[f"spiffe://{DOMAIN}/node/x"])) as (_, port):
        with pytest.raises(AttestationRefusedError) as caught:
            await call(world, cloud, port, world.policy())
    assert caught.value.by_peer


async def test_a_server_below_the_tier_is_refused_with_the_reason(
    world: World, cloud: Node, edge: Node
) -> None:
    async with serving(world, edge, world.policy()) as (_, port):
        with pytest.raises(AttestationRefusedError, match="tier is measured"):
            await call(world, cloud, port, world.policy(min_tier="confidential"))


async def test_a_platform_that_changed_after_joining_fails_its_background_check(
    world: World, cloud: Node, edge: Node
) -> None:
    changed = edge.platform.with_measurement(0, bytes(32))
    credentials = world.credentials(edge, attester=changed)
    async with serving(world, edge, world.policy(), credentials=credentials) as (_, port):
        unaware = await call(world, cloud, port, world.policy())
        unaware.writer.close()
        with pytest.raises(AttestationRefusedError, match="status is"):
            await call(world, cloud, port, world.policy(model="background_check"))


async def test_a_background_check_rescues_a_passport_that_is_too_old(
    world: World, cloud: Node, edge: Node
) -> None:
    clock = ShiftedClock()
    clock.offset = timedelta(minutes=1)
    now = {
        "clock": clock,
        "verifier": LocalVerifier(name="here", verifier=world.verifier, clock=clock),
    }
    old = timedelta(seconds=30)
    async with serving(world, edge, world.policy()) as (_, port):
        with pytest.raises(AttestationRefusedError, match="result age"):
            await call(world, cloud, port, world.policy(max_age=old), **now)
        stream = await call(world, cloud, port, world.policy(model="any"), **now)
        assert stream.peer.model == "passport"
        rescued = await call(world, cloud, port, world.policy(model="any", max_age=old), **now)
        assert rescued.peer.model == "background_check"
        stream.writer.close()
        rescued.writer.close()


async def _exchange_bulk(
    stream: AttestedStream, until: Callable[[], bool], chunk: int = 32_768
) -> tuple[bytes, bytes]:
    """Send numbered chunks until told, take what comes back; return the digests of both."""
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def push() -> None:
        number = 0
        while not until() or number < 16:
            data = number.to_bytes(4, "big") * (chunk // 4)
            sent.update(data)
            stream.writer.write(data)
            await stream.writer.drain()
            number += 1
        stream.writer.write_eof()

    async def pull() -> None:
        while data := await stream.reader.read(1 << 16):
            received.update(data)

    await asyncio.gather(push(), pull())
    return sent.digest(), received.digest()


@pytest.mark.parametrize("asking", ["client", "server", "both"])
async def test_reattestation_under_load_loses_and_reorders_nothing(
    world: World, cloud: Node, edge: Node, asking: str
) -> None:
    policy = world.policy(model="background_check", renew=False)
    accepted: asyncio.Future[AttestedStream] = asyncio.get_running_loop().create_future()

    async def handler(stream: AttestedStream) -> None:
        accepted.set_result(stream)
        await echo(stream)

    async with serving(world, edge, policy, handler) as (_, port):
        stream = await call(world, cloud, port, policy)
        ends = {"client": [stream], "server": [await accepted], "both": [stream, await accepted]}

        async def renew(end: AttestedStream) -> None:
            for _ in range(4):
                await end.reattest()

        # As long as rounds are running, so every one of them runs under load.
        renewing = asyncio.gather(*(renew(end) for end in ends[asking]))
        sent, received = await _exchange_bulk(stream, renewing.done)
        await renewing
        stream.writer.close()
    assert received == sent


async def test_a_reader_that_pauses_delays_a_round_and_loses_nothing(
    world: World, cloud: Node, edge: Node
) -> None:
    """Proofs wait behind bytes that the application has not read; the round ends when it reads."""
    policy = world.policy(renew=False)
    payload = bytes(8 << 20)

    async def flood(stream: AttestedStream) -> None:
        stream.writer.write(payload)
        await stream.writer.drain()
        await stream.reader.read(1)

    async with serving(world, edge, policy, flood) as (_, port):
        stream = await call(world, cloud, port, policy)
        # Nobody reads until the stream's limit has stopped the transport.
        await until(lambda: not stream.writer.transport.is_reading())  # type: ignore[attr-defined]
        renewal = asyncio.create_task(stream.reattest())
        await asyncio.sleep(0.1)
        assert not renewal.done()
        assert await stream.reader.readexactly(len(payload)) == payload
        await renewal
        stream.writer.close()


async def test_a_long_lived_connection_outlives_its_first_result(
    world: World, cloud: Node, edge: Node
) -> None:
    """The option that is on by default: the peer is asked again before the deadline."""
    policy = world.policy(model="background_check", max_connection_age=timedelta(seconds=3))
    async with serving(world, edge, world.policy()) as (_, port):
        stream = await call(world, cloud, port, policy)
        first = stream.peer.deadline
        assert first is not None
        # Past the deadline of the first decision: it is alive on a later one.
        await until(lambda: datetime.now(UTC) > first, seconds=10, interval=0.05)
        stream.writer.write(b"still here")
        assert await stream.reader.readexactly(10) == b"still here"
        assert stream.peer.deadline is not None
        assert stream.peer.deadline > first
        stream.writer.close()


class Recorder:
    """Everything that either end gave to TLS, in the clear."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[bytes] = []
        write = TlsEngine.write

        def recording(engine: TlsEngine, data: bytes) -> None:
            self.written.append(bytes(data))
            write(engine, data)

        monkeypatch.setattr(TlsEngine, "write", recording)

    def messages(self) -> list[Message]:
        frames = FrameReader().feed(b"".join(self.written))
        return [
            decode_message(frame.payload)
            for frame in frames
            if frame.kind is FrameKind.EXCHANGE_END
        ]


@pytest.mark.parametrize("moment", ["opening", "later"])
async def test_a_refusal_is_a_reason_in_both_logs_and_one_octet_on_the_wire(
    world: World, cloud: Node, edge: Node, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = edge.platform.with_measurement(0, bytes(32))
    later = moment == "later"
    credentials = world.credentials(edge, attester=changed)
    first = world.policy(renew=False) if later else world.policy(model="background_check")
    with capture_logs() as logs:
        async with serving(world, edge, world.policy(), credentials=credentials) as (_, port):
            recorder = Recorder(monkeypatch)
            if later:
                stream = await call(world, cloud, port, first)
                # From now on this side wants to see the machine itself.
                driver = stream.connection._driver
                assert driver is not None
                fresh = Judge(
                    world.policy(model="background_check"), world.bundles, verifier=world.check
                )
                driver._options = replace(driver._options, judge=fresh)
                with pytest.raises(AttestationRefusedError, match="status is"):
                    await stream.reattest()
                with pytest.raises(ConnectionError):
                    await stream.reader.read(1)
            else:
                with pytest.raises(AttestationRefusedError, match="status is"):
                    await call(world, cloud, port, first)
    ended = {entry["role"]: entry for entry in logs if entry["event"] == "connection ended"}
    assert "status is" in ended["client"]["why"]
    assert ended["server"]["why"] == "the peer says: refused"
    assert ended["server"]["by_peer"]
    decisions = [m for m in recorder.messages() if m.kind is MessageKind.DECISION]
    assert decisions[-1].body == bytes([Verdict.REFUSED])
    assert {len(message.body) for message in decisions} == {1}
    assert not any(b"status" in written for written in recorder.written)


async def test_an_svid_that_is_replaced_serves_new_connections_and_later_rounds(
    world: World, cloud: Node
) -> None:
    platform = world.platform()
    shown = [world.join("edge", platform)]
    credentials = lambda: world.credentials(shown[-1])  # noqa: E731 - it is the thing under test
    policy = world.policy(renew=False)
    async with serving(world, shown[0], policy, credentials=credentials) as (_, port):
        stream = await call(world, cloud, port, policy)
        shown.append(world.join("edge", platform))
        later = await call(world, cloud, port, policy)
        keys = [each.peer.result.keys[0] if each.peer.result else b"" for each in (stream, later)]
        assert keys == [node.svid.spki for node in shown]
        renewed = await stream.reattest()
        assert renewed.result is not None
        assert renewed.result.keys[0] == shown[-1].svid.spki
        assert renewed.proof_key == "tls"
        stream.writer.close()
        later.writer.close()


async def test_a_server_that_speaks_first_speaks_after_the_decisions(
    world: World, cloud: Node, edge: Node
) -> None:
    """A protocol that writes in `connection_made`, at the moment the last decision is made."""

    class Greeter(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"220 ready")

    for policy in (world.policy(), world.policy(model="svid_only")):
        options = connection_options(
            Role.SERVER, credentials=world.credentials(edge), policy=policy
        )
        async with AttestedServer(options, lambda _: Greeter()) as server:
            await server.listen("127.0.0.1", 0)
            stream = await call(world, cloud, server.addresses[0][1], world.policy())
            assert await stream.reader.readexactly(9) == b"220 ready"
            stream.writer.close()


async def test_connections_that_do_not_open_are_bounded(
    world: World, cloud: Node, edge: Node
) -> None:
    async with serving(world, edge, world.policy(), max_unopened=2) as (server, port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await until(lambda: server.connections == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read(1) == b""
        writer.close()
        for _, idle_writer in idle:
            idle_writer.close()
        await until(lambda: server.connections == 0)
        stream = await call(world, cloud, port, world.policy())
        stream.writer.close()


async def test_who_does_not_read_our_last_words_does_not_keep_us(
    world: World, cloud: Node, edge: Node
) -> None:
    async def flood(stream: AttestedStream) -> None:
        stream.writer.write(bytes(16 << 20))

    async with serving(world, edge, world.policy(), flood) as (server, port):
        object.__setattr__(server._options, "linger_seconds", 0.2)
        stream = await call(world, cloud, port, world.policy())
        await until(lambda: server.connections == 0)
        stream.writer.transport.abort()


async def test_an_error_in_a_handler_goes_to_the_log_and_ends_its_connection_only(
    world: World, cloud: Node, edge: Node
) -> None:
    async def broken(stream: AttestedStream) -> None:
        raise LookupError(await stream.reader.readexactly(1))

    with capture_logs() as logs:
        async with serving(world, edge, world.policy(), broken) as (_, port):
            one, other = [await call(world, cloud, port, world.policy()) for _ in range(2)]
            one.writer.write(b"x")
            assert await one.reader.read(1) == b""
            assert other.connection.flowing
            other.writer.close()
            one.writer.close()
    assert [entry["log_level"] for entry in logs if entry["event"] == "defect in a handler"]


async def test_an_opening_that_is_cancelled_leaves_nothing(
    world: World, cloud: Node, edge: Node
) -> None:
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    silent = await asyncio.start_server(wait, "127.0.0.1")
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        opening = asyncio.create_task(call(world, cloud, port, world.policy()))
        await asyncio.sleep(0.05)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await gone.wait()
    async with serving(world, edge, world.policy()) as (_, port):
        with pytest.raises(ConfigurationError, match="a Verifier of this side's"):
            await open_connection(
                "127.0.0.1",
                port,
                credentials=world.credentials(cloud),
                policy=world.policy(model="any"),
            )


async def test_a_node_whose_reference_value_is_withdrawn_loses_the_live_connection(
    cloud: Node,
) -> None:
    world = World()
    cloud = world.join("cloud", world.platform(CcaOptions()))
    edge = world.join("edge", world.platform())
    lapsed: list[str] = []
    async with serving(world, edge, world.policy()) as (_, port):
        stream = await call(
            world,
            cloud,
            port,
            world.policy(model="background_check", renew=False),
            on_lapse=lambda _, why: lapsed.append(why),
        )
        await stream.reattest()
        for value in world.store.list(now=datetime.now(UTC)):
            if value.scheme == "psa":
                world.store.withdraw(value.id, now=datetime.now(UTC))
        with pytest.raises(AttestationRefusedError):
            await stream.reattest()
        with pytest.raises(ConnectionError):
            await stream.reader.read(1)
        assert [why.partition(":")[0] for why in lapsed] == ["PSA token"]


async def test_a_connection_ends_when_its_last_result_lapses() -> None:
    world = World()
    cloud = world.join("cloud", world.platform(CcaOptions()))
    edge = world.join("edge", world.platform())
    async with serving(world, edge, world.policy()) as (_, port):
        stream = await call(
            world,
            cloud,
            port,
            world.policy(max_connection_age=timedelta(seconds=2), renew=False),
        )
        with pytest.raises(ConnectionError, match="lapsed"):
            async with asyncio.timeout(10):
                await stream.reader.read(1)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_an_end_without_anything_to_show_is_refused(
    world: World, cloud: Node, edge: Node, side: str
) -> None:
    bare = world.join("bare", cloud.platform, svid_only=True)
    credentials = world.credentials(bare, attester=None)
    if side == "server":
        async with serving(world, edge, world.policy(), credentials=credentials) as (_, port):
            with pytest.raises(TrothError):
                await call(world, cloud, port, world.policy())
    else:
        async with serving(world, edge, world.policy()) as (_, port):
            with pytest.raises(TrothError):
                await call(world, cloud, port, world.policy(), credentials=credentials)


async def test_half_close_reaches_the_other_end_and_answers_still_come_back(
    world: World, cloud: Node, edge: Node
) -> None:
    async def count(stream: AttestedStream) -> None:
        data = await stream.reader.read(-1)
        stream.writer.write(str(len(data)).encode())

    async with serving(world, edge, world.policy(), count) as (_, port):
        stream = await call(world, cloud, port, world.policy())
        stream.writer.write(b"x" * 100_000)
        stream.writer.write_eof()
        assert await stream.reader.read(-1) == b"100000"
        stream.writer.close()


async def test_data_that_is_cut_off_is_not_taken_for_complete(
    world: World, cloud: Node, edge: Node
) -> None:
    """Neither TLS's own end nor TCP's says that the peer has sent all that it had to say."""

    async def cut(stream: AttestedStream) -> None:
        stream.writer.write(b"half of")
        await stream.writer.drain()
        stream.connection.close()

    async with serving(world, edge, world.policy(), cut) as (_, port):
        stream = await call(world, cloud, port, world.policy())
        assert await stream.reader.readexactly(7) == b"half of"
        with pytest.raises(ConnectionResetError, match="before the end of the peer's data"):
            await stream.reader.read(1)


async def test_who_never_finishes_tls_is_cut_off(world: World, edge: Node) -> None:
    async with serving(world, edge, world.policy()) as (server, port):
        object.__setattr__(server._options, "handshake_seconds", 0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01")
        assert await reader.read(1) == b""
        writer.close()
        await until(lambda: server.connections == 0)


async def test_what_is_not_tls_is_answered_with_an_alert(world: World, edge: Node) -> None:
    with capture_logs() as logs:
        async with serving(world, edge, world.policy()) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.read(-1)
            writer.close()
            await until(lambda: server.connections == 0)
    assert answer[:1] in (b"", b"\x15")
    assert [entry["event"] for entry in logs] == ["connection failed"]


async def test_a_peer_that_vanishes_while_we_write_harms_nobody(
    world: World, cloud: Node, edge: Node
) -> None:
    async with serving(world, edge, world.policy()) as (server, port):
        stream = await call(world, cloud, port, world.policy())
        await until(lambda: server.connections == 1)
        (theirs,) = server._connections
        theirs.abort()

        async def write_on() -> None:
            while True:
                stream.writer.write(bytes(100_000))
                await stream.writer.drain()
                await asyncio.sleep(0)

        with pytest.raises(ConnectionError):
            await write_on()
        stream.writer.write(b"to nobody")
        stream.writer.close()
        again = await call(world, cloud, port, world.policy())
        again.writer.close()
