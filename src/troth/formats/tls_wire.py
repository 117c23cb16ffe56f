# SPDX-License-Identifier: Apache-2.0
"""The TLS presentation language: bounded reads and length-prefixed writes.

Source: RFC 8446 section 3.
"""

from __future__ import annotations

from troth.errors import DecodeError, LimitExceededError

__all__ = ["WireReader", "handshake_message", "vector"]


class WireReader:
    """Read fixed integers and length-prefixed vectors from one buffer, in order.

    Every read checks what is left; `finish()` refuses octets that nobody read.
    """

    __slots__ = ("_data", "_format", "_position")

    def __init__(self, data: bytes, *, format: str) -> None:
        self._data = data
        self._format = format
        self._position = 0

    @property
    def position(self) -> int:
        """Octets read so far."""
        return self._position

    @property
    def remaining(self) -> int:
        """Octets not read yet."""
        return len(self._data) - self._position

    def integer(self, size: int, what: str) -> int:
        """Read a big-endian unsigned integer of `size` octets."""
        return int.from_bytes(self.take(size, what), "big")

    def take(self, size: int, what: str) -> bytes:
        """Read exactly `size` octets.

        Raises:
            DecodeError: fewer are left.
        """
        begin = self._position
        end = begin + size
        if end > len(self._data):
            raise DecodeError(
                f"{what} needs {size} octets and {self.remaining} are left",
                format=self._format,
                offset=self._position,
            )
        self._position = end
        return self._data[begin:end]

    def vector(self, prefix: int, what: str, *, least: int = 0, most: int | None = None) -> bytes:
        """Read a vector whose length stands in `prefix` octets before it.

        Raises:
            DecodeError: it is shorter than `least` or than it says.
            LimitExceededError: it is longer than `most` octets.
        """
        begin = self._position
        if begin + prefix > len(self._data):
            self.take(prefix, f"length of {what}")  # says what is missing
        size = int.from_bytes(self._data[begin : begin + prefix], "big")
        self._position = begin + prefix
        if most is not None and size > most:
            raise LimitExceededError(
                format=self._format, limit=f"octets of {what}", value=most, offset=self._position
            )
        if size < least:
            raise DecodeError(
                f"{what} has {size} octets, at least {least} are required",
                format=self._format,
                offset=self._position,
            )
        return self.take(size, what)

    def finish(self) -> None:
        """Refuse trailing octets.

        Raises:
            DecodeError: something is left.
        """
        if self.remaining:
            raise DecodeError(
                f"{self.remaining} octets follow the end",
                format=self._format,
                offset=self._position,
            )


def vector(data: bytes, prefix: int) -> bytes:
    """Return `data` behind its length in `prefix` octets."""
    return len(data).to_bytes(prefix, "big") + data


def handshake_message(kind: int, body: bytes) -> bytes:
    """Return a TLS handshake message: one octet of type, three of length, the body."""
    return bytes([kind]) + vector(body, 3)
