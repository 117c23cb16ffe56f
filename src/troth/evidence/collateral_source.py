# SPDX-License-Identifier: Apache-2.0
"""The port through which a vendor's documents are fetched, and the loop that uses it.

Verification does no I/O. Where it lacks a document it raises `CollateralError`, which says what to
ask for; whoever called fetches that and verifies again. So a Verifier works offline with documents
at hand, fetches where it may, and only for Evidence whose own signatures lead to the vendor: a
stranger cannot make it fetch what he likes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

from troth.errors import CollateralError
from troth.evidence.context import Collateral

__all__ = ["CollateralSource", "with_collateral"]

T = TypeVar("T")


class CollateralSource(Protocol):
    """Where documents of one or more vendors come from. Nothing that it gives is believed."""

    def fetch(self, wanted: CollateralError, *, now: datetime) -> Collateral:
        """Return documents that `wanted` asks for, or none for a vendor that it does not serve.

        Args:
            wanted: names the vendor and says what is missing.
            now: timezone-aware; what is out of date by then is fetched anew.

        Raises:
            UnavailableError: the vendor's service does not answer, or not with that.
        """
        ...


def with_collateral(
    verify: Callable[[Collateral | None], T], source: CollateralSource, *, now: datetime
) -> T:
    """Return what `verify` returns, after fetching once what it lacks.

    Args:
        verify: verifies with these documents beside those that it has; None at first.
        source: fetches.
        now: timezone-aware.

    Raises:
        CollateralError: what was fetched does not help.
        UnavailableError: it could not be fetched.
    """
    try:
        return verify(None)
    except CollateralError as exc:
        wanted = exc
    if not wanted.vendor:
        raise wanted
    return verify(source.fetch(wanted, now=now))
