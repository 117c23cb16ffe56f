# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from support.intel import enclave, sgx_quote, trust_domain
from support.vectors import vectors
from support.vendor_evidence import CHALLENGE
from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.evidence.intel.enclave_report import EnclaveReport
from troth.evidence.intel.quote import (
    MAX_QUOTE_BYTES,
    SGX_REPORT,
    TD_REPORT_1_0,
    TD_REPORT_1_5,
    Quote,
    decode_quote,
)

V3 = enclave().attest(CHALLENGE)
V4 = trust_domain(version="4").attest(CHALLENGE)
V5 = trust_domain().attest(CHALLENGE)
V5_1_0 = trust_domain(version="5/1.0").attest(CHALLENGE)


def decode(data: bytes) -> Quote:
    return decode_quote(data, format="quote")


def changed(data: bytes, at: int, octets: bytes) -> bytes:
    return data[:at] + octets + data[at + len(octets) :]


@pytest.mark.parametrize(
    ("data", "version", "body_type", "signed"),
    [
        (V3, 3, SGX_REPORT, 48 + 384),
        (V4, 4, TD_REPORT_1_0, 48 + 584),
        (V5, 5, TD_REPORT_1_5, 48 + 6 + 648),
        (V5_1_0, 5, TD_REPORT_1_0, 48 + 6 + 584),
    ],
)
def test_a_quote_is_taken_apart(data: bytes, version: int, body_type: int, signed: int) -> None:
    quote = decode(data)
    assert (quote.header.version, quote.body_type) == (version, body_type)
    assert quote.signed == data[:signed]
    assert quote.body == data[signed - len(quote.body) : signed]
    assert quote.raw == data
    assert len(quote.signature.qe_report) == 384
    assert quote.signature.pck_chain.count(b"BEGIN CERTIFICATE") == 3


@pytest.mark.parametrize("data", [V3, V4, V5])
def test_zeros_behind_a_quote_are_padding(data: bytes) -> None:
    assert decode(data + bytes(3000)).raw == data
    with pytest.raises(DecodeError, match="more after the signature data"):
        decode(data + bytes(3000) + b"\1")


@pytest.mark.parametrize("data", [V3, V4, V5])
def test_every_beginning_of_a_quote_is_refused(data: bytes) -> None:
    for size in range(0, len(data), 7):
        with pytest.raises(DecodeError):
            decode(data[:size])


def test_a_length_limit_holds() -> None:
    decode(V5 + bytes(MAX_QUOTE_BYTES - len(V5)))
    with pytest.raises(LimitExceededError, match="MAX_QUOTE_BYTES=16384"):
        decode(V5 + bytes(MAX_QUOTE_BYTES - len(V5) + 1))


@pytest.mark.parametrize(
    ("data", "at", "octets", "problem"),
    [
        (V5, 0, b"\6", "version 6; expected 3, 4 or 5"),
        (V5, 0, b"\3", "TEE type 0x81 in version 3"),
        (V3, 0, b"\4", "TEE type 0x0 in version 4"),
        (V4, 4, b"\x82", "TEE type 0x82"),
        (V5, 2, b"\3", "attestation key type 3"),
        (V5, 12, b"\0", "quoting enclave of vendor 009a72"),
        (V5, 48, b"\4", "body type 4"),
        (V5, 48, b"\1", "body type 1"),
        (V5, 48 + 6 + 648 + 4 + 128, b"\5", "certification data of type 5; expected 6"),
        (V3, 48 + 384 + 4 + 128 + 384 + 64, b"\x21", "33 octets of authentication data"),
        (V3, 48 + 384 + 4 + 128 + 384 + 64 + 2 + 32, b"\2", "type 2; expected 5"),
    ],
)
def test_what_is_outside_the_profile_is_named(
    data: bytes, at: int, octets: bytes, problem: str
) -> None:
    with pytest.raises(UnsupportedError, match=problem):
        decode(changed(data, at, octets))


@pytest.mark.parametrize(
    ("data", "at", "octets", "problem"),
    [
        (V5, 50, (584).to_bytes(4, "little"), "a body of type 3 with 584 octets; expected 648"),
        (V4, 48 + 584, (9).to_bytes(4, "little"), "attestation key needs 64|signature needs 64"),
        (V4, 48 + 584, b"\xff\xff\xff\xff", "the signature data needs 4294967295 octets"),
        (V4, 48 + 584 + 4 + 128 + 2, b"\xff\xff", "the certification data needs"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(
    data: bytes, at: int, octets: bytes, problem: str
) -> None:
    with pytest.raises(DecodeError, match=problem):
        decode(changed(data, at, octets))


def test_octets_within_the_signature_data_are_accounted_for() -> None:
    at = 48 + 584
    size = int.from_bytes(V4[at : at + 4], "little")
    longer = changed(V4, at, (size + 1).to_bytes(4, "little")) + b"\0"
    with pytest.raises(DecodeError, match="more after the certification data"):
        decode(longer)


@pytest.mark.parametrize(
    ("name", "version", "size"),
    [
        ("go-tdx-guest/quote_v5_sample.dat", 5, 5006),
        ("go-tdx-guest/cos-113-tdx-quote.dat", 4, 4935),
        ("trustee/tdx_quote_4.dat", 4, 4936),
        ("trustee/tdx_quote_5.dat", 5, 5006),
        ("trustee/tdx_quote_6.dat", 4, 4936),
        ("trustee/td-quote.bin", 4, 4936),
    ],
)
def test_real_quotes_are_taken_apart(name: str, version: int, size: int) -> None:
    quote = decode((vectors("tdx") / name).read_bytes())
    assert (quote.header.version, len(quote.raw)) == (version, size)


def test_a_quote_with_a_remark_behind_it_is_refused() -> None:
    """go-tdx-guest's production quote has text for its own tests after the quote."""
    data = (vectors("tdx") / "go-tdx-guest" / "tdx_prod_quote_SPR_E4.dat").read_bytes()
    assert data[4935:].strip() == b"extra bytes(only for testing purpose)"
    with pytest.raises(DecodeError, match="at byte 4935: there is more after"):
        decode(data)
    assert decode(data[:4935]).header.version == 4


@pytest.mark.parametrize("name", ["report.dat", "nonce.dat"])
def test_what_is_no_quote_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match="version"):
        decode((vectors("tdx") / "go-tdx-guest" / name).read_bytes())


def test_an_enclaves_report_is_read_by_its_offsets() -> None:
    octets = bytes(range(256)) + bytes(range(128))
    report = EnclaveReport.decode(octets, format="report")
    assert report.cpu_svn == octets[:16]
    assert report.misc_select == octets[16:20]
    assert report.isv_ext_prod_id == octets[32:48]
    assert report.attributes == octets[48:64]
    assert report.mr_enclave == octets[64:96]
    assert report.mr_signer == octets[128:160]
    assert report.config_id == octets[192:256]
    assert report.isv_prod_id == 0x0100
    assert report.isv_svn == 0x0302
    assert report.config_svn == 0x0504
    assert report.isv_family_id == octets[304:320]
    assert report.report_data == octets[320:]
    assert report.to_json()["isv_svn"] == 0x0302


@pytest.mark.parametrize("size", [0, 383, 385])
def test_a_report_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(DecodeError, match="expected 384"):
        EnclaveReport.decode(bytes(size), format="report")


def test_a_real_enclaves_report_is_read() -> None:
    report = EnclaveReport.decode(decode(sgx_quote()).body, format="report")
    assert report.report_data.startswith(b"Hello, world!")
    assert report.flags["debug"] is False
    assert report.flags["init"] is True
