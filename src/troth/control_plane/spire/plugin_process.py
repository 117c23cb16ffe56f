# SPDX-License-Identifier: Apache-2.0
"""A process that SPIRE starts as an external plugin: the handshake and what go-plugin asks of it.

SPIRE says by an environment variable which type of plugin it expects. The plugin writes one line to
standard output with the address of a Unix socket, and serves gRPC there. SPIRE then checks its
health, opens the broker's stream, asks for the plugin's services, and configures it. All of this
runs between processes of one user on one machine.

Source: hashicorp/go-plugin 1.8, docs/internals.md; spiffe/spire 1.15, pkg/common/catalog.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from troth.control_plane.spire.messages import (
    CONFIG,
    CONFIG_SERVICE,
    GO_PLUGIN,
    HEALTH,
    INIT,
    INIT_SERVICE,
)
from troth.control_plane.spire.plugin_data import read_plugin_data
from troth.control_plane.unix_grpc import UnixGrpcServer, bounded
from troth.control_plane.workload_api.service import read_request
from troth.errors import ConfigurationError, TrothError
from troth.identity.spiffe_id import TrustDomain

__all__ = ["PluginService", "require_host", "serve_plugin"]

_LOG = logging.getLogger(__name__)
_PARENT_SECONDS = 1.0
_SERVING: Final = 1
_SOCKET_DIRECTORY: Final = "PLUGIN_UNIX_SOCKET_DIR"


class PluginService(Protocol):
    """One SPIRE plugin: its gRPC methods, and what it makes of its configuration file."""

    @property
    def name(self) -> str:
        """Full name of the gRPC service."""

    def check(self, path: Path) -> None:
        """Refuse a configuration file that cannot be used.

        Raises:
            ConfigurationError: naming file, key, value and the accepted form.
        """

    def configure(self, path: Path, trust_domain: TrustDomain) -> None:
        """Take the configuration file; from then on the service answers.

        Raises:
            ConfigurationError: as `check`.
        """

    def __mapping__(self) -> Mapping[str, Handler]: ...


def require_host(kind: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to run unless SPIRE started this process as a plugin of type `kind`.

    Raises:
        ConfigurationError: somebody else started it, or SPIRE as another type of plugin.
    """
    if environment.get(kind) != kind:
        raise ConfigurationError(
            source=f"a {kind} plugin of SPIRE",
            accepted="to be started by SPIRE: name this command as plugin_cmd of a "
            f'{kind} "troth" block (docs/howto/add-troth-to-spire.md)',
        )


async def serve_plugin(
    service: PluginService, *, announce: Callable[[str], None], parent: int | None = None
) -> None:
    """Serve until SPIRE says to stop or is gone.

    Args:
        service: the plugin.
        announce: writes the handshake line to standard output.
        parent: process whose end ends this one; by default the one that started it.
    """
    parent = os.getppid() if parent is None else parent
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    # A terminal sends it to SPIRE too, which then ends its plugins in order.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    directory = Path(tempfile.mkdtemp(prefix="troth-", dir=os.environ.get(_SOCKET_DIRECTORY)))
    try:
        path = directory / "plugin.sock"
        server = UnixGrpcServer(_services(service, stopped), path)
        await server.start()
        try:
            announce(f"1|1|unix|{path}|grpc")
            while not stopped.is_set() and os.getppid() == parent:
                try:
                    async with asyncio.timeout(_PARENT_SECONDS):
                        await stopped.wait()
                except TimeoutError:
                    continue
        finally:
            await server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _services(service: PluginService, stopped: asyncio.Event) -> Collection[Any]:
    return (_Health(), _GoPlugin(stopped), _Init(service), _Config(service), service)


class _Health:
    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/grpc.health.v1.Health/Check": Handler(
                self._check,
                Cardinality.UNARY_UNARY,
                HEALTH["HealthCheckRequest"],
                HEALTH["HealthCheckResponse"],
            )
        }

    async def _check(self, stream: Stream[Any, Any]) -> None:
        await bounded(stream).recv_message()
        await stream.send_message(HEALTH["HealthCheckResponse"](status=_SERVING))


