# SPDX-License-Identifier: Apache-2.0
"""How long a connection may live, and when a node refreshes what it lives on.

A connection is only as good as the newest facts that it was admitted on, so it ends when the
first of them runs out (invariant I4 of ARCHITECTURE.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from troth.errors import ApiMisuseError

__all__ = ["REFRESH_FRACTION", "Deadline", "connection_deadline", "refresh_after"]

# One third of the lifetime, not one half: a fleet of 200,000 nodes then lives through a Verifier
# outage of half an hour at one-hour results with 1.2 % of results lapsed instead of 16 %.
REFRESH_FRACTION = 1 / 3


@dataclass(frozen=True, slots=True)
class Deadline:
    """The instant at which a connection has to be gone, and which fact sets it.

    Attributes:
        at: aware UTC time.
        because: "svid_expires", "result_expires" or "max_connection_age".
    """

    at: datetime
    because: str

    def passed(self, now: datetime) -> bool:
        """Say whether the connection has to be gone; the instant itself is too late."""
        return now >= self.at


def connection_deadline(
    *,
    svid_not_after: datetime,
    result_expires: datetime | None,
    attested_at: datetime | None,
    max_connection_age: timedelta,
) -> Deadline:
    """Return `min(SVID.notAfter, EAR.exp, attested_at + max_connection_age)`.

    `result_expires` and `attested_at` are None only for a peer that is admitted on its SVID
    alone; then the SVID's notAfter is the deadline.
    """
    candidates = [Deadline(svid_not_after, "svid_expires")]
    if result_expires is not None:
        candidates.append(Deadline(result_expires, "result_expires"))
    if attested_at is not None:
        candidates.append(Deadline(attested_at + max_connection_age, "max_connection_age"))
    return min(candidates, key=lambda deadline: deadline.at)


def refresh_after(*, issued: datetime, expires: datetime, jitter: float = 0.0) -> timedelta:
    """Return how long after `issued` to renew what expires at `expires`.

    Args:
        issued: start of the lifetime.
        expires: its end.
        jitter: random number in [-1, 1]; moves the moment by at most a tenth of the interval, so
            that nodes started together do not stay together.

    Raises:
        ApiMisuseError: the lifetime is not positive, or the jitter out of range.
    """
    life = expires - issued
    if life <= timedelta(0):
        raise ApiMisuseError("what expires before it is issued cannot be refreshed")
    if not -1.0 <= jitter <= 1.0:
        raise ApiMisuseError(f"jitter {jitter} is outside [-1, 1]")
    return life * (REFRESH_FRACTION * (1 + 0.1 * jitter))
