# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from support.intel import (
    AUTHORITY,
    SGX_TIME,
    SGX_UP_TO_DATE,
    enclave,
    of_sgx,
    sgx_quote,
    trust_domain,
    verify_sgx,
)
from support.vendor_evidence import CHALLENGE, UNCHECKED
from troth.errors import (
    ChainError,
    CollateralError,
    DecodeError,
    FreshnessError,
    SignatureError,
    UnsupportedError,
    VerificationError,
)
from troth.evidence import sgx
from troth.evidence.evidence import NonceMatched
from troth.evidence.intel.tcb import TcbStatus
from troth.evidence.intel.verification import VerifiedQuote
from troth.evidence.registry import by_media_type, detect

QUOTE = enclave().attest(CHALLENGE)
REAL: dict[str, Any] = {
    "roots": (),
    "vendors": ("intel",),
    "challenge": UNCHECKED,
    "now": SGX_TIME,
    "allow_simulator": False,
}


def verify_real(data: bytes, **changes: Any) -> VerifiedQuote[Any]:
    return verify_sgx(data, **{"collateral": of_sgx(), **REAL, **changes})


def test_a_quote_of_a_good_enclave_verifies() -> None:
    verified = verify_sgx(QUOTE)
    assert verified.freshness == NonceMatched(CHALLENGE)
    assert verified.platform.status is TcbStatus.UP_TO_DATE
    claims = verified.claims_sets[0].claims
    assert (verified.claims_sets[0].label, verified.claims_sets[0].component) == ("sgx", "enclave")
    assert claims["tee_type"] == "sgx"
    assert claims["isv_prod_id"] == 7
    assert claims["isv_svn"] == 5
    assert claims["mr_enclave"] == verified.implementation_id.hex()
    json.dumps(claims)


def test_a_platform_certified_by_the_processor_ca_has_its_own_list() -> None:
    platform = AUTHORITY.platform(authority="processor")
    quote = enclave(platform=platform).attest(CHALLENGE)
    collateral = AUTHORITY.collateral("SGX", [SGX_UP_TO_DATE], authority="processor")
    verify_sgx(quote, collateral=collateral)
    with pytest.raises(CollateralError, match="revocation list of the processor CA") as caught:
        verify_sgx(quote)
    assert caught.value.wanted["ca"] == "processor"


@pytest.mark.parametrize("expected", [bytes(64), CHALLENGE[:32], CHALLENGE[:-1] + b"\0"])
def test_another_challenge_is_refused(expected: bytes) -> None:
    with pytest.raises(FreshnessError, match="report_data"):
        verify_sgx(QUOTE, challenge=expected)


def test_no_octet_of_a_quote_can_be_changed() -> None:
    root = QUOTE.rindex(b"-----BEGIN CERTIFICATE-----")
    for at in range(0, root, 13):
        changed = bytearray(QUOTE)
        changed[at] ^= 1 << at % 8
        with pytest.raises((VerificationError, DecodeError)):
            verify_sgx(bytes(changed))


def test_an_enclave_in_debug_mode_is_left_to_appraisal() -> None:
    verified = verify_sgx(enclave(fields={"attributes": b"\7"}).attest(CHALLENGE))
    assert verified.platform.objection == "Debug mode is enabled"
    assert verified.evidence.report.flags["debug"] is True


def test_the_quoting_enclave_of_tdx_does_not_serve_sgx() -> None:
    with pytest.raises(SignatureError, match="QE ISVPRODID"):
        verify_sgx(enclave(qe={"isv_prod_id": b"\2\0"}).attest(CHALLENGE))


def test_instances_are_told_apart_by_platform_and_product() -> None:
    def instance(**fields: bytes) -> bytes:
        return verify_sgx(enclave(fields=fields).attest(CHALLENGE)).instance_id

    assert instance() == instance(mr_enclave=b"x" * 32, isv_svn=b"\x09\0")
    others = [
        instance(mr_signer=b"x" * 32),
        instance(isv_prod_id=b"\x08\0"),
        instance(config_id=b"x" * 64),
        instance(isv_family_id=b"x" * 16),
        instance(isv_ext_prod_id=b"x" * 16),
    ]
    assert len({instance(), *others}) == 6


def test_a_quote_of_a_trust_domain_is_not_of_an_enclave() -> None:
    with pytest.raises(UnsupportedError, match="of a TDX trust domain"):
        sgx.SCHEME.decode(trust_domain().attest(CHALLENGE))
    assert detect(QUOTE) == "sgx"
    assert by_media_type("application/vnd.intel.sgx.quote") == "sgx"


def test_a_real_quote_verifies_at_its_time() -> None:
    platform = verify_real(sgx_quote()).platform
    assert platform.status is TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED
    assert platform.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert platform.objection == ""
    assert [(each.component, each.needed) for each in platform.shortfalls] == [
        ("sgxtcbcomponents[6]", 12)
    ]


def test_a_real_quote_carries_its_challenge_whole() -> None:
    said = b"Hello, world!"
    with pytest.raises(FreshnessError, match="compared whole"):
        verify_real(sgx_quote(), challenge=said)
    verify_real(sgx_quote(), challenge=said.ljust(64, b"\0"))


def test_a_real_quote_does_not_verify_otherwise() -> None:
    with pytest.raises(ChainError, match="no trust anchor"):
        verify_real(sgx_quote(), vendors=())
    with pytest.raises(CollateralError, match="out of date"):
        verify_real(sgx_quote(), now=SGX_TIME + timedelta(days=60))
    with pytest.raises(CollateralError, match="at hand"):
        verify_real(sgx_quote(), collateral={})
    for at in (60, 200, 440, 520, 600, 1000):
        changed = bytearray(sgx_quote())
        changed[at] ^= 1
        with pytest.raises(VerificationError):
            verify_real(bytes(changed))
