# SPDX-License-Identifier: Apache-2.0
"""Loopback ports that stay ours until somebody listens on them."""

from __future__ import annotations

import socket

__all__ = ["PortReservation"]


class PortReservation:
    """Free TCP ports on 127.0.0.1, held by bound sockets that never listen.

    Envoy binds with SO_REUSEPORT, so it can take a reserved port while the reservation lasts, and
    nobody else's ephemeral port can. A bound socket that does not listen receives no connection.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self) -> int:
        """Reserve one port and return its number."""
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        self._sockets.append(held)
        port: int = held.getsockname()[1]
        return port

    def close(self) -> None:
        """Give all ports back."""
        for held in self._sockets:
            held.close()
        self._sockets.clear()
