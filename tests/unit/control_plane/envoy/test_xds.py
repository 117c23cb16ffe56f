# SPDX-License-Identifier: Apache-2.0
"""The xDS server as a client sees it that is not Envoy, and as the agent uses it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.client import Channel, StreamStreamMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from support.envoy_mesh import envoy_binary
from support.waiting import until
from troth.control_plane.envoy import xds
from troth.control_plane.envoy.descriptors import EnvoyDescriptors
from troth.control_plane.envoy.resources import CLUSTER, LISTENER, SECRET, MeshResources
from troth.control_plane.envoy.xds import ProxyEvent, ProxyEventKind, XdsServer
from troth.errors import ApiMisuseError, ProxyError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
SDS = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
LDS = "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
CDS = "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"


@pytest.fixture(scope="module")
def descriptors() -> EnvoyDescriptors:
    return EnvoyDescriptors.load(envoy_binary())


@pytest.fixture
def path() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tr", dir="/tmp"))
    yield directory / "xds"
    shutil.rmtree(directory)


class Client:
    """One discovery stream."""

    def __init__(self, stream: Any, descriptors: EnvoyDescriptors) -> None:
        self._stream = stream
        self._descriptors = descriptors
        self._first = True

    async def ask(self, type_url: str, *names: str, answers: Any = None, error: str = "") -> None:
        request: Any = self._descriptors.message(xds._REQUEST)()
        request.type_url = type_url
        request.resource_names.extend(names)
        if self._first:
            request.node.id = "edge"
            self._first = False
        if answers is not None:
            request.response_nonce = answers.nonce
        if error:
            request.error_detail.message = error
        await self._stream.send_message(request)

    async def take(self) -> Any:
        return await asyncio.wait_for(self._stream.recv_message(), 5)


@contextlib.asynccontextmanager
async def _client(
    path: Path, descriptors: EnvoyDescriptors, method: str = ADS
) -> AsyncIterator[Client]:
    channel = Channel(path=str(path))
    types = (descriptors.message(xds._REQUEST), descriptors.message(xds._RESPONSE))
    stream = StreamStreamMethod(channel, method, *types).open()
    await stream.__aenter__()
    try:
        yield Client(stream, descriptors)
    finally:
        with contextlib.suppress(Exception):
            await stream.cancel()
        channel.close()


@contextlib.asynccontextmanager
async def _server(
    path: Path, descriptors: EnvoyDescriptors, **options: Any
) -> AsyncIterator[XdsServer]:
    async with XdsServer(socket=path, descriptors=descriptors, **options) as server:
        yield server


@pytest.mark.parametrize(
    ("method", "type_url", "names"),
    [(SDS, SECRET, ("a",)), (CDS, CLUSTER, ()), (LDS, LISTENER, ()), (ADS, CLUSTER, ())],
)
async def test_each_service_serves_its_type(
    path: Path, descriptors: EnvoyDescriptors, method: str, type_url: str, names: tuple[str, ...]
) -> None:
    async with (
        _server(path, descriptors) as server,
        _client(path, descriptors, method) as client,
    ):
        for each in (SECRET, CLUSTER, LISTENER):
            server.publish(each, [{"name": "a"}])
        await client.ask(type_url, *names)
        response = await client.take()
        assert response.type_url == type_url
        assert len(response.resources) == 1
        await client.ask(type_url, *names, answers=response)
        await server.wait_applied(type_url, 1)


async def test_a_service_does_not_serve_another_type(
    path: Path, descriptors: EnvoyDescriptors
) -> None:
    async with (
        _server(path, descriptors) as server,
        _client(path, descriptors, SDS) as client,
    ):
        server.publish(LISTENER, [{"name": "a"}])
        server.publish(SECRET, [{"name": "a"}])
        await client.ask(LISTENER)
        await client.ask(SECRET, "a")
        assert (await client.take()).type_url == SECRET


async def test_what_happens_is_told(path: Path, descriptors: EnvoyDescriptors) -> None:
    events: list[ProxyEvent] = []
    async with _server(path, descriptors, on_event=events.append) as server:
        server.publish(CLUSTER, [{"name": "a"}])
        async with _client(path, descriptors) as client:
            await client.ask(CLUSTER)
            await client.ask(CLUSTER, answers=await client.take(), error="no thanks")
            with pytest.raises(ProxyError, match=r"edge refused clusters version 1.*no thanks"):
                await server.wait_applied(CLUSTER, 1)
            server.publish(CLUSTER, [{"name": "b"}])
            await client.ask(CLUSTER, answers=await client.take())
            await server.wait_applied(CLUSTER, 2)
        await until(lambda: len(events) == 4)
    assert [(event.kind, event.version) for event in events] == [
        (ProxyEventKind.CONNECTED, 0),
        (ProxyEventKind.REFUSED, 1),
        (ProxyEventKind.ACCEPTED, 2),
        (ProxyEventKind.DISCONNECTED, 0),
    ]
    assert events[1] == ProxyEvent(ProxyEventKind.REFUSED, "edge", "clusters", 1, "no thanks")


async def test_waiting_ends_with_the_reason_why_nothing_came(
    path: Path, descriptors: EnvoyDescriptors
) -> None:
    async with _server(path, descriptors) as server:
        version = server.publish(CLUSTER, [{"name": "a"}])
        with pytest.raises(UnavailableError, match="no Envoy connected to take clusters version 1"):
            await server.wait_applied(CLUSTER, version, timeout_seconds=0.05)
        async with _client(path, descriptors) as client:
            await client.ask(CLUSTER)
            await client.take()
            with pytest.raises(UnavailableError, match="Envoy edge did not answer to clusters"):
                await server.wait_applied(CLUSTER, version, timeout_seconds=0.05)


async def test_a_version_is_applied_when_every_envoy_has_it(
    path: Path, descriptors: EnvoyDescriptors
) -> None:
    async with (
        _server(path, descriptors) as server,
        _client(path, descriptors) as one,
        _client(path, descriptors) as two,
    ):
        server.publish(CLUSTER, [{"name": "a"}])
        await one.ask(CLUSTER)
        await two.ask(CLUSTER)
        await one.ask(CLUSTER, answers=await one.take())
        response = await two.take()
        waiting = asyncio.create_task(server.wait_applied(CLUSTER, 1))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await two.ask(CLUSTER, answers=response)
        await waiting


async def test_a_leased_listener_says_how_long_it_lives_and_is_renewed(
    path: Path, descriptors: EnvoyDescriptors
) -> None:
    lease = timedelta(seconds=1)
    async with (
        _server(path, descriptors, lease=lease) as server,
        _client(path, descriptors) as client,
    ):
        server.publish(LISTENER, [{"name": "a"}])
        await client.ask(LISTENER)
        first, second = await client.take(), await client.take()
    resource: Any = descriptors.message(xds._RESOURCE_NAME)
    leased = [resource.FromString(item.resources[0].value) for item in (first, second)]
    assert leased[0] == leased[1]
    assert (leased[0].name, leased[0].ttl.ToTimedelta()) == ("a", lease)
    assert leased[0].resource.type_url == LISTENER
    assert first.version_info == second.version_info
    assert first.nonce != second.nonce


async def test_without_a_lease_listeners_are_plain(
    path: Path, descriptors: EnvoyDescriptors
) -> None:
    async with (
        _server(path, descriptors, lease=None) as server,
        _client(path, descriptors) as client,
    ):
        server.publish(LISTENER, [{"name": "a"}])
        await client.ask(LISTENER)
        assert (await client.take()).resources[0].type_url == LISTENER


def test_a_lease_too_short_to_renew_is_refused(path: Path, descriptors: EnvoyDescriptors) -> None:
    with pytest.raises(ApiMisuseError, match="too short"):
        XdsServer(socket=path, descriptors=descriptors, lease=timedelta(seconds=0.5))


@pytest.mark.parametrize(
    "second",
    [{}, {"name": ""}, {"name": "a"}, {"name": 5}, {"name": "b", "no_such_field": 1}],
)
async def test_one_wrong_resource_changes_nothing(
    path: Path, descriptors: EnvoyDescriptors, second: dict[str, object]
) -> None:
    server = XdsServer(socket=path, descriptors=descriptors)
    assert server.publish(CLUSTER, [{"name": "a"}]) == 1
    with pytest.raises(ApiMisuseError):
        server.publish(CLUSTER, [{"name": "a"}, second])
    assert server.publish(CLUSTER, [{"name": "a"}]) == 1
    with pytest.raises(ApiMisuseError, match="not served"):
        server.publish("type.googleapis.com/google.protobuf.Empty", [])


async def test_the_number_of_streams_is_bounded(
    path: Path, descriptors: EnvoyDescriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xds, "MAX_STREAMS", 1)
    async with (
        _server(path, descriptors) as server,
        _client(path, descriptors) as one,
        _client(path, descriptors) as two,
    ):
        await one.ask(CLUSTER)
        await until(lambda: bool(server.proxies))
        await two.ask(CLUSTER)
        with pytest.raises((GRPCError, StreamTerminatedError)):
            await two.take()
        assert len(server.proxies) == 1


async def test_a_callback_that_fails_stops_nothing(
    path: Path, descriptors: EnvoyDescriptors, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: ProxyEvent) -> None:
        raise ValueError(event)

    async with (
        _server(path, descriptors, on_event=fail) as server,
        _client(path, descriptors) as client,
    ):
        server.publish(CLUSTER, [{"name": "a"}])
        await client.ask(CLUSTER)
        await client.ask(CLUSTER, answers=await client.take())
        await server.wait_applied(CLUSTER, 1)
    assert "callback for proxy events failed" in caplog.text


async def test_an_envoy_with_a_file_of_its_own_gets_secrets_alone_and_that_is_all_of_it(
    path: Path, descriptors: EnvoyDescriptors
) -> None:
    server = XdsServer(socket=path, descriptors=descriptors, types=(SECRET,))
    secret = {"name": "a", "generic_secret": {"secret": {"inline_string": "x"}}}
    listener = {"name": "l", "internal_listener": {}}
    wish = MeshResources(secrets=(secret,), clusters=(), listeners=(listener,))
    assert server.__mapping__().keys() == {SDS}
    async with server:
        with pytest.raises(UnavailableError):
            await server.apply(wish, timeout_seconds=0.1)
        async with _client(path, descriptors, SDS) as client:
            await client.ask(SECRET, "a")
            answer = await client.take()
            assert len(answer.resources) == 1
            await client.ask(SECRET, "a", answers=answer)
            # Neither clusters nor listeners are waited for: nobody asks for them.
            await server.apply(wish, timeout_seconds=5)
