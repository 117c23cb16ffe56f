# SPDX-License-Identifier: Apache-2.0
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from troth.errors import DecodeError
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.ear import Ear, EarSubmod, TrothClaims, VerifierId, minimise
from troth.formats.keys import spki

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
AFFIRMING, WARNING = TrustTier.AFFIRMING, TrustTier.WARNING
NONE, CONTRAINDICATED = TrustTier.NONE, TrustTier.CONTRAINDICATED
KEY = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
OTHER_KEY = spki(ed25519.Ed25519PrivateKey.generate().public_key())
VERIFIER = VerifierId("https://troth.example", "troth 0.1")


def ear(**changes: object) -> Ear:
    values = {
        "submods": {"psa": EarSubmod(status=AFFIRMING)},
        "issued_at": NOW,
        "verifier_id": VERIFIER,
    }
    return Ear(**(values | changes))


VECTORS = {
    NONE: TrustworthinessVector(hardware=1),
    AFFIRMING: TrustworthinessVector(hardware=2, executables=3),
    WARNING: TrustworthinessVector(hardware=2, executables=33),
    CONTRAINDICATED: TrustworthinessVector(hardware=2, executables=96),
}


@pytest.mark.parametrize(
    ("status", "worst"),
    [
        (AFFIRMING, WARNING),
        (AFFIRMING, CONTRAINDICATED),
        (WARNING, CONTRAINDICATED),
        (NONE, CONTRAINDICATED),
    ],
)
def test_a_status_better_than_its_vector_is_refused(status: TrustTier, worst: TrustTier) -> None:
    with pytest.raises(DecodeError, match="better than the worst claim"):
        EarSubmod(status=status, vector=VECTORS[worst])
    EarSubmod(status=worst, vector=VECTORS[worst])


@pytest.mark.parametrize(
    ("status", "worst"),
    [
        (CONTRAINDICATED, AFFIRMING),
        (WARNING, AFFIRMING),
        (NONE, AFFIRMING),
        (NONE, WARNING),
        (AFFIRMING, NONE),  # claims of tier none are no claims
        (AFFIRMING, AFFIRMING),
    ],
)
def test_a_status_may_be_worse_than_its_vector(status: TrustTier, worst: TrustTier) -> None:
    assert EarSubmod(status=status, vector=VECTORS[worst]).status is status


@pytest.mark.parametrize(
    ("top", "submods"),
    [
        (AFFIRMING, [AFFIRMING, WARNING]),
        (AFFIRMING, [AFFIRMING, NONE]),
        (WARNING, [WARNING, NONE]),
        (NONE, [CONTRAINDICATED]),
    ],
)
def test_a_whole_better_than_a_part_is_refused(top: TrustTier, submods: list[TrustTier]) -> None:
    parts = {str(at): EarSubmod(status=status) for at, status in enumerate(submods)}
    with pytest.raises(DecodeError, match="better than that of a submod"):
        ear(status=top, submods=parts)
    worst = TrustTier.least_trusted(submods)
    assert ear(status=worst, submods=parts).overall_status is worst
    assert ear(submods=parts).overall_status is worst


def test_the_overall_status_counts_a_top_level_that_is_worse_than_every_part() -> None:
    assert ear(status=CONTRAINDICATED).overall_status is CONTRAINDICATED
    assert ear().overall_status is AFFIRMING


def test_a_result_about_nothing_is_refused() -> None:
    with pytest.raises(DecodeError, match="nothing was appraised"):
        ear(submods={})


@pytest.mark.parametrize("size", [0, 7, 65])
def test_a_nonce_has_8_to_64_octets(size: int) -> None:
    for at in (8, 64):
        ear(nonce=b"n" * at)
    with pytest.raises(DecodeError, match="nonce"):
        ear(nonce=b"n" * size)
    with pytest.raises(DecodeError, match="nonce"):
        EarSubmod(status=AFFIRMING, nonce=b"n" * size)


