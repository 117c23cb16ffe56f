# SPDX-License-Identifier: Apache-2.0
"""gRPC on a Unix socket, for this machine's own processes only.

The socket file is for its owner alone (mode 0600) unless it is made public, and each connection's
peer is asked of the kernel as well: a file's mode says who may connect, not who does. A handler
finds the peer with `peer_of`, and bounds what it reads with `bounded`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from troth.control_plane.peer_process import PeerProcess
from troth.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection
    from pathlib import Path

    from grpclib._typing import IServable
    from grpclib.encoding.base import StatusDetailsCodecBase
    from grpclib.server import Stream

__all__ = [
    "BACKLOG",
    "MAX_REQUEST_BYTES",
    "UnixGrpcServer",
    "bind_private_socket",
    "bounded",
    "peer_certificate",
    "peer_of",
]

_LOG = logging.getLogger(__name__)
# sockaddr_un.sun_path is 108 bytes with its final NUL (unix(7)).
_MAX_PATH_BYTES = 107
# Connections that wait to be accepted. grpclib's 100 stalls some of 500 at once.
BACKLOG = 4096
_STOP_SECONDS = 2.0

MAX_REQUEST_BYTES = 256 * 1024
"""One message of a client that uses `bounded`; grpclib by itself would take 4 GB."""


class UnixGrpcServer:
    """Serves gRPC `handlers` at `path` to processes of the users `allowed_uids`.

    `start` replaces what lies at `path`, in one step, so that a client never finds it absent; it
    refuses while another process still serves there. `stop` ends every connection.

    Args:
        handlers: grpclib services.
        path: where to listen; its directory must exist.
        allowed_uids: users whose processes are served; default: our own.
        public: processes of every user are served and may connect; who may do what is then the
            handlers' to decide, by `peer_of`.
        connections_per_user: how many one user may have open; 0 for any number.
        tls: context for mutual TLS on the socket, or None.
        status_details_codec: how details of errors are written, or None.
    """

    def __init__(
        self,
        handlers: Collection[IServable],
        path: Path,
        *,
        allowed_uids: frozenset[int] | None = None,
        public: bool = False,
        connections_per_user: int = 0,
        tls: ssl.SSLContext | None = None,
        status_details_codec: StatusDetailsCodecBase | None = None,
    ) -> None:
        self._handlers = handlers
        self._path = path
        own = frozenset({os.getuid()}) if allowed_uids is None else allowed_uids
        self._admission = _Admission(None if public else own, connections_per_user)
        self._mode = 0o666 if public else 0o600
        self._tls, self._details = tls, status_details_codec
        self._server: _GuardedServer | None = None
        self._inode = 0

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            ConfigurationError: the path is too long, its directory cannot be written, or another
                process serves there.
        """
        listener = bind_private_socket(self._path, mode=self._mode)
        self._inode = self._path.stat().st_ino
        self._server = _GuardedServer(self._handlers, self._admission, self._details)
        await self._server.start(sock=listener, backlog=BACKLOG, ssl=self._tls)

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


def peer_of(stream: Stream[Any, Any]) -> PeerProcess:
    """Return the process that called; it is held for as long as its connection is.

    Raises:
        UnavailableError: the call did not come by a `UnixGrpcServer`.
    """
    peer: object = stream.peer.addr()
    if not isinstance(peer, PeerProcess):
        raise UnavailableError("the caller's process is not known")
    return peer


def peer_certificate(stream: Stream[Any, Any]) -> bytes:
    """Return the DER certificate that the peer showed in TLS, or b"" where it showed none."""
    tls = stream.peer._transport.get_extra_info("ssl_object")  # noqa: SLF001 - `cert()` is parsed
    found = tls.getpeercert(binary_form=True) if tls is not None else None
    return found or b""


def bounded(stream: Stream[Any, Any], limit: int = MAX_REQUEST_BYTES) -> Stream[Any, Any]:
    """Have the stream refuse messages longer than `limit` before it buffers them; return it."""
    limited: Any = _Bounded(stream._stream, limit)  # noqa: SLF001 - a test fails if it goes
    stream._stream = limited  # noqa: SLF001 - as above
    return stream


