# SPDX-License-Identifier: Apache-2.0
"""Documents of vendors in a directory that somebody else keeps up to date.

Revocation lists and lists of current firmware run out after days or weeks. What is in the
directory is therefore read again while the process runs, whenever something in it has changed; a
job of the operator's, or `troth verify --fetch-collateral`, renews the files. A directory that cannot be
read, or holds too much, leaves what was last read in force: that gets stale by itself, in the open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final

from troth.clock import SystemClock
from troth.errors import ConfigurationError, LimitExceededError
from troth.evidence.context import (
    MAX_COLLATERAL_BYTES,
    MAX_COLLATERAL_DOCUMENTS,
    Collateral,
)

__all__ = ["LOOK_AGAIN_SECONDS", "CollateralDirectory"]

LOOK_AGAIN_SECONDS: Final = 30.0
"""How often the directory is looked at, at most."""

_MONOTONIC: Final = SystemClock().monotonic
_LOG = logging.getLogger(__name__)

_Signature = tuple[tuple[str, int, int], ...]
"""Name, size and time of change of each file."""


class CollateralDirectory:
    """A `CollateralSource`. May be used from several threads.

    Args:
        path: the directory; files whose names begin with a dot are left out.
        key: the setting that names it, for messages.
        monotonic: seconds, for the time between looks.

    Raises:
        ConfigurationError: it cannot be read, or holds too much, at the start.
    """

    def __init__(
        self, path: Path, *, key: str, monotonic: Callable[[], float] = _MONOTONIC
    ) -> None:
        self._path, self._monotonic = path, monotonic
        self._lock = Lock()
        try:
            self._seen = self._look()
            self._collateral = self._read()
        except OSError as exc:
            raise ConfigurationError(
                source="configuration",
                key=key,
                value=str(path),
                accepted=f"a readable directory ({exc.strerror or exc})",
            ) from exc
        except LimitExceededError as exc:
            raise ConfigurationError(
                source="configuration", key=key, value=str(path), accepted=f"less ({exc})"
            ) from exc
        self._looked_at = monotonic()

    def current(self) -> Collateral:
        """Return the documents as they are, or were half a minute ago."""
        if self._monotonic() - self._looked_at >= LOOK_AGAIN_SECONDS and self._lock.acquire(
            blocking=False
        ):
            try:
                self._refresh()
            finally:
                self._looked_at = self._monotonic()
                self._lock.release()
        return self._collateral

    def _refresh(self) -> None:
        try:
            seen = self._look()
            if seen != self._seen:
                self._collateral = self._read()
                self._seen = seen
                _LOG.info("%s: %d documents of vendors", self._path, len(seen))
        except (OSError, LimitExceededError) as exc:
            _LOG.error("%s: what was read before stays in force: %s", self._path, exc)

    def _look(self) -> _Signature:
        found = []
        for file in sorted(self._path.iterdir()):
            if not file.name.startswith(".") and file.is_file():
                status = file.stat()
                found.append((file.name, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def _read(self) -> Collateral:
        room = MAX_COLLATERAL_BYTES
        documents: dict[str, bytes] = {}
        for name, _, _ in self._look()[: MAX_COLLATERAL_DOCUMENTS + 1]:
            with (self._path / name).open("rb") as file:
                documents[name] = file.read(room + 1)
            room = max(room - len(documents[name]), 0)
        return Collateral(documents)