@pytest.mark.parametrize("name", ["issued_at", "expires_at", "not_before"])
def test_times_are_whole_seconds_with_a_zone(name: str) -> None:
    ear(**{name: NOW.astimezone(timezone(timedelta(hours=1)))})
    for time in (NOW.replace(tzinfo=None), NOW.replace(microsecond=1)):
        with pytest.raises(DecodeError, match="whole seconds"):
            ear(**{name: time})


@pytest.mark.parametrize(
    "key",
    [b"", b"\x30\x00", KEY[:-1], KEY + b"\x00", KEY[:30], KEY[:26] + b"\x04" + b"\x01" * 64],
    ids=["empty", "empty sequence", "cut", "trailing octet", "half", "point off the curve"],
)
def test_a_key_is_exactly_one_subject_public_key_info(key: bytes) -> None:
    EarSubmod(status=AFFIRMING, key=KEY)
    with pytest.raises(DecodeError, match="akpub"):
        EarSubmod(status=AFFIRMING, key=key)


def test_a_key_has_one_spelling() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    compressed = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(DecodeError, match="akpub"):
        EarSubmod(status=AFFIRMING, key=prefix + compressed)


def test_keys_are_collected_without_repetition() -> None:
    parts = {
        "platform": EarSubmod(status=AFFIRMING),
        "realm": EarSubmod(status=AFFIRMING, key=KEY),
        "again": EarSubmod(status=AFFIRMING, key=KEY),
    }
    assert ear(submods=parts).keys == (KEY,)
    parts["other"] = EarSubmod(status=AFFIRMING, key=OTHER_KEY)
    assert ear(submods=parts).keys == (KEY, OTHER_KEY)
    assert ear().keys == ()


def test_reasons_against_production_are_collected_from_every_place() -> None:
    result = ear(
        troth=TrothClaims(insecure=["simulator"]),
        submods={
            "a": EarSubmod(status=AFFIRMING, troth=TrothClaims(insecure=["test key", "simulator"]))
        },
    )
    assert result.insecure == ("simulator", "test key")
    assert ear().insecure == ()


def test_values_are_frozen() -> None:
    result = ear()
    with pytest.raises(FrozenInstanceError):
        result.status = AFFIRMING
    with pytest.raises(TypeError):
        result.submods["x"] = EarSubmod(status=AFFIRMING)


def test_minimising_keeps_what_decides_and_drops_what_tells() -> None:
    full = ear(
        status=AFFIRMING,
        expires_at=NOW + timedelta(hours=1),
        nonce=b"12345678",
        raw_evidence=b"evidence",
        troth=TrothClaims(tier="measured", boot_session=b"\x01", insecure=["simulator"]),
        extensions={"jti": "1"},
        submods={
            "psa": EarSubmod(
                status=AFFIRMING,
                vector=VECTORS[AFFIRMING],
                policy_ids=["p"],
                profile="tag:example,2026:x",
                nonce=b"87654321",
                key=KEY,
                troth=TrothClaims(
                    scheme="psa",
                    policy_digest="sha-256:00",
                    epoch="7",
                    boot_session=b"\x02",
                    findings=[{"claim": "x"}],
                ),
                extensions={"ear_veraison_annotated_evidence": {"ueid": "…"}},
            )
        },
    )
    expected = ear(
        status=AFFIRMING,
        expires_at=NOW + timedelta(hours=1),
        troth=TrothClaims(tier="measured", insecure=["simulator"]),
        submods={
            "psa": EarSubmod(
                status=AFFIRMING,
                vector=VECTORS[AFFIRMING],
                policy_ids=["p"],
                key=KEY,
                troth=TrothClaims(scheme="psa", policy_digest="sha-256:00", epoch="7"),
            )
        },
    )
    assert minimise(full) == expected
    assert minimise(expected) == expected


def test_the_name_of_the_verifier_stays_because_policies_speak_of_it() -> None:
    named = ear(extensions={"iss": "site-7", "aud": "somebody"})
    assert dict(minimise(named).extensions) == {"iss": "site-7"}


def test_changing_a_copy_checks_the_rules_again() -> None:
    with pytest.raises(DecodeError):
        replace(ear(), submods={})
