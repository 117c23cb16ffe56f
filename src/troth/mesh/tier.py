# SPDX-License-Identifier: Apache-2.0
"""The ladder of assurance tiers, and the lifetimes that hang on them.

A tier says what kind of platform was appraised. It says nothing about how fresh that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from troth.errors import ApiMisuseError
from troth.verifier.result import AssuranceTier

__all__ = ["DEFAULT_LIFETIMES", "Tier", "TierLifetimes", "floor"]


Tier = AssuranceTier
"""The mesh's short word for it."""


def floor(tiers: Iterable[Tier]) -> Tier:
    """Return the weakest of `tiers`; several platforms together are as strong as that one.

    Raises:
        ApiMisuseError: there is none: nothing appraised has no tier.
    """
    weakest = min(tiers, default=None)
    if weakest is None:
        raise ApiMisuseError("no tier to take the floor of")
    return weakest


@dataclass(frozen=True, slots=True, kw_only=True)
class TierLifetimes:
    """How long things last for nodes of one tier.

    Attributes:
        result: an Attestation Result, from its issue.
        svid: an X.509-SVID at most; never longer than the result that it stands on.
        connection: a connection at most, from the attestation that admitted it.
        feed_loss: how long a peer of this tier may go on admitting new connections without
            hearing from the server's feed.
    """

    result: timedelta
    svid: timedelta
    connection: timedelta
    feed_loss: timedelta

    def __post_init__(self) -> None:
        for name in ("result", "svid", "connection", "feed_loss"):
            if getattr(self, name) <= timedelta(0):
                raise ApiMisuseError(f"lifetime {name!r} is not positive")


# The table of docs/reference/server.md. Stronger tiers claim more, so their claims age faster.
DEFAULT_LIFETIMES: Mapping[Tier, TierLifetimes] = MappingProxyType(
    {
        Tier.REGISTERED: TierLifetimes(
            result=timedelta(minutes=15),
            svid=timedelta(minutes=15),
            connection=timedelta(minutes=15),
            feed_loss=timedelta(hours=1),
        ),
        Tier.IDENTIFIED: TierLifetimes(
            result=timedelta(hours=24),
            svid=timedelta(hours=24),
            connection=timedelta(hours=4),
            feed_loss=timedelta(hours=1),
        ),
        Tier.MEASURED: TierLifetimes(
            result=timedelta(hours=1),
            svid=timedelta(hours=1),
            connection=timedelta(hours=1),
            feed_loss=timedelta(minutes=5),
        ),
        Tier.CONFIDENTIAL: TierLifetimes(
            result=timedelta(minutes=10),
            svid=timedelta(minutes=10),
            connection=timedelta(minutes=15),
            feed_loss=timedelta(seconds=30),
        ),
    }
)
