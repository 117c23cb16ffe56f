# SPDX-License-Identifier: Apache-2.0
"""The Secret Discovery Service for Envoys that are workloads: attested like any other process.

An Envoy that was configured for SPIRE's agent finds the same names behind this socket. Secrets come
in one response for all the names that were asked for, and again when one of them changes; what the
workload is not entitled to refuses the whole request (INVALID_ARGUMENT).

Source: Envoy's xDS protocol, state of the world; SPIRE's names (`sds_secrets.py`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from troth.control_plane.peer_process import PeerProcess
from troth.control_plane.unix_grpc import bounded, peer_of
from troth.control_plane.workload_api.callers import Callers, StreamLimits
from troth.control_plane.workload_api.envoy_messages import DISCOVERY, SECRET_TYPE
from troth.control_plane.workload_api.identities import WorkloadView
from troth.control_plane.workload_api.sds_secrets import (
    SecretNames,
    secrets_for,
    takes_spiffe_validator,
)
from troth.control_plane.workload_api.service import read_request, unimplemented
from troth.errors import AuthorizationError

__all__ = ["MAX_NAMES", "SecretDiscovery"]

_LOG = logging.getLogger(__name__)
_SERVICE: Final = "/envoy.service.secret.v3.SecretDiscoveryService"

MAX_NAMES: Final = 256
"""Names in one request."""


class SecretDiscovery:
    """The service, as grpclib serves it.

    Args:
        callers: knows processes and what they get.
        limits: of open calls.
        names: that stand for something.
        spiffe_validator: False turns Envoy's SPIFFE validator off for all.
    """

    def __init__(
        self,
        callers: Callers,
        *,
        limits: StreamLimits,
        names: SecretNames | None = None,
        spiffe_validator: bool = True,
    ) -> None:
        self._callers, self._limits = callers, limits
        self._names = names or SecretNames()
        self._disabled = not spiffe_validator

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods, as grpclib asks of a service."""
        request, response = DISCOVERY["DiscoveryRequest"], DISCOVERY["DiscoveryResponse"]
        stream, unary = Cardinality.STREAM_STREAM, Cardinality.UNARY_UNARY
        return {
            f"{_SERVICE}/StreamSecrets": Handler(self._stream, stream, request, response),
            f"{_SERVICE}/FetchSecrets": Handler(self._fetch, unary, request, response),
            f"{_SERVICE}/DeltaSecrets": unimplemented(stream, request),
        }

    async def _fetch(self, stream: Stream[Any, Any]) -> None:
        process = peer_of(stream)
        with self._limits.counted(process.uid):
            request = await read_request(stream)
            _check(request)
            view = await self._callers.view(process)
            response = self.response(view, request, request.node)
            await stream.send_message(response)

    async def _stream(self, stream: Stream[Any, Any]) -> None:
        process = peer_of(stream)
        with self._limits.counted(process.uid):
            await _Conversation(self, self._callers, bounded(stream), process).run()

    def response(self, view: WorkloadView, request: Any, node: Any) -> Any:  # noqa: ANN401 - classes made at run time
        """Return the answer to a request of the Envoy `node`, without version and nonce.

        Raises:
            GRPCError: INVALID_ARGUMENT: a name that the workload is not entitled to.
        """
        try:
            found = secrets_for(
                view,
                request.resource_names,
                known=self._names,
                spiffe_validator=takes_spiffe_validator(node, disabled=self._disabled),
            )
        except AuthorizationError as exc:
            raise GRPCError(Status.INVALID_ARGUMENT, str(exc)) from exc
        response = DISCOVERY["DiscoveryResponse"](type_url=SECRET_TYPE)
        for type_url, value in found:
            packed = response.resources.add()
            packed.type_url, packed.value = type_url, value
        return response


class _Conversation:
    """One stream: what Envoy asks for, what it gets, and what it was told last."""

    def __init__(
        self,
        service: SecretDiscovery,
        callers: Callers,
        stream: Stream[Any, Any],
        process: PeerProcess,
    ) -> None:
        self._service, self._callers = service, callers
        self._stream, self._process = stream, process
        self._request: Any = None
        self._node: Any = DISCOVERY.message("envoy.config.core.v3.Node")()
        self._view: WorkloadView | None = None
        self._told: tuple[frozenset[str], bytes] | None = None
        self._nonce = ""
        self._version = 0
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Serve until Envoy ends the stream, or is refused."""
        tasks = [
            asyncio.ensure_future(work) for work in (self._read(), self._watch(), self._tell())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    async def _read(self) -> None:
        while (request := await self._stream.recv_message()) is not None:
            _check(request)
            if request.HasField("node"):
                self._node = request.node
            if request.error_detail.message:
                _LOG.warning(
                    "Envoy %r refuses the secrets of version %s: %s",
                    self._process,
                    self._version,
                    request.error_detail.message[:512],
                )
            if self._nonce and request.response_nonce != self._nonce:
                continue  # an answer to what has been replaced since
            self._request = request
            self._news.set()

    async def _watch(self) -> None:
        async for view in self._callers.views(self._process):
            self._view = view
            self._news.set()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._request is None or self._view is None:
                continue
            response = self._service.response(self._view, self._request, self._node)
            # The content decides: an acknowledgement is answered by nothing.
            news = (
                frozenset(self._request.resource_names),
                response.SerializeToString(deterministic=True),
            )
            if news == self._told:
                continue
            self._told = news
            self._version += 1
            self._nonce = secrets.token_hex(8)
            response.version_info, response.nonce = str(self._version), self._nonce
            await self._stream.send_message(response)


def _check(request: Any) -> None:  # noqa: ANN401 - classes made at run time
    if request.type_url not in ("", SECRET_TYPE):
        raise GRPCError(Status.INVALID_ARGUMENT, "only secrets are served here")
    if len(request.resource_names) > MAX_NAMES:
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"more than {MAX_NAMES} names")
