# SPDX-License-Identifier: Apache-2.0
"""Other projects' Verifiers in place of ours: what is believed of them, and what is not."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.fake_services import GOOD, FakeTrustee, FakeVeraison, in_thread, served
from support.verifier_world import verifier_world
from troth.adapters.remote_verifiers.remote_verifier import AttestationService, RemoteVerifier
from troth.adapters.remote_verifiers.trustee import TrusteeService
from troth.adapters.remote_verifiers.veraison import VeraisonService
from troth.errors import (
    FreshnessError,
    SignatureError,
    TrothError,
    UnavailableError,
    UnsupportedError,
    VerificationError,
)
from troth.evidence.challenge import derive_challenge
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedPlatform
from troth.formats.ar4si import TrustTier
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.mesh.join_messages import JOIN_LABEL
from troth.verifier.result import AssuranceTier, AttestationResult, VerifierIdentity

HOUR = timedelta(hours=1)
SPKI = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
PSA = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
CCA = SimulatedPlatform.create(CcaOptions(), random=os.urandom)
ALL_99 = dict.fromkeys(
    (*GOOD, "configuration", "file-system", "sourced-data"),
    99,
)


def remote(service: AttestationService, *keys: LocalSigner, **options: Any) -> RemoteVerifier:
    given: dict[str, Any] = {
        "keys": [VerificationKey(each.public_key, key_id=each.key_id) for each in keys],
        "discover": False,
        "identity": VerifierIdentity(developer="us", build="1", name="ours"),
        "lifetimes": dict.fromkeys(AssuranceTier, HOUR),
        "lifetime_without_exp": HOUR,
        "allow_simulator": True,
    }
    return RemoteVerifier(service, **{**given, **options})


def veraison(url: str) -> VeraisonService:
    return VeraisonService(url, tls=None, timeout_seconds=5)


def trustee(url: str, **options: Any) -> TrusteeService:
    return TrusteeService(url, tls=None, timeout_seconds=5, **options)


async def appraise(
    verifier: RemoteVerifier, platform: SimulatedPlatform, **options: Any
) -> AttestationResult:
    challenge = derive_challenge(JOIN_LABEL, SPKI, b"n" * 32, platform.challenge_size)
    given: dict[str, Any] = {
        "evidence": platform.attest(challenge),
        "now": datetime.now(UTC),
        "challenge": challenge,
        "media_type": platform.media_type,
        "nonce": b"n" * 32,
        "key": SPKI,
    }
    try:
        found: AttestationResult = await in_thread(
            lambda: verifier.appraise(**{**given, **options})
        )
    finally:
        verifier.close()
    return found


async def test_veraisons_verdict_becomes_a_result_of_ours_that_names_the_key() -> None:
    fake = FakeVeraison()
    async with served(fake.app()) as url:
        result = await appraise(remote(veraison(url), fake.signer), PSA)
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.MEASURED
    assert result.key == SPKI
    assert result.nonce == b"n" * 32
    assert result.instance_id == PSA.instance_id
    assert result.submods["psa"].claims["instance-id"] == PSA.instance_id.hex()
    assert result.verifier.name == "ours"
    assert "https://foreign.example" in result.notes[0].actual
    assert result.insecure == ("platform simulator",)
    assert result.to_ear().submods["psa"].key == SPKI
    (submitted,) = fake.submitted
    assert submitted["media_type"] == PSA.media_type
    assert fake.deleted == list(fake.sessions)


async def test_the_session_is_polled_while_the_service_thinks() -> None:
    fake = FakeVeraison()
    fake.polls = 3
    async with served(fake.app()) as url:
        result = await appraise(remote(veraison(url), fake.signer), PSA)
    assert result.status is TrustTier.AFFIRMING


async def test_trustees_one_verdict_is_about_every_part_of_the_evidence() -> None:
    fake = FakeTrustee()
    async with served(fake.app()) as url:
        service = trustee(url, policies=["default"])
        result = await appraise(remote(service, fake.signer), CCA)
    assert list(result.submods) == ["cca-platform", "cca-realm"]
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.CONFIDENTIAL
    assert result.submods["cca-realm"].claims["cca-realm-initial-measurement"]
    (submitted,) = fake.submitted
    assert submitted["tee"] == "cca"
    assert submitted["policy_ids"] == ["default"]
    assert submitted["raw"] == derive_challenge(JOIN_LABEL, SPKI, b"n" * 32, 64)


async def test_a_verdict_that_does_not_affirm_stays_one_and_says_by_whom() -> None:
    fake = FakeVeraison()
    fake.vectors = {"PSA_IOT": {**GOOD, "executables": 33}}
    async with served(fake.app()) as url:
        result = await appraise(remote(veraison(url), fake.signer), PSA)
    assert result.status is TrustTier.WARNING
    (finding,) = result.submods["psa"].findings
    assert finding.claim == "executables"
    assert url in finding.rule


@pytest.mark.parametrize(
    ("vector", "error"),
    [
        (ALL_99, VerificationError),
        (dict.fromkeys(ALL_99, 1), UnsupportedError),
        (dict.fromkeys(ALL_99, -1), UnavailableError),
    ],
)
async def test_what_was_not_appraised_is_refused_as_what_it_stands_for(
    vector: dict[str, int], error: type[TrothError]
) -> None:
    fake = FakeVeraison()
    fake.vectors = {"PSA_IOT": vector}
    fake.extensions = {"ear_veraison_policy_claims": {"problem": "no trust anchor for evidence"}}
    async with served(fake.app()) as url:
        with pytest.raises(error, match="no trust anchor"):
            await appraise(remote(veraison(url), fake.signer), PSA)


async def test_a_vector_of_nones_is_no_yes() -> None:
    fake = FakeVeraison()
    fake.vectors = {"PSA_IOT": {}}
    async with served(fake.app()) as url:
        result = await appraise(remote(veraison(url), fake.signer), PSA)
    assert result.status is TrustTier.NONE
    assert result.tier is AssuranceTier.REGISTERED


async def test_another_keys_signature_is_refused() -> None:
    fake, stranger = FakeVeraison(), FakeVeraison()
    async with served(fake.app()) as url:
        with pytest.raises(UnavailableError, match=r"cannot be believed: .*signature"):
            await appraise(remote(veraison(url), stranger.signer), PSA)
        with pytest.raises(UnavailableError, match="no key is known"):
            await appraise(remote(veraison(url)), PSA)


async def test_discovered_keys_are_believed_only_where_that_is_configured() -> None:
    fake, stranger = FakeVeraison(), FakeVeraison()
    async with served(fake.app()) as url:
        found = await appraise(remote(veraison(url), discover=True), PSA)
        assert found.status is TrustTier.AFFIRMING
        # A key that rotated since is asked for; the configured one stays.
        rotated = remote(veraison(url), stranger.signer, discover=True)
        assert (await appraise(rotated, PSA)).status is TrustTier.AFFIRMING
    other = FakeTrustee()
    async with served(other.app()) as url:
        found = await appraise(remote(trustee(url), discover=True), CCA)
        assert found.status is TrustTier.AFFIRMING


async def test_a_result_about_another_challenge_or_device_is_refused() -> None:
    fake = FakeVeraison()
    fake.nonce = b"x" * 32
    async with served(fake.app()) as url:
        with pytest.raises(UnavailableError, match="another challenge"):
            await appraise(remote(veraison(url), fake.signer), PSA)
        fake.nonce = derive_challenge(JOIN_LABEL, SPKI, b"n" * 32, PSA.challenge_size)
        assert await appraise(remote(veraison(url), fake.signer), PSA)
        fake.extensions = {"ear_veraison_annotated_evidence": {"psa-instance-id": "AAAA"}}
        with pytest.raises(UnavailableError, match="psa-instance-id"):
            await appraise(remote(veraison(url), fake.signer), PSA)


async def test_evidence_for_another_key_is_refused_before_anybody_is_asked() -> None:
    fake = FakeVeraison()
    other = derive_challenge(JOIN_LABEL, SPKI + b"x", b"n" * 32, PSA.challenge_size)
    async with served(fake.app()) as url:
        with pytest.raises(FreshnessError):
            await appraise(remote(veraison(url), fake.signer), PSA, evidence=PSA.attest(other))
    assert fake.submitted == []


async def test_the_simulator_is_refused_here_whatever_they_say() -> None:
    fake = FakeVeraison()
    async with served(fake.app()) as url:
        with pytest.raises(SignatureError, match="simulator"):
            await appraise(remote(veraison(url), fake.signer, allow_simulator=False), PSA)
    assert fake.submitted == []


@pytest.mark.parametrize("age", [timedelta(minutes=10), -timedelta(minutes=10)])
async def test_an_old_result_and_one_of_tomorrow_are_refused(age: timedelta) -> None:
    fake = FakeVeraison()
    fake.issued -= age
    async with served(fake.app()) as url:
        with pytest.raises(UnavailableError, match="cannot be believed: EAR: issued"):
            await appraise(remote(veraison(url), fake.signer), PSA)


async def test_a_result_ends_at_the_earliest_of_its_limits() -> None:
    fake = FakeVeraison()
    async with served(fake.app()) as url:
        never = await appraise(remote(veraison(url), fake.signer, lifetime_without_exp=None), PSA)
        assert never.expires_at is None
        short = remote(veraison(url), fake.signer, lifetime_without_exp=timedelta(minutes=2))
        found = await appraise(short, PSA)
        assert found.expires_at == found.issued_at + timedelta(minutes=2)
        fake.lifetime = timedelta(minutes=7)
        found = await appraise(remote(veraison(url), fake.signer), PSA)
        assert found.expires_at == fake.issued + timedelta(minutes=7)
        fake.lifetime = timedelta(days=7)
        found = await appraise(remote(veraison(url), fake.signer), PSA)
        assert found.expires_at == found.issued_at + HOUR


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, UnavailableError),
        (503, UnavailableError),
        (404, UnavailableError),
        (415, UnsupportedError),
    ],
)
async def test_veraisons_problems_are_told_apart(status: int, error: type[TrothError]) -> None:
    fake = FakeVeraison()
    fake.fail_with = status
    async with served(fake.app()) as url:
        with pytest.raises(error, match="on purpose"):
            await appraise(remote(veraison(url), fake.signer), PSA)


async def test_a_failed_session_is_no_verdict() -> None:
    fake = FakeVeraison()
    fake.status = "failed"
    async with served(fake.app()) as url:
        with pytest.raises(UnavailableError, match="could not appraise"):
            await appraise(remote(veraison(url), fake.signer), PSA)


async def test_a_session_at_another_service_gets_no_evidence() -> None:
    fake = FakeVeraison()
    fake.location = lambda identifier: f"http://elsewhere.example/session/{identifier}"
    async with served(fake.app()) as url:
        with pytest.raises(UnavailableError, match="another service"):
            await appraise(remote(veraison(url), fake.signer), PSA)
    assert fake.submitted == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Verifier evaluate failed: bad signature", SignatureError),
        ("Get Reference Value from RVPS timeout", UnavailableError),
    ],
)
async def test_trustees_errors_are_told_apart(text: str, error: type[TrothError]) -> None:
    fake = FakeTrustee()
    fake.refuse = text
    async with served(fake.app()) as url:
        with pytest.raises(error, match=text):
            await appraise(remote(trustee(url), fake.signer), CCA)


async def test_trustee_is_not_sent_what_it_has_no_verifier_for() -> None:
    fake = FakeTrustee()
    async with served(fake.app()) as url:
        with pytest.raises(TrothError):
            await appraise(remote(trustee(url), fake.signer), PSA)
    assert fake.submitted == []


async def test_a_service_that_is_down_tells_nothing_about_the_device() -> None:
    fake = FakeVeraison()
    async with served(fake.app()) as url:
        pass
    with pytest.raises(UnavailableError):
        await appraise(remote(veraison(url), fake.signer), PSA)


@pytest.mark.parametrize("platform", [PSA, CCA], ids=["psa", "cca"])
async def test_our_own_verifier_does_as_a_remote_one(platform: SimulatedPlatform) -> None:
    async with verifier_world() as world:
        world.endorse(platform)
        async with world.serve() as running:
            signer = running.parts.keys.signer(datetime.now(UTC))
            result = await appraise(remote(veraison(running.url), signer), platform)
            assert result.status is TrustTier.AFFIRMING
            assert result.key == SPKI
            assert result.insecure == ("platform simulator",)
            stranger = SimulatedPlatform.create(PsaOptions(model="other"), random=os.urandom)
            with pytest.raises(VerificationError, match="not authentic"):
                await appraise(remote(veraison(running.url), signer), stranger)
