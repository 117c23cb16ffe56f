# SPDX-License-Identifier: Apache-2.0
"""What an application's protocol sees of an attested connection: an asyncio transport."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from troth.errors import ApiMisuseError
from troth.tls.peer import AttestedPeer

__all__ = ["ApplicationTransport", "Carrier"]


class Carrier(Protocol):
    """The connection underneath, as far as its transport needs it."""

    @property
    def peer(self) -> AttestedPeer: ...  # noqa: D102 - see AttestedConnection

    @property
    def application(self) -> asyncio.Protocol: ...  # noqa: D102

    @application.setter
    def application(self, protocol: asyncio.Protocol) -> None: ...

    def write_application(self, data: bytes | bytearray | memoryview) -> None: ...  # noqa: D102

    def write_end(self) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102

    def abort(self) -> None: ...  # noqa: D102


class ApplicationTransport(asyncio.Transport):
    """Writes go to the connection; everything else is the raw transport's."""

    def __init__(self, connection: Carrier, raw: asyncio.Transport) -> None:
        super().__init__()
        self._connection = connection
        self._raw = raw
        self._ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's signature
        """Return `troth_peer` (AttestedPeer), `troth_connection`, or the raw transport's fact."""
        if name == "troth_peer":
            return self._connection.peer
        if name == "troth_connection":
            return self._connection
        return self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; after the end of the connection the data is dropped, as asyncio's transports do.

        Raises:
            ApiMisuseError: after `write_eof`.
        """
        if self._ended:
            raise ApiMisuseError("write after write_eof")
        if data and not self._raw.is_closing():
            self._connection.write_application(data)

    def can_write_eof(self) -> bool:
        """Half-close is supported."""
        return True

    def write_eof(self) -> None:
        """End this side's data; the peer's keeps coming."""
        if not self._ended:
            self._ended = True
            self._connection.write_end()

    def close(self) -> None:
        """Close after what was written."""
        self.write_eof()
        self._connection.close()

    def abort(self) -> None:
        """Close at once."""
        self._connection.abort()

    def is_closing(self) -> bool:
        """Whether the connection is closing."""
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        """Stop taking data. Proofs wait behind it, and a round that was asked for with them."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on taking data."""
        self._raw.resume_reading()

    def is_reading(self) -> bool:
        """Whether data is taken."""
        return self._raw.is_reading()

    def get_write_buffer_size(self) -> int:
        """Octets that wait for the network."""
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return when `pause_writing` and `resume_writing` are called: low and high."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` is called."""
        self._raw.set_write_buffer_limits(high, low)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the application's protocol."""
        return self._connection.application

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Put another protocol in its place, as a web server does for a WebSocket.

        Raises:
            ApiMisuseError: not a protocol for streams.
        """
        if not isinstance(protocol, asyncio.Protocol):
            raise ApiMisuseError("an asyncio.Protocol is needed")
        self._connection.application = protocol