class _Bounded:
    """grpclib's HTTP/2 stream, reading at most so much at once."""

    def __init__(self, stream: Any, limit: int) -> None:  # noqa: ANN401 - grpclib's own
        self._stream, self._limit = stream, limit

    async def recv_data(self, size: int) -> bytes:
        if size > self._limit:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED, f"a message is longer than {self._limit} octets"
            )
        data: bytes = await self._stream.recv_data(size)
        return data

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - grpclib's own
        return getattr(self._stream, name)


def bind_private_socket(path: Path, *, mode: int = 0o600) -> socket.socket:
    """Return a socket bound at `path` that only our own user can connect to, or those of `mode`.

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
        os.fchmod(listener.fileno(), mode)  # bind() gives the file the mode of the socket
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        listener.bind(str(beside))
        beside.chmod(mode)  # whatever the umask took away
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


class _Admission:
    """Whose processes are served, and how many connections each user has."""

    def __init__(self, uids: frozenset[int] | None, per_user: int) -> None:
        self._uids, self._per_user = uids, per_user
        self._open: Counter[int] = Counter()

    def enter(self, uid: int) -> str:
        """Count a connection and return "", or say why not."""
        if self._uids is not None and uid not in self._uids:
            return "not one of the allowed users"
        if self._per_user and self._open[uid] >= self._per_user:
            return f"{self._per_user} connections are open already"
        self._open[uid] += 1
        return ""

    def leave(self, uid: int) -> None:
        self._open[uid] -= 1
        if not self._open[uid]:
            del self._open[uid]


class _GuardedServer(Server):
    """grpclib's server with a look at each peer before its first byte is read."""

    def __init__(
        self,
        handlers: Collection[IServable],
        admission: _Admission,
        details: StatusDetailsCodecBase | None,
    ) -> None:
        super().__init__(handlers, status_details_codec=details)
        self._admission = admission
        self._guards: set[_GuardedProtocol] = set()

    def _protocol_factory(self) -> asyncio.Protocol:  # type: ignore[override]
        # Private names of grpclib that we rely on; tests fail if they go.
        return _GuardedProtocol(
            super()._protocol_factory, admission=self._admission, guards=self._guards
        )

    def abort_connections(self) -> None:
        for guard in list(self._guards):
            guard.abort()


class _KnownTransport:
    """A transport whose peer's address is the process at the other end."""

    def __init__(self, transport: asyncio.Transport, peer: PeerProcess) -> None:
        self._transport, self._peer = transport, peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as asyncio has it
        if name == "peername":
            return self._peer
        return self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as asyncio has it
        return getattr(self._transport, name)


class _GuardedProtocol(asyncio.Protocol):
    """Passes everything on to the protocol that `factory` makes, for an allowed peer only."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        *,
        admission: _Admission,
        guards: set[_GuardedProtocol],
    ) -> None:
        self._factory = factory
        self._admission = admission
        self._guards = guards
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._peer: PeerProcess | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = _peer_of(self._transport)
        objection = "nobody knows whose" if peer is None else self._admission.enter(peer.uid)
        if peer is None or objection:
            uid = "?" if peer is None else peer.uid
            _LOG.warning("refused a connection of user %s: %s", uid, objection)
            if peer is not None:
                peer.close()
            self._transport.abort()
            return
        self._peer = peer
        self._guards.add(self)
        self._inner = self._factory()
        self._inner.connection_made(
            cast("asyncio.Transport", _KnownTransport(self._transport, peer))
        )

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
        if self._peer is not None:
            self._admission.leave(self._peer.uid)
            self._peer.close()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _peer_of(transport: asyncio.Transport) -> PeerProcess | None:
    peer = transport.get_extra_info("socket")
    return PeerProcess.of_socket(peer) if peer is not None else None
