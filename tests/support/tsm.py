# SPDX-License-Identifier: Apache-2.0
"""A fake of the kernel's configfs-tsm that behaves as its documentation says."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from troth.adapters.tsm_configfs import TsmEntry
from troth.testing.sev_snp import SimulatedSnpGuest

GUEST = SimulatedSnpGuest()


@dataclass
class FakeReports:
    """configfs-tsm: an entry counts its writes, and makes a report when one is read."""

    provider: str = "sev_guest"
    make: Callable[[bytes], tuple[bytes, bytes]] = lambda c: (GUEST.report(c), GUEST.table())
    there: bool = True
    failing: Mapping[str, int] = field(default_factory=dict)
    disturbances: int = 0
    source: str = "a fake of configfs-tsm"
    entries: int = 0
    open_entries: int = 0

    def available(self) -> bool:
        return self.there

    @contextmanager
    def entry(self) -> Iterator[TsmEntry]:
        if not self.there:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self.entries += 1
        self.open_entries += 1
        try:
            yield FakeEntry(self)
        finally:
            self.open_entries -= 1


class FakeEntry:
    def __init__(self, reports: FakeReports) -> None:
        self._reports = reports
        self._generation = 0
        self._inblob = b""

    def write(self, attribute: str, value: bytes) -> None:
        self._fail(f"write {attribute}")
        assert attribute == "inblob"
        assert len(value) == 64
        self._inblob = value
        self._generation += 1
        if self._reports.disturbances:  # another process writes right after us
            self._reports.disturbances -= 1
            self._inblob = bytes(64)
            self._generation += 1

    def read(self, attribute: str) -> bytes:
        self._fail(attribute)
        if attribute == "provider":
            return f"{self._reports.provider}\n".encode()
        if attribute == "generation":
            return f"{self._generation}\n".encode()
        if not self._inblob:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        outblob, auxblob = self._reports.make(self._inblob)
        return {"outblob": outblob, "auxblob": auxblob}[attribute]

    def _fail(self, action: str) -> None:
        if number := self._reports.failing.get(action):
            raise OSError(number, os.strerror(number))
