# SPDX-License-Identifier: Apache-2.0
"""Federation: whose SVIDs are believed beside our own trust domain's, and where their keys come from.

A relationship is one-way and is what an operator made it: trust domain, address and profile are
all given, and none is concluded from another.

Source: SPIFFE Federation sections 5.1, 5.2 and 7.2 (spiffe/spiffe, July 2026).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from troth.errors import DecodeError
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.workload_entry import refused_field

__all__ = [
    "DEFAULT_REFRESH",
    "LONGEST_REFRESH",
    "MAX_FEDERATIONS",
    "SHORTEST_REFRESH",
    "EndpointProfile",
    "Federation",
    "refresh_interval",
    "takes_over",
]

MAX_FEDERATIONS: Final = 256
"""Foreign trust domains; every agent keeps the bundles of all in memory."""

DEFAULT_REFRESH: Final = timedelta(minutes=5)
"""Without a hint (section 4.1)."""

SHORTEST_REFRESH: Final = timedelta(seconds=10)
LONGEST_REFRESH: Final = timedelta(hours=24)
"""A hint is kept within these: a peer decides neither about our load nor about our blindness."""

# RFC 3986: no userinfo, hence no "@" before the path; no fragment, which is never sent.
_URL: Final = re.compile(
    r"https://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-~]*)?"
)
_MAX_URL: Final = 2048


class EndpointProfile(StrEnum):
    """How a bundle endpoint shows who it is."""

    HTTPS_WEB = "https_web"
    HTTPS_SPIFFE = "https_spiffe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """One foreign trust domain.

    Attributes:
        trust_domain: whose keys these are, because the operator says so.
        bundle: the latest, or None before there is one: its SVIDs are then not believed.
        endpoint_url: where to fetch it again, or "" where operators replace it by hand.
        profile: how the endpoint shows who it is; None without an endpoint.
        endpoint_spiffe_id: whom `https_spiffe` expects there.
        refreshed_at: when the bundle was last fetched or set, aware UTC; None before.

    Raises:
        DecodeError: naming the field and the reason.
    """

    trust_domain: TrustDomain
    bundle: TrustBundle | None = field(default=None, repr=False)
    endpoint_url: str = ""
    profile: EndpointProfile | None = None
    endpoint_spiffe_id: SpiffeId | None = None
    refreshed_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.bundle is not None and self.bundle.trust_domain != self.trust_domain:
            raise refused_field("bundle", f"is that of {self.bundle.trust_domain}")
        if not self.endpoint_url:
            if self.bundle is None:
                raise refused_field("bundle", "neither a bundle nor an endpoint to fetch it from")
            if self.profile is not None or self.endpoint_spiffe_id is not None:
                raise refused_field("endpoint_url", "is missing, though its profile is given")
            return
        if len(self.endpoint_url) > _MAX_URL or not _URL.fullmatch(self.endpoint_url):
            raise refused_field(
                "endpoint_url", f"{self.endpoint_url[:128]!r} is not https://HOST/PATH without user"
            )
        if self.profile is None:
            raise refused_field("profile", "is missing: https_web or https_spiffe")
        wanted = self.profile is EndpointProfile.HTTPS_SPIFFE
        if wanted != (self.endpoint_spiffe_id is not None):
            raise refused_field(
                "endpoint_spiffe_id", f"is {'missing' if wanted else 'not'} for {self.profile}"
            )
        if self.is_self_serving and self.bundle is None:
            raise refused_field(
                "bundle",
                "is missing: the endpoint shows an SVID of the very trust domain",
                remedy="get its bundle by another way once, and give it with the endpoint",
            )

    @property
    def is_self_serving(self) -> bool:
        """Say whether the endpoint is recognised by the bundle that it serves (section 5.2.2.2)."""
        return (
            self.endpoint_spiffe_id is not None
            and self.endpoint_spiffe_id.trust_domain == self.trust_domain
        )


def refresh_interval(bundle: TrustBundle | None) -> timedelta:
    """Return how long after a fetch the next one is due."""
    hint = bundle.refresh_hint_seconds if bundle is not None else None
    if not hint:
        return DEFAULT_REFRESH
    # Compared as numbers first: a hint may be longer than a timedelta can be.
    seconds = min(hint, LONGEST_REFRESH.total_seconds())
    return max(timedelta(seconds=seconds), SHORTEST_REFRESH)


def takes_over(new: TrustBundle, known: TrustBundle | None) -> bool:
    """Say whether a fetched bundle replaces the known one, or raise if it is an older one.

    Raises:
        DecodeError: its sequence number is lower than that of the known one (section 4.2).
    """
    if known is None:
        return True
    if new.sequence is not None and known.sequence is not None and new.sequence < known.sequence:
        raise DecodeError(
            f"sequence {new.sequence} is older than {known.sequence}, which is known",
            format=f"bundle of {new.trust_domain}",
            remedy="if that trust domain began anew, set its bundle by hand",
        )
    return new != known
