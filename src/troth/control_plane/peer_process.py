# SPDX-License-Identifier: Apache-2.0
"""The process at the other end of a Unix socket, so that it cannot be mistaken for another.

A process id alone names whoever has that number now. A pidfd names one process for ever: what is
read about the number is about this process if the process is alive *after* the reading.

Source: unix(7) SO_PEERCRED; socket(7) SO_PEERPIDFD (Linux 6.5); pidfd_open(2).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from troth.errors import UnavailableError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["PeerProcess"]

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid (unix(7))
_SO_PEERPIDFD: Final = getattr(socket, "SO_PEERPIDFD", 77)


class PeerProcess:
    """One process, held by a pidfd. Close it, or use it as a context manager.

    Attributes:
        pid: its number; meaningful only while the process is alive.
        uid, gid: its credentials when it connected, or now for a process that was named.
    """

    def __init__(self, pid: int, uid: int, gid: int, pidfd: int) -> None:
        """Take over `pidfd`; -1 is a process that has ended."""
        self.pid, self.uid, self.gid = pid, uid, gid
        self._pidfd = pidfd

    @classmethod
    def of_socket(cls, connected: socket.socket) -> PeerProcess:
        """Return the process that connected this Unix socket.

        Raises:
            UnavailableError: the kernel does not tell.
        """
        try:
            credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        except OSError as exc:
            raise UnavailableError(f"the kernel does not tell who connected ({exc})") from exc
        pid, uid, gid = _UCRED.unpack(credentials)
        return cls(pid, uid, gid, _pidfd_of(connected, pid, uid))

    @classmethod
    def named(cls, pid: int) -> PeerProcess | None:
        """Return the process that has this number now, or None where there is none."""
        pidfd = _open(pid)
        ids = _effective_ids(pid)
        process = cls(pid, *(ids or (-1, -1)), pidfd)
        if ids is None or not process.alive:
            process.close()
            return None
        return process

    @property
    def alive(self) -> bool:
        """Say whether the process has not ended. A zombie has."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def fileno(self) -> int:
        """Return the pidfd: it becomes readable when the process ends; -1 if it has long ended."""
        return self._pidfd

    def close(self) -> None:
        """Let the process go."""
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PeerProcess(pid={self.pid}, uid={self.uid}, gid={self.gid})"


def _pidfd_of(connected: socket.socket, pid: int, uid: int) -> int:
    try:
        return connected.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            return -1  # the process has ended already
    # Before Linux 6.5 the number is all there is. A process that ended between connecting and
    # here, and whose number one of the same user has taken over by now, is mistaken for that one.
    pidfd = _open(pid)
    ids = _effective_ids(pid)
    if pidfd >= 0 and (ids is None or ids[0] != uid):
        os.close(pidfd)
        return -1
    return pidfd


def _effective_ids(pid: int) -> tuple[int, int] | None:
    """Return the effective user and group; the owner of /proc/PID is root for some processes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    try:
        return int(lines["Uid"].split()[1]), int(lines["Gid"].split()[1])
    except (KeyError, ValueError, IndexError):
        return None


def _open(pid: int) -> int:
    if pid <= 0:
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1
