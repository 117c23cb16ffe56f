# SPDX-License-Identifier: Apache-2.0
"""Quotes of real trust domains, under Intel's own root, at their date."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.intel import IN_2023, IN_2026, intel_root, of_2023, of_2026, verify_tdx
from support.vectors import vectors
from support.vendor_evidence import UNCHECKED
from troth.errors import ChainError, CollateralError, UnsupportedError, VerificationError
from troth.evidence import tdx
from troth.evidence.intel.tcb import TcbStatus
from troth.evidence.intel.verification import VerifiedQuote
from troth.evidence.vendors import VENDOR_ROOTS, spki_digest


def folder() -> Path:
    return vectors("tdx")


def production_quote() -> bytes:
    data = (folder() / "go-tdx-guest" / "tdx_prod_quote_SPR_E4.dat").read_bytes()
    return data[:4935]  # its own tests' remark follows


def quote(name: str) -> bytes:
    return (folder() / name).read_bytes()


def verify(data: bytes, **changes: Any) -> VerifiedQuote[Any]:
    given = {"roots": (), "vendors": ("intel",), "challenge": UNCHECKED, "allow_simulator": False}
    return verify_tdx(data, **{**given, **changes})


def test_a_quote_of_tdx_1_5_is_up_to_date_at_its_time() -> None:
    verified = verify(quote("go-tdx-guest/quote_v5_sample.dat"), now=IN_2026, collateral=of_2026())
    assert verified.platform.status is TcbStatus.UP_TO_DATE
    assert verified.platform.objection == ""
    assert verified.insecure == ()
    report = verified.evidence.report
    assert report.tee_tcb_svn2[:3] == bytes([13, 1, 4])
    assert report.report_data.hex().startswith("945eaacf5abc1f719d86")
    verify(
        quote("go-tdx-guest/quote_v5_sample.dat"),
        now=IN_2026,
        collateral=of_2026(),
        challenge=report.report_data,
    )


def test_an_early_production_quote_is_authentic_and_says_what_is_behind() -> None:
    platform = verify(production_quote(), now=IN_2023, collateral=of_2023()).platform
    assert platform.status is TcbStatus.BELOW_EVERY_LEVEL
    found = [(each.component, each.actual, each.needed) for each in platform.shortfalls]
    assert found == [
        ("sgxtcbcomponents[0]", 3, 5),
        ("sgxtcbcomponents[1]", 3, 5),
        ("sgxtcbcomponents[4]", 2, 3),
        ("sgxtcbcomponents[7]", 2, 3),
        ("tdxtcbcomponents[2]", 4, 5),
    ]
    assert platform.shortfalls[3].description == "OS/VMM: SEAMLDR ACM"


def test_trustees_quote_of_a_trust_domain_in_debug_mode_is_authentic() -> None:
    verified = verify(quote("trustee/tdx_quote_4.dat"), now=IN_2023, collateral=of_2023())
    assert verified.platform.objection == "Debug mode is enabled"
    assert verified.platform.status is TcbStatus.UP_TO_DATE
    assert verified.claims_sets[0].claims["td_attribute_flags"]["debug"] is True  # type: ignore[index]


def test_trustees_quote_5_is_authentic_and_below_every_level() -> None:
    platform = verify(quote("trustee/tdx_quote_5.dat"), now=IN_2026, collateral=of_2026()).platform
    assert platform.status is TcbStatus.BELOW_EVERY_LEVEL
    components = {each.component for each in platform.shortfalls}
    assert {"sgxtcbcomponents[0]", "tdxModule.isvsvn"} <= components


@pytest.mark.parametrize(
    ("name", "fmspc"),
    [
        ("trustee/tdx_quote_6.dat", "00a06d080000"),
        ("trustee/td-quote.bin", "00806f050000"),
        ("go-tdx-guest/cos-113-tdx-quote.dat", "00806f050000"),
    ],
)
def test_a_quote_without_collateral_is_neither_accepted_nor_refused(name: str, fmspc: str) -> None:
    with pytest.raises(CollateralError, match=f"FMSPC {fmspc}") as caught:
        verify(quote(name), now=IN_2026, collateral=of_2026())
    assert caught.value.wanted == {"tee": "tdx", "fmspc": fmspc, "ca": "platform"}


@pytest.mark.parametrize(
    "name",
    [
        "trustee/tdx_quote_4.dat",
        "trustee/tdx_quote_5.dat",
        "trustee/tdx_quote_6.dat",
        "trustee/td-quote.bin",
        "go-tdx-guest/cos-113-tdx-quote.dat",
        "go-tdx-guest/quote_v5_sample.dat",
    ],
)
def test_a_real_quote_that_was_changed_is_refused_with_and_without_collateral(name: str) -> None:
    data = quote(name)
    for at in (60, 300, 600, 720, 800, 1100, 1250):
        changed = bytearray(data)
        changed[at] ^= 0x10
        for documents in ({}, of_2026()):
            with pytest.raises((VerificationError, UnsupportedError)):
                verify(bytes(changed), now=IN_2026, collateral=documents)


def test_collateral_of_another_time_serves_no_longer() -> None:
    later = IN_2023 + timedelta(days=30)
    with pytest.raises(CollateralError, match="out of date") as caught:
        verify(production_quote(), now=later, collateral=of_2023())
    for words in ("TCB info", "identity of the quoting enclave", "platform CA"):
        assert words in str(caught.value)
    verify(production_quote(), now=later, collateral=of_2023(), grace=timedelta(days=31))


def test_trustees_collateral_lacks_the_revocation_lists() -> None:
    names = ("trustee/tcbInfo.json", "trustee/enclaveIdentity.json")
    documents = {name: quote(name) for name in names}
    at = IN_2026.replace(year=2025, month=11, day=1)
    with pytest.raises(
        CollateralError, match=r"at hand: revocation list of the root, revoc\w+"
    ) as e:
        verify(quote("trustee/tdx_quote_6.dat"), now=at, collateral=documents)
    assert "TCB info" not in str(e.value).split("at hand")[1]


def test_intels_root_counts_only_where_it_is_named() -> None:
    with pytest.raises(ChainError, match="no trust anchor") as caught:
        verify(production_quote(), now=IN_2023, collateral=of_2023(), vendors=("amd",))
    assert "--trust-vendor intel" in caught.value.remedy
    root = intel_root()
    assert VENDOR_ROOTS["intel"][spki_digest(root)] == "Intel SGX Root CA"
    verify(production_quote(), now=IN_2023, collateral=of_2023(), vendors=(), roots=(root,))


def test_evidence_of_a_vm_on_azure_is_not_taken_for_a_quote() -> None:
    with pytest.raises(UnsupportedError, match="vouches for a virtual TPM"):
        tdx.SCHEME.decode(quote("trustee/evidence-v1.json"))


def test_the_claims_are_those_that_trustee_reads() -> None:
    claims = tdx.SCHEME.decode(quote("trustee/tdx_quote_4.dat")).report.to_json()
    expected = json.loads(quote("trustee/parse_tdx_claims_expected.json"))
    names = {
        "mrsigner_seam": "mr_signer_seam",
        "tcb_svn": "tee_tcb_svn",
        **{f"rtmr_{index}": f"rtmr{index}" for index in range(4)},
    }
    for name, value in expected["quote"]["body"].items():
        assert claims[names.get(name, name)] == value, name
    flags = {
        "key_locker": "key_locker",
        "protection_keys": "pks",
        "septve_disable": "sept_ve_disable",
    }
    for name, value in expected["td_attributes"].items():
        assert claims["td_attribute_flags"][flags.get(name, name)] is value, name  # type: ignore[index]


def test_the_nonce_among_the_vectors_is_that_of_the_quote_on_google_cloud() -> None:
    report = tdx.SCHEME.decode(quote("go-tdx-guest/cos-113-tdx-quote.dat")).report
    assert report.report_data == quote("go-tdx-guest/nonce.dat")
