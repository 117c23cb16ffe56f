# SPDX-License-Identifier: Apache-2.0
"""The Endorsements in force on this server: the registry's CoRIMs in memory, by epoch.

The registry is the truth; the store in memory is what appraisals read. Who widens the set writes
the registry first, who narrows it narrows the memory first; so whatever fails in between, memory
never believes more than the registry. An appraisal reads the epoch before the set, and what it
comes to is applied only while the registry is still at that epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from datetime import datetime

from troth.endorsement.endorsements import endorsements_of
from troth.endorsement.reference_value import ReferenceValue
from troth.endorsement.repository import (
    EndorsementRepository,
    EndorsementSnapshot,
    HeldCorim,
    Provisioned,
    Withdrawn,
)
from troth.endorsement.store import EndorsementStore
from troth.endorsement.trust_anchor import TrustAnchor
from troth.errors import ConflictError, SignatureError
from troth.formats.corim.corim import Corim
from troth.formats.corim.signed import SignedCorim, VerifiedCorim, decode_any
from troth.formats.verification_key import VerificationKey
from troth.mesh.registry import ProvisionedCorim, Registry, Withdrawal

__all__ = ["EndorsementSet"]


class EndorsementSet:
    """The set in force, an `EndorsementSource` for the Verifier.

    Its methods block and are not to run at the same time, but for `snapshot` and `epoch`.

    Args:
        registry: where CoRIMs and withdrawals are kept.
        keys: whose signed CoRIMs are believed.
    """

    def __init__(self, registry: Registry, *, keys: Sequence[VerificationKey]) -> None:
        self._registry = registry
        self._keys = tuple(keys)
        self._store = EndorsementStore()
        # What of the registry is in the store: digests of CoRIMs, and withdrawn parts.
        self._corims: dict[str, str] = {}
        self._withdrawn: set[str] = set()
        self.epoch = 0

    @property
    def repository(self) -> EndorsementRepository:
        """What is in force, for reading."""
        return self._store

    def current(self, now: datetime) -> EndorsementRepository:
        """Return what is in force; this process alone changes it."""
        del now
        return self._store

    def snapshot(self, now: datetime) -> EndorsementSnapshot:
        """Return the set in force at `now`."""
        return self._store.snapshot(now)

    def held(self, *, now: datetime) -> tuple[HeldCorim, ...]:
        """Return the CoRIMs that are held, in force or not."""
        return self._store.list(now=now)

    def values(self, *, now: datetime) -> list[dict[str, object]]:
        """Return every Reference Value and trust anchor that is held, for people to read."""
        found: list[dict[str, object]] = []
        for held in self._store.list(now=now):
            endorsements = endorsements_of(_plain(held), source=held.source, scheme=held.scheme)
            found += (_shown(value, held) for value in endorsements.reference_values)
            found += (_shown(anchor, held) for anchor in endorsements.trust_anchors)
        return found

    def load(self, *, now: datetime) -> None:
        """Read everything from the registry again.

        Raises:
            UnavailableError: the registry cannot be read.
            TrothError: a stored CoRIM is not what was stored, or has become unreadable.
        """
        # Beside the present set, which stays in use until the new one is whole.
        new = EndorsementSet(self._registry, keys=self._keys)
        new.catch_up(now=now)
        self._store, self.epoch = new._store, new.epoch
        self._corims, self._withdrawn = new._corims, new._withdrawn

    def catch_up(self, *, now: datetime) -> None:
        """Take over what others have changed in the registry since, and nothing else.

        Raises:
            UnavailableError: the registry cannot be read.
            TrothError: as `load`.
        """
        epoch = self._registry.epoch
        rows = self._registry.corims()
        for row in rows:
            if row.withdrawn and row.digest in self._corims:
                self._forget(self._corims.pop(row.digest), now=now)
        for row in rows:
            if not row.withdrawn and row.digest not in self._corims:
                corim = self._decode(row.data, now=row.provisioned_at)
                self._store.provision(
                    corim, now=row.provisioned_at, source=row.source, reinstate=True
                )
                self._corims[row.digest] = row.id
        for identifier in self._registry.withdrawn_parts():
            if identifier not in self._withdrawn:
                self._forget(identifier, now=now)
                self._withdrawn.add(identifier)
        self.epoch = epoch

    def _forget(self, identifier: str, *, now: datetime) -> None:
        # What is gone already, with its CoRIM or its tag, cannot be withdrawn once more.
        with contextlib.suppress(ConflictError):
            self._store.withdraw(identifier, now=now)

    def provision(self, data: bytes, *, source: str, actor: str, now: datetime) -> Provisioned:
        """Take in a CoRIM, in the registry and in memory.

        The same content again changes nothing, even where it was withdrawn since: a file that is
        read at every start must not bring back what an operator has withdrawn.

        Raises:
            DecodeError, SignatureError, FreshnessError: not a CoRIM that we take.
            ConflictError: its id is in use with other content, or this content was withdrawn.
            UnavailableError: nothing was changed.
        """
        corim = self._decode(data, now=now)
        # On a store of its own first: what it refuses must not get into the registry.
        checked = EndorsementStore().provision(corim, now=now, source=source)
        digest = hashlib.sha256(data).hexdigest()
        for held in self._registry.corims():
            if held.digest == digest and held.withdrawn:
                raise ConflictError(
                    f"{held.id} from {source} was withdrawn",
                    remedy="provision a CoRIM with other content or identifier",
                )
            if held.id == checked.id and held.digest != digest and not held.withdrawn:
                raise ConflictError(
                    f"{held.id} is provisioned already, with other content, from {held.source}",
                    remedy="withdraw it first",
                )
        epoch = self._registry.provision(
            ProvisionedCorim(
                id=checked.id,
                digest=digest,
                source=source,
                data=data,
                provisioned_at=now,
                provisioned_by=actor,
            )
        )
        provisioned = self._store.provision(corim, now=now, source=source)
        self._corims[digest] = checked.id
        self.epoch = epoch
        return provisioned

    def narrow(self, identifier: str, *, now: datetime) -> Withdrawn:
        """Take `identifier` out of force in memory; `withdrawal` says what the registry needs.

        Raises:
            ConflictError: nothing of this identifier is in force.
        """
        return self._store.withdraw(identifier, now=now)

    def withdrawal(self, identifier: str, *, actor: str, now: datetime, why: str) -> Withdrawal:
        """Return the withdrawal that the registry has to keep.

        Raises:
            ConflictError: nothing of this identifier is provisioned.
        """
        for held in self._registry.corims():
            if held.id == identifier and not held.withdrawn:
                return Withdrawal(actor=actor, at=now, corims=(held.digest,), why=why)
            if held.id == identifier.partition("/")[0] and not held.withdrawn:
                return Withdrawal(actor=actor, at=now, parts=(identifier,), why=why)
        raise ConflictError(
            f"nothing called {identifier!r} is provisioned", remedy="list the CoRIMs"
        )

    def _decode(self, data: bytes, *, now: datetime) -> Corim | VerifiedCorim:
        decoded = decode_any(data)
        if not isinstance(decoded, SignedCorim):
            return decoded
        if not self._keys:
            raise SignatureError(
                "a signed CoRIM, but no key to verify it with",
                remedy="name the author's key in verifier.corim_keys",
            )
        return decoded.verify(self._keys, now=now)


def _plain(held: HeldCorim) -> Corim:
    decoded = decode_any(held.content)
    # Held CoRIMs were verified when they were taken in.
    return decoded.unverified_corim() if isinstance(decoded, SignedCorim) else decoded


def _shown(part: ReferenceValue | TrustAnchor, held: HeldCorim) -> dict[str, object]:
    gone = any(
        part.id == identifier or part.id.startswith(f"{identifier}#")
        for identifier in held.withdrawn
    )
    shown: dict[str, object] = {
        "id": part.id,
        "scheme": part.scheme,
        "class_id": part.environment.class_id.hex(),
        "instance_id": part.environment.instance_id.hex(),
        "source": held.source,
        "withdrawn": gone,
    }
    if isinstance(part, TrustAnchor):
        return {"kind": "trust_anchor", **shown}
    return {
        "kind": "reference_value",
        **shown,
        "key": part.key,
        "name": part.name,
        "version": part.version,
        "digests": {name: digest.hex() for name, digest in part.digests.items()},
    }
