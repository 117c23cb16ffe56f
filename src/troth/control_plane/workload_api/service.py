# SPDX-License-Identifier: Apache-2.0
"""The SPIFFE Workload API: SVIDs and bundles for the process that calls.

===================  ===============================================================
InvalidArgument      the header `workload.spiffe.io: true` is missing, a mandatory
                     field is empty, or what is to be validated is not valid
PermissionDenied     the process is nobody here (yet), or not whom it asks to be
Unavailable          the node is no member yet, or the process cannot be attested
ResourceExhausted    a limit of calls or of octets is crossed
Unimplemented        WIT-SVIDs, as the specification lets a server choose
===================  ===============================================================

Source: SPIFFE Workload API sections 4 to 6; SPIFFE Workload Endpoint sections 3, 5 and 6
(spiffe/spiffe, July 2026).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from troth.clock import Clock
from troth.control_plane.peer_process import PeerProcess
from troth.control_plane.unix_grpc import bounded, peer_of
from troth.control_plane.workload_api.callers import Callers, StreamLimits
from troth.control_plane.workload_api.identities import HeldIdentity
from troth.control_plane.workload_api.messages import WORKLOAD, WORKLOAD_SERVICE
from troth.control_plane.workload_api.responses import (
    jwt_bundles,
    x509_bundles,
    x509_svids,
)
from troth.control_plane.workload_api.view_checks import (
    jwt_svids,
    requested_audience,
    require_identity,
)
from troth.errors import TrothError
from troth.identity.jwt_svid import verify_jwt_svid

__all__ = [
    "HEADER",
    "MAX_REQUEST_SECONDS",
    "SpiffeWorkloadApi",
    "read_request",
    "require_header",
    "unimplemented",
]

_LOG = logging.getLogger(__name__)

HEADER: Final = "workload.spiffe.io"
"""Must be "true" in every call: what a forged web request cannot set."""

MAX_REQUEST_SECONDS: Final = 10.0
"""How long a request may take to arrive after its call was opened."""

_Work = Callable[[Stream[Any, Any], PeerProcess, Any], Awaitable[None]]


def require_header(stream: Stream[Any, Any], name: str) -> None:
    """Refuse a call without its mandatory header.

    Raises:
        GRPCError: INVALID_ARGUMENT.
    """
    values = stream.metadata.getall(name, []) if stream.metadata is not None else []
    if list(values) != ["true"]:
        raise GRPCError(Status.INVALID_ARGUMENT, f"the header {name}: true is missing")


async def read_request(stream: Stream[Any, Any]) -> Any:  # noqa: ANN401 - classes made at run time
    """Return the one request of a call.

    Raises:
        GRPCError: INVALID_ARGUMENT or RESOURCE_EXHAUSTED.
    """
    try:
        async with asyncio.timeout(MAX_REQUEST_SECONDS):
            request = await bounded(stream).recv_message()
    except TimeoutError as exc:
        raise GRPCError(Status.DEADLINE_EXCEEDED, "the request did not come in time") from exc
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "there is no request")
    return request


def unimplemented(cardinality: Cardinality, message: Any) -> Handler:  # noqa: ANN401 - classes made at run time
    """Return a method that says that it is none; grpclib's own answer lacks a content type."""

    async def serve(stream: Stream[Any, Any]) -> None:
        del stream
        raise GRPCError(Status.UNIMPLEMENTED, "not implemented here")

    return Handler(serve, cardinality, message, message)


