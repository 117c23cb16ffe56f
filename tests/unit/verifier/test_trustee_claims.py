# SPDX-License-Identifier: Apache-2.0
"""Claims of SGX and TDX as Trustee's own parser gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.appraisal import IDENTITY, store_of
from support.intel import AUTHORITY, COLLATERAL, enclave, trust_domain, verify_sgx, verify_tdx
from support.vectors import vectors
from support.vendor_evidence import CHALLENGE, NOW
from troth.endorsement.intel_corim import tdx_corim
from troth.evidence import tdx
from troth.evidence.context import Collateral
from troth.formats.ar4si import TrustTier
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import AttestationResult
from troth.verifier.trustee_claims import TRUSTEE_SHAPES
from troth.verifier.verifier import Verifier

# The shape of Trustee's own default policy, in words of our own.
POLICY = """package policy
import rego.v1
default executables := 33
default hardware := 97
trust_claims := {"executables": executables, "hardware": hardware}
executables := 4 if {
	input.tdx.quote.body.rtmr_1 in query_reference_value("rtmr_1")
	input.tdx.quote.body.rtmr_2 in query_reference_value("rtmr_2")
}
hardware := 2 if {
	input.tdx.quote.header.tee_type == "81000000"
	input.tdx.quote.header.vendor_id == "939a7233f79c4ca9940a0db3957f0607"
	input.tdx.quote.body.mr_td in query_reference_value("mr_td")
	input.tdx.tcb_status == "UpToDate"
	input.tdx.collateral_expiration_status == "0"
	input.tdx.td_attributes.debug == false
}
"""
REPORT = tdx.SCHEME.decode(trust_domain().attest(CHALLENGE)).report


def appraise(**fields: bytes) -> AttestationResult:
    reference = {
        "mr_td": [REPORT.mr_td.hex()],
        "rtmr_1": [REPORT.rtmr1.hex()],
        "rtmr_2": [REPORT.rtmr2.hex()],
    }
    verifier = Verifier(
        identity=IDENTITY,
        endorsements=store_of(tdx_corim(corim_id="roots", roots=[AUTHORITY.root])),
        policy=AppraisalPolicy.from_text(POLICY, name="trustee.rego", reference=reference),
        collateral=Collateral(COLLATERAL),
        allow_simulator=True,
    )
    quote = trust_domain(fields=fields).attest(CHALLENGE)
    return verifier.appraise(quote, now=NOW, challenge=CHALLENGE)


def test_a_trust_domain_meets_a_policy_written_for_trustee() -> None:
    result = appraise()
    assert result.status is TrustTier.AFFIRMING
    assert result.submods["tdx"].vector.executables == 4


@pytest.mark.parametrize(
    ("fields", "claim"),
    [
        ({"rtmr1": b"x" * 48}, "executables"),
        ({"mr_td": b"x" * 48}, "hardware"),
        ({"td_attributes": b"\1\0\0\x10"}, "hardware"),
        ({"tee_tcb_svn": bytes([6, 1, 2])}, "hardware"),
    ],
)
def test_a_trust_domain_that_differs_does_not(fields: dict[str, bytes], claim: str) -> None:
    result = appraise(**fields)
    assert result.status is not TrustTier.AFFIRMING
    assert getattr(result.submods["tdx"].vector, claim) in {33, 97}


def test_the_shape_is_that_of_trustees_parser() -> None:
    folder = vectors("tdx") / "trustee"
    expected = json.loads((folder / "parse_tdx_claims_expected.json").read_text())
    report = tdx.SCHEME.decode((folder / "tdx_quote_4.dat").read_bytes()).report
    claims = {"quote_version": 4, **report.to_json(), "tcb_status": "UpToDate"}
    found: Any = TRUSTEE_SHAPES["tdx"](claims)
    assert found["quote"]["body"] == expected["quote"]["body"]
    assert found["td_attributes"] == expected["td_attributes"]
    for name in ("version", "att_key_type", "tee_type", "vendor_id"):
        assert found["quote"]["header"][name] == expected["quote"]["header"][name]
    for name in ("report_data", "init_data"):
        assert found[name] == expected[name]


def test_an_enclaves_numbers_are_written_as_trustee_writes_them() -> None:
    claims = verify_sgx(enclave().attest(CHALLENGE)).claims_sets[0].claims
    found: Any = TRUSTEE_SHAPES["sgx"](claims)
    assert found["header"]["version"] == "0300"
    assert found["body"]["isv_prod_id"] == "0700"
    assert found["body"]["isv_svn"] == "0500"
    assert found["body"]["attributes.flags"] == "0500000000000000"
    assert found["body"]["attributes.xfrm"] == "e700000000000000"
    assert found["body"]["mr_signer"] == claims["mr_signer"]
    assert found["tcb_status"] == "UpToDate"


def test_stale_collateral_shows_in_trustees_words() -> None:
    claims = verify_tdx(trust_domain().attest(CHALLENGE)).claims_sets[0].claims
    shape = TRUSTEE_SHAPES["tdx"]
    assert shape(claims)["collateral_expiration_status"] == "0"
    stale = {**claims, "collateral_stale": ["the TCB info"]}
    assert shape(stale)["collateral_expiration_status"] == "1"
