# SPDX-License-Identifier: Apache-2.0
"""What the processes of one Verifier have in common, in one directory that lives as long as they.

A data directory belongs to one Verifier: its first process holds a lock on it, and clears away
what an earlier one has left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from troth.adapters.session_book import SqliteSessionBook
from troth.adapters.shared_epoch import SharedEpoch
from troth.errors import ConfigurationError, UnavailableError

__all__ = ["VerifierShare"]

_SESSION_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierShare:
    """The common things, open in this process. Close it.

    Attributes:
        directory: where they are.
        session_key: authenticates session identifiers; new with each start of the Verifier.
        book: used sessions.
        board: the newest epoch.
        metrics: directory of the processes' counters.
        lock: descriptor of the lock, in the process that made the directory, else -1.
    """

    directory: Path
    session_key: bytes = field(repr=False)
    book: SqliteSessionBook
    board: SharedEpoch
    metrics: Path
    lock: int = -1

    @classmethod
    def create(cls, data_dir: Path) -> VerifierShare:
        """Make it, for the one Verifier of this data directory.

        Raises:
            ConfigurationError: another Verifier runs on this data directory.
            UnavailableError: it cannot be made.
        """
        directory = data_dir / "run"
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(data_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                os.close(lock)
                raise ConfigurationError(
                    source="verifier configuration",
                    key="data_dir",
                    value=str(data_dir),
                    accepted="a directory that no other Verifier runs on",
                ) from exc
            shutil.rmtree(directory, ignore_errors=True)
            (directory / "metrics").mkdir(mode=0o700, parents=True)
            descriptor = os.open(directory / "session.key", os.O_CREAT | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(_SESSION_KEY_BYTES))
        except OSError as exc:
            raise UnavailableError(f"{directory} cannot be made: {exc.strerror}") from exc
        return cls._open(directory, lock)

    @classmethod
    def join(cls, directory: Path) -> VerifierShare:
        """Open what another process has made.

        Raises:
            UnavailableError: it is not there.
        """
        return cls._open(directory, -1)

    @classmethod
    def _open(cls, directory: Path, lock: int) -> VerifierShare:
        try:
            key = (directory / "session.key").read_bytes()
        except OSError as exc:
            raise UnavailableError(f"{directory} cannot be read: {exc.strerror}") from exc
        return cls(
            directory=directory,
            session_key=key,
            book=SqliteSessionBook(directory / "sessions.db"),
            board=SharedEpoch(directory / "epoch"),
            metrics=directory / "metrics",
            lock=lock,
        )

    def close(self) -> None:
        """Close everything; who made the directory removes it."""
        self.book.close()
        self.board.close()
        if self.lock >= 0:
            shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.close(self.lock)
