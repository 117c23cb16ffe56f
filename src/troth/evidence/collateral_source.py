# SPDX-License-Identifier: Apache-2.0
"""What a vendor's service would have to be asked for before some Evidence can be verified.

Verification itself asks nobody. Whoever calls it may first find out what is missing
(a scheme's own function, such as `sev_snp.kds.wanted`), have it fetched through this port, and hand
the documents over in the context. Without any of this, verification works from what is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from troth.evidence.context import Collateral

__all__ = ["CollateralRequest", "EndorsementFetcher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralRequest:
    """One document of a vendor's service.

    Attributes:
        name: of the document; a file name without directories, the same for the same document.
        path: at the service, with query; never from outside octets but in hexadecimal and numbers.
        description: for people.
        changes: a newer one may replace it, as with revocation lists; others are for good.
    """

    name: str
    path: str
    description: str
    changes: bool = False


class EndorsementFetcher(Protocol):
    """Fetches documents of one vendor's service, and keeps them."""

    def fetch(self, requests: Sequence[CollateralRequest], *, now: datetime) -> Collateral:
        """Return the documents by name, kept or fetched; those that cannot be had are left out.

        A document that changes is returned in its last known state where the service does not
        answer: it says itself how old it is.

        Args:
            requests: what is wanted.
            now: timezone-aware.

        Raises:
            UnavailableError: none of them can be had.
        """
        ...