class _GoPlugin:
    """go-plugin's broker, its standard streams, and its controller."""

    def __init__(self, stopped: asyncio.Event) -> None:
        self._stopped = stopped

    def __mapping__(self) -> Mapping[str, Handler]:
        info, empty = GO_PLUGIN["ConnInfo"], GO_PLUGIN["Empty"]
        return {
            "/plugin.GRPCBroker/StartStream": Handler(
                self._broker, Cardinality.STREAM_STREAM, info, info
            ),
            "/plugin.GRPCStdio/StreamStdio": Handler(
                self._stdio, Cardinality.UNARY_STREAM, empty, GO_PLUGIN["StdioData"]
            ),
            "/plugin.GRPCController/Shutdown": Handler(
                self._shutdown, Cardinality.UNARY_UNARY, empty, empty
            ),
        }

    async def _broker(self, stream: Stream[Any, Any]) -> None:
        """Hear where SPIRE's host services are; none is used. SPIRE loads no plugin without it."""
        await stream.send_initial_metadata()
        while await bounded(stream).recv_message() is not None:
            pass

    async def _stdio(self, stream: Stream[Any, Any]) -> None:
        """Send nothing: standard error goes to SPIRE's log by itself."""
        await bounded(stream).recv_message()
        await stream.send_initial_metadata()
        await self._stopped.wait()

    async def _shutdown(self, stream: Stream[Any, Any]) -> None:
        await bounded(stream).recv_message()
        await stream.send_message(GO_PLUGIN["Empty"]())
        self._stopped.set()


class _Init:
    def __init__(self, service: PluginService) -> None:
        self._service = service

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            f"/{INIT_SERVICE}/Init": Handler(
                self._init, Cardinality.UNARY_UNARY, INIT["InitRequest"], INIT["InitResponse"]
            ),
            f"/{INIT_SERVICE}/Deinit": Handler(
                self._deinit, Cardinality.UNARY_UNARY, INIT["DeinitRequest"], INIT["DeinitResponse"]
            ),
        }

    async def _init(self, stream: Stream[Any, Any]) -> None:
        await bounded(stream).recv_message()
        names = [self._service.name, CONFIG_SERVICE]
        await stream.send_message(INIT["InitResponse"](plugin_service_names=names))

    async def _deinit(self, stream: Stream[Any, Any]) -> None:
        await bounded(stream).recv_message()
        await stream.send_message(INIT["DeinitResponse"]())


class _Config:
    def __init__(self, service: PluginService) -> None:
        self._service = service

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            f"/{CONFIG_SERVICE}/Configure": Handler(
                self._configure,
                Cardinality.UNARY_UNARY,
                CONFIG["ConfigureRequest"],
                CONFIG["ConfigureResponse"],
            ),
            f"/{CONFIG_SERVICE}/Validate": Handler(
                self._validate,
                Cardinality.UNARY_UNARY,
                CONFIG["ValidateRequest"],
                CONFIG["ValidateResponse"],
            ),
        }

    async def _configure(self, stream: Stream[Any, Any]) -> None:
        request = await read_request(stream)
        try:
            domain = TrustDomain(request.core_configuration.trust_domain)
            self._service.configure(read_plugin_data(request.hcl_configuration), domain)
        except TrothError as exc:
            raise GRPCError(Status.INVALID_ARGUMENT, _words(exc)) from exc
        await stream.send_message(CONFIG["ConfigureResponse"]())

    async def _validate(self, stream: Stream[Any, Any]) -> None:
        request = await read_request(stream)
        notes: list[str] = []
        try:
            TrustDomain(request.core_configuration.trust_domain)
            self._service.check(read_plugin_data(request.hcl_configuration))
        except TrothError as exc:
            notes.append(_words(exc))
        await stream.send_message(CONFIG["ValidateResponse"](valid=not notes, notes=notes))


def _words(exc: TrothError) -> str:
    return f"{exc}. {exc.remedy}" if exc.remedy else str(exc)
