# SPDX-License-Identifier: Apache-2.0
"""From our errors to the class that a peer is told: the one table, and nothing of the reason."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    FreshnessError,
    PeerError,
    TrothError,
    UnavailableError,
    VerificationError,
)
from troth.tls.core.messages import Verdict

__all__ = ["VERDICTS", "verdict_of"]

# The most specific class comes first. What is wrong on our side is no news for a peer: it learns
# that nothing can be decided now.
VERDICTS: Mapping[type[TrothError], Verdict] = MappingProxyType(
    {
        FreshnessError: Verdict.NOT_FRESH,
        VerificationError: Verdict.REFUSED,
        AuthorizationError: Verdict.REFUSED,
        DecodeError: Verdict.MALFORMED,
        PeerError: Verdict.MALFORMED,
        UnavailableError: Verdict.UNAVAILABLE,
        ApiMisuseError: Verdict.UNAVAILABLE,
        ConfigurationError: Verdict.UNAVAILABLE,
        ConflictError: Verdict.UNAVAILABLE,
    }
)


def verdict_of(error: TrothError) -> Verdict:
    """Return what a peer is told of `error`; REFUSED for a class that the table does not know."""
    for kind, verdict in VERDICTS.items():
        if isinstance(error, kind):
            return verdict
    return Verdict.REFUSED
