# SPDX-License-Identifier: Apache-2.0
"""Triples: the statements that a CoMID makes.

A kind of triple that this module does not know is kept as it came and written back unchanged.

Source: draft-ietf-rats-corim (0b855af) "Triples" and its subsections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from troth.formats.cbor import Tag
from troth.formats.corim.environment import EnvironmentMap, decode_environment
from troth.formats.corim.identifier import decode_keys
from troth.formats.corim.measurement import (
    Measurement,
    decode_measurement_key,
    decode_measurements,
)
from troth.formats.corim.node import Node

__all__ = [
    "TRIPLE_NAMES",
    "ConditionalEndorsement",
    "ConditionalSeries",
    "CoswidTriple",
    "DomainTriple",
    "KeyTriple",
    "MeasurementTriple",
    "SeriesRecord",
    "Triples",
    "decode_key_triple",
    "decode_measurement_triple",
    "decode_triples",
]

TRIPLE_NAMES: Final = {
    0: "reference",
    1: "endorsed",
    2: "identity",
    3: "attest-key",
    4: "dependency",
    5: "membership",
    6: "coswid",
    8: "conditional-series",
    10: "conditional-endorsement",
}


class _Record(Protocol):
    def to_cbor(self) -> list[object]: ...


@dataclass(frozen=True, slots=True)
class MeasurementTriple:
    """An environment and what is measured (reference) or true (endorsed, condition) of it."""

    environment: EnvironmentMap
    measurements: tuple[Measurement, ...]

    def to_cbor(self) -> list[object]:
        """Return the record."""
        return [self.environment.to_cbor(), [each.to_cbor() for each in self.measurements]]


@dataclass(frozen=True, slots=True)
class KeyTriple:
    """An environment and the keys provisioned to it: device identity or attestation keys.

    Attributes:
        environment: who has the keys.
        keys: the keys.
        key: measurement key of the element that has them, or None.
        authorized_by: who asserted the keys, where that is a condition.
    """

    environment: EnvironmentMap
    keys: tuple[Tag, ...]
    key: int | str | Tag | None = None
    authorized_by: tuple[Tag, ...] = ()

    def to_cbor(self) -> list[object]:
        """Return the record."""
        conditions: dict[int, object] = {}
        if self.key is not None:
            conditions[0] = self.key
        if self.authorized_by:
            conditions[1] = list(self.authorized_by)
        record: list[object] = [self.environment.to_cbor(), list(self.keys)]
        return [*record, conditions] if conditions else record


@dataclass(frozen=True, slots=True)
class DomainTriple:
    """A domain and its members, or the domains that it depends on."""

    domain: EnvironmentMap
    members: tuple[EnvironmentMap, ...]

    def to_cbor(self) -> list[object]:
        """Return the record."""
        return [self.domain.to_cbor(), [each.to_cbor() for each in self.members]]


@dataclass(frozen=True, slots=True)
class CoswidTriple:
    """An environment and the CoSWID tags that hold its reference measurements."""

    environment: EnvironmentMap
    tag_ids: tuple[str | bytes, ...]

    def to_cbor(self) -> list[object]:
        """Return the record."""
        return [self.environment.to_cbor(), list(self.tag_ids)]


@dataclass(frozen=True, slots=True)
class ConditionalEndorsement:
    """Environments in a certain state, and what is then true."""

    conditions: tuple[MeasurementTriple, ...]
    endorsements: tuple[MeasurementTriple, ...]

    def to_cbor(self) -> list[object]:
        """Return the record."""
        return [
            [each.to_cbor() for each in self.conditions],
            [each.to_cbor() for each in self.endorsements],
        ]


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """One step of a series: the state, and what is then true."""

    condition: tuple[Measurement, ...]
    addition: tuple[Measurement, ...]

    def to_cbor(self) -> list[object]:
        """Return the record."""
        return [
            [each.to_cbor() for each in self.condition],
            [each.to_cbor() for each in self.addition],
        ]


@dataclass(frozen=True, slots=True)
class ConditionalSeries:
    """An environment in a common state, and a series of which the first match counts."""

    environment: EnvironmentMap
    claims: tuple[Measurement, ...]
    authorized_by: tuple[Tag, ...]
    series: tuple[SeriesRecord, ...]

    def to_cbor(self) -> list[object]:
        """Return the record."""
        common: list[object] = [
            self.environment.to_cbor(),
            [each.to_cbor() for each in self.claims],
        ]
        if self.authorized_by:
            common.append(list(self.authorized_by))
        return [common, [each.to_cbor() for each in self.series]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Triples:
    """All triples of one CoMID, by kind; at least one is present.

    Attributes:
        extensions: triples of other kinds by their key, uninterpreted.
    """

    reference: tuple[MeasurementTriple, ...] = ()
    endorsed: tuple[MeasurementTriple, ...] = ()
    identity: tuple[KeyTriple, ...] = ()
    attest_key: tuple[KeyTriple, ...] = ()
    dependency: tuple[DomainTriple, ...] = ()
    membership: tuple[DomainTriple, ...] = ()
    coswid: tuple[CoswidTriple, ...] = ()
    conditional_series: tuple[ConditionalSeries, ...] = ()
    conditional: tuple[ConditionalEndorsement, ...] = ()
    extensions: Mapping[int | str, object] = field(default_factory=dict)

    def to_cbor(self) -> dict[int | str, object]:
        """Return the triples-map."""
        kinds: dict[int, tuple[_Record, ...]] = {
            0: self.reference,
            1: self.endorsed,
            2: self.identity,
            3: self.attest_key,
            4: self.dependency,
            5: self.membership,
            6: self.coswid,
            8: self.conditional_series,
            10: self.conditional,
        }
        encoded: dict[int | str, object] = {
            key: [triple.to_cbor() for triple in triples]
            for key, triples in kinds.items()
            if triples
        }
        return encoded | dict(self.extensions)


_T = TypeVar("_T")


def decode_triples(node: Node) -> Triples:
    """Decode a triples-map."""

    def all_of(key: int, decode: Callable[[Node], _T]) -> tuple[_T, ...]:
        member = node.optional(key, TRIPLE_NAMES[key])
        return tuple(decode(each) for each in member.elements()) if member else ()

    return Triples(
        reference=all_of(0, decode_measurement_triple),
        endorsed=all_of(1, decode_measurement_triple),
        identity=all_of(2, decode_key_triple),
        attest_key=all_of(3, decode_key_triple),
        dependency=all_of(4, _decode_domain),
        membership=all_of(5, _decode_domain),
        coswid=all_of(6, _decode_coswid),
        conditional_series=all_of(8, _decode_series),
        conditional=all_of(10, _decode_conditional),
        extensions=node.extensions(frozenset(TRIPLE_NAMES)),
    )


def decode_measurement_triple(node: Node) -> MeasurementTriple:
    """Decode [environment, measurements]."""
    environment, measurements = node.pair("environment", "measurements")
    return MeasurementTriple(decode_environment(environment), decode_measurements(measurements))


def decode_key_triple(node: Node) -> KeyTriple:
    """Decode [environment, keys, ? conditions]."""
    members = node.elements(minimum=2)
    if len(members) > 3:
        raise node.error(f"expected [environment, keys, ? conditions], found {len(members)}")
    environment = node.child("environment", members[0].value)
    keys = node.child("keys", members[1].value)
    if len(members) == 2:
        return KeyTriple(decode_environment(environment), decode_keys(keys))
    conditions = node.child("conditions", members[2].value)
    conditions.only(frozenset({0, 1}))
    key = conditions.optional(0, "mkey")
    authorized_by = conditions.optional(1, "authorized-by")
    return KeyTriple(
        decode_environment(environment),
        decode_keys(keys),
        decode_measurement_key(key) if key else None,
        decode_keys(authorized_by) if authorized_by else (),
    )


def _decode_domain(node: Node) -> DomainTriple:
    domain, members = node.pair("domain", "members")
    return DomainTriple(
        decode_environment(domain), tuple(decode_environment(each) for each in members.elements())
    )


def _decode_coswid(node: Node) -> CoswidTriple:
    environment, identifiers = node.pair("environment", "tag-ids")
    tag_ids = tuple(
        each.text() if isinstance(each.value, str) else each.octets()
        for each in identifiers.elements()
    )
    return CoswidTriple(decode_environment(environment), tag_ids)


def _decode_series(node: Node) -> ConditionalSeries:
    common, series = node.pair("common-condition", "series")
    members = common.elements(minimum=2)
    if len(members) > 3:
        raise common.error(f"expected two or three members, found {len(members)}")
    environment = common.child("environment", members[0].value)
    claims = common.child("claims-list", members[1].value)
    authorized_by: tuple[Tag, ...] = ()
    if len(members) == 3:
        authorized_by = decode_keys(common.child("authorized-by", members[2].value))
    return ConditionalSeries(
        decode_environment(environment),
        decode_measurements(claims, minimum=0),
        authorized_by,
        tuple(_decode_record(each) for each in series.elements()),
    )


def _decode_record(node: Node) -> SeriesRecord:
    condition, addition = node.pair("condition", "addition")
    return SeriesRecord(decode_measurements(condition), decode_measurements(addition))


def _decode_conditional(node: Node) -> ConditionalEndorsement:
    conditions, endorsements = node.pair("conditions", "endorsements")
    return ConditionalEndorsement(
        tuple(decode_measurement_triple(each) for each in conditions.elements()),
        tuple(decode_measurement_triple(each) for each in endorsements.elements()),
    )
