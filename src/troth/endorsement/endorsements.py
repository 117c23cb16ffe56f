# SPDX-License-Identifier: Apache-2.0
"""What one CoRIM endorses, once its profile's rules have been checked.

`Endorsements` is the step between a decoded CoRIM and the store: Reference Values and trust
anchors with identifiers, all of them or none.

A CoRIM is read by the rules of its profile. An unknown profile rejects the whole CoRIM ("Failure
to recognize the profile identifier MUST result in the rejection of the entire CoRIM"). A CoRIM
without a profile does not say for which scheme it speaks, and both Arm profiles demand theirs;
guessing would let a file meant for one scheme loosen another. So it is taken only where the
caller names the scheme, and is then read by the generic rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from troth.endorsement.identifiers import (
    corim_identifier,
    state_identifier,
    tag_identifier,
    value_identifier,
)
from troth.endorsement.profiles import generic_profile, profile_named
from troth.endorsement.profiles.profile import Drafts, Profile
from troth.endorsement.reference_value import ReferenceValue
from troth.endorsement.trust_anchor import TrustAnchor
from troth.errors import ConfigurationError
from troth.formats.corim.comid import REPLACES, Comid
from troth.formats.corim.common import tag_id_text
from troth.formats.corim.corim import Corim, OpaqueTag
from troth.formats.corim.node import Node
from troth.formats.corim.triples import Triples

__all__ = ["Endorsements", "endorsements_of"]

_FORMAT = "CoRIM"
_UNUSED = {
    "endorsed": "endorsed values",
    "identity": "device identity keys",
    "dependency": "trust dependencies",
    "membership": "domain memberships",
    "coswid": "links to CoSWID",
    "conditional_series": "conditional endorsement series",
    "conditional": "conditional endorsements",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """What one CoRIM endorses.

    Attributes:
        id: identifier of the CoRIM, escaped as in the identifiers of its values.
        profile: the profile that it was read by.
        scheme: the scheme's one word.
        tags: identifiers of its CoMIDs.
        reference_values, trust_anchors: what they say, with identifiers.
        replaces: tags that a CoMID declares to replace, as they are named in identifiers.
        unused: what was in the CoRIM and plays no part in appraisal, one sentence each.
        not_before, not_after: validity of the CoRIM, else None.
    """

    id: str
    profile: str
    scheme: str
    tags: tuple[str, ...]
    reference_values: tuple[ReferenceValue, ...]
    trust_anchors: tuple[TrustAnchor, ...]
    replaces: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None

    def within(self, not_before: datetime | None, not_after: datetime | None) -> Endorsements:
        """Return the same with another validity, in the values and anchors as well."""
        return replace(
            self,
            not_before=not_before,
            not_after=not_after,
            reference_values=tuple(
                replace(value, not_before=not_before, not_after=not_after)
                for value in self.reference_values
            ),
            trust_anchors=tuple(
                replace(anchor, not_before=not_before, not_after=not_after)
                for anchor in self.trust_anchors
            ),
        )


def endorsements_of(corim: Corim, *, source: str, scheme: str = "") -> Endorsements:
    """Check a CoRIM against its profile and return what it endorses.

    Says nothing about whether the CoRIM is authentic or valid now.

    Args:
        corim: the decoded CoRIM.
        source: the file or service that it came from, for messages.
        scheme: the scheme that a CoRIM without a profile is about. Given beside a profile, it
            must be the profile's.

    Raises:
        UnsupportedError: an unknown profile, none without `scheme`, or nothing usable inside.
        DecodeError: a rule of the profile is broken; the message names the member and the rule.
        ConfigurationError: `scheme` is not a scheme, or not the profile's.
    """
    place = Node(None, format=f"{source}: {_FORMAT}" if source else _FORMAT)
    profile = _profile(corim, scheme, place)
    identifier = corim_identifier(corim.id, place.child("id", None))
    reader = _Reader(identifier, profile, source, corim)
    for index, tag in enumerate(corim.tags):
        reader.read(tag, place.child("tags", None).element(index, None))
    found = reader.endorsements()
    if not found.reference_values and not found.trust_anchors:
        what = "; ".join(found.unused) or "no triples"
        raise place.unsupported(f"nothing in it takes part in appraisal ({what})")
    return found


def _profile(corim: Corim, scheme: str, place: Node) -> Profile:
    if corim.profile is None:
        if not scheme:
            raise place.unsupported(
                "no profile, so it does not say for which scheme it speaks",
                remedy="Name the scheme, or have the profile added (key 3) by the author.",
            )
        return generic_profile(scheme)
    profile = profile_named(corim.profile_name, place.child("profile", None))
    if scheme and scheme != profile.scheme:
        raise ConfigurationError(
            source="scheme",
            value=scheme,
            accepted=f"{profile.scheme}, which the profile {profile.uri} is about",
        )
    return profile


class _Reader:
    """Collects what the tags of one CoRIM say."""

    def __init__(self, identifier: str, profile: Profile, source: str, corim: Corim) -> None:
        self._id = identifier
        self._profile = profile
        self._source = source
        self._validity = corim.validity
        self._tags: list[str] = []
        self._values: list[ReferenceValue] = []
        self._anchors: list[TrustAnchor] = []
        self._replaces: list[str] = []
        self._unused: list[str] = []

    def read(self, tag: Comid | OpaqueTag, place: Node) -> None:
        if isinstance(tag, OpaqueTag):
            self._unused.append(f"{place.path}: {tag.kind} is kept and not read")
            return
        place = place.child("comid", None)
        identifier = tag_identifier(self._id, tag.id, place.child("tag-identity", None))
        if identifier in self._tags:
            raise place.error(f"a second CoMID with the tag id {tag.id!r}")
        self._tags.append(identifier)
        self._replaces.extend(
            corim_identifier(tag_id_text(linked.tag_id), place.child("linked-tags", None))
            for linked in tag.linked_tags
            if linked.relation == REPLACES
        )
        drafts = self._drafts(tag.triples, place.child("triples", None))
        self._finish(identifier, drafts)
        self._note_unused(tag.triples, place.child("triples", None))

    def _drafts(self, triples: Triples, place: Node) -> Drafts:
        drafts = Drafts(scheme=self._profile.scheme, source=self._source)
        for index, reference in enumerate(triples.reference):
            drafts.state = str(index)
            self._profile.read_reference(
                reference, place.child("reference", None).element(index, None), drafts
            )
        for index, attest_key in enumerate(triples.attest_key):
            self._profile.read_attest_key(
                attest_key, place.child("attest-key", None).element(index, None), drafts
            )
        return drafts

    def _finish(self, tag: str, drafts: Drafts) -> None:
        validity = self._validity
        not_before = validity.not_before if validity else None
        not_after = validity.not_after if validity else None
        self._values.extend(
            replace(
                value,
                id=value_identifier(tag, number),
                state=state_identifier(tag, int(value.state)),
                not_before=not_before,
                not_after=not_after,
            )
            for number, value in enumerate(drafts.reference_values)
        )
        self._anchors.extend(
            replace(
                anchor,
                id=value_identifier(tag, number, kind="key"),
                not_before=not_before,
                not_after=not_after,
            )
            for number, anchor in enumerate(drafts.trust_anchors)
        )

    def _note_unused(self, triples: Triples, place: Node) -> None:
        for attribute, words in _UNUSED.items():
            if getattr(triples, attribute):
                self._unused.append(f"{place.path}: {words} are kept and not read")
        for key in triples.extensions:
            self._unused.append(f"{place.path}: triples of kind {key!r} are kept and not read")

    def endorsements(self) -> Endorsements:
        return Endorsements(
            id=self._id,
            profile=self._profile.uri,
            scheme=self._profile.scheme,
            tags=tuple(self._tags),
            reference_values=tuple(self._values),
            trust_anchors=tuple(self._anchors),
            replaces=tuple(self._replaces),
            unused=tuple(self._unused),
            not_before=self._validity.not_before if self._validity else None,
            not_after=self._validity.not_after if self._validity else None,
        )
