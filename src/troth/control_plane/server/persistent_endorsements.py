# SPDX-License-Identifier: Apache-2.0
"""Endorsements that last: the registry's CoRIMs as an `EndorsementRepository`."""

from __future__ import annotations

from datetime import datetime

from troth.control_plane.server.endorsement_set import EndorsementSet, GivenCorim
from troth.endorsement.repository import (
    EndorsementRepository,
    EndorsementSnapshot,
    HeldCorim,
    Provisioned,
    Withdrawn,
)
from troth.errors import TrothError
from troth.formats.corim.corim import Corim
from troth.formats.corim.signed import VerifiedCorim
from troth.formats.verification_key import VerificationKey
from troth.mesh.registry import Registry

__all__ = ["PersistentEndorsements"]


class PersistentEndorsements:
    """Keeps Endorsements in a registry, and a copy of what is in force in memory.

    One process at a time changes a registry through it. A server does not withdraw through it:
    its nodes have to be appraised again in the same step (`Operators`).

    Args:
        registry: where they are kept.
        keys: whose signed CoRIMs are believed when they are read back.
        actor: in whose name changes are logged.
        now: for reading what is there.

    Raises:
        UnavailableError: the registry cannot be read.
        TrothError: a CoRIM in it cannot be believed any more.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        keys: tuple[VerificationKey, ...],
        actor: str,
        now: datetime,
    ) -> None:
        self._registry, self._actor = registry, actor
        self._set = EndorsementSet(registry, keys=keys)
        self._set.load(now=now)

    def provision(
        self,
        corim: Corim | VerifiedCorim,
        *,
        now: datetime,
        source: str,
        scheme: str = "",
        reinstate: bool = False,
    ) -> Provisioned:
        """Take in one CoRIM, all of it or nothing (`EndorsementRepository.provision`)."""
        return self._set.take_in(self._given(corim, source, scheme), now=now, reinstate=reinstate)

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
        """Take in `corim` in place of `old` (`EndorsementRepository.replace`)."""
        return self._set.take_in(
            self._given(corim, source, scheme),
            now=now,
            replaces=old,
            overlap_until=overlap_until,
        )

    def withdraw(self, identifier: str, *, now: datetime) -> Withdrawn:
        """Take a value, key, tag or CoRIM out of force (`EndorsementRepository.withdraw`)."""
        gone = self._set.narrow(identifier, now=now)
        try:
            withdrawal = self._set.withdrawal(identifier, actor=self._actor, now=now, why="")
            self._set.epoch = self._registry.withdraw(
                withdrawal,
                (),
                require_epoch=self._set.epoch,
                require_sequence=self._registry.snapshot().sequence,
            )
        except TrothError:
            # What is in memory must not differ from what is kept for longer than this.
            self._set.load(now=now)
            raise
        return gone

    def list(self, *, now: datetime) -> tuple[HeldCorim, ...]:
        """Return all CoRIMs that are there, by identifier."""
        return self._set.held(now=now)

    def snapshot(self, now: datetime) -> EndorsementSnapshot:
        """Return the set in force at `now`."""
        return self._set.snapshot(now)

    def reload(self, *, now: datetime) -> None:
        """Read everything from the registry again."""
        self._set.load(now=now)

    def _given(self, corim: Corim | VerifiedCorim, source: str, scheme: str) -> GivenCorim:
        data = corim.raw if isinstance(corim, VerifiedCorim) else corim.encode()
        return GivenCorim(corim, data, source=source, actor=self._actor, scheme=scheme)


# The type checker compares the class with its port here.
_: type[EndorsementRepository] = PersistentEndorsements
