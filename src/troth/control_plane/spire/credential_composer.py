# SPDX-License-Identifier: Apache-2.0
"""The credential composer beside SPIRE's server: the Attestation Result into the agent's SVID.

SPIRE shows a composer the key that it is about to certify, which it never shows a node attestor.
For agents of our node attestor that key must be one that fresh Evidence covers; the SVID then
carries the result about that very key, in a non-critical id-pe-cmw extension. Everything else
passes unchanged: of a workload SPIRE tells neither its node nor its selectors.

Source: spiffe/spire-plugin-sdk, spire/plugin/server/credentialcomposer/v1 (June 2026); RFC 9999
section 4.4.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from troth.clock import Clock
from troth.control_plane.config_file import load_config
from troth.control_plane.spire.attested_keys import AttestedKeys
from troth.control_plane.spire.config import ComposerConfig
from troth.control_plane.spire.messages import COMPOSER, COMPOSER_SERVICE
from troth.control_plane.spire.selectors import AGENT_PREFIX
from troth.control_plane.workload_api.service import read_request
from troth.errors import TrothError
from troth.identity.attestation_result import result_extension
from troth.identity.spiffe_id import SpiffeId, TrustDomain

__all__ = ["CredentialComposer"]

_LOG = logging.getLogger(__name__)
_UNCHANGED: Final = (
    "ComposeServerX509CA",
    "ComposeServerX509SVID",
    "ComposeWorkloadX509SVID",
    "ComposeWorkloadJWTSVID",
)


class CredentialComposer:
    """The plugin.

    Args:
        clock: time.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._keys: AttestedKeys | None = None
        self._domain: TrustDomain | None = None

    @property
    def name(self) -> str:
        """Full name of the gRPC service."""
        return COMPOSER_SERVICE

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods, as grpclib asks of a service."""
        methods = {"ComposeAgentX509SVID": self._agent}
        methods |= {name: _echo(name) for name in _UNCHANGED}
        return {
            f"/{self.name}/{name}": Handler(
                method,
                Cardinality.UNARY_UNARY,
                COMPOSER[f"{name}Request"],
                COMPOSER[f"{name}Response"],
            )
            for name, method in methods.items()
        }

    def check(self, path: Path) -> None:
        """Refuse a file that cannot be used: see `PluginService`."""
        load_config(path, ComposerConfig)

    def configure(self, path: Path, trust_domain: TrustDomain) -> None:
        """Take the file: see `PluginService`."""
        self._keys = AttestedKeys(Path(load_config(path, ComposerConfig).state_dir))
        self._domain = trust_domain

    async def _agent(self, stream: Stream[Any, Any]) -> None:
        request = await read_request(stream)
        if self._keys is None:
            raise GRPCError(Status.FAILED_PRECONDITION, "not configured")
        try:
            agent = SpiffeId.decode(request.spiffe_id)
            if agent.path.startswith(AGENT_PREFIX):
                found = self._keys.find(agent, request.public_key, now=self._clock.now())
                if found is not None:
                    made = result_extension(found.ear.encode("ascii"))
                    request.attributes.extra_extensions.add(
                        oid=made.oid.dotted_string, value=made.value, critical=False
                    )
        except TrothError as exc:
            _LOG.warning("certificate refused: %s. %s", exc, exc.remedy)
            raise GRPCError(Status.PERMISSION_DENIED, f"refused: {exc.code}") from exc
        response = COMPOSER["ComposeAgentX509SVIDResponse"]
        await stream.send_message(response(attributes=request.attributes))


def _echo(name: str) -> Any:  # noqa: ANN401 - grpclib's handlers have no public type
    async def serve(stream: Stream[Any, Any]) -> None:
        request = await read_request(stream)
        response = COMPOSER[f"{name}Response"]
        await stream.send_message(response(attributes=request.attributes))

    return serve
