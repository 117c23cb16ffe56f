# SPDX-License-Identifier: Apache-2.0
"""The Endorsements of one process, in memory.

Theory of operation. A record is kept for each provisioned CoRIM. What of it is in force is in the
current `MemorySnapshot`, which is replaced and never changed, so an appraisal that holds one sees
one set. A record enters when its validity begins and leaves when it ends; two heaps hold these
moments, and whoever asks for a snapshot at a later time moves the store there first. A record that
has been withdrawn leaves a tombstone with its content's digest, so that a copy of the same CoRIM
that arrives once more does not bring it back.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from threading import Lock
from typing import Final

from cryptography import x509

from troth.clock import Clock, SystemClock
from troth.endorsement.endorsements import Endorsements, endorsements_of
from troth.endorsement.identifiers import tag_suffix
from troth.endorsement.reference_value import ReferenceValue
from troth.endorsement.repository import (
    EndorsementRepository,
    HeldCorim,
    Phase,
    Provisioned,
    Withdrawn,
)
from troth.endorsement.snapshot import MemorySnapshot
from troth.endorsement.trust_anchor import TrustAnchor
from troth.errors import (
    ApiMisuseError,
    ConfigurationError,
    ConflictError,
    FreshnessError,
    LimitExceededError,
)
from troth.formats.corim.common import Validity
from troth.formats.corim.corim import MEDIA_TYPE, Corim
from troth.formats.corim.signed import SIGNED_MEDIA_TYPE, VerifiedCorim
from troth.formats.keys import VerificationKey

__all__ = ["MAX_ENDORSEMENTS", "EndorsementStore"]

MAX_ENDORSEMENTS: Final = 2_000_000
"""Reference Values and trust anchors in one store; a value takes about a kilobyte."""


_Heap = list[tuple[datetime, str, int]]


class EndorsementStore:
    """Keeps Endorsements in memory; safe to use from several threads.

    It is an `EndorsementRepository`. It is also a source of Reference Values and trust anchors
    itself: `find`, `keys`, `certificates` and `epoch` answer from the set in force at the clock's
    time. An appraisal takes one `snapshot` instead, so that all its answers are from one set.
    """

    def __init__(
        self, *, clock: Clock | None = None, max_endorsements: int = MAX_ENDORSEMENTS
    ) -> None:
        """Make an empty store.

        Args:
            clock: for the questions that carry no time.
            max_endorsements: how many values and anchors it takes.
        """
        self._clock = clock or SystemClock()
        self._max = max_endorsements
        self._lock = Lock()
        self._records: dict[str, _Record] = {}
        self._tombstones: dict[str, bytes] = {}
        self._by_tag: dict[str, set[str]] = {}
        self._begins: _Heap = []
        self._ends: _Heap = []
        self._serial = 0
        self._held = 0
        self._current = MemorySnapshot()

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
        record = _record(corim, source=source, scheme=scheme)
        with self._lock:
            self._advance(now)
            known = self._records.get(record.id)
            if known is not None and known.digest == record.digest:
                return self._unchanged(known)
            if known is not None:
                raise ConflictError(
                    f"{record.id} is provisioned already, with other content, "
                    f"from {known.source or 'an unnamed source'}",
                    remedy="Withdraw it first, or replace it.",
                )
            self._check_admission(record, now, reinstate=reinstate)
            return self._admit(record, now)

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
        """Take in `corim` in place of the CoRIM `old` (`EndorsementRepository.replace`)."""
        record = _record(corim, source=source, scheme=scheme)
        if overlap_until is not None and overlap_until <= now:
            raise ConfigurationError(
                source="overlap_until",
                value=f"{overlap_until:%FT%TZ}",
                accepted=f"a time after {now:%FT%TZ}, or none to withdraw the old CoRIM at once",
            )
        with self._lock:
            self._advance(now)
            previous = self._records.get(old)
            if previous is None:
                raise ConflictError(f"{old} is not provisioned, so nothing can replace it")
            if record.id == old:
                if record.digest == previous.digest:
                    return self._unchanged(previous)
                if overlap_until is not None:
                    raise ConflictError(
                        f"an overlap of {old} with itself: both have one identifier",
                        remedy="Give the new CoRIM an identifier of its own, or leave out the "
                        "overlap.",
                    )
            elif record.id in self._records:
                raise ConflictError(f"{record.id} is provisioned already")
            self._check_admission(record, now, reinstate=False, instead_of=previous)
            if overlap_until is None:
                self._drop(previous)
                if record.id != old:
                    self._tombstones[old] = previous.digest
            else:
                self._retire(previous, overlap_until)
            return self._admit(record, now)

    def retire(self, identifier: str, *, until: datetime, now: datetime) -> None:
        """Let a CoRIM end at `until`, as the old one of a `replace` with an overlap does.

        Raises:
            ConflictError: it is not there.
        """
        with self._lock:
            self._advance(now)
            record = self._records.get(identifier)
            if record is None:
                raise _nothing(identifier)
            self._retire(record, until)

    def replaced_by(self, corim: Corim | VerifiedCorim, *, scheme: str = "") -> tuple[str, ...]:
        """Return the identifiers of the tags that provisioning this CoRIM would withdraw.

        Raises:
            DecodeError: as `provision`.
        """
        record = _record(corim, source="", scheme=scheme)
        with self._lock:
            return tuple(identifier for _, identifier in self._replaced(record))

    @property
    def room(self) -> int:
        """How many more values and anchors the store takes."""
        return self._max - self._held

    def withdraw(self, identifier: str, *, now: datetime) -> Withdrawn:
        """Take a value, key, tag or CoRIM out of force (`EndorsementRepository.withdraw`)."""
        with self._lock:
            self._advance(now)
            record = self._records.get(identifier.partition("/")[0])
            if record is None:
                raise _nothing(identifier)
            if record.id == identifier:
                values, anchors = record.values(), record.anchors()
                self._drop(record)
                self._tombstones[identifier] = record.digest
            else:
                values, anchors = self._withdraw_part(record, identifier)
            return Withdrawn(
                id=identifier,
                reference_values=values,
                trust_anchors=anchors,
                epoch=self._current.epoch,
            )

    def list(self, *, now: datetime) -> tuple[HeldCorim, ...]:
        """Return all CoRIMs that are there, by identifier."""
        with self._lock:
            self._advance(now)
            records = sorted(self._records.values(), key=lambda record: record.id)
            return tuple(record.summary(now) for record in records)

    def snapshot(self, now: datetime) -> MemorySnapshot:
        """Return the set in force at `now`."""
        with self._lock:
            self._advance(now)
            return self._current

    def find(
        self, scheme: str, *, class_id: bytes, instance_id: bytes = b""
    ) -> Sequence[ReferenceValue]:
        """Return the values in force now for this environment."""
        return self._now().find(scheme, class_id=class_id, instance_id=instance_id)

    def trust_anchors(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[TrustAnchor]:
        """Return the keys in force now for this Attester, with their endorsements."""
        return self._now().trust_anchors(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        """Return the keys in force now for this Attester."""
        return self._now().keys(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        """Return the root certificates in force now for this scheme."""
        return self._now().certificates(scheme)

    @property
    def epoch(self) -> str:
        """Digest of the set in force now."""
        return self._now().epoch

    def _now(self) -> MemorySnapshot:
        return self.snapshot(self._clock.now())

    def _check_admission(
        self,
        record: _Record,
        now: datetime,
        *,
        reinstate: bool,
        instead_of: _Record | None = None,
    ) -> None:
        if record.not_after is not None and now > record.not_after:
            raise FreshnessError(
                f"{record.id} expired at {record.not_after:%FT%TZ}",
                remedy="Obtain a current CoRIM from its author.",
            )
        if not reinstate and self._tombstones.get(record.id) == record.digest:
            raise ConflictError(
                f"{record.id} was withdrawn, and this is the same content",
                remedy="Say that it is to be reinstated, if that is meant.",
            )
        held = self._held - (instead_of.size() if instead_of else 0)
        if held + record.size() > self._max:
            raise LimitExceededError(
                format=f"Endorsements with {record.id}", limit="max_endorsements", value=self._max
            )

    def _admit(self, record: _Record, now: datetime) -> Provisioned:
        self._tombstones.pop(record.id, None)
        withdrawn = self._withdraw_replaced(record)
        self._serial += 1
        record.serial = self._serial
        self._records[record.id] = record
        self._held += record.size()
        for tag in record.endorsements.tags:
            self._by_tag.setdefault(tag_suffix(tag), set()).add(record.id)
        if record.not_after is not None:
            _schedule(self._ends, record.not_after, record)
        if record.not_before is not None and now < record.not_before:
            _schedule(self._begins, record.not_before, record)
        else:
            self._activate(record)
        return Provisioned(
            id=record.id,
            reference_values=tuple(value.id for value in record.values()),
            trust_anchors=tuple(anchor.id for anchor in record.anchors()),
            withdrawn=withdrawn,
            unused=record.endorsements.unused,
            epoch=self._current.epoch,
        )

    def _withdraw_replaced(self, record: _Record) -> tuple[str, ...]:
        # "replaces: … The information in the target MUST be disregarded." Only its own authority
        # may say that of a tag: any other could silence it.
        replaced = list(self._replaced(record))
        for target, identifier in replaced:
            self._withdraw_part(target, identifier)
        return tuple(identifier for _, identifier in replaced)

    def _replaced(self, record: _Record) -> Iterator[tuple[_Record, str]]:
        for tag in record.endorsements.replaces:
            for holder in sorted(self._by_tag.get(tag, ())):
                target = self._records[holder]
                identifier = f"{holder}/{tag}"
                if target.authority == record.authority and identifier not in target.withdrawn:
                    yield target, identifier

    def _withdraw_part(
        self, record: _Record, identifier: str
    ) -> tuple[tuple[ReferenceValue, ...], tuple[TrustAnchor, ...]]:
        values = tuple(v for v in record.values() if _within(v.id, identifier))
        anchors = tuple(a for a in record.anchors() if _within(a.id, identifier))
        if not values and not anchors:
            raise _nothing(identifier)
        record.withdrawn.add(identifier)
        record.gone.update(value.id for value in values)
        record.gone.update(anchor.id for anchor in anchors)
        self._held -= len(values) + len(anchors)
        if record.active:
            self._take_out(record, values, anchors)
        return values, anchors

    def _retire(self, record: _Record, until: datetime) -> None:
        if record.not_after is not None and record.not_after <= until:
            return
        if record.active:
            self._take_out(record, record.values(), record.anchors())
        record.endorsements = record.endorsements.within(record.not_before, until)
        if record.active:
            self._activate(record)
        record.retiring = True
        _schedule(self._ends, until, record)

    def _drop(self, record: _Record) -> None:
        if record.active:
            self._take_out(record, record.values(), record.anchors())
        self._held -= record.size()
        del self._records[record.id]
        for tag in record.endorsements.tags:
            holders = self._by_tag[tag_suffix(tag)]
            holders.discard(record.id)
            if not holders:
                del self._by_tag[tag_suffix(tag)]

    def _advance(self, now: datetime) -> None:
        if now.tzinfo is None:
            raise ApiMisuseError("a time without a timezone")
        while self._begins and self._begins[0][0] <= now:
            record = self._due(heapq.heappop(self._begins))
            if record is not None and not record.active:
                self._activate(record)
        while self._ends and self._ends[0][0] < now:
            record = self._due(heapq.heappop(self._ends))
            if record is not None and record.retiring:
                self._drop(record)
                self._tombstones[record.id] = record.digest
            elif record is not None and record.active:
                self._take_out(record, record.values(), record.anchors())
                record.active = False

    def _due(self, entry: tuple[datetime, str, int]) -> _Record | None:
        _, identifier, serial = entry
        record = self._records.get(identifier)
        return record if record is not None and record.serial == serial else None

    def _activate(self, record: _Record) -> None:
        record.active = True
        snapshot = self._current
        for value in record.values():
            snapshot = snapshot.with_value(value, record.member(value.id))
        for anchor in record.anchors():
            snapshot = snapshot.with_anchor(anchor, record.member(anchor.id))
        self._current = snapshot

    def _take_out(
        self,
        record: _Record,
        values: Iterable[ReferenceValue],
        anchors: Iterable[TrustAnchor],
    ) -> None:
        snapshot = self._current
        for value in values:
            snapshot = snapshot.without_value(value, record.member(value.id))
        for anchor in anchors:
            snapshot = snapshot.without_anchor(anchor, record.member(anchor.id))
        self._current = snapshot

    def _unchanged(self, record: _Record) -> Provisioned:
        return Provisioned(
            id=record.id,
            reference_values=tuple(value.id for value in record.values()),
            trust_anchors=tuple(anchor.id for anchor in record.anchors()),
            unused=record.endorsements.unused,
            unchanged=True,
            epoch=self._current.epoch,
        )


@dataclass(slots=True, kw_only=True)
class _Record:
    """One provisioned CoRIM, and what has become of it."""

    endorsements: Endorsements
    source: str
    authority: str
    digest: bytes
    content: bytes
    media_type: str
    withdrawn: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    active: bool = False
    retiring: bool = False
    serial: int = 0

    @property
    def id(self) -> str:
        return self.endorsements.id

    @property
    def not_before(self) -> datetime | None:
        return self.endorsements.not_before

    @property
    def not_after(self) -> datetime | None:
        return self.endorsements.not_after

    def values(self) -> tuple[ReferenceValue, ...]:
        return tuple(v for v in self.endorsements.reference_values if v.id not in self.gone)

    def anchors(self) -> tuple[TrustAnchor, ...]:
        return tuple(a for a in self.endorsements.trust_anchors if a.id not in self.gone)

    def size(self) -> int:
        held = self.endorsements
        return len(held.reference_values) + len(held.trust_anchors) - len(self.gone)

    def member(self, identifier: str) -> bytes:
        # The content's digest says what the identifier stands for.
        return self.digest + identifier.encode()

    def phase(self, now: datetime) -> Phase:
        if self.not_after is not None and now > self.not_after:
            return Phase.EXPIRED
        if not self.active:
            return Phase.PENDING
        return Phase.RETIRING if self.retiring else Phase.IN_FORCE

    def summary(self, now: datetime) -> HeldCorim:
        return HeldCorim(
            id=self.id,
            profile=self.endorsements.profile,
            scheme=self.endorsements.scheme,
            source=self.source,
            authority=self.authority,
            phase=self.phase(now),
            not_before=self.not_before,
            not_after=self.not_after,
            tags=self.endorsements.tags,
            reference_values=len(self.values()),
            trust_anchors=len(self.anchors()),
            withdrawn=tuple(sorted(self.withdrawn)),
            content=self.content,
            media_type=self.media_type,
        )


def _record(corim: Corim | VerifiedCorim, *, source: str, scheme: str) -> _Record:
    verified = corim if isinstance(corim, VerifiedCorim) else None
    content = corim.corim if isinstance(corim, VerifiedCorim) else corim
    endorsements = endorsements_of(content, source=source, scheme=scheme)
    encoded = content.encode()
    if verified is not None and verified.signature_validity is not None:
        endorsements = _within_signature(endorsements, verified.signature_validity)
    return _Record(
        endorsements=endorsements,
        source=source,
        authority=verified.signer if verified else "",
        digest=sha256(scheme.encode() + b"\x00" + encoded).digest(),
        content=verified.raw if verified else encoded,
        media_type=SIGNED_MEDIA_TYPE if verified else MEDIA_TYPE,
    )


def _within_signature(endorsements: Endorsements, validity: Validity) -> Endorsements:
    begins = [each for each in (endorsements.not_before, validity.not_before) if each is not None]
    ends = [each for each in (endorsements.not_after, validity.not_after) if each is not None]
    return endorsements.within(max(begins, default=None), min(ends))


def _schedule(heap: _Heap, when: datetime, record: _Record) -> None:
    heapq.heappush(heap, (when, record.id, record.serial))


def _within(identifier: str, wanted: str) -> bool:
    return identifier == wanted or identifier.startswith(f"{wanted}#")


def _nothing(identifier: str) -> ConflictError:
    return ConflictError(
        f"nothing is provisioned under {identifier!r} (any more)",
        remedy="List what is provisioned; identifiers are '<CoRIM>', '<CoRIM>/<tag>', "
        "'<CoRIM>/<tag>#<n>' and '<CoRIM>/<tag>#key<n>'.",
    )


# The type checker compares the store with its port here.
_: type[EndorsementRepository] = EndorsementStore
