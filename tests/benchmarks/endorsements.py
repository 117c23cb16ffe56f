# SPDX-License-Identifier: Apache-2.0
"""Does looking up Endorsements cost the same however many there are?

Stores of growing size are asked the same question; the smallest is the floor. The largest takes a
minute and a half and a gigabyte to fill, so it is only made where SIZES asks for it::

    ENDORSEMENT_SIZES=10,1000,1000000 make bench
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256

from benchmarks.harness import Case, Table, measure
from troth.endorsement.build import Component, psa_corim
from troth.endorsement.store import EndorsementStore
from troth.formats.corim import Comid, Corim, MeasurementTriple, Triples

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SIZES = [int(each) for each in os.environ.get("ENDORSEMENT_SIZES", "10,1000,100000").split(",")]
_COMPONENTS = 4
_PER_CORIM = 250


def endorsement_lookup() -> Table:
    """Measure `find` on a snapshot, and the snapshot itself."""
    cases: list[Case] = []
    for size in SIZES:
        store = _filled(size)
        floor = cases[0].name if cases else ""
        wanted = _class_id(size // _COMPONENTS // 2)
        name = f"find the values of a class among {size:,}"
        work = partial(store.snapshot(NOW).find, "psa", class_id=wanted)
        assert work() or size < _COMPONENTS
        cases.append(Case(name, work, floor=floor, aim=0.5 if floor else None))
    return measure("Endorsements: lookup against size", cases, rounds=5)


def _filled(size: int) -> EndorsementStore:
    """Return a store of that many values, four for each class."""
    store = EndorsementStore()
    classes = max(1, size // _COMPONENTS)
    for first in range(0, classes, _PER_CORIM):
        names = range(first, min(first + _PER_CORIM, classes))
        store.provision(_corim(f"c{first}", names), now=NOW, source="benchmark")
    return store


def _corim(name: str, classes: range) -> Corim:
    triples: list[MeasurementTriple] = []
    for number in classes:
        made = psa_corim(
            corim_id="x",
            implementation_id=_class_id(number),
            components=[
                Component(digest=sha256(bytes([each])).digest(), signer_id=bytes(32))
                for each in range(_COMPONENTS)
            ],
        )
        comid = made.tags[0]
        assert isinstance(comid, Comid)
        triples.extend(comid.triples.reference)
    tag = Comid(tag_id=f"{name}:state", triples=Triples(reference=tuple(triples)))
    return Corim(corim_id=name, tags=(tag,), profile="tag:arm.com,2025:psa#1.0.0")


def _class_id(number: int) -> bytes:
    return sha256(number.to_bytes(8)).digest()
