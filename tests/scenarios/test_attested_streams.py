# SPDX-License-Identifier: Apache-2.0
"""Python programs that open attested connections, over real sockets."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.attested_world import DOMAIN, Node, World
from troth.errors import TrothError
from troth.evidence.simulator import CcaOptions
from troth.tls import (
    AttestationPolicy,
    AttestationRefusedError,
    AttestedServer,
    AttestedStream,
    open_connection,
    start_server,
)
from troth.tls.core.binding import BindingKind


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
        verifier=world.check,
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
        verifier=world.check,
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
    old = timedelta(seconds=1)
    await asyncio.sleep(2.1)
    async with serving(world, edge, world.policy()) as (_, port):
        with pytest.raises(AttestationRefusedError, match="result age"):
            await call(world, cloud, port, world.policy(max_age=old))
        stream = await call(world, cloud, port, world.policy(model="any", max_age=timedelta(5)))
        assert stream.peer.result is not None
        rescued = await call(
            world, cloud, port, world.policy(model="any", max_age=timedelta(seconds=2))
        )
        assert rescued.peer.result is not None
        assert rescued.peer.result.issued_at > stream.peer.result.issued_at
        stream.writer.close()
        rescued.writer.close()


async def test_reattestation_under_load_loses_and_reorders_nothing(
    world: World, cloud: Node, edge: Node
) -> None:
    async with serving(world, edge, world.policy(model="background_check")) as (_, port):
        stream = await call(world, cloud, port, world.policy(model="background_check"))
        sent, received = hashlib.sha256(), hashlib.sha256()

        async def renew() -> None:
            for _ in range(4):
                await stream.reattest()

        async def push() -> None:
            number = 0
            # As long as rounds are running, so every one of them runs under load.
            while not renewing.done() or number < 64:
                chunk = number.to_bytes(4, "big") * 8192
                sent.update(chunk)
                stream.writer.write(chunk)
                await stream.writer.drain()
                number += 1
            stream.writer.write_eof()

        async def pull() -> None:
            while data := await stream.reader.read(1 << 16):
                received.update(data)

        renewing = asyncio.create_task(renew())
        await asyncio.gather(renewing, push(), pull())
        stream.writer.close()
    assert received.digest() == sent.digest()


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
            world.policy(model="background_check"),
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
    assert lapsed


async def test_a_connection_ends_when_its_last_result_lapses() -> None:
    world = World()
    world.verifier = world.verifier
    cloud = world.join("cloud", world.platform(CcaOptions()))
    edge = world.join("edge", world.platform())
    async with serving(world, edge, world.policy()) as (_, port):
        stream = await call(
            world, cloud, port, world.policy(max_connection_age=timedelta(seconds=2))
        )
        with pytest.raises(ConnectionError, match="lapsed"):
            await asyncio.wait_for(stream.reader.read(1), 10)


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
