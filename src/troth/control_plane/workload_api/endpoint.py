# SPDX-License-Identifier: Apache-2.0
"""The sockets of an agent for workloads: Workload API and SDS for everybody, the Broker API for few."""

from __future__ import annotations

import contextlib
import os
import resource
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from troth.clock import Clock
from troth.control_plane.unix_grpc import UnixGrpcServer
from troth.control_plane.workload_api.broker import BrokerApi, RpcStatusDetails
from troth.control_plane.workload_api.callers import Callers, StreamLimits
from troth.control_plane.workload_api.identities import WorkloadIdentities
from troth.control_plane.workload_api.ports import Attestor
from troth.control_plane.workload_api.sds import SecretDiscovery
from troth.control_plane.workload_api.sds_secrets import SecretNames
from troth.control_plane.workload_api.service import SpiffeWorkloadApi
from troth.errors import UnavailableError
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_svid import X509Svid

__all__ = ["BrokerEndpoint", "EndpointOptions", "WorkloadEndpoint"]

_BROKER_CALLS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """How the Workload API is served.

    Attributes:
        socket: path of the Unix socket; its directory must let workloads in.
        calls_per_user, calls_together: how many calls may be open at once.
        sds: serve SDS on the socket too.
        secret_names: that stand for something in SDS; None for SPIRE's.
        spiffe_validator: let Envoy use its SPIFFE validator.
    """

    socket: Path
    calls_per_user: int = 2500
    calls_together: int = 10_000
    sds: bool = True
    secret_names: SecretNames | None = None
    spiffe_validator: bool = True


class WorkloadEndpoint:
    """Serves the Workload API, and SDS beside it, to the processes of every user.

    Args:
        identities: of this node's workloads.
        attestor: looks at processes.
        options: how.
        clock: time.
    """

    def __init__(
        self,
        identities: WorkloadIdentities,
        attestor: Attestor,
        options: EndpointOptions,
        *,
        clock: Clock,
    ) -> None:
        self._callers = Callers(identities, attestor)
        limits = StreamLimits(per_user=options.calls_per_user, together=options.calls_together)
        handlers: list[SpiffeWorkloadApi | SecretDiscovery] = [
            SpiffeWorkloadApi(self._callers, limits=limits, clock=clock)
        ]
        if options.sds:
            handlers.append(
                SecretDiscovery(
                    self._callers,
                    limits=limits,
                    names=options.secret_names,
                    spiffe_validator=options.spiffe_validator,
                )
            )
        self._server = UnixGrpcServer(
            handlers,
            options.socket,
            public=True,
            connections_per_user=options.calls_per_user,
        )

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            ConfigurationError: the socket cannot be had.
        """
        _allow_files()
        await self._server.start()

    async def stop(self) -> None:
        """Stop serving and end all calls."""
        await self._server.stop()
        self._callers.close()


class BrokerEndpoint:
    """Serves the Broker API behind mutual TLS, as the node.

    It serves from the first `adopt` on: without the node's SVID there is nothing to show.

    Args:
        identities, attestor: as for `WorkloadEndpoint`.
        socket: path of the Unix socket.
        brokers: SPIFFE IDs that may ask.
        clock: time.
    """

    def __init__(
        self,
        identities: WorkloadIdentities,
        attestor: Attestor,
        *,
        socket: Path,
        brokers: Collection[SpiffeId],
        clock: Clock,
    ) -> None:
        self._callers = Callers(identities, attestor)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        context.set_alpn_protocols(["h2"])
        self._context = context
        self._believed: set[bytes] = set()
        limits = StreamLimits(per_user=_BROKER_CALLS, together=_BROKER_CALLS)
        self._server = UnixGrpcServer(
            [BrokerApi(self._callers, brokers=brokers, limits=limits, clock=clock)],
            socket,
            public=True,  # the TLS handshake says who may, not the user
            tls=context,
            status_details_codec=RpcStatusDetails(),
        )
        self._serving = False

    async def adopt(self, svid: X509Svid, bundle: TrustBundle) -> None:
        """Show this SVID of the node from now on, and know callers by this bundle too.

        Raises:
            ConfigurationError: the socket cannot be had.
            UnavailableError: the SVID cannot be used.
        """
        pem = svid.encode_pem() + svid.encode_private_key(Encoding.PEM)
        _with_file(pem, self._context.load_cert_chain)
        self.believe(bundle)
        if not self._serving:
            self._serving = True
            await self._server.start()

    def believe(self, bundle: TrustBundle) -> None:
        """Know callers by the authorities of this bundle too.

        What has gone from the bundle stays in the TLS context; each call is verified under the
        bundle of the moment as well.
        """
        for certificate in bundle.x509_authorities:
            der = certificate.public_bytes(Encoding.DER)
            if der not in self._believed:
                self._believed.add(der)
                self._context.load_verify_locations(cadata=der)

    async def stop(self) -> None:
        """Stop serving and end all calls."""
        if self._serving:
            await self._server.stop()
        self._callers.close()


def _allow_files() -> None:
    """Let this process have as many files as the system allows: each caller takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _with_file(data: bytes, use: Callable[[str], None]) -> None:
    # OpenSSL reads certificates and keys from files only; this one is in no directory.
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        use(f"/proc/self/fd/{descriptor}")
    except (OSError, ssl.SSLError) as exc:
        raise UnavailableError(f"the node's SVID cannot be used for TLS: {exc}") from exc
    finally:
        os.close(descriptor)
