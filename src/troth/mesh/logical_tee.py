# SPDX-License-Identifier: Apache-2.0
"""The Logical TEE: attested environments that their owner treats as one.

It says which nodes belong (member classes), and under which Reference Values and policy their
results have to be made (epochs). It is a requirement and not a state: who meets it at a moment is
computed in `troth.mesh.membership`.

A new epoch does not cut off what still runs under the one before: for its overlap both are
accepted, as workload upgrades need.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from troth.errors import DecodeError, TrothError
from troth.formats.strict_json import encode_json
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.mesh.tier import Tier

__all__ = [
    "MAX_CLASSES",
    "MAX_EPOCHS",
    "MAX_OVERLAP_SECONDS",
    "MAX_WORDS",
    "Epoch",
    "LogicalTee",
    "MemberClass",
]

MAX_CLASSES: Final = 16
"""Member classes of one Logical TEE: each is a submodule of its result."""

MAX_EPOCHS: Final = 16
"""Epochs that a Logical TEE remembers."""

MAX_WORDS: Final = 64
"""Schemes, policies, entries or SPIFFE IDs that one member class names."""

MAX_OVERLAP_SECONDS: Final = 90 * 24 * 3600
"""The longest time for which two epochs are accepted."""

_FORMAT: Final = "Logical TEE"
_Name = Annotated[str, Meta(pattern=r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
_Word = Annotated[str, Meta(min_length=1, max_length=256)]
_Words = Annotated[tuple[_Word, ...], Meta(max_length=MAX_WORDS)]
_Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class MemberClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Members of one kind, and what each of them has to show.

    A node belongs to it if it is named (by its registration entry or its SPIFFE ID) and its
    result meets all of the rest. Every list but one of the first two has to name something:
    what is not named is not allowed.

    Attributes:
        name: unique in its Logical TEE; label of the submodule in the result.
        entries: ids of registration entries whose nodes are meant.
        spiffe_ids: SPIFFE IDs whose nodes are meant.
        min_tier: the weakest tier that is a member.
        schemes: Evidence schemes that count.
        policy_ids: Appraisal Policies that count.
        max_age_seconds: how old a result may be.
        proxy_placement: "in_member" where the proxy runs inside what is attested, so that the
            result covers keys and plain text; "host" where it does not. The owner says so:
            nothing here checks it.
    """

    name: _Name
    min_tier: Tier
    schemes: _Words
    policy_ids: _Words
    max_age_seconds: Annotated[int, Meta(ge=1, le=7 * 24 * 3600)]
    proxy_placement: Literal["in_member", "host"]
    entries: _Words = ()
    spiffe_ids: _Words = ()

    @property
    def max_age(self) -> timedelta:
        """How old a result may be."""
        return timedelta(seconds=self.max_age_seconds)

    def names(self, *, entry_id: str, spiffe_id: str) -> bool:
        """Say whether a node is meant by this class; says nothing about its result."""
        return entry_id in self.entries or spiffe_id in self.spiffe_ids


class Epoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From when on which Reference Values and policy are asked for.

    Attributes:
        id: grows with each.
        not_before: when it begins, with a zone.
        registry_epoch: the lowest number of the server's set of endorsements and policy under
            which a result has to be made.
        overlap_seconds: for so long after its begin the epoch before it is accepted as well.
    """

    id: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    not_before: Annotated[datetime, Meta(tz=True)]
    registry_epoch: _Number
    overlap_seconds: Annotated[int, Meta(ge=0, le=MAX_OVERLAP_SECONDS)] = 0

    @property
    def overlap_ends(self) -> datetime:
        """When the epoch before it is accepted no longer."""
        return self.not_before + timedelta(seconds=self.overlap_seconds)


class LogicalTee(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A named set of attested environments that counts as one.

    Attributes:
        name: unique on its server.
        trust_domain: whose nodes.
        owner: whose data it is for; a label.
        classes: member classes, at least one.
        epochs: in order, at least one.
        public: anybody may fetch the Aggregated Attestation Result over HTTPS.

    Raises:
        DecodeError: a rule above is broken.
    """

    name: _Name
    trust_domain: _Word
    owner: _Word
    classes: Annotated[tuple[MemberClass, ...], Meta(min_length=1, max_length=MAX_CLASSES)]
    epochs: Annotated[tuple[Epoch, ...], Meta(min_length=1, max_length=MAX_EPOCHS)]
    public: bool = False

    def __post_init__(self) -> None:
        _check_classes(self)
        _check_epochs(self.epochs)

    @property
    def definition_digest(self) -> str:
        """SHA-256 (hex) over the definition as canonical JSON: names sorted, no spaces, UTF-8."""
        return hashlib.sha256(encode_json(msgspec.to_builtins(self))).hexdigest()

    def epochs_in_force(self, now: datetime) -> tuple[Epoch, ...]:
        """Return the epochs accepted at `now`, newest first; empty before the first begins."""
        begun = [epoch for epoch in self.epochs if epoch.not_before <= now]
        accepted = begun[-1:]
        # One step back for each overlap that still runs: three versions may overlap in a chain.
        for newer, older in zip(reversed(begun), reversed(begun[:-1]), strict=False):
            if now >= newer.overlap_ends:
                break
            accepted.append(older)
        return tuple(accepted)

    def next_change(self, now: datetime) -> datetime | None:
        """Return the first moment after `now` at which other epochs are accepted, or None."""
        moments = [
            moment
            for epoch in self.epochs
            for moment in (epoch.not_before, epoch.overlap_ends)
            if moment > now
        ]
        return min(moments, default=None)


def _check_classes(tee: LogicalTee) -> None:
    try:
        domain = TrustDomain(tee.trust_domain)
    except TrothError as exc:
        raise DecodeError(f"trust_domain: {exc}", format=_FORMAT) from exc
    names = [each.name for each in tee.classes]
    if len(set(names)) < len(names):
        raise DecodeError("two member classes of one name", format=_FORMAT)
    for each in tee.classes:
        place = f"{_FORMAT} class {each.name}"
        if not (each.entries or each.spiffe_ids):
            raise DecodeError("names neither entries nor spiffe_ids", format=place)
        for field in ("schemes", "policy_ids"):
            if not getattr(each, field):
                raise DecodeError(
                    f"{field} is empty: nothing would be allowed",
                    format=place,
                    remedy=f"list the {field.replace('_', ' ')} that count",
                )
        for text in each.spiffe_ids:
            if SpiffeId.decode(text).trust_domain != domain:
                raise DecodeError(f"{text} is not of trust domain {domain}", format=place)


def _check_epochs(epochs: tuple[Epoch, ...]) -> None:
    for older, newer in pairwise(epochs):
        if newer.id <= older.id or newer.not_before <= older.not_before:
            raise DecodeError(
                f"epoch {newer.id} does not come after epoch {older.id}", format=_FORMAT
            )
        if newer.registry_epoch < older.registry_epoch:
            raise DecodeError(
                f"epoch {newer.id} asks for less than epoch {older.id}",
                format=_FORMAT,
                remedy="registry_epoch never goes back: results under withdrawn values would count",
            )
