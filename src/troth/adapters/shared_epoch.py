# SPDX-License-Identifier: Apache-2.0
"""A number that the processes of one Verifier share: the epoch of the newest Endorsements.

Reading costs a memory access, so every appraisal looks. Eight aligned octets of a shared page are
read and written in one piece on the machines that Troth runs on.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from troth.errors import UnavailableError

__all__ = ["SharedEpoch"]

_NUMBER = struct.Struct("=q")


class SharedEpoch:
    """The number in a file; 0 at first. Close it.

    Args:
        path: the file; made for its owner only where it is absent.
    """

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            UnavailableError: it cannot be had.
        """
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                if os.fstat(descriptor).st_size < _NUMBER.size:
                    os.truncate(descriptor, _NUMBER.size)
                self._map = mmap.mmap(descriptor, _NUMBER.size)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as exc:
            raise UnavailableError(f"{path} cannot be shared: {exc}") from exc

    def close(self) -> None:
        """Give the page back."""
        self._map.close()

    def read(self) -> int:
        """Return the newest epoch that anybody announced."""
        number: int = _NUMBER.unpack_from(self._map)[0]
        return number

    def announce(self, epoch: int) -> None:
        """Tell the others that there is `epoch`; an older one is not announced."""
        if epoch > self.read():
            _NUMBER.pack_into(self._map, 0, epoch)
