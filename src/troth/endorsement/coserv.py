# SPDX-License-Identifier: Apache-2.0
"""Answer CoSERV queries from what is provisioned, and read answers of others.

An answer is made of the very triples that were provisioned, so a value means the same there as
here. What has been withdrawn is not handed on: neither a triple of which a value was withdrawn,
nor a whole manifest of which any part was, since whoever received it would believe all of it.

Source: draft-ietf-rats-coserv (472a81a) "Queries", "Result Sets", "Selector Semantics".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from troth.endorsement.endorsements import endorsements_of
from troth.endorsement.identifiers import (
    corim_identifier,
    state_identifier,
    tag_suffix,
    value_identifier,
)
from troth.endorsement.profiles import profile_named
from troth.endorsement.profiles.profile import octets_of
from troth.endorsement.reference_value import Environment, ReferenceValue
from troth.endorsement.repository import (
    EndorsementRepository,
    EndorsementSnapshot,
    HeldCorim,
    Phase,
)
from troth.endorsement.trust_anchor import TrustAnchor
from troth.errors import BindingError, FreshnessError, UnsupportedError
from troth.formats.cbor import Tag
from troth.formats.cmw import CmwRecord, Indicator
from troth.formats.corim.comid import Comid
from troth.formats.corim.common import Validity, tag_id_text
from troth.formats.corim.corim import Corim
from troth.formats.corim.environment import EnvironmentClass
from troth.formats.corim.node import Node
from troth.formats.corim.signed import SignedCorim, decode_any
from troth.formats.corim.triples import KeyTriple, MeasurementTriple, Triples
from troth.formats.coserv import (
    ArtifactType,
    Coserv,
    CoservResults,
    EnvironmentQuery,
    Quad,
    ResultType,
    RimKind,
    RimQuery,
    Selection,
)

__all__ = ["answer", "corim_from_answer", "rims_from_answer"]

_FORMAT: Final = "CoSERV"
_REFERENCE_QUADS, _KEY_QUADS = 0, 3


def answer(
    query: Coserv,
    repository: EndorsementRepository,
    *,
    now: datetime,
    lifetime: timedelta,
    authorities: Sequence[Tag],
) -> Coserv:
    """Return the query with its results. An empty result says that nothing is known.

    Args:
        query: what is asked; results in it are ignored.
        repository: what is provisioned.
        now: the time.
        lifetime: how long the answer may be used at most. It ends earlier with the validity of
            what is in it.
        authorities: keys or key identifiers of whoever answers.

    Raises:
        UnsupportedError: an unknown profile; endorsed values; a selector that cannot be looked
            up: groups, states, classes without a class id, trust anchors by class.
    """
    held = {each.id: each for each in repository.list(now=now) if _usable(each)}
    expiry = now + lifetime
    if isinstance(query.query, RimQuery):
        results = _answer_rims(query.query, held, expiry)
    else:
        snapshot = repository.snapshot(now)
        results = _Answer(query, query.query, snapshot, held).results(expiry, authorities)
    return Coserv(profile=query.profile, query=query.query, results=results)


def corim_from_answer(result: Coserv, query: Coserv, *, now: datetime) -> Corim:
    """Return the collected triples of an answer as a CoRIM that can be provisioned.

    Its identifier is made from the query, so a newer answer can replace it. The answer must have
    been authenticated: by its signature (`verify_coserv`), or by a secure channel to the one who
    gave it.

    Args:
        result: the answer.
        query: what was asked.
        now: the time.

    Raises:
        BindingError: the answer to something else.
        FreshnessError: expired.
        UnsupportedError: no reference values and no attestation keys in it.
    """
    results = _checked(result, query, now)
    reference = tuple(
        quad.triple
        for quad in results.quads.get(_REFERENCE_QUADS, ())
        if isinstance(quad.triple, MeasurementTriple)
    )
    attest_key = tuple(
        quad.triple
        for quad in results.quads.get(_KEY_QUADS, ())
        if isinstance(quad.triple, KeyTriple)
    )
    if not reference and not attest_key:
        raise UnsupportedError("no reference values and no attestation keys", format=_FORMAT)
    asked = Coserv(profile=query.profile, query=query.query).encode()
    name = f"coserv-{sha256(asked).hexdigest()[:32]}"
    profile = query.profile if isinstance(query.profile, str) else Tag(111, query.profile)
    return Corim(
        corim_id=name,
        tags=(
            Comid(
                tag_id=f"{name}:tag", triples=Triples(reference=reference, attest_key=attest_key)
            ),
        ),
        profile=profile,
        validity=Validity(None, results.expiry),
    )


def rims_from_answer(
    result: Coserv, query: Coserv, *, now: datetime
) -> tuple[Corim | SignedCorim, ...]:
    """Return the manifests of an answer, each once; a signed one still has to be verified.

    Raises:
        BindingError, FreshnessError: as `corim_from_answer`.
        DecodeError: one of them is not a CoRIM.
    """
    results = _checked(result, query, now)
    records = (*results.source_artifacts, *(results.rims or {}).values())
    return tuple(decode_any(value) for value in dict.fromkeys(each.value for each in records))


def _checked(result: Coserv, query: Coserv, now: datetime) -> CoservResults:
    if result.results is None:
        raise BindingError("CoSERV: a query came back without results")
    if result.profile != query.profile or result.query != query.query:
        raise BindingError("CoSERV: the answer is to another query than the one that was asked")
    if now > result.results.expiry:
        raise FreshnessError(f"CoSERV: the answer expired at {result.results.expiry:%FT%TZ}")
    return result.results


def _usable(held: HeldCorim) -> bool:
    return held.phase in {Phase.IN_FORCE, Phase.RETIRING}


class _Answer:
    """Collects the triples that answer one query by environment."""

    def __init__(
        self,
        query: Coserv,
        asked: EnvironmentQuery,
        snapshot: EndorsementSnapshot,
        held: Mapping[str, HeldCorim],
    ) -> None:
        name = _profile_text(query.profile)
        self._scheme = profile_named(name, Node(None, format=_FORMAT, name="profile")).scheme
        self._profile = name
        self._asked = asked
        self._snapshot = snapshot
        self._held = held
        self._manifests: dict[str, _Manifest | None] = {}

    def results(self, expiry: datetime, authorities: Sequence[Tag]) -> CoservResults:
        artifact, wanted = self._asked.artifact, self._asked.result_type
        if artifact is ArtifactType.ENDORSED_VALUES:
            raise UnsupportedError("endorsed values are not kept", format=_FORMAT)
        found: list[tuple[_Manifest, MeasurementTriple | KeyTriple]] = []
        if artifact is ArtifactType.REFERENCE_VALUES:
            kind = _REFERENCE_QUADS
            found.extend(self._reference_triples())
        else:
            kind = _KEY_QUADS
            found.extend(self._key_triples())
        sources = {manifest.held.id: manifest.held for manifest, _ in found}
        expiry = _earliest(expiry, sources.values())
        quads = {kind: tuple(Quad(tuple(authorities), triple) for _, triple in found)}
        whole = tuple(
            _as_record(sources[each]) for each in sorted(sources) if not sources[each].withdrawn
        )
        return CoservResults(
            expiry=expiry,
            quads={} if wanted is ResultType.SOURCE else quads,
            source_artifacts=() if wanted is ResultType.COLLECTED else whole,
        )

    def _reference_triples(self) -> Iterator[tuple[_Manifest, MeasurementTriple]]:
        states: dict[str, set[str]] = {}
        for value in self._values():
            states.setdefault(value.state, set()).add(value.id)
        for state, identifiers in states.items():
            manifest = self._manifest(state)
            # A state of which a value was withdrawn describes a good node no more.
            if manifest is not None and manifest.states.get(state) == identifiers:
                yield manifest, manifest.references[state]

    def _key_triples(self) -> Iterator[tuple[_Manifest, KeyTriple]]:
        for anchor in self._anchors():
            manifest = self._manifest(anchor.id)
            if manifest is not None:
                triple, key = manifest.keys[anchor.id]
                yield manifest, replace(triple, keys=(key,))

    def _values(self) -> Iterator[ReferenceValue]:
        if self._asked.groups:
            raise UnsupportedError("groups are not kept", format=_FORMAT)
        for selection in self._asked.classes:
            wanted = _class_id(selection)
            for value in self._snapshot.find(self._scheme, class_id=wanted):
                if _in_class(value.environment, selection):
                    yield value
        for selection in self._asked.instances:
            instance = _instance_id(selection)
            for value in self._snapshot.find(self._scheme, class_id=b"", instance_id=instance):
                if value.environment.instance_id == instance:
                    yield value

    def _anchors(self) -> Iterator[TrustAnchor]:
        if not self._asked.instances:
            raise UnsupportedError(
                "trust anchors are found by instance only",
                format=_FORMAT,
                remedy="Ask for the instance that the Evidence names.",
            )
        for selection in self._asked.instances:
            yield from self._snapshot.trust_anchors(
                self._scheme, implementation_id=b"", instance_id=_instance_id(selection)
            )

    def _manifest(self, identifier: str) -> _Manifest | None:
        """Return the CoRIM that a value or state is from, if it is of the profile asked for."""
        name = identifier.partition("/")[0]
        if name not in self._manifests:
            held = self._held.get(name)
            wanted = held is not None and held.profile == self._profile
            self._manifests[name] = _Manifest(held) if held is not None and wanted else None
        return self._manifests[name]


class _Manifest:
    """A held CoRIM, decoded, with its triples under the identifiers of what they say."""

    def __init__(self, held: HeldCorim) -> None:
        self.held = held
        self.references: dict[str, MeasurementTriple] = {}
        self.states: dict[str, set[str]] = {}
        self.keys: dict[str, tuple[KeyTriple, Tag]] = {}
        decoded = decode_any(held.content)
        corim = decoded.unverified_corim() if isinstance(decoded, SignedCorim) else decoded
        comids = [tag for tag in corim.tags if isinstance(tag, Comid)]
        # The identifiers are dealt out in the order of the triples and keys (`endorsements_of`).
        for tag, comid in zip(held.tags, comids, strict=True):
            for index, reference in enumerate(comid.triples.reference):
                self.references[state_identifier(tag, index)] = reference
            pairs = [(triple, key) for triple in comid.triples.attest_key for key in triple.keys]
            for number, pair in enumerate(pairs):
                self.keys[value_identifier(tag, number, kind="key")] = pair
        for value in endorsements_of(corim, source=held.source).reference_values:
            self.states.setdefault(value.state, set()).add(value.id)


def _answer_rims(asked: RimQuery, held: Mapping[str, HeldCorim], expiry: datetime) -> CoservResults:
    whole = [each for each in held.values() if not each.withdrawn]
    found: dict[str, HeldCorim] = {}
    place = Node(None, format=_FORMAT, name="rim-selector")
    for kind, identifier in asked.rims:
        name = tag_id_text(identifier)
        wanted = corim_identifier(name, place)
        for candidate in whole:
            tags = {tag_suffix(tag) for tag in candidate.tags}
            if wanted == candidate.id if kind is RimKind.CORIM else wanted in tags:
                found[name] = candidate
    return CoservResults(
        expiry=_earliest(expiry, found.values()),
        rims={name: _as_record(each) for name, each in found.items()},
    )


def _earliest(expiry: datetime, held: Iterable[HeldCorim]) -> datetime:
    # "The CoSERV query result MUST NOT expire after the end of the validity period."
    return min([expiry, *(each.not_after for each in held if each.not_after is not None)])


def _as_record(held: HeldCorim) -> CmwRecord:
    return CmwRecord(held.media_type, held.content, Indicator.REFERENCE_VALUES)


def _class_id(selection: Selection) -> bytes:
    _refuse_state(selection)
    wanted = selection.environment
    if not isinstance(wanted, EnvironmentClass) or wanted.class_id is None:
        raise UnsupportedError("a class without a class id", format=_FORMAT)
    return octets_of(wanted.class_id, Node(None, format=_FORMAT, name="class-id"))


def _instance_id(selection: Selection) -> bytes:
    _refuse_state(selection)
    if not isinstance(selection.environment, Tag):
        raise UnsupportedError("an instance that is no tagged identifier", format=_FORMAT)
    return octets_of(selection.environment, Node(None, format=_FORMAT, name="instance"))


def _refuse_state(selection: Selection) -> None:
    if selection.measurements:
        # Ignoring it would hand out values for another state than the one that was asked about.
        raise UnsupportedError("environments in a certain state", format=_FORMAT)


def _in_class(environment: Environment, selection: Selection) -> bool:
    wanted = selection.environment
    if not isinstance(wanted, EnvironmentClass) or wanted.class_id is None:
        return False
    # Nothing that is kept has a layer or an index (`refuse_parts`).
    return (
        wanted.class_id.number == environment.class_tag
        and wanted.layer is None
        and wanted.index is None
        and wanted.vendor in {None, environment.vendor}
        and wanted.model in {None, environment.model}
    )


def _profile_text(profile: str | bytes) -> str:
    return profile if isinstance(profile, str) else f"oid:{profile.hex()}"
