# SPDX-License-Identifier: Apache-2.0
"""The Endorsements of a Verifier alone, the same in all of its processes.

Who changes them writes the registry, then its own memory, then announces the new epoch. Every
appraisal looks at the announced epoch first and takes over what is new: once a submission or a
withdrawal has been answered, no process appraises by what was before.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from threading import Lock
from typing import Protocol

from troth.control_plane.server.endorsement_set import EndorsementSet, Overlap
from troth.endorsement.repository import (
    EndorsementRepository,
    EndorsementSnapshot,
    HeldCorim,
    Provisioned,
    Withdrawn,
)
from troth.errors import TrothError
from troth.formats.verification_key import VerificationKey
from troth.mesh.registry import Registry

__all__ = ["EpochBoard", "SharedEndorsements"]


class EpochBoard(Protocol):
    """Where the processes of one Verifier tell each other that something has changed."""

    def read(self) -> int:
        """Return the newest epoch that anybody announced."""
        ...

    def announce(self, epoch: int) -> None:
        """Tell the others that there is `epoch`."""


class SharedEndorsements:
    """The set in force; an `EndorsementSource` for the Verifier. Methods block; any thread.

    Args:
        registry: where CoRIMs and withdrawals are kept.
        keys: whose signed CoRIMs are believed.
        board: for the other processes.
    """

    def __init__(
        self, registry: Registry, *, keys: Sequence[VerificationKey], board: EpochBoard
    ) -> None:
        self._registry, self._board = registry, board
        self._set = EndorsementSet(registry, keys=keys)
        self._lock = Lock()

    @property
    def repository(self) -> EndorsementRepository:
        """What is in force, for reading."""
        return self._set.repository

    def snapshot(self, now: datetime) -> EndorsementSnapshot:
        """Return the set in force at `now`."""
        return self._set.snapshot(now)

    def held(self, *, now: datetime) -> tuple[HeldCorim, ...]:
        """Return the CoRIMs that are held, in force or not; raises as `refresh`."""
        self.refresh(now)
        return self._set.held(now=now)

    def values(self, *, now: datetime) -> list[dict[str, object]]:
        """Return every Reference Value and trust anchor that is held; raises as `refresh`."""
        self.refresh(now)
        return self._set.values(now=now)

    def load(self, *, now: datetime) -> None:
        """Read everything from the registry; raises as `EndorsementSet.load`."""
        with self._lock:
            self._set.load(now=now)
            self._board.announce(self._set.epoch)

    def refresh(self, now: datetime) -> None:
        """Take over what another process has announced.

        Raises:
            UnavailableError: the registry cannot be read: nothing may be appraised by what was
                in force before.
        """
        if self._board.read() <= self._set.epoch:
            return
        with self._lock:
            if self._board.read() > self._set.epoch:
                self._set.catch_up(now=now)

    def current(self, now: datetime) -> EndorsementRepository:
        """Return what is in force, changes of other processes included; raises as `refresh`."""
        self.refresh(now)
        return self.repository

    def look(self, now: datetime) -> None:
        """Notice changes that nobody announced: by another machine, or before a crash.

        Raises:
            UnavailableError: the registry cannot be read.
        """
        with self._lock:
            if self._registry.epoch != self._set.epoch:
                self._set.catch_up(now=now)
                self._board.announce(self._set.epoch)

    def provision(
        self,
        data: bytes,
        *,
        source: str,
        actor: str,
        now: datetime,
        overlap: Overlap | None = None,
    ) -> Provisioned:
        """Take in a CoRIM; see `EndorsementSet.provision`."""
        with self._lock:
            self._set.catch_up(now=now)
            provisioned = self._set.provision(
                data, source=source, actor=actor, now=now, overlap=overlap
            )
            self._board.announce(self._set.epoch)
            return provisioned

    def withdraw(self, identifier: str, *, actor: str, why: str, now: datetime) -> Withdrawn:
        """Withdraw a Reference Value, key, tag or CoRIM.

        Raises:
            ConflictError: nothing of this identifier is in force.
            UnavailableError: nothing was changed.
        """
        with self._lock:
            self._set.catch_up(now=now)
            withdrawal = self._set.withdrawal(identifier, actor=actor, now=now, why=why)
            gone = self._set.narrow(identifier, now=now)
            try:
                self._set.epoch = self._registry.withdraw(
                    withdrawal,
                    (),
                    require_epoch=self._set.epoch,
                    require_sequence=self._registry.snapshot().sequence,
                )
            except TrothError:
                self._set.load(now=now)
                raise
            self._board.announce(self._set.epoch)
            return gone
