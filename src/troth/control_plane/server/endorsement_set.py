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
from dataclasses import dataclass, field
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
from troth.endorsement.store import MAX_ENDORSEMENTS, EndorsementStore
from troth.endorsement.trust_anchor import TrustAnchor
from troth.errors import (
    ConfigurationError,
    ConflictError,
    LimitExceededError,
    SignatureError,
    TrothError,
)
from troth.formats.corim.corim import Corim
from troth.formats.corim.signed import SignedCorim, VerifiedCorim, decode_any
from troth.formats.verification_key import VerificationKey
from troth.mesh.registry import ProvisionedCorim, Registry, Withdrawal

__all__ = ["EndorsementSet", "GivenCorim", "Overlap"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """One CoRIM in place of another, both in force for a while.

    Attributes:
        old: identifier of the one that goes.
        until: its end.
    """

    old: str
    until: datetime


@dataclass(frozen=True, slots=True)
class GivenCorim:
    """A CoRIM to be taken in.

    Attributes:
        corim: verified, or an unsigned one that the caller vouches for.
        data: its octets, as they are to be kept.
        source: file name or the like, for messages.
        actor: who hands it in.
        scheme: the scheme that it is about, where it does not say so itself.
    """

    corim: Corim | VerifiedCorim
    data: bytes = field(repr=False)
    source: str
    actor: str
    scheme: str = ""

    @property
    def content(self) -> bytes:
        """What it says, without any signature."""
        plain = self.corim.corim if isinstance(self.corim, VerifiedCorim) else self.corim
        return plain.encode()


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
        # What of the registry is in the store: digests of CoRIMs with the time at which each was
        # provisioned, which another has where it was withdrawn and came back; and withdrawn parts.
        self._corims: dict[str, datetime] = {}
        self._retiring: set[str] = set()
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
        self._corims, self._retiring = new._corims, new._retiring
        self._withdrawn = new._withdrawn

    def catch_up(self, *, now: datetime) -> None:
        """Take over what others have changed in the registry since, and nothing else.

        Raises:
            UnavailableError: the registry cannot be read.
            TrothError: as `load`.
        """
        epoch = self._registry.epoch
        rows = self._registry.corims()
        for row in rows:
            known = self._corims.get(row.digest)
            if known is not None and (known != row.provisioned_at or not _is_held(row, now)):
                self._drop(row, now=now)
        for row in rows:
            if _is_held(row, now):
                self._take_over(row, now=now)
        for identifier in self._registry.withdrawn_parts():
            if identifier not in self._withdrawn:
                self._forget(identifier, now=now)
                self._withdrawn.add(identifier)
        self.epoch = epoch

    def _take_over(self, row: ProvisionedCorim, *, now: datetime) -> None:
        if row.digest not in self._corims:
            corim = self._decode(row.data, now=row.provisioned_at)
            self._store.provision(
                corim,
                now=row.provisioned_at,
                source=row.source,
                scheme=row.scheme,
                reinstate=True,
            )
            self._corims[row.digest] = row.provisioned_at
        if row.retires_at is not None and row.digest not in self._retiring:
            self._store.retire(row.id, until=row.retires_at, now=now)
            self._retiring.add(row.digest)

    def _drop(self, row: ProvisionedCorim, *, now: datetime) -> None:
        del self._corims[row.digest]
        self._retiring.discard(row.digest)
        # Another content of this id starts afresh.
        self._withdrawn = {part for part in self._withdrawn if part.partition("/")[0] != row.id}
        self._forget(row.id, now=now)

    def _forget(self, identifier: str, *, now: datetime) -> None:
        # What is gone already, with its CoRIM or its tag, cannot be withdrawn once more.
        with contextlib.suppress(ConflictError):
            self._store.withdraw(identifier, now=now)

    def provision(
        self,
        data: bytes,
        *,
        source: str,
        actor: str,
        now: datetime,
        overlap: Overlap | None = None,
    ) -> Provisioned:
        """Take in a CoRIM, in the registry and in memory.

        The same content again changes nothing, even where it was withdrawn since: a file that is
        read at every start must not bring back what an operator has withdrawn.

        Args:
            data: the CoRIM, signed or not.
            source: file name or the like, for messages.
            actor: who hands it in.
            now: the time.
            overlap: the CoRIM that it replaces, and until when both are in force.

        Raises:
            DecodeError, SignatureError, FreshnessError: not a CoRIM that we take.
            ConflictError: its id is in use with other content, or this content was withdrawn; or
                what it replaces is not there, or has the same id.
            ConfigurationError: the overlap is over already.
            LimitExceededError: there is no room for all of it.
            UnavailableError: nothing was changed.
        """
        given = GivenCorim(self._decode(data, now=now), data, source=source, actor=actor)
        if overlap is None:
            return self.take_in(given, now=now)
        return self.take_in(given, now=now, replaces=overlap.old, overlap_until=overlap.until)

    def look(self, *, now: datetime) -> bool:
        """Take over what other servers on the same registry have changed; say whether they did.

        Raises:
            UnavailableError: the registry cannot be read.
        """
        if self._registry.epoch == self.epoch:
            return False
        self.catch_up(now=now)
        return True

    def take_in(
        self,
        given: GivenCorim,
        *,
        now: datetime,
        reinstate: bool = False,
        replaces: str = "",
        overlap_until: datetime | None = None,
    ) -> Provisioned:
        """Take in a CoRIM that was decoded, and verified if it is signed.

        Args:
            given: the CoRIM.
            now: the time.
            reinstate: also take one that was withdrawn as a whole before.
            replaces: identifier of a CoRIM that goes for it: at once, or
            overlap_until: at this time.

        Raises:
            ConflictError, ConfigurationError, LimitExceededError, UnavailableError: as `provision`.
        """
        # On a store of its own first: what it refuses must not get into the registry.
        checked = EndorsementStore().provision(
            given.corim, now=now, source=given.source, scheme=given.scheme
        )
        rows = self._registry.corims()
        replaced = _row_of(rows, replaces, now) if replaces else None
        if replaces:
            self._check_replacement(replaces, replaced, checked.id, now, overlap_until)
        for row in rows:
            if row.id != checked.id or (row is replaced and overlap_until is None):
                continue
            same = _same_content(row, given)
            if _is_held(row, now) and same and not replaces:
                return self._store.provision(
                    given.corim, now=now, source=given.source, scheme=given.scheme
                )
            if _is_held(row, now):
                raise ConflictError(
                    f"{row.id} is provisioned already, with other content, from {row.source}",
                    remedy="withdraw it first",
                )
            if same and not reinstate:
                raise ConflictError(
                    f"{row.id} from {given.source} was withdrawn",
                    remedy="provision a CoRIM with other content or identifier",
                )
        if replaced is not None and replaced.id == checked.id and _same_content(replaced, given):
            return self._store.provision(
                given.corim, now=now, source=given.source, scheme=given.scheme
            )
        if len(checked.reference_values) + len(checked.trust_anchors) > self._store.room:
            raise LimitExceededError(
                format=f"Endorsements with {checked.id}",
                limit="max_endorsements",
                value=MAX_ENDORSEMENTS,
            )
        return self._write(given, checked.id, now, replaced, overlap_until)

    def _check_replacement(
        self,
        old: str,
        row: ProvisionedCorim | None,
        new: str,
        now: datetime,
        overlap_until: datetime | None,
    ) -> None:
        if overlap_until is not None and overlap_until <= now:
            raise ConfigurationError(
                source="overlap_until",
                value=f"{overlap_until:%FT%TZ}",
                accepted=f"a time after {now:%FT%TZ}",
            )
        if row is None:
            raise ConflictError(f"{old} is not provisioned, so nothing can replace it")
        if overlap_until is not None and old == new:
            raise ConflictError(
                f"an overlap of {old} with itself: both have one identifier",
                remedy="Give the new CoRIM an identifier of its own, or leave out the overlap.",
            )

    def _write(
        self,
        given: GivenCorim,
        identifier: str,
        now: datetime,
        replaced: ProvisionedCorim | None,
        overlap_until: datetime | None,
    ) -> Provisioned:
        digest = hashlib.sha256(given.data).hexdigest()
        withdraws = self._store.replaced_by(given.corim, scheme=given.scheme)
        if replaced is not None and overlap_until is None:
            # Narrowing goes first in memory. What fails from here on reads everything again.
            self._drop(replaced, now=now)
        try:
            epoch = self._registry.provision(
                ProvisionedCorim(
                    id=identifier,
                    digest=digest,
                    source=given.source,
                    data=given.data,
                    provisioned_at=now,
                    provisioned_by=given.actor,
                    scheme=given.scheme,
                ),
                replaces=replaced.digest if replaced is not None else "",
                overlap_until=overlap_until,
                withdraws=withdraws,
            )
        except TrothError:
            if replaced is not None and overlap_until is None:
                self.load(now=now)
            raise
        if replaced is not None and overlap_until is not None:
            self._store.retire(replaced.id, until=overlap_until, now=now)
            self._retiring.add(replaced.digest)
        provisioned = self._store.provision(
            given.corim, now=now, source=given.source, scheme=given.scheme, reinstate=True
        )
        self._corims[digest] = now
        self._withdrawn.update(withdraws)
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
        held = _row_of(self._registry.corims(), identifier.partition("/")[0], now)
        if held is not None and held.id == identifier:
            return Withdrawal(actor=actor, at=now, corims=(held.digest,), why=why)
        if held is not None:
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


def _is_held(row: ProvisionedCorim, now: datetime) -> bool:
    """Say whether a CoRIM is there: neither withdrawn, nor over with its overlap."""
    return not row.withdrawn and (row.retires_at is None or row.retires_at >= now)


def _row_of(
    rows: Sequence[ProvisionedCorim], identifier: str, now: datetime
) -> ProvisionedCorim | None:
    return next((row for row in rows if row.id == identifier and _is_held(row, now)), None)


def _same_content(row: ProvisionedCorim, given: GivenCorim) -> bool:
    """Say whether a CoRIM says the same, whoever signed it and when."""
    if row.scheme != given.scheme:
        return False
    return row.data == given.data or _content(row.data) == given.content


def _content(data: bytes) -> bytes:
    decoded = decode_any(data)
    # It was verified when it was taken in.
    corim = decoded.unverified_corim() if isinstance(decoded, SignedCorim) else decoded
    return corim.encode()


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
