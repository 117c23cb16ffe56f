# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.appraisal import IDENTITY, NOW, UNCHECKED, corims_of, verifier_of
from support.evidence import simulate
from troth.endorsement.store import EndorsementStore
from troth.errors import (
    ApiMisuseError,
    ConfigurationError,
    DecodeError,
    FreshnessError,
    SignatureError,
    UnsupportedError,
)
from troth.evidence.challenge import derive_challenge
from troth.evidence.simulator import CcaOptions, SimulatedPlatform
from troth.formats.ar4si import TrustTier
from troth.formats.keys import spki
from troth.verifier.conclusion import Judgement, conclude
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import DirectEvaluator, Evaluation
from troth.verifier.result import AssuranceTier
from troth.verifier.verdict_cache import VerdictCache
from troth.verifier.verifier import Verifier

PSA = simulate()
CCA = simulate(CcaOptions())
CHALLENGE = b"c" * 64
KEY = spki(ec.generate_private_key(ec.SECP256R1()).public_key())


@pytest.mark.parametrize("how", ["auto", "name", "media type"])
@pytest.mark.parametrize("chosen", [PSA, CCA], ids=["psa", "cca"])
def test_the_scheme_is_found(chosen: SimulatedPlatform, how: str) -> None:
    given: dict[str, str] = {}
    if how == "name":
        given = {"scheme": chosen.scheme}
    elif how == "media type":
        given = {"media_type": chosen.media_type}
    result = verifier_of(*corims_of(chosen)).appraise(
        chosen.attest(CHALLENGE), now=NOW, challenge=CHALLENGE, **given
    )
    assert result.scheme == chosen.scheme
    assert result.status is TrustTier.AFFIRMING


def test_evidence_of_another_scheme_than_named_is_refused() -> None:
    verifier = verifier_of(*corims_of(PSA))
    with pytest.raises(DecodeError):
        verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE, scheme="cca")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"scheme": "none"}, ConfigurationError),
        ({"media_type": "application/none"}, UnsupportedError),
        ({"media_type": "?"}, DecodeError),
    ],
)
def test_an_unknown_scheme_is_refused(given: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        verifier_of().appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE, **given)


def test_nothing_configured_refuses_everything() -> None:
    verifier = Verifier(identity=IDENTITY, endorsements=EndorsementStore(), allow_simulator=True)
    with pytest.raises(SignatureError, match="no trust anchor"):
        verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)


def test_the_simulator_is_refused_unless_allowed() -> None:
    verifier = verifier_of(*corims_of(PSA), allow_simulator=False)
    with pytest.raises(SignatureError, match="simulator"):
        verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)


def test_another_challenge_is_refused() -> None:
    verifier = verifier_of(*corims_of(PSA))
    with pytest.raises(FreshnessError):
        verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=b"d" * 64)


def test_unchecked_freshness_is_noted_and_changes_nothing() -> None:
    result = verifier_of(*corims_of(PSA)).appraise(
        PSA.attest(CHALLENGE), now=NOW, challenge=UNCHECKED
    )
    assert result.status is TrustTier.AFFIRMING
    notes = {note.claim: note for note in result.notes}
    assert "freshness not checked" in notes["freshness"].actual
    assert notes["freshness"].severity == "note"
    assert result.nonce is None


def test_what_makes_evidence_insecure_is_noted() -> None:
    result = verifier_of(*corims_of(PSA)).appraise(
        PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE
    )
    assert result.insecure == ("platform simulator",)
    assert [note.claim for note in result.notes] == ["insecure"]


def test_a_result_vouches_for_the_key_that_the_challenge_covers() -> None:
    challenge = derive_challenge(b"join", KEY, b"n" * 32, 64)
    result = verifier_of(*corims_of(PSA)).appraise(
        PSA.attest(challenge), now=NOW, challenge=challenge, nonce=b"n" * 32, key=KEY
    )
    assert (result.key, result.nonce) == (KEY, b"n" * 32)


def test_a_key_is_not_vouched_for_on_an_unchecked_challenge() -> None:
    with pytest.raises(ApiMisuseError):
        verifier_of().appraise(PSA.attest(CHALLENGE), now=NOW, challenge=UNCHECKED, key=KEY)


def test_a_time_without_zone_is_a_misuse() -> None:
    with pytest.raises(ApiMisuseError):
        verifier_of().appraise(b"", now=datetime(2026, 1, 1), challenge=UNCHECKED)  # noqa: DTZ001 - the misuse


