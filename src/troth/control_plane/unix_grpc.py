# SPDX-License-Identifier: Apache-2.0
"""gRPC on a Unix socket, for this machine's own processes only.

The socket file is for its owner alone (mode 0600), and each connection's peer is asked of the
kernel (`SO_PEERCRED`) as well: a file's mode says who may connect, not who does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, cast

from grpclib.server import Server

from troth.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from grpclib._typing import IServable

__all__ = ["BACKLOG", "UnixGrpcServer", "bind_private_socket"]

_LOG = logging.getLogger(__name__)
# sockaddr_un.sun_path is 108 bytes with its final NUL (unix(7)).
_MAX_PATH_BYTES = 107
# Connections that wait to be accepted. grpclib's 100 stalls some of 500 at once.
BACKLOG = 4096
_STOP_SECONDS = 2.0
_UCRED = struct.Struct("3i")  # pid, uid, gid (unix(7))


class UnixGrpcServer:
    """Serves gRPC `handlers` at `path` to processes of the users `allowed_uids`.

    `start` replaces what lies at `path`, in one step, so that a client never finds it absent; it
    refuses while another process still serves there. `stop` ends every connection.

    Args:
        handlers: grpclib services.
        path: where to listen; its directory must exist.
        allowed_uids: users whose processes are served; default: our own.
    """

    def __init__(
        self,
        handlers: Collection[IServable],
        path: Path,
        *,
        allowed_uids: frozenset[int] | None = None,
    ) -> None:
        self._handlers = handlers
        self._path = path
        self._uids = frozenset({os.getuid()}) if allowed_uids is None else allowed_uids
        self._server: _GuardedServer | None = None
        self._inode = 0

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            ConfigurationError: the path is too long, its directory cannot be written, or another
                process serves there.
        """
        listener = bind_private_socket(self._path)
        self._inode = self._path.stat().st_ino
        self._server = _GuardedServer(self._handlers, self._uids)
        await self._server.start(sock=listener, backlog=BACKLOG)

    async def stop(self) -> None:
        """Stop serving, end all connections and remove the socket file if it is still ours."""
        server, self._server = self._server, None
        if server is None:
            return
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        server.close()
        server.abort_connections()
        # Handlers get this long to end; from Python 3.12 on it also waits for the connections.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await server.wait_closed()


def bind_private_socket(path: Path) -> socket.socket:
    """Return a socket bound at `path` that only our own user can connect to.

    Raises:
        ConfigurationError: as `UnixGrpcServer.start`.
    """
    # Bound beside the path and renamed over it: there is no moment without a socket.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    if len(bytes(beside)) > _MAX_PATH_BYTES:
        raise ConfigurationError(
            source="socket path",
            value=str(path),
            accepted=f"a path of at most {_MAX_PATH_BYTES - len(beside.name) + len(path.name)}"
            " bytes: choose a shorter directory",
        )
    if path.exists() and not path.is_socket():
        raise ConfigurationError(
            source="socket path", value=str(path), accepted="a path where no other file lies"
        )
    if _answers(path):
        raise ConfigurationError(
            source="socket path",
            value=str(path),
            accepted="a path of its own for each agent; another process is serving there",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # bind() gives the file the mode of the socket
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        listener.bind(str(beside))
        beside.rename(path)
    except OSError as exc:
        listener.close()
        raise ConfigurationError(
            source="socket path",
            value=str(path),
            accepted=f"a path in a directory that we can write ({exc.strerror})",
        ) from exc
    listener.settimeout(0)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class _GuardedServer(Server):
    """grpclib's server with a look at each peer before its first byte is read."""

    def __init__(self, handlers: Collection[IServable], allowed_uids: frozenset[int]) -> None:
        super().__init__(handlers)
        self._allowed_uids = allowed_uids
        self._guards: set[_GuardedProtocol] = set()

    def _protocol_factory(self) -> asyncio.Protocol:  # type: ignore[override]
        # The one private name of grpclib that we rely on; a test fails if it goes.
        return _GuardedProtocol(
            super()._protocol_factory, allowed_uids=self._allowed_uids, guards=self._guards
        )

    def abort_connections(self) -> None:
        for guard in list(self._guards):
            guard.abort()


class _GuardedProtocol(asyncio.Protocol):
    """Passes everything on to the protocol that `factory` makes, for an allowed peer only."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        *,
        allowed_uids: frozenset[int],
        guards: set[_GuardedProtocol],
    ) -> None:
        self._factory = factory
        self._allowed_uids = allowed_uids
        self._guards = guards
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        uid = _peer_uid(self._transport)
        if uid not in self._allowed_uids:
            _LOG.warning("refused a connection of user %s: not one of the allowed users", uid)
            self._transport.abort()
            return
        self._guards.add(self)
        self._inner = self._factory()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guards.discard(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _peer_uid(transport: asyncio.Transport) -> int:
    """Return the user of the process at the other end; -1, which is nobody, where unknown."""
    peer = transport.get_extra_info("socket")
    if peer is None:
        return -1
    try:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError as exc:
        raise UnavailableError(f"the kernel does not tell who connected ({exc})") from exc
    return int(_UCRED.unpack(credentials)[1])
