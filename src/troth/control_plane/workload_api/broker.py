# SPDX-License-Identifier: Apache-2.0
"""The SPIFFE Broker API: a proxy for a whole node asks on behalf of the processes behind it.

Whoever may do that may be any workload of the node, so it is for callers alone that the agent's
configuration names: mutual TLS by X.509-SVIDs of this trust domain, and an allow-list of SPIFFE
IDs that is empty by default. A process is named by its number; the agent looks at it itself, holds
it by its pidfd, and ends the call when it ends.

=====================  ==========================  =====================================
status                 ErrorInfo reason            when
=====================  ==========================  =====================================
InvalidArgument                                    the header `broker.spiffe.io: true` is missing
Unauthenticated                                    the caller's SVID does not verify (any more)
PermissionDenied                                   the caller is no broker here
InvalidArgument        WORKLOAD_REFERENCE_INVALID  no reference, or none that is understood
NotFound               WORKLOAD_NOT_FOUND          no such process, or it has ended
PermissionDenied       WORKLOAD_NOT_ENTITLED       the process is nobody here
=====================  ==========================  =====================================

Source: SPIFFE Broker API sections 3, 4 and 5; SPIFFE Broker Endpoint sections 3, 5 and 6
(spiffe/spiffe, July 2026, incubating).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from google.protobuf.message import DecodeError as ProtobufDecodeError
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from troth.clock import Clock
from troth.control_plane.peer_process import PeerProcess
from troth.control_plane.unix_grpc import peer_certificate, peer_of
from troth.control_plane.workload_api.callers import Callers, StreamLimits
from troth.control_plane.workload_api.identities import WorkloadView
from troth.control_plane.workload_api.messages import BROKER, BROKER_SERVICE, RPC
from troth.control_plane.workload_api.responses import jwt_bundles, x509_bundles, x509_svids
from troth.control_plane.workload_api.service import read_request, require_header
from troth.control_plane.workload_api.view_checks import jwt_svids, requested_audience
from troth.errors import TrothError
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid

__all__ = ["HEADER", "BrokerApi", "RpcStatusDetails"]

HEADER: Final = "broker.spiffe.io"

_PID_REFERENCE: Final = "type.googleapis.com/spiffe.broker.WorkloadPIDReference"

_Answer = Callable[[WorkloadView], Any]


class RpcStatusDetails(StatusDetailsCodecBase):
    """Writes details of errors as google.rpc.Status; details are messages with their full names."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:  # noqa: ANN401 - as grpclib has it
        """Return the octets of the trailer."""
        made = RPC["Status"](code=status.value, message=message or "")
        for detail in details or ():
            made.details.add().Pack(detail)
        octets: bytes = made.SerializeToString()
        return octets

    def decode(self, status: Status, message: str | None, data: bytes) -> Any:  # noqa: ANN401 - as grpclib has it
        """Return the details; a server never reads any."""
        del status, message
        return RPC["Status"].FromString(data).details


def _refusal(status: Status, reason: str, message: str, **metadata: str) -> GRPCError:
    info = RPC["ErrorInfo"](reason=reason, domain="spiffe.io", metadata=metadata)
    return GRPCError(status, message, [info])


