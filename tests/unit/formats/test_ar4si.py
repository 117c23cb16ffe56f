# SPDX-License-Identifier: Apache-2.0
import pytest

from troth.errors import DecodeError
from troth.formats.ar4si import CLAIM_NAMES, TrustTier, TrustworthinessVector, tier_of
from troth.formats.ar4si_values import CLAIM_VALUES, COMMON_VALUES, describe


def test_every_eight_bit_value_lies_in_the_tier_of_the_draft() -> None:
    expected = {
        **dict.fromkeys((-1, 0, 1), TrustTier.NONE),
        **dict.fromkeys((*range(2, 32), *range(-32, -1)), TrustTier.AFFIRMING),
        **dict.fromkeys((*range(32, 96), *range(-96, -32)), TrustTier.WARNING),
        **dict.fromkeys((*range(96, 128), *range(-128, -96)), TrustTier.CONTRAINDICATED),
    }
    assert {value: tier_of(value) for value in range(-128, 128)} == expected


def test_tiers_are_ordered_by_alarm() -> None:
    assert sorted(TrustTier, reverse=True) == [
        TrustTier.CONTRAINDICATED,
        TrustTier.WARNING,
        TrustTier.AFFIRMING,
        TrustTier.NONE,
    ]


def test_none_is_trusted_less_than_a_warning_and_more_than_nothing_but_a_contraindication() -> None:
    by_trust = [
        TrustTier.AFFIRMING,
        TrustTier.WARNING,
        TrustTier.NONE,
        TrustTier.CONTRAINDICATED,
    ]
    for better, tier in enumerate(by_trust):
        for worse, other in enumerate(by_trust):
            assert tier.is_better_than(other) == (better < worse)


def test_the_least_trusted_of_nothing_is_none() -> None:
    assert TrustTier.least_trusted([]) is TrustTier.NONE
    assert TrustTier.least_trusted([TrustTier.AFFIRMING, TrustTier.NONE]) is TrustTier.NONE


def test_a_tier_has_one_word_and_one_number() -> None:
    for tier, word, number in zip(
        TrustTier, ["none", "affirming", "warning", "contraindicated"], [0, 2, 32, 96], strict=True
    ):
        assert tier.word == word
        assert TrustTier.from_word(word) is tier
        assert TrustTier.from_number(number) is tier


@pytest.mark.parametrize("word", ["Affirming", "affirming ", "", None, 2, "ok", ["none"]])
def test_another_word_is_no_tier(word: object) -> None:
    with pytest.raises(DecodeError):
        TrustTier.from_word(word)


@pytest.mark.parametrize("number", [1, 3, -2, 2.0, True, "2", None, 97])
def test_another_number_is_no_tier(number: object) -> None:
    with pytest.raises(DecodeError):
        TrustTier.from_number(number)


def test_a_vector_is_as_bad_as_its_worst_claim() -> None:
    assert TrustworthinessVector().worst is TrustTier.NONE
    assert TrustworthinessVector(hardware=2, executables=3).worst is TrustTier.AFFIRMING
    assert TrustworthinessVector(hardware=2, executables=33).worst is TrustTier.WARNING
    assert TrustworthinessVector(hardware=96, executables=33).worst is TrustTier.CONTRAINDICATED
    assert TrustworthinessVector(hardware=2, others={"x": -100}).worst is TrustTier.CONTRAINDICATED
    assert TrustworthinessVector(hardware=-1, executables=1).worst is TrustTier.NONE


def test_claims_have_the_drafts_names_and_keys() -> None:
    assert list(CLAIM_NAMES) == [
        "instance-identity",
        "configuration",
        "executables",
        "file-system",
        "hardware",
        "runtime-opaque",
        "storage-opaque",
        "sourced-data",
    ]
    vector = TrustworthinessVector(instance_identity=2, sourced_data=-128, others={"new": 5, 9: 1})
    assert vector.to_cbor() == {0: 2, 7: -128, "new": 5, 9: 1}
    assert TrustworthinessVector.from_cbor(vector.to_cbor()) == vector
    named = TrustworthinessVector(file_system=0, others={"new": 5})
    assert named.to_json() == {"file-system": 0, "new": 5}
    assert TrustworthinessVector.from_json(named.to_json()) == named


def test_zero_is_kept_apart_from_no_claim_but_weighs_the_same() -> None:
    assert TrustworthinessVector.from_json({"hardware": 0}).to_json() == {"hardware": 0}
    assert TrustworthinessVector.from_json({}).to_json() == {}


def test_a_claim_without_a_json_name_is_not_written_as_json() -> None:
    with pytest.raises(DecodeError, match="no JSON name"):
        TrustworthinessVector(others={9: 1}).to_json()


@pytest.mark.parametrize("value", [128, -129, 2.0, True, "2", None, [2]])
def test_a_claim_is_one_signed_octet(value: object) -> None:
    with pytest.raises(DecodeError):
        TrustworthinessVector.from_json({"hardware": value})
    with pytest.raises(DecodeError):
        TrustworthinessVector.from_json({"unknown": value})


@pytest.mark.parametrize("value", [None, [], "x", {b"hardware": 2}])
def test_a_vector_is_a_map_of_labels(value: object) -> None:
    with pytest.raises(DecodeError):
        TrustworthinessVector.from_cbor(value)


def test_a_standard_claim_cannot_hide_among_the_others() -> None:
    for label in ("hardware", 4):
        with pytest.raises(DecodeError, match="standard"):
            TrustworthinessVector(hardware=2, others={label: 96})


def test_the_json_name_is_not_a_cbor_label_nor_the_other_way_round() -> None:
    with pytest.raises(DecodeError, match="standard"):
        TrustworthinessVector.from_cbor({"hardware": 2})
    with pytest.raises(DecodeError, match="standard"):
        TrustworthinessVector.from_json({4: 2})


def test_the_registry_covers_every_claim_and_each_value_sits_in_its_tier() -> None:
    assert list(CLAIM_VALUES) == list(CLAIM_NAMES)
    expected = {
        "instance-identity": [2, 96, 97],
        "configuration": [2, 3, 32, 36, 96],
        "executables": [2, 3, 32, 33, 96],
        "file-system": [2, 32, 96],
        "hardware": [2, 32, 96, 97],
        "runtime-opaque": [2, 32, 96],
        "storage-opaque": [2, 32, 96],
        "sourced-data": [2, 32, 96],
    }
    assert {name: list(values) for name, values in CLAIM_VALUES.items()} == expected
    assert list(COMMON_VALUES) == [-1, 0, 1, 99]
    for values in (*CLAIM_VALUES.values(), COMMON_VALUES):
        for number, value in values.items():
            assert value.value == number
            assert value.tier is tier_of(number)
            assert value.tag.isidentifier()
            assert value.short
            assert value.long.endswith(".")


def test_tags_are_unique_within_a_claim() -> None:
    for values in CLAIM_VALUES.values():
        tags = [value.tag for value in (*values.values(), *COMMON_VALUES.values())]
        assert len(set(tags)) == len(tags)


def test_a_value_is_described_even_where_the_draft_does_not_know_it() -> None:
    assert describe("hardware", 97).tag == "unrecognized_hw"
    assert describe("hardware", 99).tag == "crypto_failed"
    assert describe("unknown", 99).tag == "crypto_failed"
    assert describe("hardware", -100).short == "contraindicated, reason -100"
