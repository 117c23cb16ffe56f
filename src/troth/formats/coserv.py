# SPDX-License-Identifier: Apache-2.0
"""CoSERV: queries for Endorsements and Reference Values, and their results.

One data item carries the profile, the query and, in an answer, the results: an answer repeats
what was asked, so that it cannot pass for the answer to something else. A query is always in
deterministic encoding, because it serves as a name (of a resource, of a cache entry).

The draft's CDDL for the signed form puts the content type under label 2, which in COSE is `crit`;
we use label 3, `content type`, as its text says.

Source: draft-ietf-rats-coserv (472a81a of 2026-06, -06 and later changes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from troth.errors import DecodeError, SignatureError
from troth.formats import cbor, cose
from troth.formats.cbor import Tag
from troth.formats.cmw import CmwRecord, from_cbor_value, to_cbor_value
from troth.formats.corim.common import decode_tag_id, tag_id_text
from troth.formats.corim.environment import EnvironmentClass, decode_class
from troth.formats.corim.identifier import decode_identifier, decode_keys
from troth.formats.corim.measurement import Measurement, decode_measurements
from troth.formats.corim.node import Node
from troth.formats.corim.triples import (
    KeyTriple,
    MeasurementTriple,
    decode_key_triple,
    decode_measurement_triple,
)
from troth.formats.keys import VerificationKey
from troth.formats.limits import RIM_LIMITS, Limits
from troth.formats.signatures import SIGNATURE_ALGORITHMS
from troth.formats.signer import Signer

__all__ = [
    "MEDIA_TYPE",
    "SIGNED_MEDIA_TYPE",
    "ArtifactType",
    "Coserv",
    "CoservResults",
    "EnvironmentQuery",
    "Quad",
    "ResultType",
    "RimKind",
    "RimQuery",
    "Selection",
    "sign_coserv",
    "verify_coserv",
]

MEDIA_TYPE: Final = "application/coserv+cbor"
SIGNED_MEDIA_TYPE: Final = "application/coserv+cose"

_FORMAT: Final = "CoSERV"
_MAX_SELECTIONS: Final = 256
_TDATE: Final = 0
_RFC3339: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})", re.ASCII
)


class ArtifactType(IntEnum):
    """What is asked for."""

    ENDORSED_VALUES = 0
    TRUST_ANCHORS = 1
    REFERENCE_VALUES = 2


class ResultType(IntEnum):
    """In which form: extracted triples, the manifests they come from, or both."""

    COLLECTED = 0
    SOURCE = 1
    BOTH = 2


class RimKind(IntEnum):
    """What an identifier of a manifest is the identifier of."""

    COMID = 0
    COSWID = 1
    CORIM = 2


@dataclass(frozen=True, slots=True)
class Selection:
    """One environment that is asked about, perhaps in a certain state.

    Attributes:
        environment: a class, or the tagged identifier of an instance or a group.
        measurements: the state, or none.
    """

    environment: EnvironmentClass | Tag
    measurements: tuple[Measurement, ...] = ()

    def to_cbor(self) -> list[object]:
        """Return the stateful environment."""
        environment = self.environment
        encoded = environment if isinstance(environment, Tag) else environment.to_cbor()
        if not self.measurements:
            return [encoded]
        return [encoded, [each.to_cbor() for each in self.measurements]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentQuery:
    """A query by environment: exactly one of classes, instances and groups is not empty.

    Attributes:
        artifact: what is asked for.
        classes, instances, groups: alternatives.
        result_type: in which form.
    """

    artifact: ArtifactType
    classes: tuple[Selection, ...] = ()
    instances: tuple[Selection, ...] = ()
    groups: tuple[Selection, ...] = ()
    result_type: ResultType = ResultType.COLLECTED

    def to_cbor(self) -> dict[int, object]:
        """Return the query."""
        selector = {
            key: [each.to_cbor() for each in selections]
            for key, selections in enumerate((self.classes, self.instances, self.groups))
            if selections
        }
        return {0: int(self.artifact), 1: selector, 2: int(self.result_type)}


@dataclass(frozen=True, slots=True)
class RimQuery:
    """A query for whole manifests by (kind, identifier)."""

    rims: tuple[tuple[RimKind, str | bytes], ...]

    def to_cbor(self) -> dict[int, object]:
        """Return the query."""
        return {3: [[int(kind), identifier] for kind, identifier in self.rims]}


@dataclass(frozen=True, slots=True)
class Quad:
    """A triple and the authorities that stand behind it.

    Attributes:
        authorities: keys or key identifiers, the delegation chain.
        triple: the triple; a conditional endorsement or a trust anchor store stays opaque.
    """

    authorities: tuple[Tag, ...]
    triple: MeasurementTriple | KeyTriple | object

    def to_cbor(self) -> dict[int, object]:
        """Return the quad."""
        triple = self.triple
        if isinstance(triple, MeasurementTriple | KeyTriple):
            triple = triple.to_cbor()
        return {1: list(self.authorities), 2: triple}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoservResults:
    """What was found.

    Attributes:
        expiry: nothing of it is valid after this.
        quads: by kind: 0 reference values, 1 endorsed values, 2 conditional endorsements,
            3 attestation keys, 4 trust anchor stores. An empty kind says that none was found.
        source_artifacts: the manifests that the quads come from.
        rims: manifests by identifier as text, for a query by identifier; else None.
    """

    expiry: datetime
    quads: Mapping[int, tuple[Quad, ...]] = field(default_factory=dict)
    source_artifacts: tuple[CmwRecord, ...] = ()
    rims: Mapping[str, CmwRecord] | None = None

    def to_cbor(self) -> dict[int, object]:
        """Return the results."""
        encoded: dict[int, object] = {
            kind: [each.to_cbor() for each in quads] for kind, quads in self.quads.items()
        }
        if self.source_artifacts:
            encoded[11] = [to_cbor_value(each) for each in self.source_artifacts]
        if self.rims is not None:
            encoded[5] = {key: to_cbor_value(record) for key, record in self.rims.items()}
        encoded[10] = Tag(_TDATE, f"{self.expiry.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
        return encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Coserv:
    """A query, or an answer together with its query. Nothing in it is authentic by itself.

    Attributes:
        profile: a URI as text, or the BER encoding of an OID.
        query: what is asked.
        results: the answer, or None in a query.
    """

    profile: str | bytes
    query: EnvironmentQuery | RimQuery
    results: CoservResults | None = None

    @classmethod
    def decode(cls, data: bytes, *, limits: Limits = RIM_LIMITS) -> Coserv:
        """Decode a query or an answer.

        Raises:
            DecodeError: malformed, or a query that is not deterministically encoded, or results
                of another kind than was asked for.
            LimitExceededError: a limit was crossed.
        """
        value = cbor.decode(data, format=_FORMAT, limits=limits)
        node = Node(value, format=_FORMAT)
        node.only(frozenset({0, 1, 2}))
        query = _decode_query(node.member(1, "query"))
        results = node.optional(2, "results")
        if results is None and cbor.encode(value) != data:
            raise node.error("a query that is not in deterministic encoding")
        profile = node.member(0, "profile")
        return cls(
            profile=(
                profile.text(maximum=2048)
                if isinstance(profile.value, str)
                else profile.octets(maximum=256)
            ),
            query=query,
            results=_decode_results(results, query) if results else None,
        )

    def encode(self) -> bytes:
        """Encode deterministically."""
        encoded: dict[int, object] = {0: self.profile, 1: self.query.to_cbor()}
        if self.results is not None:
            encoded[2] = self.results.to_cbor()
        return cbor.encode(encoded)


def sign_coserv(answer: Coserv, signer: Signer) -> bytes:
    """Sign an answer (media type `SIGNED_MEDIA_TYPE`)."""
    protected: dict[int | str, object] = {cose.CONTENT_TYPE: MEDIA_TYPE}
    if signer.key_id:
        protected[cose.KID] = signer.key_id.encode()
    return cose.sign1(answer.encode(), signer, protected=protected)


def verify_coserv(
    data: bytes, keys: Sequence[VerificationKey], *, limits: Limits = RIM_LIMITS
) -> Coserv:
    """Verify that the holder of one of `keys` signed this answer, and decode it.

    Says nothing about its expiry, nor whether it answers what was asked: compare the query.

    Raises:
        DecodeError: not a signed CoSERV.
        SignatureError: no key verifies it.
    """
    message = cose.Sign1.decode(data, format=f"signed {_FORMAT}", limits=limits)
    if message.protected.get(cose.CONTENT_TYPE) != MEDIA_TYPE:
        raise DecodeError(
            f"the protected content type is not {MEDIA_TYPE}", format=f"signed {_FORMAT}"
        )
    refusals: list[str] = []
    for key in keys:
        try:
            payload = message.verify(key, algorithms=SIGNATURE_ALGORITHMS)
        except SignatureError as exc:
            refusals.append(str(exc))
        else:
            return Coserv.decode(payload, limits=limits)
    raise SignatureError("; ".join(refusals) or f"signed {_FORMAT}: no key is trusted for it")


def _decode_query(node: Node) -> EnvironmentQuery | RimQuery:
    rims = node.optional(3, "rim-selector")
    if rims:
        node.only(frozenset({3}))
        return RimQuery(tuple(_decode_rim(each) for each in rims.elements(maximum=_MAX_SELECTIONS)))
    node.only(frozenset({0, 1, 2}))
    artifact, selector = node.member(0, "artifact-type"), node.member(1, "environment-selector")
    selector.only(frozenset({0, 1, 2}))
    if len(selector.entries()) != 1:
        raise selector.error("expected one of class, instance and group")
    classes, instances, groups = (
        _decode_selections(selector, key, name)
        for key, name in enumerate(("class", "instance", "group"))
    )
    return EnvironmentQuery(
        artifact=ArtifactType(_one_of(artifact, 3)),
        classes=classes,
        instances=instances,
        groups=groups,
        result_type=ResultType(_one_of(node.member(2, "result-type"), 3)),
    )


def _one_of(node: Node, count: int) -> int:
    value = node.unsigned()
    if value >= count:
        raise node.error(f"{value}; expected 0 to {count - 1}")
    return value


def _decode_selections(selector: Node, key: int, name: str) -> tuple[Selection, ...]:
    member = selector.optional(key, name)
    if member is None:
        return ()
    return tuple(
        _decode_selection(each, by_class=key == 0)
        for each in member.elements(maximum=_MAX_SELECTIONS)
    )


def _decode_selection(node: Node, *, by_class: bool) -> Selection:
    members = node.elements()
    if len(members) > 2:
        raise node.error(f"expected [environment, ? measurements], found {len(members)} members")
    environment = node.child("environment", members[0].value)
    decoded = decode_class(environment) if by_class else decode_identifier(environment)
    if len(members) == 1:
        return Selection(decoded)
    return Selection(decoded, decode_measurements(node.child("measurements", members[1].value)))


def _decode_rim(node: Node) -> tuple[RimKind, str | bytes]:
    kind, identifier = node.pair("kind", "identifier")
    return RimKind(_one_of(kind, 3)), decode_tag_id(identifier)


_QUADS_OF: Final = {
    ArtifactType.REFERENCE_VALUES: (0,),
    ArtifactType.ENDORSED_VALUES: (1, 2),
    ArtifactType.TRUST_ANCHORS: (3, 4),
}
_QUAD_NAMES: Final = ("rvq", "evq", "ceq", "akq", "tas")
_EXPIRY, _SOURCES, _RIMS = 10, 11, 5


def _decode_results(node: Node, query: EnvironmentQuery | RimQuery) -> CoservResults:
    expiry = _decode_tdate(node.member(_EXPIRY, "expiry"))
    if isinstance(query, RimQuery):
        node.only(frozenset({_RIMS, _EXPIRY}))
        return CoservResults(expiry=expiry, rims=_decode_rims(node.member(_RIMS, "rims"), query))
    allowed: set[int] = {_EXPIRY}
    if query.result_type is not ResultType.SOURCE:
        allowed.update(_QUADS_OF[query.artifact])
    if query.result_type is not ResultType.COLLECTED:
        allowed.add(_SOURCES)
    node.only(frozenset(allowed))
    quads = {
        kind: tuple(_decode_quad(each, kind) for each in member.elements(minimum=0))
        for kind, name in enumerate(_QUAD_NAMES)
        if (member := node.optional(kind, name))
    }
    sources = node.optional(_SOURCES, "source-artifacts")
    return CoservResults(
        expiry=expiry,
        quads=quads,
        source_artifacts=tuple(
            _decode_record(each) for each in (sources.elements(maximum=256) if sources else ())
        ),
    )


def _decode_quad(node: Node, kind: int) -> Quad:
    node.only(frozenset({1, 2}))
    authorities = decode_keys(node.member(1, "authorities"))
    triple = node.member(2, "triple")
    if kind in {0, 1}:
        return Quad(authorities, decode_measurement_triple(triple))
    if kind == 3:
        return Quad(authorities, decode_key_triple(triple))
    return Quad(authorities, triple.value)


def _decode_rims(node: Node, query: RimQuery) -> dict[str, CmwRecord]:
    if not isinstance(node.value, Mapping):
        raise node.error("expected a map")
    asked = {tag_id_text(identifier) for _, identifier in query.rims}
    found: dict[str, CmwRecord] = {}
    for key, value in node.value.items():
        if not isinstance(key, str) or key not in asked:
            raise node.error(f"a manifest {key!r} that was not asked for")
        found[key] = _decode_record(node.child(key, value))
    return found


def _decode_record(node: Node) -> CmwRecord:
    try:
        record = from_cbor_value(node.value)
    except DecodeError as exc:
        raise node.error(str(exc)) from exc
    if not isinstance(record, CmwRecord):
        raise node.error("a collection where one message is expected")
    return record


def _decode_tdate(node: Node) -> datetime:
    text = node.tagged(_TDATE).text(maximum=64)
    if not _RFC3339.fullmatch(text):
        raise node.error(f"{text!r} is no RFC 3339 date and time")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise node.error(f"{text!r} is no date: {exc}") from exc
