# SPDX-License-Identifier: Apache-2.0
"""What verification needs besides the Evidence, the trust anchors and the challenge.

Schemes whose keys are certified by a vendor need the time, and documents that the vendor hands
out beside the hardware: certificates, revocation lists, lists of current firmware. Such documents
are signed, so it does not matter who brings them: in the Evidence, from a directory, or fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Protocol

from troth.errors import ApiMisuseError, LimitExceededError

__all__ = [
    "MAX_COLLATERAL_BYTES",
    "MAX_COLLATERAL_DOCUMENTS",
    "NO_CONTEXT",
    "Collateral",
    "CollateralSource",
    "VerificationContext",
]

MAX_COLLATERAL_DOCUMENTS: Final = 64
"""Documents that one verification takes into account."""

MAX_COLLATERAL_BYTES: Final = 4_194_304
"""Octets of all documents together; a revocation list of a processor vendor has some 100 KB."""


@dataclass(frozen=True, slots=True)
class Collateral:
    """Documents of vendors. Nothing in them is believed before the scheme has verified it.

    Attributes:
        documents: name (such as the file's) to octets. Names are for messages, and for schemes
            whose documents do not say themselves what they are.
        digest: SHA-256 over all of them, to remember by what was verified with them.

    Raises:
        LimitExceededError: too many of them, or too long.
    """

    documents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        documents = dict(self.documents)
        if len(documents) > MAX_COLLATERAL_DOCUMENTS:
            raise LimitExceededError(
                format="collateral",
                limit="MAX_COLLATERAL_DOCUMENTS",
                value=MAX_COLLATERAL_DOCUMENTS,
            )
        if sum(map(len, documents.values())) > MAX_COLLATERAL_BYTES:
            raise LimitExceededError(
                format="collateral", limit="MAX_COLLATERAL_BYTES", value=MAX_COLLATERAL_BYTES
            )
        object.__setattr__(self, "documents", MappingProxyType(documents))
        object.__setattr__(self, "digest", _digest(documents))

    def current(self) -> Collateral:
        """Return these documents: they are a source that never changes."""
        return self

    def with_documents(self, documents: Mapping[str, bytes]) -> Collateral:
        """Return these documents and `documents`.

        Where another one has the name of one of these, it goes by "NAME (fetched)": what is at
        hand may have run out, and which of the two is newer is for the scheme to say.
        """
        if not documents:
            return self
        merged = dict(self.documents)
        for name, data in documents.items():
            same = merged.get(name, data) == data
            merged[name if same else f"{name} (fetched)"] = data
        return Collateral(merged)


class CollateralSource(Protocol):
    """Where a Verifier gets the documents that its operator has."""

    def current(self) -> Collateral:
        """Return the documents as they are now. Cheap, and never fails."""
        ...


def _digest(documents: Mapping[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(documents):
        for part in (name.encode(), documents[name]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationContext:
    """The circumstances of one verification.

    Attributes:
        now: timezone-aware; the one clock reading, at which certificates must be valid. None
            only where no scheme with certificates is verified.
        collateral: documents of vendors.
        vendors: vendors of hardware whose own published roots are believed, such as "amd",
            besides the certificates of the trust anchor source. None unless the operator says so.
        grace: how long after its next update a document of collateral still serves. None unless
            the operator says so; a result shows when it was used.
    """

    now: datetime | None = None
    collateral: Collateral = field(default_factory=Collateral)
    vendors: frozenset[str] = frozenset()
    grace: timedelta = timedelta(0)

    @property
    def time(self) -> datetime:
        """The clock reading, for a scheme that cannot do without.

        Raises:
            ApiMisuseError: none was given, or it has no zone.
        """
        if self.now is None or self.now.tzinfo is None:
            raise ApiMisuseError("this scheme's certificates need a clock reading with a zone")
        return self.now


NO_CONTEXT: Final = VerificationContext()
"""For schemes whose keys are registered one by one."""
