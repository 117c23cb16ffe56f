# SPDX-License-Identifier: Apache-2.0
"""The Broker API: for named callers alone, on behalf of processes that the agent looks at itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import StreamClosedError

from support.workloads import (
    DOMAIN,
    FixedAttestor,
    IssuingServer,
    StepClock,
    authority,
    entry,
    short_directory,
)
from support.x509 import p256
from troth.adapters.pinned_tls import pinned_context
from troth.control_plane.workload_api.broker import RpcStatusDetails
from troth.control_plane.workload_api.endpoint import BrokerEndpoint
from troth.control_plane.workload_api.identities import WorkloadIdentities
from troth.control_plane.workload_api.messages import BROKER, BROKER_SERVICE, RPC
from troth.identity.spiffe_id import SpiffeId
from troth.identity.x509_svid import X509Svid

NODE = f"spiffe://{DOMAIN}/edge"
PROXY = f"spiffe://{DOMAIN}/ztunnel"
STRANGER = f"spiffe://{DOMAIN}/other"
HEADER = {"broker.spiffe.io": "true"}
SECONDS = 5


class Side:
    """A broker endpoint with its parts."""

    def __init__(self, directory: Path) -> None:
        self.clock = StepClock()
        self.server = IssuingServer(self.clock, entries=[entry("web", "unix:uid:7777")])
        self.identities = WorkloadIdentities(self.server, clock=self.clock)
        self.attestor = FixedAttestor()
        self.socket = directory / "broker.sock"
        self.node = self.server.issue(NODE)
        self.endpoint = BrokerEndpoint(
            self.identities,
            self.attestor,
            socket=self.socket,
            brokers=[SpiffeId.decode(PROXY)],
            clock=self.clock,
        )

    def channel(self, identity: X509Svid | None) -> Channel:
        pem = self.server.bundle.encode_pem().decode()
        context = pinned_context(pem, SpiffeId.decode(NODE), identity=identity)
        context.set_alpn_protocols(["h2"])
        # The name is none that anybody checks: the server is known by its SPIFFE ID.
        config = Configuration(ssl_target_name_override="broker")
        return Channel(
            path=str(self.socket),
            ssl=context,
            config=config,
            status_details_codec=RpcStatusDetails(),
        )

    @asynccontextmanager
    async def subscription(
        self, kind: str, reference: Any, *, caller: str = PROXY, metadata: Any = None
    ) -> AsyncIterator[Any]:
        channel = self.channel(self.server.issue(caller))
        request = BROKER[f"SubscribeTo{kind}Request"]
        method: UnaryStreamMethod[Any, Any] = UnaryStreamMethod(
            channel,
            f"/{BROKER_SERVICE}/SubscribeTo{kind}",
            request,
            BROKER[f"SubscribeTo{kind}Response"],
        )
        try:
            async with method.open(metadata=HEADER if metadata is None else metadata) as stream:
                await stream.send_message(request(reference=reference), end=True)
                yield stream
                with contextlib.suppress(StreamClosedError):
                    await stream.cancel()
        finally:
            channel.close()

    async def first(self, kind: str, reference: Any, **options: Any) -> Any:
        async with asyncio.timeout(SECONDS):
            async with self.subscription(kind, reference, **options) as stream:
                return await stream.recv_message()

    async def token(self, reference: Any, *audience: str, **fields: Any) -> Any:
        channel = self.channel(self.server.issue(PROXY))
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
            channel,
            f"/{BROKER_SERVICE}/FetchJWTSVID",
            BROKER["FetchJWTSVIDRequest"],
            BROKER["FetchJWTSVIDResponse"],
        )
        request = BROKER["FetchJWTSVIDRequest"](
            reference=reference, audience=list(audience), **fields
        )
        try:
            return await method(request, metadata=HEADER)
        finally:
            channel.close()


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    with short_directory() as directory:
        made = Side(directory)
        made.identities.adopt(made.server.bundle)
        await made.identities.step()
        await made.endpoint.adopt(made.node, made.server.bundle)
        yield made
        await made.endpoint.stop()


@contextmanager
def workload(side: Side) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that is registered."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        side.attestor.known[process.pid] = {"unix:uid:7777"}
        yield process
        process.kill()


def pid(number: int) -> Any:
    packed = BROKER.message("google.protobuf.Any")()
    packed.Pack(BROKER["WorkloadPIDReference"](pid=number))
    return BROKER["WorkloadReference"](reference=packed)


async def refused(work: Any) -> tuple[Status, str]:
    """Return the status and the reason of a refusal."""
    with pytest.raises(GRPCError) as caught:
        await work
    details = caught.value.details
    reason = ""
    for detail in details or ():
        info = RPC["ErrorInfo"].FromString(detail.value)
        assert detail.type_url == "type.googleapis.com/google.rpc.ErrorInfo"
        assert info.domain == "spiffe.io"
        reason = info.reason
    return caught.value.status, reason


async def end_of(stream: Any) -> None:
    assert await stream.recv_message() is None
    await stream.recv_trailing_metadata()


async def test_a_broker_gets_the_identities_of_the_process_that_it_names(side: Side) -> None:
    with workload(side) as process:
        response = await side.first("X509SVID", pid(process.pid))
        [svid] = response.svids
        assert svid.spiffe_id == f"spiffe://{DOMAIN}/web"
        assert X509Svid.decode(svid.x509_svid).spiffe_id == SpiffeId.decode(svid.spiffe_id)
        assert svid.x509_svid_key
        assert side.attestor.asked[-1][0] == process.pid
        bundles = await side.first("X509Bundles", pid(process.pid))
        assert list(bundles.bundles) == [f"spiffe://{DOMAIN}"]
        keys = await side.first("JWTBundles", pid(process.pid))
        assert list(keys.bundles) == [f"spiffe://{DOMAIN}"]
        tokens = await side.token(pid(process.pid), "reports")
        assert [each.spiffe_id for each in tokens.svids] == [f"spiffe://{DOMAIN}/web"]


@pytest.mark.parametrize("caller", [STRANGER, NODE])
async def test_who_is_not_named_is_no_broker(side: Side, caller: str) -> None:
    with workload(side) as process:
        work = side.first("X509SVID", pid(process.pid), caller=caller)
        assert await refused(work) == (Status.PERMISSION_DENIED, "")
        assert not side.attestor.asked


async def test_without_an_svid_of_this_trust_domain_there_is_no_handshake(side: Side) -> None:
    own_ca = side.server.authorities
    side.server.authorities = [authority()]
    foreign = side.server.issue(PROXY)
    side.server.authorities = own_ca
    for identity in (None, foreign):
        channel = side.channel(identity)
        request = BROKER["FetchJWTSVIDRequest"]
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
            channel, f"/{BROKER_SERVICE}/FetchJWTSVID", request, request
        )
        with pytest.raises((ssl.SSLError, ConnectionError, StreamTerminatedError)):
            async with asyncio.timeout(SECONDS):
                await method(request(), metadata=HEADER)
        channel.close()


async def test_an_svid_that_has_ended_during_the_connection_is_not_enough(side: Side) -> None:
    with workload(side) as process:
        async with side.subscription("X509SVID", pid(process.pid)) as stream:
            await stream.recv_message()
            side.clock.ahead = timedelta(hours=2)
            await side.identities.step()
            async with asyncio.timeout(SECONDS):
                assert await refused(end_of(stream)) == (Status.UNAUTHENTICATED, "")


@pytest.mark.parametrize(
    "metadata", [{}, {"broker.spiffe.io": "false"}, {"workload.spiffe.io": "true"}]
)
async def test_the_header_is_mandatory(side: Side, metadata: dict[str, str]) -> None:
    with workload(side) as process:
        work = side.first("X509SVID", pid(process.pid), metadata=metadata)
        assert await refused(work) == (Status.INVALID_ARGUMENT, "")


def _any(type_url: str, value: bytes) -> Any:
    packed = BROKER.message("google.protobuf.Any")(type_url=type_url, value=value)
    return BROKER["WorkloadReference"](reference=packed)


PREFIX = "type.googleapis.com/spiffe.broker."


@pytest.mark.parametrize(
    "reference",
    [
        None,
        BROKER["WorkloadReference"](),
        _any("", b""),
        _any(f"{PREFIX}KubernetesObjectReference", b"\x1a\x01x"),
        _any("type.googleapis.com/example.Vendor", b""),
        _any(f"{PREFIX}WorkloadPIDReference", b"\xff"),
        pid(0),
        pid(-1),
    ],
    ids=["none", "empty", "no type", "kubernetes", "vendor", "garbage", "zero", "negative"],
)
async def test_a_reference_that_is_not_understood_is_invalid(side: Side, reference: Any) -> None:
    wanted = (Status.INVALID_ARGUMENT, "WORKLOAD_REFERENCE_INVALID")
    assert await refused(side.first("X509SVID", reference)) == wanted
    assert await refused(side.token(reference, "a")) == wanted


async def test_a_process_that_is_not_there_is_not_found(side: Side) -> None:
    work = side.first("X509SVID", pid(2**22 + 1))
    assert await refused(work) == (Status.NOT_FOUND, "WORKLOAD_NOT_FOUND")


async def test_a_process_that_is_nobody_is_not_entitled(side: Side) -> None:
    side.attestor.known[os.getpid()] = {"unix:uid:1"}
    for kind in ("X509SVID", "X509Bundles", "JWTBundles"):
        work = side.first(kind, pid(os.getpid()))
        assert await refused(work) == (Status.PERMISSION_DENIED, "WORKLOAD_NOT_ENTITLED")
    work = side.token(pid(os.getpid()), "a")
    assert await refused(work) == (Status.PERMISSION_DENIED, "WORKLOAD_NOT_ENTITLED")


async def test_a_stream_ends_with_its_process(side: Side) -> None:
    with workload(side) as process:
        async with side.subscription("X509SVID", pid(process.pid)) as stream:
            await stream.recv_message()
            process.kill()
            async with asyncio.timeout(SECONDS):
                wanted = (Status.NOT_FOUND, "WORKLOAD_NOT_FOUND")
                assert await refused(end_of(stream)) == wanted


async def test_a_stream_tells_of_rotations(side: Side) -> None:
    with workload(side) as process:
        async with side.subscription("X509SVID", pid(process.pid)) as stream:
            first = await stream.recv_message()
            side.server.entries[0] = entry("web", "unix:uid:7777", form="2")
            side.identities.adopt(side.server.bundle)
            await side.identities.step()
            async with asyncio.timeout(SECONDS):
                second = await stream.recv_message()
            assert first.svids[0].x509_svid != second.svids[0].x509_svid


@pytest.mark.parametrize("audience", [[], [""]])
async def test_a_token_needs_an_audience(side: Side, audience: list[str]) -> None:
    with workload(side) as process:
        work = side.token(pid(process.pid), *audience)
        assert (await refused(work))[0] is Status.INVALID_ARGUMENT


async def test_the_endpoint_shows_the_nodes_newest_svid(side: Side) -> None:
    side.server.authorities.append(authority())
    await side.endpoint.adopt(side.server.issue(NODE), side.server.bundle)
    side.identities.adopt(side.server.bundle)
    side.tell = side.server.bundle_revision  # type: ignore[attr-defined]
    side.server.bundle_revision += 1
    side.identities.notice(side.server.bundles_message())
    with workload(side) as process:
        assert (await side.first("X509SVID", pid(process.pid))).svids


def test_details_are_read_back_as_they_were_written() -> None:
    codec: StatusDetailsCodecBase = RpcStatusDetails()
    info = RPC["ErrorInfo"](reason="X", domain="spiffe.io", metadata={"pid": "1"})
    octets = codec.encode(Status.NOT_FOUND, "gone", [info])
    status = RPC["Status"].FromString(octets)
    assert (status.code, status.message) == (5, "gone")
    [detail] = codec.decode(Status.NOT_FOUND, "gone", octets)
    assert RPC["ErrorInfo"].FromString(detail.value) == info
    assert RPC["Status"].FromString(codec.encode(Status.OK, None, None)).code == 0
    assert p256()
