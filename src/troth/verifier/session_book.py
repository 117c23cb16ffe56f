# SPDX-License-Identifier: Apache-2.0
"""The book of sessions: which have been used, and what came of the newest.

Sessions that nobody has answered are not in it. A session is entered once, with its outcome, in
one step: of two answers that arrive together one gets a result and the other a refusal. The entry
stays until the session's end, so that it cannot be answered again; its content may go earlier.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Protocol

from troth.errors import ConflictError

__all__ = ["MemorySessionBook", "Outcome", "SessionBook", "used"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a session.

    Attributes:
        media_type, evidence: what was submitted.
        result: the signed EAR.
    """

    media_type: str
    evidence: bytes = field(repr=False)
    result: str = field(repr=False)


class SessionBook(Protocol):
    """Where used sessions are entered. Methods may block; any thread may call them."""

    def enter(self, mark: bytes, outcome: Outcome | None, *, expires: datetime) -> None:
        """Enter a session that has not been used; None for one that is given up unused.

        Raises:
            ConflictError: it is in the book already.
            UnavailableError: the book cannot be written.
        """

    def find(self, mark: bytes) -> Outcome | None:
        """Return the outcome of a used session, or None where it has not been used.

        Raises:
            ConflictError: it was used, and its outcome is not kept (any more).
            UnavailableError: the book cannot be read.
        """
        ...

    def forget(self, mark: bytes) -> None:
        """Drop the outcome; the entry stays."""

    def prune(self, *, now: datetime, keep: int) -> None:
        """Drop the entries of sessions that are over, and all but the newest `keep` outcomes."""


class MemorySessionBook:
    """The book of one process.

    Args:
        keep: outcomes kept; the oldest go first.
    """

    def __init__(self, *, keep: int) -> None:
        self._keep = keep
        self._lock = Lock()
        self._expires: OrderedDict[bytes, datetime] = OrderedDict()
        self._outcomes: OrderedDict[bytes, Outcome] = OrderedDict()

    def __len__(self) -> int:
        return len(self._expires)

    def enter(self, mark: bytes, outcome: Outcome | None, *, expires: datetime) -> None:
        """Enter a session; see `SessionBook`."""
        with self._lock:
            if mark in self._expires:
                raise used()
            self._expires[mark] = expires
            if outcome is not None:
                self._outcomes[mark] = outcome
            while len(self._outcomes) > self._keep:
                self._outcomes.popitem(last=False)

    def find(self, mark: bytes) -> Outcome | None:
        """Return an outcome; see `SessionBook`."""
        with self._lock:
            outcome = self._outcomes.get(mark)
            if outcome is None and mark in self._expires:
                raise used()
            return outcome

    def forget(self, mark: bytes) -> None:
        """Drop an outcome; see `SessionBook`."""
        with self._lock:
            self._outcomes.pop(mark, None)

    def prune(self, *, now: datetime, keep: int) -> None:
        """Drop what is over; see `SessionBook`."""
        with self._lock:
            # Sessions live equally long, but they are used in any order.
            for mark in [mark for mark, expires in self._expires.items() if expires <= now]:
                del self._expires[mark]
                self._outcomes.pop(mark, None)
            while len(self._outcomes) > keep:
                self._outcomes.popitem(last=False)


def used() -> ConflictError:
    """Return the refusal of a session that is in the book."""
    return ConflictError("the session has been used", remedy="open a new session")
