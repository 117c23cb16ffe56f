# SPDX-License-Identifier: Apache-2.0
"""Results in Veraison's words; conformance tests compare whole ones with Veraison's own."""

from __future__ import annotations

import base64
import os

import pytest

from support.appraisal import NOW, corims_of, verifier_of
from troth.errors import SignatureError
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedPlatform
from troth.verifier.result import AttestationResult
from troth.verifier.veraison import SUBMODS, annotated_evidence, troth_label, veraison_ear

NONCE = b"n" * 64
ANNOTATED = "ear_veraison_annotated_evidence"


def result(options: PsaOptions | CcaOptions) -> tuple[SimulatedPlatform, AttestationResult]:
    platform = SimulatedPlatform.create(options, random=os.urandom)
    verifier = verifier_of(*corims_of(platform))
    evidence = platform.attest(NONCE)
    return platform, verifier.appraise(evidence, now=NOW, challenge=NONCE, nonce=NONCE)


@pytest.mark.parametrize(
    ("options", "labels"),
    [(PsaOptions(), {"PSA_IOT"}), (CcaOptions(), {"CCA_SSD_PLATFORM", "CCA_REALM"})],
)
def test_submods_have_veraisons_names_and_the_same_verdicts(
    options: PsaOptions | CcaOptions, labels: set[str]
) -> None:
    _, found = result(options)
    ear = veraison_ear(found)
    assert set(ear.submods) == labels
    ours = found.to_ear()
    for label, submod in ear.submods.items():
        assert submod.status is ours.submods[troth_label(label)].status
        assert submod.vector == ours.submods[troth_label(label)].vector
    assert ear.nonce == NONCE
    assert all(submod.key is None for submod in ear.submods.values())


def test_claims_are_spelled_as_veraison_spells_them() -> None:
    platform, found = result(PsaOptions())
    claims = veraison_ear(found).submods["PSA_IOT"].extensions[ANNOTATED]
    assert isinstance(claims, dict)
    assert base64.b64decode(claims["psa-instance-id"]) == platform.instance_id
    assert base64.b64decode(claims["psa-nonce"]) == NONCE
    component = claims["psa-software-components"][0]
    assert len(base64.b64decode(component["measurement-value"])) in {32, 48, 64}


def test_the_device_is_not_named_where_claims_are_left_out() -> None:
    platform, found = result(CcaOptions())
    text = str(veraison_ear(found, annotate=False).submods)
    assert ANNOTATED not in text
    assert platform.instance_id.hex() not in text


def test_what_veraisons_decoders_do_not_know_is_left_out() -> None:
    assert annotated_evidence("psa", {"nonce": "00", "invented": 1}) == {"psa-nonce": "AA=="}
    assert annotated_evidence("tpm2", {"invented": 1}) == {"invented": 1}


def test_every_name_leads_back() -> None:
    assert len(set(SUBMODS.values())) == len(SUBMODS)
    assert all(troth_label(theirs) == ours for ours, theirs in SUBMODS.items())
    assert troth_label("cpu0") == "cpu0"


def test_a_refusal_has_a_submod_of_the_scheme() -> None:
    verifier = verifier_of()
    failed = verifier.failure(SignatureError("forged"), scheme="cca", now=NOW, nonce=NONCE)
    (label,) = veraison_ear(failed).submods
    assert label == "ARM_CCA"
