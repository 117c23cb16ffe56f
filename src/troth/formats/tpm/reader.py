# SPDX-License-Identifier: Apache-2.0
"""Bounded reads of what a TPM, its firmware and the kernel write.

A TPM writes big-endian, logs are little-endian. A structure with a length before it is a TPM2B.
"""

from __future__ import annotations

from typing import Literal

from troth.errors import DecodeError, LimitExceededError

__all__ = ["TpmReader"]


class TpmReader:
    """Reads one buffer in order; every read checks what is left."""

    __slots__ = ("_data", "_format", "_order", "_position")

    def __init__(
        self, data: bytes, *, format: str, order: Literal["big", "little"] = "big"
    ) -> None:
        self._data = data
        self._format = format
        self._order: Literal["big", "little"] = order
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
        """Read an unsigned integer of `size` octets.

        Raises:
            DecodeError: fewer are left.
        """
        return int.from_bytes(self.take(size, what), self._order)

    def take(self, size: int, what: str) -> bytes:
        """Read exactly `size` octets.

        Raises:
            DecodeError: fewer are left.
        """
        begin = self._position
        end = begin + size
        if end > len(self._data):
            raise self.error(f"{what} needs {size} octets and {self.remaining} are left")
        self._position = end
        return self._data[begin:end]

    def sized(self, what: str, *, most: int, prefix: int = 2) -> bytes:
        """Read octets behind their length.

        Raises:
            DecodeError: fewer are left than it says.
            LimitExceededError: it says more than `most`.
        """
        size = self.integer(prefix, f"length of {what}")
        if size > most:
            raise LimitExceededError(
                format=self._format, limit=f"octets of {what}", value=most, offset=self._position
            )
        return self.take(size, what)

    def error(self, problem: str) -> DecodeError:
        """Return the refusal of what stands here."""
        return DecodeError(problem, format=self._format, offset=self._position)

    def finish(self) -> None:
        """Refuse octets that nobody read.

        Raises:
            DecodeError: there are some.
        """
        if self.remaining:
            raise self.error(f"{self.remaining} octets follow the end")
