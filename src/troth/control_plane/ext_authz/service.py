# SPDX-License-Identifier: Apache-2.0
"""Envoy's external authorization service, for its network filter: once per connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote_to_bytes

import structlog
from grpclib.const import Cardinality, Handler

from troth.clock import Clock, SystemClock
from troth.control_plane.ext_authz.decision import (
    MAX_CERTIFICATE_BYTES,
    CallerDecision,
    CertificateJudge,
)
from troth.control_plane.gate.decision import filter_state
from troth.control_plane.unix_grpc import bounded

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from grpclib.server import Stream

    from troth.control_plane.envoy.descriptors import EnvoyDescriptors

__all__ = ["ExtAuthzService"]

_log = structlog.get_logger("troth.ext_authz")

_METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
_REQUEST: Final = "envoy.service.auth.v3.CheckRequest"
_RESPONSE: Final = "envoy.service.auth.v3.CheckResponse"
_PERMISSION_DENIED: Final = 7  # google.rpc.Code
# URL encoding triples a byte at most.
_MAX_ENCODED_BYTES: Final = 3 * MAX_CERTIFICATE_BYTES


class ExtAuthzService:
    """Answers Envoy's Check calls; a gRPC service for `UnixGrpcServer`.

    What it knows of an admitted caller becomes dynamic metadata of the connection under
    `envoy.filters.network.ext_authz`, by the names of the gate's filter state without `troth.`.
    An error here is a refusal in Envoy, whose filter has `failure_mode_allow: false`.

    Args:
        descriptors: the types of the Envoy that will call.
        judge: decides; None while this node is no member: then all are refused.
        clock: time.
    """

    def __init__(
        self,
        descriptors: EnvoyDescriptors,
        judge: Callable[[], CertificateJudge | None],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._descriptors = descriptors
        self._judge = judge
        self._clock = clock or SystemClock()

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the gRPC methods, as grpclib asks of a service."""
        request, response = (self._descriptors.message(name) for name in (_REQUEST, _RESPONSE))
        return {_METHOD: Handler(self._check, Cardinality.UNARY_UNARY, request, response)}

    async def _check(self, stream: Stream[Any, Any]) -> None:
        request = await bounded(stream).recv_message()
        if request is None:
            return
        source = request.attributes.source
        address = source.address.socket_address
        now = self._clock.now()
        decision = self._decide(source.certificate, source.principal, now)
        log = _log.debug if decision.status == "attested" else _log.info
        log(
            "caller admitted" if decision.admitted else "caller refused",
            peer=source.principal,
            address=f"{address.address}:{address.port_value}",
            status=decision.status,
            why=decision.why,
        )
        await stream.send_message(self._response(decision))

    def _decide(self, encoded: str, principal: str, now: datetime) -> CallerDecision:
        judge = self._judge()
        if judge is None:
            return CallerDecision(admitted=False, why="this node is no member")
        if len(encoded) > _MAX_ENCODED_BYTES:
            return CallerDecision(admitted=False, why="the caller's certificate is too long")
        return judge.judge(unquote_to_bytes(encoded), principal=principal, now=now)

    def _response(self, decision: CallerDecision) -> Message:
        response = cast("Any", self._descriptors.message(_RESPONSE)())
        if not decision.admitted:
            # The caller sees a closed connection; the reason is in the agent's log.
            response.status.code = _PERMISSION_DENIED
            return cast("Message", response)
        response.status.code = 0
        fields = response.dynamic_metadata.fields
        fields["status"].string_value = decision.status
        peer = decision.peer
        if peer is not None and peer.decision.deadline is not None:
            for key, value in filter_state(peer, deadline=peer.decision.deadline).items():
                fields[key.removeprefix("troth.")].string_value = value
        return cast("Message", response)
