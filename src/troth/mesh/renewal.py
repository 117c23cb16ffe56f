# SPDX-License-Identifier: Apache-2.0
"""When a node asks again after it could not renew.

A Verifier that was away for a while has the whole fleet waiting when it returns. What decides how
bad that is, is how the nodes spread their attempts, so this is a rule of the mesh and no detail of
an agent: `make bench BENCH_ARGS=fleet` runs 200,000 nodes on it.
"""

from __future__ import annotations

from typing import Final

from troth.errors import ApiMisuseError

__all__ = ["FIRST_RETRY_SECONDS", "LAST_RETRY_SECONDS", "retry_seconds"]

FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 60.0

# Attempts double their distance; beyond this many the bound above is long reached.
_MOST_DOUBLINGS = 16


def retry_seconds(attempt: int, *, told: float | None, jitter: float) -> float:
    """Return how long to wait after attempt number `attempt` failed.

    Args:
        attempt: how many have failed in a row; 1 for the first.
        told: what the server asked for (Retry-After), or None. It says when there is room for
            one, and says so to everybody: waiting longer is polite, and waiting exactly that long
            would bring all back in the same moment.
        jitter: random number in [0, 1).

    Returns:
        Seconds; never less than `told`.

    Raises:
        ApiMisuseError: no attempt has failed, or the jitter is out of range.
    """
    if attempt < 1:
        raise ApiMisuseError("nothing has failed yet")
    if not 0.0 <= jitter < 1.0:
        raise ApiMisuseError(f"jitter {jitter} is outside [0, 1)")
    doublings = min(attempt - 1, _MOST_DOUBLINGS)
    backoff = min(FIRST_RETRY_SECONDS * 2.0**doublings, LAST_RETRY_SECONDS)
    return max(told or 0.0, 0.0) + backoff * (0.5 + 0.5 * jitter)