class BrokerApi:
    """The service, as grpclib serves it behind mutual TLS.

    Args:
        callers: knows processes and what they get.
        brokers: SPIFFE IDs that may ask; none means that nobody may.
        limits: of open calls.
        clock: time.
    """

    def __init__(
        self,
        callers: Callers,
        *,
        brokers: Collection[SpiffeId],
        limits: StreamLimits,
        clock: Clock,
    ) -> None:
        self._callers, self._brokers = callers, frozenset(brokers)
        self._limits, self._clock = limits, clock

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods, as grpclib asks of a service."""
        bundles = BROKER["SubscribeToX509BundlesResponse"]
        tokens = BROKER["SubscribeToJWTBundlesResponse"]

        def subscription(kind: str, answer: _Answer) -> Handler:
            return Handler(
                self._subscription(answer),
                Cardinality.UNARY_STREAM,
                BROKER[f"SubscribeTo{kind}Request"],
                BROKER[f"SubscribeTo{kind}Response"],
            )

        handlers = {
            "SubscribeToX509SVID": subscription(
                "X509SVID",
                lambda view: x509_svids(view, BROKER, response="SubscribeToX509SVIDResponse"),
            ),
            "SubscribeToX509Bundles": subscription(
                "X509Bundles", lambda view: x509_bundles(view, bundles)
            ),
            "SubscribeToJWTBundles": subscription(
                "JWTBundles", lambda view: jwt_bundles(view, tokens)
            ),
            "FetchJWTSVID": Handler(
                self._fetch_jwt_svid,
                Cardinality.UNARY_UNARY,
                BROKER["FetchJWTSVIDRequest"],
                BROKER["FetchJWTSVIDResponse"],
            ),
        }
        return {f"/{BROKER_SERVICE}/{name}": handler for name, handler in handlers.items()}

    def _subscription(self, answer: _Answer) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def serve(stream: Stream[Any, Any]) -> None:
            async with self._asked(stream) as (_, process):
                await _until_end(process, self._stream(stream, process, answer))

        return serve

    async def _stream(
        self, stream: Stream[Any, Any], process: PeerProcess, answer: _Answer
    ) -> None:
        sent: bytes | None = None
        async for view in self._callers.views(process):
            self._authorize(stream)  # again: the caller's SVID may have ended meanwhile
            _require_entitled(view)
            message = answer(view)
            if (octets := message.SerializeToString(deterministic=True)) != sent:
                sent = octets
                await stream.send_message(message)

    async def _fetch_jwt_svid(self, stream: Stream[Any, Any]) -> None:
        async with self._asked(stream) as (request, process):
            audience = requested_audience(request.audience)
            view = await self._callers.view(process)
            _require_entitled(view)
            found = await jwt_svids(self._callers.identities, view, request.spiffe_id, audience)
            if not process.alive:
                raise _gone(process.pid)
            svids = [
                BROKER["JWTSVID"](spiffe_id=held.entry.spiffe_id, svid=token, hint=held.entry.hint)
                for held, token in found
            ]
            await stream.send_message(BROKER["FetchJWTSVIDResponse"](svids=svids))

    @asynccontextmanager
    async def _asked(self, stream: Stream[Any, Any]) -> AsyncIterator[tuple[Any, PeerProcess]]:
        """Give the request of an authorized caller and the process that it names."""
        require_header(stream, HEADER)
        self._authorize(stream)
        with self._limits.counted(peer_of(stream).uid):
            request = await read_request(stream)
            with _referenced(request) as process:
                try:
                    yield request, process
                except GRPCError as exc:
                    # That it cannot be looked at is mostly that it has just ended.
                    if exc.status is Status.UNAVAILABLE and not process.alive:
                        raise _gone(process.pid) from exc
                    raise

    def _authorize(self, stream: Stream[Any, Any]) -> None:
        certificate = peer_certificate(stream)
        own = self._callers.identities.own_bundle
        if own is None:
            raise GRPCError(Status.UNAVAILABLE, "this node is no member yet")
        try:
            svid = X509Svid.decode(certificate)
            verify_x509_svid(svid, TrustBundleSet([own]), now=self._clock.now())
        except TrothError as exc:
            raise GRPCError(Status.UNAUTHENTICATED, "the X.509-SVID does not verify") from exc
        if svid.spiffe_id not in self._brokers:
            raise GRPCError(Status.PERMISSION_DENIED, f"{svid.spiffe_id} is no broker here")


def _referenced(request: Any) -> PeerProcess:  # noqa: ANN401 - classes made at run time
    reference = request.reference.reference
    if reference.type_url != _PID_REFERENCE:
        raise _invalid(f"reference of type {reference.type_url[:128]!r} is not understood")
    try:
        pid = BROKER["WorkloadPIDReference"].FromString(reference.value).pid
    except ProtobufDecodeError as exc:
        raise _invalid("the reference cannot be read") from exc
    if pid <= 0:
        raise _invalid(f"{pid} is no process id")
    process = PeerProcess.named(pid)
    if process is None:
        raise _gone(pid)
    return process


async def _until_end(process: PeerProcess, work: Awaitable[None]) -> None:
    """Do `work` until it is done or the process has ended."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def note_end() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(process.fileno(), note_end)
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _gone(process.pid)
        working.result()
    finally:
        loop.remove_reader(process.fileno())
        ended.cancel()
        working.cancel()
        await asyncio.wait({working})


def _require_entitled(view: WorkloadView) -> None:
    if not any(held.svid is not None for held in view.identities):
        raise _refusal(
            Status.PERMISSION_DENIED, "WORKLOAD_NOT_ENTITLED", "no identity issued for the workload"
        )


def _invalid(message: str) -> GRPCError:
    return _refusal(Status.INVALID_ARGUMENT, "WORKLOAD_REFERENCE_INVALID", message)


def _gone(pid: int) -> GRPCError:
    return _refusal(
        Status.NOT_FOUND, "WORKLOAD_NOT_FOUND", f"there is no process {pid}", pid=str(pid)
    )
