# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.appraisal import NOW, UNCHECKED, corims_of, verifier_of
from support.evidence import simulate
from troth.evidence.challenge import derive_challenge
from troth.evidence.simulator import CcaOptions
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.ear import PROFILES, Dialect, verify_ear
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.verifier.result import AssuranceTier, SubmodResult, assurance_tier
from troth.verifier.verifier import signed

KEY = ec.generate_private_key(ec.SECP256R1())
NODE_KEY = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
PLATFORM = simulate(CcaOptions())


def submod(label: str = "a", **values: int) -> SubmodResult:
    vector = TrustworthinessVector(**values)  # type: ignore[arg-type]
    return SubmodResult(
        label=label, component="node", layer="hardware", status=vector.worst, vector=vector
    )


GOOD = {"instance_identity": 2, "executables": 2, "hardware": 2}


@pytest.mark.parametrize(
    ("submods", "tier"),
    [
        ([], AssuranceTier.REGISTERED),
        ([submod()], AssuranceTier.REGISTERED),
        ([submod(hardware=2)], AssuranceTier.REGISTERED),
        ([submod(instance_identity=2)], AssuranceTier.IDENTIFIED),
        ([submod(instance_identity=2, executables=33, hardware=2)], AssuranceTier.IDENTIFIED),
        ([submod(instance_identity=2, executables=2)], AssuranceTier.IDENTIFIED),
        ([submod(**GOOD)], AssuranceTier.MEASURED),
        ([submod(**GOOD, configuration=3)], AssuranceTier.MEASURED),
        ([submod(**GOOD, configuration=36)], AssuranceTier.IDENTIFIED),
        ([submod(**GOOD, runtime_opaque=2)], AssuranceTier.CONFIDENTIAL),
        ([submod(**GOOD, runtime_opaque=32)], AssuranceTier.MEASURED),
        ([submod(**GOOD, runtime_opaque=96)], AssuranceTier.REGISTERED),
        ([submod(**GOOD), submod("b", executables=3)], AssuranceTier.MEASURED),
        ([submod(**GOOD), submod("b", hardware=2)], AssuranceTier.IDENTIFIED),
        ([submod(**GOOD), submod("b", executables=33)], AssuranceTier.IDENTIFIED),
        (
            [submod(**GOOD), submod("b", executables=2, instance_identity=32)],
            AssuranceTier.REGISTERED,
        ),
        ([submod(instance_identity=0, executables=2, hardware=2)], AssuranceTier.REGISTERED),
    ],
)
def test_the_tier_is_what_all_vectors_show_together(
    submods: list[SubmodResult], tier: AssuranceTier
) -> None:
    assert assurance_tier(submods, best=AssuranceTier.CONFIDENTIAL) is tier


def test_no_tier_is_higher_than_the_scheme_can_show() -> None:
    assert (
        assurance_tier([submod(**GOOD, runtime_opaque=2)], best=AssuranceTier.MEASURED)
        is AssuranceTier.MEASURED
    )


def test_a_contraindicated_part_leaves_only_registered() -> None:
    bad = replace(submod(**GOOD), status=TrustTier.CONTRAINDICATED)
    assert assurance_tier([bad], best=AssuranceTier.CONFIDENTIAL) is AssuranceTier.REGISTERED


def test_a_signed_result_says_everything_to_whoever_verifies_it() -> None:
    nonce = b"n" * 32
    challenge = derive_challenge(b"label", NODE_KEY, nonce, 64)
    verifier = verifier_of(
        *corims_of(PLATFORM), lifetimes={AssuranceTier.CONFIDENTIAL: timedelta(minutes=10)}
    )
    result = verifier.appraise(
        PLATFORM.attest(challenge), now=NOW, challenge=challenge, nonce=nonce, key=NODE_KEY
    )
    token = signed(result, LocalSigner(KEY))
    ear = verify_ear(
        token,
        [VerificationKey(KEY.public_key())],
        now=NOW,
        max_age=timedelta(hours=1),
        leeway=timedelta(0),
        profiles=PROFILES,
        require_key=True,
        require_exp=True,
        nonce=nonce,
    )
    assert ear.overall_status is TrustTier.AFFIRMING
    assert ear.keys == (NODE_KEY,)
    assert ear.submods["cca-realm"].key == NODE_KEY
    assert ear.submods["cca-platform"].key is None
    assert ear.submods["cca-realm"].nonce == challenge
    assert ear.submods["cca-realm"].policy_ids == ("default",)
    assert ear.expires_at == NOW + timedelta(minutes=10)
    assert ear.insecure == ("platform simulator",)
    assert (ear.troth.scheme, ear.troth.tier, ear.troth.component, ear.troth.layer) == (
        "cca",
        "confidential",
        "realm",
        "hardware",
    )
    assert ear.troth.policy_digest == f"sha-256:{verifier.policy.digest}"
    assert ear.troth.epoch == result.reference_epoch
    assert ear.troth.boot_session == result.boot_session
    assert ear.extensions["iss"] == "test-verifier"


def test_findings_travel_in_the_submod_that_they_are_about() -> None:
    changed = PLATFORM.with_measurement(0, b"\xee" * 32)
    result = verifier_of(*corims_of(PLATFORM)).appraise(
        changed.attest(b"c" * 64), now=NOW, challenge=UNCHECKED
    )
    ear = result.to_ear()
    (finding,) = ear.submods["cca-platform"].troth.findings
    assert finding["claim"].startswith("software-components[0]")
    assert {note["claim"] for note in ear.troth.findings} == {"freshness", "insecure"}
    assert len(result.findings) == 3


@pytest.mark.parametrize("annotate", [False, True])
def test_claims_travel_only_when_asked_for(*, annotate: bool) -> None:
    result = verifier_of(*corims_of(PLATFORM)).appraise(
        PLATFORM.attest(b"c" * 64), now=NOW, challenge=UNCHECKED
    )
    extensions = result.to_ear(annotate=annotate).submods["cca-realm"].extensions
    assert ("ear_veraison_annotated_evidence" in extensions) is annotate


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("wire", ["jwt", "cwt"])
def test_a_result_can_be_signed_in_every_dialect_and_encoding(dialect: Dialect, wire: str) -> None:
    result = verifier_of(*corims_of(PLATFORM)).appraise(
        PLATFORM.attest(b"c" * 64), now=NOW, challenge=b"c" * 64
    )
    token = signed(result, LocalSigner(KEY), dialect=dialect, wire=wire)  # type: ignore[arg-type]
    ear = verify_ear(
        token,
        [VerificationKey(KEY.public_key())],
        now=NOW,
        max_age=timedelta(hours=1),
        leeway=timedelta(0),
        profiles=[dialect.value],
        require_key=False,
        require_exp=False,
    )
    assert ear.overall_status is TrustTier.AFFIRMING
