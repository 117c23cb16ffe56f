# SPDX-License-Identifier: Apache-2.0
"""Reads fields one after the other; Intel's structures are little-endian and packed."""

from __future__ import annotations

from troth.errors import DecodeError

__all__ = ["FieldReader"]


class FieldReader:
    """A place in some octets.

    Args:
        data: the octets.
        format: what they are, for messages.
        start: offset of `data` in the whole message, for messages.
    """

    def __init__(self, data: bytes, *, format: str, start: int = 0) -> None:
        self._data, self._format, self._start = data, format, start
        self._at = 0

    @property
    def offset(self) -> int:
        """Where in the message the next field begins."""
        return self._start + self._at

    @property
    def rest(self) -> bytes:
        """What has not been read."""
        return self._data[self._at :]

    def octets(self, size: int, name: str) -> bytes:
        """Return the next `size` octets.

        Raises:
            DecodeError: there are fewer.
        """
        end = self._at + size
        if end > len(self._data):
            there = len(self._data) - self._at
            raise self.error(f"{name} needs {size} octets, {there} are left")
        field = self._data[self._at : end]
        self._at = end
        return field

    def number(self, size: int, name: str) -> int:
        """Return the next `size` octets as a number."""
        return int.from_bytes(self.octets(size, name), "little")

    def error(self, message: str) -> DecodeError:
        """Return an error about what comes next."""
        return DecodeError(message, format=self._format, offset=self.offset)
