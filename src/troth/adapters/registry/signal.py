# SPDX-License-Identifier: Apache-2.0
"""Tell the other servers on one PostgreSQL that something was committed.

A notification says only "look": what happened is in the tables. So a lost one costs time and
never an event, and one that comes twice costs one read. PostgreSQL delivers it at the commit of
the transaction that sent it, and not at all where that is rolled back. On SQLite there is one
server, which knows what it has written.

Source: PostgreSQL documentation, NOTIFY and LISTEN.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

__all__ = ["CHANNEL", "SignalListener", "tell"]

_LOG = logging.getLogger(__name__)

CHANNEL = "troth_feed"
"""Channel of the notifications. It is a database's own, as the lock of the writers is."""

_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_STOP_SECONDS = 5.0


def tell(connection: Connection) -> None:
    """Let every server look once the caller has committed."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))


class SignalListener:
    """A connection and a thread of its own that wait for notifications.

    Args:
        engine: of a PostgreSQL database.
        heard: called in the thread for each batch of notifications, and after each new connection:
            what was committed meanwhile, nobody else tells.
    """

    def __init__(self, engine: Engine, heard: Callable[[], None]) -> None:
        self._engine, self._heard = engine, heard
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed signal", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; where the database does not answer, it ends by itself later."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except Exception as exc:  # noqa: BLE001 - the driver's own errors, and it is tried again
                _LOG.warning("no word from other servers, feeds look by themselves: %s", exc)
                self._stopped.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            driver = connection.connection.driver_connection
            if driver is None:
                raise SQLAlchemyError("the connection is gone")
            self._heard()
            while not self._stopped.is_set():
                # Ends by itself after a while, so that a stop is seen.
                if list(driver.notifies(timeout=_LOOK_SECONDS, stop_after=1)):
                    self._heard()
        finally:
            # It listens: the pool must not give it to anybody else.
            connection.invalidate()
            connection.close()
