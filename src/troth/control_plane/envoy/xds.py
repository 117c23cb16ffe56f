# SPDX-License-Identifier: Apache-2.0
"""Serves Envoy its configuration: SDS, LDS and CDS, aggregated or apart, on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Self, cast

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from troth.control_plane.envoy.discovery import (
    ORDER,
    DiscoveryRequest,
    DiscoveryResponse,
    DiscoveryStream,
    ResourceTable,
)
from troth.control_plane.envoy.packing import ResourcePacker
from troth.control_plane.envoy.refusal import remedy_for
from troth.control_plane.envoy.resources import CLUSTER, LISTENER, SECRET
from troth.control_plane.unix_grpc import UnixGrpcServer
from troth.errors import ApiMisuseError, ProxyError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message
    from grpclib._typing import IServable
    from grpclib.server import Stream

    from troth.control_plane.envoy.descriptors import EnvoyDescriptors
    from troth.control_plane.envoy.resources import MeshResources

__all__ = ["DEFAULT_LEASE", "ProxyEvent", "ProxyEventKind", "ProxyStatus", "XdsServer"]

_LOG = logging.getLogger(__name__)
DEFAULT_LEASE = timedelta(seconds=30)
MAX_STREAMS = 64
MAX_SECRET_STREAMS = 4096
_REQUEST = "envoy.service.discovery.v3.DiscoveryRequest"
_RESPONSE = "envoy.service.discovery.v3.DiscoveryResponse"
_RESOURCE = "type.googleapis.com/envoy.service.discovery.v3.Resource"
_METHODS = {
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources": ORDER,
    "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets": (SECRET,),
    "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters": (CLUSTER,),
    "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners": (LISTENER,),
}
_WORDS = {SECRET: "secrets", CLUSTER: "clusters", LISTENER: "listeners"}


class ProxyEventKind(Enum):
    """What happened with an Envoy."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ProxyEvent:
    """One thing that happened with an Envoy; `resources` is "listeners" and the like, or ""."""

    kind: ProxyEventKind
    node_id: str
    resources: str = ""
    version: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """An Envoy that is connected: what it has accepted (by type URL), and what it refused last."""

    node_id: str
    envoy_version: str
    applied: Mapping[str, int]
    refused: Mapping[str, str]


