# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for CoRIMs of every shape that the base specification allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from troth.formats.cbor import Tag
from troth.formats.corim import (
    Comid,
    ConditionalEndorsement,
    ConditionalSeries,
    Corim,
    CorimEntity,
    CoswidTriple,
    Digest,
    DomainTriple,
    EnvironmentClass,
    EnvironmentMap,
    IntRange,
    KeyTriple,
    LinkedTag,
    Locator,
    Measurement,
    MeasurementTriple,
    MeasurementValues,
    OpaqueTag,
    RawValue,
    SeriesRecord,
    Svn,
    Triples,
    Validity,
    Version,
)

TEXT = st.text(min_size=1, max_size=8)
OCTETS = st.binary(min_size=1, max_size=8)
UUID = st.binary(min_size=16, max_size=16)
UNSIGNED = st.integers(0, 2**64 - 1)
IDENTIFIERS = st.one_of(TEXT, UUID)
EXTENSIONS = st.dictionaries(
    st.integers(-5, -1), st.one_of(st.none(), st.booleans(), TEXT, st.lists(UNSIGNED)), max_size=2
)
DIGESTS = st.lists(
    st.builds(Digest, st.one_of(st.integers(1, 12), st.sampled_from(["sha-256", "x"])), OCTETS),
    min_size=1,
    max_size=3,
    unique_by=lambda digest: digest.name,
).map(tuple)
TAGS = st.one_of(
    st.builds(Tag, st.just(560), OCTETS),
    st.builds(Tag, st.just(37), UUID),
    st.builds(Tag, st.just(550), st.binary(min_size=7, max_size=33)),
    st.builds(Tag, st.just(111), OCTETS),
    st.builds(Tag, st.just(554), TEXT),
    st.builds(Tag, st.just(999), TEXT),
)
KEYS = st.lists(TAGS, min_size=1, max_size=2).map(tuple)
CLASSES = st.one_of(
    st.builds(EnvironmentClass, class_id=TAGS, layer=st.none() | UNSIGNED),
    st.builds(EnvironmentClass, vendor=TEXT, model=st.none() | TEXT, index=st.none() | UNSIGNED),
)
ENVIRONMENTS = st.one_of(
    st.builds(EnvironmentMap, environment_class=CLASSES, instance=st.none() | TAGS),
    st.builds(EnvironmentMap, instance=TAGS, group=st.none() | TAGS),
)
RAW_VALUES = st.one_of(
    st.builds(RawValue, OCTETS),
    st.builds(RawValue, OCTETS, OCTETS, st.booleans()),
    st.builds(Tag, st.just(999), TEXT),
)


@st.composite
def _ranges(draw: st.DrawFn) -> int | IntRange:
    if draw(st.booleans()):
        return draw(st.integers(-(2**63), 2**63))
    low, high = sorted(draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9))))
    return IntRange(draw(st.sampled_from([low, None])), draw(st.sampled_from([high, None])))


VALUES = st.builds(
    MeasurementValues,
    # One member at least is there: a measurement-values-map must not be empty.
    svn=st.builds(Svn, UNSIGNED, st.sampled_from([None, 552, 553])),
    version=st.none() | st.builds(Version, TEXT, st.one_of(st.none(), UNSIGNED, TEXT)),
    digests=st.just(()) | DIGESTS,
    flags=st.dictionaries(st.integers(0, 10), st.booleans(), max_size=3),
    raw_value=st.none() | RAW_VALUES,
    mac_address=st.none() | st.binary(min_size=6, max_size=6),
    ip_address=st.none() | UUID,
    serial_number=st.none() | TEXT,
    ueid=st.none() | st.binary(min_size=7, max_size=33),
    uuid=st.none() | UUID,
    name=st.none() | TEXT,
    crypto_keys=st.just(()) | KEYS,
    registers=st.dictionaries(st.one_of(UNSIGNED, TEXT), DIGESTS, max_size=2),
    int_range=st.none() | _ranges(),
    extensions=EXTENSIONS,
)
MEASUREMENTS = st.builds(
    Measurement,
    key=st.one_of(st.none(), UNSIGNED, TEXT, TAGS),
    values=VALUES,
    authorized_by=st.just(()) | KEYS,
)


def _several(strategy: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=most).map(tuple)


def _some(strategy: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[Any]:
    return st.lists(strategy, min_size=1, max_size=most).map(tuple)


MEASUREMENT_TRIPLES = st.builds(MeasurementTriple, ENVIRONMENTS, _some(MEASUREMENTS))
KEY_TRIPLES = st.builds(
    KeyTriple, ENVIRONMENTS, KEYS, st.none() | st.one_of(TEXT, UNSIGNED), st.just(()) | KEYS
)
DOMAINS = st.builds(DomainTriple, ENVIRONMENTS, _some(ENVIRONMENTS))
SERIES = st.builds(
    ConditionalSeries,
    ENVIRONMENTS,
    _several(MEASUREMENTS, 1),
    st.just(()) | KEYS,
    _some(st.builds(SeriesRecord, _some(MEASUREMENTS, 1), _some(MEASUREMENTS, 1)), 1),
)
TRIPLES = st.builds(
    Triples,
    reference=_some(MEASUREMENT_TRIPLES),
    endorsed=_several(MEASUREMENT_TRIPLES, 1),
    identity=_several(KEY_TRIPLES, 1),
    attest_key=_several(KEY_TRIPLES),
    dependency=_several(DOMAINS, 1),
    membership=_several(DOMAINS, 1),
    coswid=_several(st.builds(CoswidTriple, ENVIRONMENTS, _some(IDENTIFIERS)), 1),
    conditional_series=_several(SERIES, 1),
    conditional=_several(
        st.builds(
            ConditionalEndorsement, _some(MEASUREMENT_TRIPLES, 1), _some(MEASUREMENT_TRIPLES, 1)
        ),
        1,
    ),
    extensions=st.dictionaries(st.sampled_from([7, 9, 50, -1]), st.lists(UNSIGNED), max_size=1),
)
ENTITIES = st.builds(
    CorimEntity,
    name=TEXT,
    uri=st.none() | TEXT,
    roles=_some(st.integers(-3, 5)),
    extensions=EXTENSIONS,
)
COMIDS = st.builds(
    Comid,
    tag_id=IDENTIFIERS,
    tag_version=UNSIGNED,
    language=st.none() | TEXT,
    entities=_several(ENTITIES, 1),
    linked_tags=_several(st.builds(LinkedTag, IDENTIFIERS, st.integers(-3, 3)), 1),
    triples=TRIPLES,
    extensions=EXTENSIONS,
)
_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
VALIDITIES = st.builds(
    lambda begin, length: Validity(
        _MOMENT + timedelta(seconds=begin) if begin else None,
        _MOMENT + timedelta(seconds=begin + length),
    ),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
)
CORIMS = st.builds(
    Corim,
    corim_id=IDENTIFIERS,
    tags=_some(
        st.one_of(
            COMIDS, st.builds(OpaqueTag, st.sampled_from([505, 508, 507]), st.one_of(OCTETS, TEXT))
        )
    ),
    profile=st.one_of(st.none(), TEXT, st.builds(Tag, st.just(111), OCTETS)),
    validity=st.none() | VALIDITIES,
    entities=_several(ENTITIES, 1),
    dependent_rims=_several(
        st.builds(Locator, _some(TEXT), _several(st.builds(Digest, st.integers(1, 12), OCTETS))), 1
    ),
    extensions=EXTENSIONS,
)
"""Any CoRIM."""