class SpiffeWorkloadApi:
    """The service, as grpclib serves it.

    Args:
        callers: knows processes and what they get.
        limits: of open calls.
        clock: time, for validation.
    """

    def __init__(self, callers: Callers, *, limits: StreamLimits, clock: Clock) -> None:
        self._callers, self._limits, self._clock = callers, limits, clock

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods, as grpclib asks of a service."""
        stream, unary = Cardinality.UNARY_STREAM, Cardinality.UNARY_UNARY
        methods: dict[str, tuple[_Work, Cardinality, str, str]] = {
            "FetchX509SVID": (
                self._fetch_x509_svid,
                stream,
                "X509SVIDRequest",
                "X509SVIDResponse",
            ),
            "FetchX509Bundles": (
                self._fetch_x509_bundles,
                stream,
                "X509BundlesRequest",
                "X509BundlesResponse",
            ),
            "FetchJWTSVID": (self._fetch_jwt_svid, unary, "JWTSVIDRequest", "JWTSVIDResponse"),
            "FetchJWTBundles": (
                self._fetch_jwt_bundles,
                stream,
                "JWTBundlesRequest",
                "JWTBundlesResponse",
            ),
            "ValidateJWTSVID": (
                self._validate_jwt_svid,
                unary,
                "ValidateJWTSVIDRequest",
                "ValidateJWTSVIDResponse",
            ),
        }
        served = {
            f"/{WORKLOAD_SERVICE}/{name}": Handler(
                self._guarded(work), cardinality, WORKLOAD[request], WORKLOAD[response]
            )
            for name, (work, cardinality, request, response) in methods.items()
        }
        # Section 7.2: a server without this profile MUST answer so.
        return served | {
            f"/{WORKLOAD_SERVICE}/{name}": unimplemented(stream, WORKLOAD["X509SVIDRequest"])
            for name in ("FetchWITSVID", "FetchWITBundles")
        }

    def _guarded(self, work: _Work) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def serve(stream: Stream[Any, Any]) -> None:
            require_header(stream, HEADER)
            process = peer_of(stream)
            with self._limits.counted(process.uid):
                await work(stream, process, await read_request(stream))

        return serve

    async def _fetch_x509_svid(
        self,
        stream: Stream[Any, Any],
        process: PeerProcess,
        request: Any,  # noqa: ANN401 - classes made at run time
    ) -> None:
        del request
        async for view in self._callers.views(process):
            require_identity(view, with_svid=True)
            await stream.send_message(x509_svids(view, WORKLOAD))

    async def _fetch_x509_bundles(
        self,
        stream: Stream[Any, Any],
        process: PeerProcess,
        request: Any,  # noqa: ANN401 - classes made at run time
    ) -> None:
        del request
        sent: bytes | None = None
        async for view in self._callers.views(process):
            require_identity(view)
            message = x509_bundles(view, WORKLOAD["X509BundlesResponse"])
            # An SVID that was renewed is no news here.
            if (octets := message.SerializeToString(deterministic=True)) != sent:
                sent = octets
                await stream.send_message(message)

    async def _fetch_jwt_bundles(
        self,
        stream: Stream[Any, Any],
        process: PeerProcess,
        request: Any,  # noqa: ANN401 - classes made at run time
    ) -> None:
        del request
        sent: bytes | None = None
        async for view in self._callers.views(process):
            require_identity(view)
            message = jwt_bundles(view, WORKLOAD["JWTBundlesResponse"])
            if (octets := message.SerializeToString(deterministic=True)) != sent:
                sent = octets
                await stream.send_message(message)

    async def _fetch_jwt_svid(
        self,
        stream: Stream[Any, Any],
        process: PeerProcess,
        request: Any,  # noqa: ANN401 - classes made at run time
    ) -> None:
        audience = requested_audience(request.audience)
        view = await self._callers.view(process)
        tokens = await jwt_svids(self._callers.identities, view, request.spiffe_id, audience)
        response = WORKLOAD["JWTSVIDResponse"](svids=[_token(*each) for each in tokens])
        await stream.send_message(response)

    async def _validate_jwt_svid(
        self,
        stream: Stream[Any, Any],
        process: PeerProcess,
        request: Any,  # noqa: ANN401 - classes made at run time
    ) -> None:
        if not request.audience or not request.svid:
            raise GRPCError(Status.INVALID_ARGUMENT, "audience and svid must be given")
        view = await self._callers.view(process)
        require_identity(view)
        try:
            svid = verify_jwt_svid(
                request.svid, view, audience=request.audience, now=self._clock.now()
            )
        except TrothError as exc:
            # The caller may know why: it holds the token, and needs to tell a wrong one apart.
            raise GRPCError(Status.INVALID_ARGUMENT, str(exc)) from exc
        response = WORKLOAD["ValidateJWTSVIDResponse"](spiffe_id=str(svid.spiffe_id))
        response.claims.update(dict(svid.claims))
        await stream.send_message(response)


def _token(identity: HeldIdentity, token: str) -> Any:  # noqa: ANN401 - classes made at run time
    return WORKLOAD["JWTSVID"](
        spiffe_id=identity.entry.spiffe_id, svid=token, hint=identity.entry.hint
    )
