# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.appraisal import IDENTITY, store_of
from support.intel import (
    AUTHORITY,
    SGX_COLLATERAL,
    SGX_TIME,
    SGX_UP_TO_DATE,
    enclave,
    of_sgx,
    sgx_quote,
    verify_sgx,
)
from support.vendor_evidence import CHALLENGE, NOW, UNCHECKED
from troth.endorsement.intel_corim import sgx_corim
from troth.errors import ConfigurationError
from troth.evidence import sgx
from troth.evidence.context import Collateral
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.corim.corim import Corim
from troth.formats.corim.measurement import RawValue
from troth.testing.intel_quotes import SimulatedEnclave
from troth.verifier.finding import Finding
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import AssuranceTier, AttestationResult
from troth.verifier.verifier import Verifier

REPORT = sgx.SCHEME.decode(enclave().attest(CHALLENGE)).report
OTHER = b"\xee" * 32
ROOTS = sgx_corim(corim_id="roots", roots=[AUTHORITY.root])


def by_enclave(**changes: Any) -> Corim:
    return sgx_corim(**{"corim_id": "build", "mr_enclave": REPORT.mr_enclave, **changes})


def by_signer(**changes: Any) -> Corim:
    given = {
        "corim_id": "product",
        "mr_signer": REPORT.mr_signer,
        "isv_prod_id": 7,
        "minimum_isv_svn": 5,
    }
    return sgx_corim(**{**given, **changes})


def appraise(
    own: SimulatedEnclave | None = None, *corims: Corim, **attributes: Any
) -> AttestationResult:
    given = {
        "identity": IDENTITY,
        "endorsements": store_of(ROOTS, *corims),
        "collateral": Collateral(SGX_COLLATERAL),
        "allow_simulator": True,
    }
    return Verifier(**{**given, **attributes}).appraise(
        (own or enclave()).attest(CHALLENGE), now=NOW, challenge=CHALLENGE
    )


def vector(result: AttestationResult) -> TrustworthinessVector:
    return result.submods["sgx"].vector


def finding(result: AttestationResult, claim: str) -> Finding:
    found = [each for each in result.findings if each.claim == claim]
    assert len(found) == 1, [each.claim for each in result.findings]
    return found[0]


def with_fields(**fields: bytes) -> SimulatedEnclave:
    return enclave(fields=fields)


@pytest.mark.parametrize("described", [by_enclave(), by_signer()])
def test_a_described_enclave_is_affirmed(described: Corim) -> None:
    result = appraise(None, described)
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.CONFIDENTIAL
    assert vector(result) == TrustworthinessVector(
        instance_identity=2, executables=2, hardware=2, runtime_opaque=2
    )
    assert result.component == "enclave"
    assert result.submods["sgx"].findings == ()


def test_without_reference_values_nothing_is_affirmed() -> None:
    result = appraise()
    assert vector(result).executables == 33
    assert result.status is TrustTier.WARNING
    assert REPORT.mr_signer.hex() in finding(result, "mr_enclave").expected


def test_another_build_is_not_the_described_one() -> None:
    assert vector(appraise(with_fields(mr_enclave=OTHER), by_enclave())).executables == 33


@pytest.mark.parametrize("svn", [5, 6, 65535])
def test_a_product_is_approved_from_its_lowest_version_on(svn: int) -> None:
    own = with_fields(isv_svn=svn.to_bytes(2, "little"), mr_enclave=OTHER)
    assert vector(appraise(own, by_signer())).executables == 2


def test_a_build_with_a_lower_version_is_named() -> None:
    result = appraise(with_fields(isv_svn=b"\4\0"), by_signer())
    assert vector(result).executables == 33
    found = finding(result, "isv_svn")
    assert (found.expected, found.severity) == ("at least 5", "warning")
    assert found.actual.startswith("4")
    assert "Update the enclave" in found.remedy


def test_another_product_of_the_signer_is_named() -> None:
    result = appraise(with_fields(isv_prod_id=b"\x08\0"), by_signer())
    assert vector(result).executables == 33
    finding(result, "isv_prod_id")


def test_another_signer_is_not_described() -> None:
    assert vector(appraise(with_fields(mr_signer=OTHER), by_signer())).executables == 33


def test_a_signer_alone_approves_none_of_its_enclaves() -> None:
    result = appraise(None, by_signer(isv_prod_id=None))
    assert vector(result).executables == 33
    assert "isv_prod_id" in finding(result, "mr_enclave, isv_prod_id").remedy