class XdsServer:
    """Publishes resources to every Envoy that connects to `socket`.

    Envoys that (re)connect get the whole present state; Envoys whose agent is gone keep what they
    have for `lease`, and then listen nowhere: a dead agent denies. An agent that is back within
    the lease disturbs nothing.

    Checks that a peer runs as an allowed user, not which Envoy it is: secrets are for every
    process of those users.

    Args:
        socket: Unix socket path; the directory must exist and be private.
        descriptors: the types of the Envoy that will connect.
        allowed_uids: users whose processes are served; default: our own.
        types: what is served; `(SECRET,)` for an Envoy whose listeners and clusters stand in its
            own file, which has a stream for each secret.
        services: further gRPC services on the socket.
        lease: how long listeners outlive their agent; None for without end.
        on_event: told what happens; must not block.
    """

    def __init__(
        self,
        *,
        socket: Path,
        descriptors: EnvoyDescriptors,
        allowed_uids: frozenset[int] | None = None,
        types: tuple[str, ...] = ORDER,
        services: Collection[IServable] = (),
        lease: timedelta | None = DEFAULT_LEASE,
        on_event: Callable[[ProxyEvent], None] | None = None,
    ) -> None:
        if lease is not None and lease < timedelta(seconds=1):
            raise ApiMisuseError(f"a lease of {lease} is too short to be renewed in time")
        self._descriptors = descriptors
        self._lease = lease
        self._on_event = on_event
        self._packer = ResourcePacker(descriptors)
        self._table = ResourceTable()
        self._streams: dict[DiscoveryStream, _Connection] = {}
        self._changed = asyncio.Event()
        # Tells versions of this run from those of an agent before it, in Envoy's statistics.
        self._run = secrets.token_hex(4)
        self._types = types
        self._max_streams = MAX_STREAMS if LISTENER in types else MAX_SECRET_STREAMS
        self._server = UnixGrpcServer([self, *services], socket, allowed_uids=allowed_uids)
        self._heart: asyncio.Task[None] | None = None

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the gRPC methods, as grpclib asks of a service."""
        request, response = (self._descriptors.message(name) for name in (_REQUEST, _RESPONSE))

        def handler(types: tuple[str, ...]) -> Handler:
            async def serve(stream: Stream[Any, Any]) -> None:
                await self._serve(stream, frozenset(types))

            return Handler(serve, Cardinality.STREAM_STREAM, request, response)

        return {
            path: handler(types)
            for path, types in _METHODS.items()
            if set(types) <= set(self._types)
        }

    async def start(self) -> None:
        """Begin to serve; what is published before is there from the first moment.

        Raises:
            ConfigurationError: the socket cannot be had.
        """
        await self._server.start()
        if self._lease is not None and LISTENER in self._types:
            interval = self._lease.total_seconds() / 3
            self._heart = asyncio.create_task(self._renew_leases(interval))

    async def stop(self) -> None:
        """Stop serving and end all streams. Envoys keep their listeners until the lease ends."""
        if self._heart is not None:
            self._heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heart
            self._heart = None
        await self._server.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def publish(self, type_url: str, resources: Iterable[Mapping[str, object]]) -> int:
        """Replace all resources of a type and return the version; Envoys get it at once.

        Publishing what is published already gives the present version and disturbs nothing.
        Says nothing about whether an Envoy accepts it: see `wait_applied`.

        Raises:
            ApiMisuseError: a resource is not of this type or has no name or another's; then
                nothing has changed.
        """
        version = self._table.publish(type_url, self._pack(type_url, resources))
        self._wake()
        return version

    def publish_mesh(self, resources: MeshResources) -> dict[str, int]:
        """Replace the resources of all types in one step and return the version of each.

        Raises:
            ApiMisuseError: as `publish`; then no type has changed.
        """
        packed = {
            type_url: self._pack(type_url, values)
            for type_url, values in resources.by_type().items()
            if type_url in self._types
        }
        versions = {
            type_url: self._table.publish(type_url, values) for type_url, values in packed.items()
        }
        self._wake()
        return versions

    async def apply(self, resources: MeshResources, *, timeout_seconds: float = 10) -> None:
        """Publish `resources` and wait until every connected Envoy has all of them in effect.

        That includes the secrets of new listeners and clusters, if their trust domains have any.

        Raises:
            ProxyError, UnavailableError: as `wait_applied`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        versions = self.publish_mesh(resources)
        # Listeners first: accepting them makes Envoy ask for the secrets that they need.
        for type_url, version in reversed(versions.items()):
            left = max(deadline - loop.time(), 0.0)
            await self.wait_applied(type_url, version, timeout_seconds=left)

    async def wait_applied(
        self, type_url: str, version: int, *, timeout_seconds: float = 10
    ) -> None:
        """Wait until every connected Envoy, and at least one, has accepted `version` or a later one.

        Accepted means that Envoy checked it and put it to use: a removed filter chain is closed by
        then or within the drain time (0 in the mesh). A new listener may still be waiting for
        its secrets.

        Raises:
            ProxyError: an Envoy refused it. It keeps what it had.
            UnavailableError: no Envoy was there, or one did not answer, within the time.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self._applied(type_url, version):
                    await self._changed.wait()
        except TimeoutError as exc:
            raise UnavailableError(self._missing(type_url, version, timeout_seconds)) from exc

    @property
    def proxies(self) -> tuple[ProxyStatus, ...]:
        """The Envoys that are connected, one entry per stream."""
        return tuple(
            ProxyStatus(
                node_id=connection.node_id,
                envoy_version=connection.envoy_version,
                applied={type_url: stream.applied(type_url) for type_url in stream.types},
                refused={
                    type_url: answer.error
                    for type_url in stream.types
                    if (answer := stream.refused(type_url))
                },
            )
            for stream, connection in self._streams.items()
        )

    def _pack(
        self, type_url: str, resources: Iterable[Mapping[str, object]]
    ) -> dict[str, AnyMessage]:
        if type_url not in _WORDS:
            raise ApiMisuseError(f"{type_url} is not served; known are {', '.join(_WORDS)}")
        named: dict[str, Mapping[str, object]] = {}
        for value in resources:
            name = value.get("name")
            if not isinstance(name, str) or not name or name in named:
                raise ApiMisuseError(f"a resource of {_WORDS[type_url]} has the name {name!r}")
            named[name] = value
        return self._packer.pack(type_url, named)

    async def _serve(self, stream: Stream[Any, Any], types: frozenset[str]) -> None:
        """Run one stream until Envoy or `stop` ends it."""
        if len(self._streams) >= self._max_streams:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"more than {self._max_streams} streams")
        discovery = DiscoveryStream(self._table, types)
        connection = self._streams[discovery] = _Connection()
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(stream, discovery, connection))
                while (message := await stream.recv_message()) is not None:
                    self._receive(discovery, connection, message)
                    connection.wake.set()
                sender.cancel()
        finally:
            del self._streams[discovery]
            if connection.node_id:
                self._tell(ProxyEvent(ProxyEventKind.DISCONNECTED, connection.node_id))
            self._note_change()

    async def _send(
        self, stream: Stream[Any, Any], discovery: DiscoveryStream, connection: _Connection
    ) -> None:
        while True:
            for response in discovery.due():
                await stream.send_message(self._encode(response))
            self._note_change()  # what needed no sending counts as applied
            await connection.wake.wait()
            connection.wake.clear()

    def _receive(
        self, discovery: DiscoveryStream, connection: _Connection, message: Message
    ) -> None:
        request = cast("Any", message)
        if not connection.node_id:
            node = request.node
            connection.node_id = node.id or "(unnamed)"
            number = node.user_agent_build_version.version
            connection.envoy_version = f"{number.major_number}.{number.minor_number}.{number.patch}"
            self._tell(ProxyEvent(ProxyEventKind.CONNECTED, connection.node_id))
        error = ""
        if request.HasField("error_detail"):
            error = request.error_detail.message or f"code {request.error_detail.code}"
        answer = discovery.receive(
            DiscoveryRequest(
                type_url=request.type_url,
                names=frozenset(request.resource_names),
                nonce=request.response_nonce,
                error=error,
            )
        )
        if answer is None:
            return
        kind = ProxyEventKind.REFUSED if answer.error else ProxyEventKind.ACCEPTED
        words = _WORDS[answer.type_url]
        self._tell(ProxyEvent(kind, connection.node_id, words, answer.version, answer.error))
        self._note_change()

    def _encode(self, response: DiscoveryResponse) -> Message:
        message = cast("Any", self._descriptors.message(_RESPONSE)())
        message.type_url = response.type_url
        message.version_info = f"{self._run}-{response.version}"
        message.nonce = response.nonce
        for name, resource in response.resources.items():
            packed = message.resources.add()
            if response.type_url == LISTENER and self._lease is not None:
                leased = cast("Any", self._descriptors.parse(_RESOURCE_NAME, {"name": name}))
                leased.resource.CopyFrom(resource)
                leased.ttl.FromTimedelta(self._lease)
                packed.type_url, packed.value = _RESOURCE, leased.SerializeToString()
            else:
                packed.CopyFrom(resource)
        return cast("Message", message)

    async def _renew_leases(self, interval_seconds: float) -> None:
        """Send all listeners again and again; Envoy sees that they are the same, and lets them be.

        The protocol has a shorter form, without content, for this. It is not used: a listener that
        Envoy had dropped by itself would not come back.
        """
        while True:
            await asyncio.sleep(interval_seconds)
            for stream in self._streams:
                stream.renew(LISTENER)
            self._wake()

    def _applied(self, type_url: str, version: int) -> bool:
        served = 0
        for stream, connection in self._streams.items():
            if type_url not in stream.types:
                continue
            answer = stream.refused(type_url)
            if answer is not None and answer.version >= version:
                raise ProxyError(
                    f"Envoy {connection.node_id} refused {_WORDS[type_url]} version"
                    f" {answer.version} and keeps the ones before: {answer.error}",
                    remedy=remedy_for(answer.error),
                )
            if stream.applied(type_url) < version:
                return False
            served += 1
        return served > 0

    def _missing(self, type_url: str, version: int, timeout_seconds: float) -> str:
        what = f"{_WORDS.get(type_url, type_url)} version {version}"
        waiting = [
            connection.node_id or "(silent)"
            for stream, connection in self._streams.items()
            if type_url in stream.types and stream.applied(type_url) < version
        ]
        if waiting:
            return (
                f"Envoy {', '.join(waiting)} did not answer to {what} within {timeout_seconds:g} s"
            )
        return f"no Envoy connected to take {what} within {timeout_seconds:g} s"

    def _wake(self) -> None:
        for connection in self._streams.values():
            connection.wake.set()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, event: ProxyEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 - an onlooker's fault must not stop enforcement
            _LOG.exception("the callback for proxy events failed")


_RESOURCE_NAME = _RESOURCE.rpartition("/")[2]


class _Connection:
    """What is known of one stream's Envoy."""

    def __init__(self) -> None:
        self.node_id = ""
        self.envoy_version = ""
        self.wake = asyncio.Event()
