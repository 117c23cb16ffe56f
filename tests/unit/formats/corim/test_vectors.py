# SPDX-License-Identifier: Apache-2.0
"""Every published CoRIM and CoMID decodes, and comes out of the encoder with the same meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.vectors import vectors
from troth.errors import UnsupportedError
from troth.formats import cbor
from troth.formats.corim import Comid, Corim, IntRange, MeasurementTriple, Svn

# These are not in deterministic encoding (their map keys are unsorted), so only the meaning of
# them survives a round trip; the others survive to the octet.
UNSORTED = {
    "cca-platform-invalid-digests.cbor",
    "cca-platform-invalid-impl-id.cbor",
    "cca-platform-valid.cbor",
    "cca-realm-invalid-missing-rim.cbor",
    "cca-realm-invalid-rim-size.cbor",
    "cca-realm-valid.cbor",
    "no-profile.cbor",
    "psa-valid.cbor",
    "unsigned-example-corim.cbor",
    "unsigned-good-corim.cbor",
}


def corims(folder: str) -> list[Path]:
    found = sorted(vectors(folder).glob("**/*.cbor"))
    return [path for path in found if path.read_bytes()[:3] == b"\xd9\x01\xf5"]


@pytest.mark.parametrize(("folder", "count"), [("corim", 14), ("psa", 7), ("cca", 8), ("tpm", 1)])
def test_every_unsigned_corim_decodes_and_survives_a_round_trip(folder: str, count: int) -> None:
    paths = corims(folder)
    assert len(paths) == count
    for path in paths:
        data = path.read_bytes()
        corim = Corim.decode(data)
        encoded = corim.encode()
        assert Corim.decode(encoded) == corim, path
        assert (encoded == data) is (folder != "corim" or path.name not in UNSORTED), path


def test_every_comid_survives_a_round_trip_to_the_octet() -> None:
    paths = sorted((vectors("corim") / "comid").glob("*.cbor"))
    assert len(paths) == 6
    for path in paths:
        data = path.read_bytes()
        assert Comid.decode(data).encode() == data, path


def comid(name: str) -> Comid:
    return Comid.decode((vectors("corim") / "comid" / f"comid-{name}.cbor").read_bytes())


def test_flags_are_read_by_their_numbers() -> None:
    (triple,) = comid("flags").triples.endorsed
    flags = triple.measurements[0].values.flags
    assert flags[0] is True
    assert flags[3] is False
    assert set(flags) == set(range(10))


def test_registers_keep_numbers_and_names_apart() -> None:
    (triple,) = comid("integrity-registers").triples.reference
    registers = triple.measurements[0].values.registers
    assert set(registers) == {0, "my-ir"}
    assert [digest.name for digest in registers[0]] == ["sha-256", "my-alg-id"]


def test_domains_list_their_members() -> None:
    found = comid("domain-mem")
    assert [len(triple.members) for triple in found.triples.membership] == [1, 2, 1]
    assert [(link.relation, len(link.tag_id)) for link in found.linked_tags] == [(0, 16)]


def test_a_conditional_series_keeps_its_order() -> None:
    (series,) = comid("cond-endorse-series").triples.conditional_series
    assert [record.condition[0].values.svn for record in series.series] == [
        Svn(1),
        Svn(2),
        Svn(3),
    ]
    assert series.claims[0].authorized_by[0].number == 554


def test_extensions_of_an_unknown_profile_are_kept() -> None:
    corim = Corim.decode((vectors("corim") / "unsigned-example-corim.cbor").read_bytes())
    assert corim.profile == "http://example.com/example-profile"
    assert corim.extensions == {-1: "foo"}
    (tag,) = corim.tags
    assert isinstance(tag, Comid)
    assert tag.entities[0].extensions == {-1: "123 Fake Street"}
    (triple,) = tag.triples.reference
    assert isinstance(triple, MeasurementTriple)
    assert triple.measurements[0].values.extensions == {-1: 1720782190}


def test_a_signed_corim_is_not_taken_for_an_unsigned_one() -> None:
    with pytest.raises(UnsupportedError, match="a signed CoRIM"):
        Corim.decode((vectors("corim") / "signed-good-corim.cbor").read_bytes())


def test_other_triples_and_ranges_survive() -> None:
    # What no published file has: triples of other kinds, conditional endorsements, int-range.
    environment = {0: {1: "ACME"}}
    measurement = {1: {15: cbor.Tag(564, [None, 7])}}
    encoded = cbor.encode(
        {
            1: {0: "t", 1: 3},
            4: {
                2: [[environment, [cbor.Tag(560, b"k")], {0: "mkey", 1: [cbor.Tag(560, b"a")]}]],
                4: [[environment, [environment]]],
                6: [[environment, ["swid", bytes(16)]]],
                10: [[[[environment, [measurement]]], [[environment, [measurement]]]]],
                50: [[environment, [1, True]]],
            },
            -5: {"private": [1.5, None]},
        }
    )
    found = Comid.decode(encoded)
    assert found.encode() == encoded
    assert found.tag_version == 3
    assert found.triples.conditional[0].conditions[0].measurements[0].values.int_range == IntRange(
        None, 7
    )
    assert found.triples.extensions == {50: [[environment, [1, True]]]}
    assert found.extensions == {-5: {"private": [1.5, None]}}
