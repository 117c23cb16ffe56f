# SPDX-License-Identifier: Apache-2.0
"""The port of whatever keeps Endorsements: in memory (`EndorsementStore`) or in a database.

A set of CoRIMs is provisioned, each all or nothing. What of it is in force follows from time and
from withdrawals. Appraisals read snapshots: one set, unchanged for as long as it is held, with
the epoch that names it in results.

tests/conformance/endorsement_repository.py holds what every implementation must do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol

from cryptography import x509

from troth.endorsement.reference_value import ReferenceValue
from troth.endorsement.trust_anchor import TrustAnchor
from troth.formats.corim.corim import Corim
from troth.formats.corim.signed import VerifiedCorim
from troth.formats.keys import VerificationKey

__all__ = [
    "EndorsementRepository",
    "EndorsementSnapshot",
    "HeldCorim",
    "Phase",
    "Provisioned",
    "Withdrawn",
]


class Phase(Enum):
    """Where a provisioned CoRIM is in its life."""

    PENDING = "pending"
    """Its validity has not begun."""
    IN_FORCE = "in force"
    RETIRING = "retiring"
    """In force until the end of its overlap with its replacement."""
    EXPIRED = "expired"
    """Its validity or overlap is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCorim:
    """One CoRIM that is held.

    Attributes:
        id: its identifier, as `withdraw` takes it.
        profile, scheme: how it was read.
        source: the file or service that it came from.
        authority: thumbprint of the key that signed it, "" where it came unsigned over a channel
            that the caller has authenticated.
        phase: at the time that was asked about.
        not_before, not_after: when it is in force, else None. The end is the earliest of the
            CoRIM's, the signature's and the overlap's.
        tags: identifiers of its CoMIDs.
        reference_values, trust_anchors: how many of them have not been withdrawn.
        withdrawn: identifiers of the values, keys and tags of it that have been.
        content: the octets, as signed or deterministically encoded.
        media_type: of `content`.
    """

    id: str
    profile: str
    scheme: str
    source: str
    authority: str
    phase: Phase
    not_before: datetime | None
    not_after: datetime | None
    tags: tuple[str, ...]
    reference_values: int
    trust_anchors: int
    withdrawn: tuple[str, ...]
    content: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """What a provisioning has done.

    Attributes:
        id: identifier of the CoRIM.
        reference_values, trust_anchors: identifiers of what it says.
        withdrawn: identifiers of the tags that it replaced and that are withdrawn by it.
        unused: what was in the CoRIM and plays no part in appraisal, one sentence each.
        unchanged: it had been provisioned before, with the same content; nothing was done.
        epoch: of the set in force afterwards.
    """

    id: str
    reference_values: tuple[str, ...]
    trust_anchors: tuple[str, ...]
    withdrawn: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    unchanged: bool = False
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What a withdrawal has taken out of force, so that the nodes concerned can be found.

    Attributes:
        id: what was asked for.
        reference_values, trust_anchors: what is gone; the environments say whom it concerns.
        epoch: of the set in force afterwards.
    """

    id: str
    reference_values: tuple[ReferenceValue, ...]
    trust_anchors: tuple[TrustAnchor, ...]
    epoch: str


class EndorsementSnapshot(Protocol):
    """One set of Endorsements in force. It does not change.

    It is a `ReferenceValueSource` and (in shape) a `TrustAnchorSource`.
    """

    @property
    def epoch(self) -> str:
        """Digest of the set: equal sets have equal epochs, different sets different ones."""
        ...

    def find(
        self, scheme: str, *, class_id: bytes, instance_id: bytes = b""
    ) -> Sequence[ReferenceValue]:
        """Return the values for this environment: of its class, its instance, and of both.

        Where `class_id` is empty because the scheme's Evidence does not say it, the class is the
        one that an attest-key triple endorses for the instance.
        """
        ...

    def trust_anchors(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[TrustAnchor]:
        """Return the keys of this Attester. An empty `implementation_id` matches any."""
        ...

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        """Return the keys of this Attester, ready to verify with."""
        ...

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        """Return the root certificates for this scheme."""
        ...


class EndorsementRepository(Protocol):
    """Keeps Endorsements. Every `now` is a timezone-aware time; time does not go back."""

    def provision(
        self,
        corim: Corim | VerifiedCorim,
        *,
        now: datetime,
        source: str,
        scheme: str = "",
        reinstate: bool = False,
    ) -> Provisioned:
        """Take in one CoRIM, all of it or nothing.

        The same content again changes nothing: in particular it does not bring back what has been
        withdrawn. A CoMID that declares to replace another withdraws it, if the same authority
        provided that.

        Args:
            corim: a verified CoRIM, or an unsigned one for which the caller vouches.
            now: the time.
            source: the file or service that it came from.
            scheme: the scheme that a CoRIM without a profile is about.
            reinstate: also take a CoRIM that was withdrawn as a whole before.

        Raises:
            DecodeError: it breaks a rule of its profile (as `endorsements_of`).
            FreshnessError: it has expired.
            ConflictError: its identifier is in use with other content, or it was withdrawn.
            LimitExceededError: more values than the repository takes.
        """
        ...

    def replace(
        self,
        old: str,
        corim: Corim | VerifiedCorim,
        *,
        now: datetime,
        source: str,
        scheme: str = "",
        overlap_until: datetime | None = None,
    ) -> Provisioned:
        """Take in `corim` in place of the CoRIM `old`, in one step.

        With `overlap_until` both are in force until then, so that Attesters can be updated one
        after the other; without it the old one is withdrawn at once.

        Raises:
            ConflictError: `old` is not there; or there is to be an overlap and both have one
                identifier.
            DecodeError, FreshnessError, LimitExceededError: as `provision`.
        """
        ...

    def withdraw(self, identifier: str, *, now: datetime) -> Withdrawn:
        """Take one value, one key, one tag or a whole CoRIM out of force, for good.

        Raises:
            ConflictError: nothing of this identifier is there (any more).
        """
        ...

    def list(self, *, now: datetime) -> tuple[HeldCorim, ...]:
        """Return all CoRIMs that are there, in force or not, by identifier."""
        ...

    def snapshot(self, now: datetime) -> EndorsementSnapshot:
        """Return the set in force at `now`."""
        ...
