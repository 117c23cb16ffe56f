# SPDX-License-Identifier: Apache-2.0
"""Collateral that is missing, damaged or too old says nothing about the Attester."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.intel import (
    AUTHORITY,
    COLLATERAL,
    UP_TO_DATE,
    tdx_collateral,
    trust_domain,
    verify_tdx,
)
from support.vendor_evidence import CHALLENGE, NOW
from troth.errors import ChainError, CollateralError, SignatureError, VerificationError
from troth.evidence.intel.pcs import requests_for
from troth.evidence.intel.tcb import TcbStatus
from troth.testing.intel_authority import MADE, NEXT_UPDATE, IntelAuthority, level

QUOTE = trust_domain().attest(CHALLENGE)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

Documents = dict[str, bytes]


def without(*names: str) -> Documents:
    return {name: data for name, data in COLLATERAL.items() if name not in names}


def refused(documents: Documents, **changes: object) -> CollateralError:
    with pytest.raises(CollateralError) as caught:
        verify_tdx(QUOTE, collateral=documents, **changes)
    return caught.value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tcbInfo", "TDX TCB info"),
        ("qeIdentity", "identity of the quoting enclave (TD_QE)"),
        ("pckcrl", "revocation list of the platform CA"),
        ("rootcrl", "revocation list of the root"),
    ],
)
def test_what_is_missing_is_named(name: str, words: str) -> None:
    error = refused(without(name))
    assert words in str(error)
    assert "FMSPC 90c06f000000" in str(error)
    assert error.vendor == "intel"


def test_everything_that_is_missing_is_named_at_once() -> None:
    message = str(refused({}))
    for words in ("TCB info", "TD_QE", "platform CA", "revocation list of the root"):
        assert words in message


def test_the_error_says_what_to_ask_intel_for() -> None:
    requests = requests_for(refused({}))
    assert [request.path for request in requests] == [
        "/tdx/certification/v4/tcb?fmspc=90c06f000000",
        "/tdx/certification/v4/qe/identity",
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "/sgx/certification/v4/rootcacrl",
    ]
    assert len({request.name for request in requests}) == 4


def test_a_damaged_document_is_named() -> None:
    error = refused({**without("tcbInfo"), "half": COLLATERAL["tcbInfo"][:-5]})
    assert "cannot be read: half (" in str(error)


def test_a_forged_quote_is_refused_even_where_collateral_is_missing() -> None:
    for at in (60, 200, 700, 760, 900, 1300):
        forged = bytearray(QUOTE)
        forged[at] ^= 1
        with pytest.raises(VerificationError):
            verify_tdx(bytes(forged), collateral={})


def test_a_root_that_is_not_believed_is_refused_even_where_collateral_is_missing() -> None:
    with pytest.raises(ChainError, match="is no trust anchor"):
        verify_tdx(QUOTE, collateral={}, roots=(IntelAuthority().root,))


@pytest.mark.parametrize(
    "change",
    [
        {"fmspc": "90c06f000001"},
        {"made": NOW + SECOND},
    ],
)
def test_what_is_about_another_platform_or_time_does_not_count(change: dict[str, object]) -> None:
    assert "TCB info" in str(refused(tdx_collateral(UP_TO_DATE, **change)))


def test_sgx_collateral_does_not_serve_tdx() -> None:
    sgx = AUTHORITY.collateral("SGX", [level((1,), 1)])
    message = str(refused(sgx))
    assert "TDX TCB info" in message
    assert "TD_QE" in message


def test_the_processor_cas_list_does_not_serve_the_platform_ca() -> None:
    processor = AUTHORITY.revocation_list("processor")
    assert "platform CA" in str(refused({**COLLATERAL, "pckcrl": processor}))


def _flipped(data: bytes, needle: bytes) -> bytes:
    at = data.index(needle)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


OTHER = IntelAuthority()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda: {"tcbInfo": COLLATERAL["tcbInfo"].replace(b'"svn":5', b'"svn":4')},
            "signed the TCB info",
        ),
        (
            lambda: {"qeIdentity": COLLATERAL["qeIdentity"].replace(b'"isvsvn":4', b'"isvsvn":1')},
            "signed the identity of the quoting enclave",
        ),
        (
            lambda: {"tcb-signing.pem": OTHER.signing.public_bytes(Encoding.PEM)},
            "none of the 0 certificates of the root's at hand signed",
        ),
        (lambda: {"tcb-signing.pem": b""}, "none of the 0 certificates"),
        (lambda: {"rootcrl": OTHER.revocation_list("root")}, "is not signed by the root"),
        (lambda: {"pckcrl": OTHER.revocation_list("platform")}, "is not signed by it"),
        (
            lambda: {"rootcrl": AUTHORITY.revocation_list("root", [AUTHORITY.signing])},
            "the certificate that signed the TCB info is revoked",
        ),
    ],
)
def test_collateral_that_is_not_authentic_says_nothing_about_the_attester(
    change: Callable[[], Documents], problem: str
) -> None:
    assert problem in str(refused({**COLLATERAL, **change()}))


@pytest.mark.parametrize("tcb_status", ["Splendid", "TDRelaunchAdvised"])
def test_a_word_that_dcap_qvl_does_not_know_says_nothing_about_the_attester(
    tcb_status: str,
) -> None:
    error = refused(tdx_collateral({**UP_TO_DATE, "tcbStatus": tcb_status}))
    assert "dcap-qvl cannot use this collateral" in str(error)
    assert error.wanted == {}


def test_collateral_serves_until_its_next_update_and_no_longer() -> None:
    assert verify_tdx(QUOTE, now=NEXT_UPDATE - SECOND).platform.stale == ()
    error = refused(COLLATERAL, now=NEXT_UPDATE)
    for words in (
        "the TCB info ran out 2026-12-20",
        "quoting enclave ran out",
        "root's revocation",
    ):
        assert words in str(error)
    assert error.wanted["fmspc"] == "90c06f000000"


def test_collateral_does_not_serve_before_it_was_made() -> None:
    refused(COLLATERAL, now=MADE - SECOND)
    assert verify_tdx(QUOTE, now=MADE).platform.status is TcbStatus.UP_TO_DATE


def test_a_grace_keeps_a_fleet_going_and_shows() -> None:
    verified = verify_tdx(QUOTE, now=NEXT_UPDATE + DAY, grace=2 * DAY)
    assert verified.platform.status is TcbStatus.UP_TO_DATE
    assert len(verified.platform.stale) == 4
    assert verified.claims_sets[0].claims["collateral_stale"]
    assert "the grace is 2 days" in str(
        refused(COLLATERAL, now=NEXT_UPDATE + 2 * DAY, grace=2 * DAY)
    )


def test_the_grace_is_for_collateral_and_not_for_the_platforms_certificates() -> None:
    ends = NEXT_UPDATE + DAY
    quote = trust_domain(platform=AUTHORITY.platform(not_after=ends)).attest(CHALLENGE)
    verify_tdx(quote, now=ends, grace=3 * DAY)
    with pytest.raises(ChainError, match=r"'Intel SGX PCK Certificate' is valid from .* not at"):
        verify_tdx(quote, now=ends + SECOND, grace=3 * DAY)


def test_of_several_documents_the_newest_counts() -> None:
    older = level((3, 3, 2, 2, 4, 1, 0, 5), 13, (5, 0, 3), status="OutOfDate")
    first = tdx_collateral(older, made=MADE - 9 * DAY)
    second = tdx_collateral(UP_TO_DATE)
    for documents in (
        {**first, **{f"newer {name}": data for name, data in second.items()}},
        {**second, **{f"older {name}": data for name, data in first.items()}},
    ):
        assert verify_tdx(QUOTE, collateral=documents).platform.status is TcbStatus.UP_TO_DATE


def test_a_document_that_has_run_out_does_not_hide_a_current_one() -> None:
    stale = tdx_collateral(made=MADE - 60 * DAY, next_update=MADE - 30 * DAY)
    both = {**COLLATERAL, **{f"stale {name}": data for name, data in stale.items()}}
    assert verify_tdx(QUOTE, collateral=both).platform.stale == ()


def test_a_list_of_revocations_that_is_older_does_not_undo_a_newer_one() -> None:
    platform = AUTHORITY.platform()
    quote = trust_domain(platform=platform).attest(CHALLENGE)
    old = AUTHORITY.revocation_list("platform", made=MADE - 9 * DAY)
    new = AUTHORITY.revocation_list("platform", [platform.certificate])
    for documents in ({"a": old, "b": new}, {"a": new, "b": old}):
        with pytest.raises(ChainError, match="revoked"):
            verify_tdx(quote, collateral={**without("pckcrl"), **documents})
    verify_tdx(quote, collateral={**without("pckcrl"), "a": old})


def test_requests_are_made_for_intels_errors_only() -> None:
    for error in (
        CollateralError("x"),
        CollateralError("x", vendor="amd", wanted={"tee": "tdx"}),
        CollateralError("x", vendor="intel", wanted={"tee": "tdx", "fmspc": "../..", "ca": "x"}),
    ):
        with pytest.raises(Exception, match=r"not about collateral of Intel's"):
            requests_for(error)


def test_a_signature_by_a_certificate_of_the_platforms_ca_does_not_count() -> None:
    """Only the root's own signing certificate speaks for Intel, not every key below the root."""
    value = json.loads(COLLATERAL["tcbInfo"])
    assert set(value) == {"tcbInfo", "signature"}
    platform = AUTHORITY.platform()
    documents = {**COLLATERAL, "tcb-signing.pem": platform.certificate.public_bytes(Encoding.PEM)}
    assert "none of the 0 certificates" in str(refused(documents))
    assert issubclass(SignatureError, VerificationError)