def test_the_lifetime_is_that_of_the_tier_reached() -> None:
    lifetimes = {
        AssuranceTier.MEASURED: timedelta(hours=1),
        AssuranceTier.REGISTERED: timedelta(minutes=1),
    }
    verifier = verifier_of(*corims_of(PSA), lifetimes=lifetimes)

    def expiry(platform: SimulatedPlatform) -> timedelta | None:
        result = verifier.appraise(
            platform.attest(CHALLENGE),
            now=NOW + timedelta(microseconds=7),
            challenge=CHALLENGE,
        )
        assert result.issued_at == NOW
        return result.expires_at - result.issued_at if result.expires_at else None

    assert expiry(PSA) == timedelta(hours=1)
    debugged = replace(PSA, options=replace(PSA.options, lifecycle=0x4000))
    assert expiry(debugged) == timedelta(minutes=1)
    assert expiry(PSA.with_measurement(0, b"\xee" * 32)) is None


def test_withdrawing_a_reference_value_changes_verdict_and_epoch() -> None:
    store = EndorsementStore()
    for corim in corims_of(PSA):
        store.provision(corim, now=NOW, source="f")
    verifier = verifier_of(endorsements=store, cache=VerdictCache())
    before = verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)
    store.withdraw(before.submods["psa"].matched[0], now=NOW)
    after = verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)
    assert (before.status, after.status) == (TrustTier.AFFIRMING, TrustTier.WARNING)
    assert before.reference_epoch != after.reference_epoch


# --- kept verdicts


def test_equal_claims_are_appraised_once_whatever_their_nonce() -> None:
    cache = VerdictCache()
    verifier = verifier_of(*corims_of(CCA), cache=cache)
    results = [
        verifier.appraise(
            CCA.attest(hashlib.sha512(bytes([n])).digest()),
            now=NOW,
            challenge=hashlib.sha512(bytes([n])).digest(),
        )
        for n in range(3)
    ]
    assert (cache.misses, cache.hits) == (1, 2)
    plain = verifier_of(*corims_of(CCA))
    for n, kept in enumerate(results):
        challenge = hashlib.sha512(bytes([n])).digest()
        fresh = plain.appraise(CCA.attest(challenge), now=NOW, challenge=challenge)
        assert kept.submods == fresh.submods
        assert kept.submods["cca-realm"].claims["cca-realm-challenge"] == challenge.hex()


def test_other_claims_policy_or_freshness_are_appraised_again() -> None:
    cache = VerdictCache()
    verifier = verifier_of(*corims_of(PSA), cache=cache)
    verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)
    changed = PSA.with_measurement(0, b"\xee" * 32)
    assert (
        verifier.appraise(changed.attest(CHALLENGE), now=NOW, challenge=CHALLENGE).status
        is TrustTier.WARNING
    )
    strict = AppraisalPolicy.from_text(
        'package troth.appraisal\nstatus := "contraindicated"\n', name="strict.rego"
    )
    assert (
        replace(verifier, policy=strict)
        .appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)
        .status
        is TrustTier.CONTRAINDICATED
    )
    verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=UNCHECKED)
    assert (cache.misses, cache.hits) == (4, 0)


def test_a_policy_that_looks_at_the_time_is_evaluated_each_time() -> None:
    cache = VerdictCache()
    timed = AppraisalPolicy.from_text(
        'package troth.appraisal\nimport rego.v1\ndefault status := "none"\n'
        f"status := input.status if input.now_ns < {int(NOW.timestamp())}000000000 + 5\n",
        name="timed.rego",
    )
    verifier = verifier_of(*corims_of(PSA), policy=timed, cache=cache)

    def status(now: datetime) -> TrustTier:
        return verifier.appraise(PSA.attest(CHALLENGE), now=now, challenge=CHALLENGE).status

    assert status(NOW) is TrustTier.AFFIRMING
    assert status(NOW + timedelta(seconds=1)) is TrustTier.NONE
    assert len(cache) == 0


def test_a_policy_that_failed_is_evaluated_again() -> None:
    class Recovering:
        def __init__(self) -> None:
            self.asked = 0

        def evaluate(self, *_: object) -> Evaluation:
            self.asked += 1
            if self.asked == 1:
                return Evaluation(failure="took longer than 1 s")
            return Evaluation(value={"status": "affirming"})

    verifier = verifier_of(*corims_of(PSA), cache=VerdictCache(), evaluator=Recovering())
    statuses = [
        verifier.appraise(PSA.attest(CHALLENGE), now=NOW, challenge=CHALLENGE).status
        for _ in range(2)
    ]
    assert statuses == [TrustTier.CONTRAINDICATED, TrustTier.AFFIRMING]


def test_the_cache_is_bounded_and_forgets_the_least_used() -> None:
    cache = VerdictCache(2)
    nothing = conclude(
        (), AppraisalPolicy.default(), DirectEvaluator(), best=AssuranceTier.MEASURED
    )
    some = Judgement(cases=(), best=AssuranceTier.MEASURED, conclusion=nothing)
    for key in (b"a", b"b"):
        cache.put(key, some)
    assert cache.get(b"a") is some
    cache.put(b"c", some)
    assert len(cache) == 2
    assert cache.get(b"b") is None
    assert cache.get(b"a") is some