def test_a_product_without_a_lowest_version_leaves_a_note() -> None:
    result = appraise(None, by_signer(minimum_isv_svn=None))
    assert result.status is TrustTier.AFFIRMING
    assert finding(result, "isv_svn").severity == "note"


def test_a_build_and_its_signer_may_stand_together() -> None:
    both = by_enclave(mr_signer=REPORT.mr_signer)
    assert vector(appraise(None, both)).executables == 2
    assert vector(appraise(with_fields(mr_signer=OTHER), both)).executables == 33


def test_of_several_descriptions_the_one_that_is_met_counts() -> None:
    result = appraise(with_fields(isv_svn=b"\4\0"), by_signer(), by_enclave())
    assert vector(result).executables == 2
    assert result.status is TrustTier.AFFIRMING


def test_an_enclave_in_debug_mode_is_contraindicated() -> None:
    result = appraise(with_fields(attributes=b"\7"), by_enclave())
    assert result.status is TrustTier.CONTRAINDICATED
    assert vector(result).runtime_opaque == 96
    assert vector(result).hardware == 2
    assert "host can read" in finding(result, "attribute_flags.debug").actual


def test_attributes_are_compared_under_their_mask() -> None:
    mask = RawValue(b"\x05" + bytes(15), b"\x07" + bytes(15))
    result = appraise(None, by_enclave(attributes=mask))
    assert vector(result).configuration == 2
    strict = RawValue(b"\x04" + bytes(15), b"\x07" + bytes(15))
    result = appraise(None, by_enclave(attributes=strict))
    assert vector(result).configuration == 32
    finding(result, "attributes")


def test_a_configuration_id_has_to_be_described() -> None:
    own = with_fields(config_id=b"c" * 64)
    assert vector(appraise(own, by_enclave())).configuration == 36
    assert vector(appraise(own, by_enclave(config_id=b"c" * 64))).configuration == 2
    assert vector(appraise(own, by_enclave(config_id=b"d" * 64))).configuration == 32


def test_an_old_platform_is_named_for_enclaves_too() -> None:
    platform = AUTHORITY.platform(cpu_svn=(3, 3, 2, 2, 3, 1, 0, 5))
    result = appraise(enclave(platform=platform), by_enclave())
    assert vector(result).hardware == 96
    assert finding(result, "sgxtcbcomponents[4]").actual == "3"


def test_a_real_enclave_needs_hardening_and_configuration() -> None:
    report = sgx.SCHEME.decode(sgx_quote()).report
    described = sgx_corim(corim_id="real", mr_enclave=report.mr_enclave)
    verifier = Verifier(
        identity=IDENTITY,
        endorsements=store_of(described),
        collateral=Collateral(of_sgx()),
        vendors=frozenset({"intel"}),
    )
    result = verifier.appraise(sgx_quote(), now=SGX_TIME, challenge=UNCHECKED)
    assert result.status is TrustTier.WARNING
    assert vector(result).executables == 2
    assert (vector(result).hardware, vector(result).configuration) == (32, 32)
    assert "INTEL-SA-00289" in finding(result, "tcb_status").actual
    assert finding(result, "sgxtcbcomponents[6]").severity == "warning"


PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "schemes" / "sgx.md"


@pytest.mark.parametrize(
    ("advisory", "status"),
    [("INTEL-SA-00334", TrustTier.AFFIRMING), ("INTEL-SA-09999", TrustTier.WARNING)],
)
def test_the_documented_policy_takes_hardening_for_known_advisories(
    advisory: str, status: TrustTier
) -> None:
    (text,) = re.findall(r"```rego\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    policy = AppraisalPolicy.from_text(text, name="hardening.rego")
    assert policy.lint() == []
    advised = {**SGX_UP_TO_DATE, "tcbStatus": "SWHardeningNeeded", "advisoryIDs": [advisory]}
    collateral = Collateral(AUTHORITY.collateral("SGX", [advised]))
    result = appraise(None, by_enclave(), policy=policy, collateral=collateral)
    assert result.status is status


def test_every_claim_of_an_enclave_is_documented() -> None:
    (claims_set,) = verify_sgx(enclave().attest(CHALLENGE)).claims_sets
    table = PAGE.read_text("utf-8").partition("## Claims")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    of_the_platform = {"fmspc", "ppid", "qvl_objection"}
    own = {
        name
        for name in claims_set.claims
        if name not in of_the_platform and not name.startswith(("tcb_", "collateral_"))
    }
    assert documented == own


def test_a_corim_without_anything_in_it_is_not_made() -> None:
    with pytest.raises(ConfigurationError, match="a measurement or a root"):
        sgx_corim(corim_id="empty", isv_prod_id=7)
