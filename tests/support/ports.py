# SPDX-License-Identifier: Apache-2.0
"""Free ports that stay free until the program under test listens on them."""

from __future__ import annotations

import socket

__all__ = ["reserved_ports"]


class reserved_ports:  # noqa: N801 - used like a function
    """Context manager that reserves `count` loopback TCP ports and gives their numbers.

    A bound socket that does not listen keeps everyone out but a program that also sets
    SO_REUSEPORT, as Envoy does; connections go to that program alone.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> list[int]:
        for _ in range(self._count):
            reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reservation.bind(("127.0.0.1", 0))
            self._sockets.append(reservation)
        return [reservation.getsockname()[1] for reservation in self._sockets]

    def __exit__(self, *_: object) -> None:
        for reservation in self._sockets:
            reservation.close()
