# SPDX-License-Identifier: Apache-2.0
"""Keep numbers from going back when a database comes back from a backup.

Agents know the number of the last event that they have, servers the epoch of the Endorsements,
others the sequence of our bundle. A database restored from a backup would give numbers out twice,
for different things. So

1. each server keeps the highest numbers that it has seen in a file beside its keys, and does not
   open a database that is behind them;
2. `mark_restored` moves every number ahead by `LEAP`, past all that can have been given out since
   the backup, and drops the events: whoever asks for what follows an old number gets a snapshot.

What was written after the backup is lost all the same, expulsions too: the guide says what to do.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry import signal, state_log
from troth.adapters.registry.schema import counters, events, sessions
from troth.errors import ConfigurationError, UnavailableError

__all__ = ["LEAP", "HighWaterMark", "mark_restored", "read_numbers"]

LEAP = 2**32
"""More numbers than are given out between a backup and its restoration."""

# The log's rows are chained, so its numbers have to go on by one; a head kept elsewhere shows what
# is missing at its end.
_LOG = "log"


def read_numbers(connection: Connection) -> dict[str, int]:
    """Return the last number of each kind that was given out."""
    rows = connection.execute(sa.select(counters.c.name, counters.c.value))
    return {row.name: row.value for row in rows}


def mark_restored(connection: Connection, *, actor: str, at: datetime) -> None:
    """Move all numbers ahead, in the caller's transaction; once too often does no harm."""
    connection.execute(
        sa.update(counters).where(counters.c.name != _LOG).values(value=counters.c.value + LEAP)
    )
    connection.execute(sa.delete(events))
    # A nonce that was used after the backup would be good again.
    connection.execute(sa.delete(sessions))
    state_log.append(connection, "restored", actor=actor, at=at, data={"leap": LEAP})
    signal.tell(connection)


class HighWaterMark:
    """The highest numbers that this server has seen, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._load()

    def check(self, numbers: dict[str, int]) -> None:
        """Refuse a database that is behind.

        Raises:
            ConfigurationError: naming what went back, and what to do.
        """
        for name, seen in sorted(self._seen.items()):
            if name != _LOG and numbers.get(name, 0) < seen:
                raise ConfigurationError(
                    source="database",
                    key=f"last {name} number",
                    value=str(numbers.get(name, 0)),
                    accepted=f"at least {seen}, which this server has seen; if the database was "
                    "restored from a backup, run `troth server --restored` with this configuration",
                )

    def note(self, numbers: dict[str, int]) -> None:
        """Remember these numbers.

        Raises:
            UnavailableError: the file cannot be written.
        """
        if numbers == self._seen:
            return
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.write_bytes(msgspec.json.encode(numbers) + b"\n")
            beside.replace(self._path)
        except OSError as exc:
            raise UnavailableError(f"{self._path} cannot be written: {exc.strerror}") from exc
        self._seen = dict(numbers)

    def _load(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                source=str(self._path), accepted=f"the numbers as Troth wrote them ({exc})"
            ) from exc
