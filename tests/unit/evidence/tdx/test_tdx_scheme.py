# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import builtins
import importlib
import json
from types import ModuleType
from typing import Any

import pytest

from support.intel import (
    AUTHORITY,
    COLLATERAL,
    PLATFORM,
    UP_TO_DATE,
    enclave,
    tdx_collateral,
    trust_domain,
    verify_tdx,
)
from support.vendor_evidence import CHALLENGE, NOW, UNCHECKED
from troth.errors import (
    ApiMisuseError,
    ChainError,
    ConfigurationError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
    VerificationError,
)
from troth.evidence import tdx
from troth.evidence.challenge import derive_challenge
from troth.evidence.evidence import NonceMatched
from troth.evidence.intel import library
from troth.evidence.intel.tcb import TcbStatus
from troth.evidence.registry import by_media_type, detect
from troth.evidence.tsm_report import TSM_REPORT_CBOR, TsmReport
from troth.testing.intel_authority import IntelAuthority
from troth.verifier.policy_document import without_nonces

QUOTE = trust_domain().attest(CHALLENGE)


@pytest.mark.parametrize("version", ["4", "5", "5/1.0"])
def test_a_quote_of_a_good_trust_domain_verifies(version: str) -> None:
    verified = verify_tdx(trust_domain(version=version).attest(CHALLENGE))
    assert verified.freshness == NonceMatched(CHALLENGE)
    assert verified.platform.status is TcbStatus.UP_TO_DATE
    assert verified.platform.objection == ""
    assert verified.signer == verified.platform.root
    assert verified.insecure == ("platform simulator",)
    claims = verified.claims_sets[0].claims
    assert claims["tee_type"] == "tdx"
    assert claims["quote_version"] == int(version[0])
    assert claims["mr_td"] == verified.implementation_id.hex()
    assert claims["tcb_status"] == "UpToDate"
    assert ("tee_tcb_svn2" in claims) is (version == "5")
    json.dumps(claims)


def test_instances_are_told_apart_by_platform_and_by_what_the_owner_set() -> None:
    def instance(**changes: Any) -> bytes:
        return verify_tdx(trust_domain(**changes).attest(CHALLENGE)).instance_id

    assert instance() == instance(fields={"rtmr3": b"x" * 48, "mr_td": b"y" * 48})
    others = [
        instance(fields={name: b"x" * 48})
        for name in ("mr_config_id", "mr_owner", "mr_owner_config")
    ]
    others.append(instance(platform=AUTHORITY.platform(ppid=b"another platform")))
    assert len({instance(), *others}) == 5
    assert instance().startswith(bytes(range(16)))


def test_every_challenge_that_a_caller_derives_is_found_again() -> None:
    challenge = derive_challenge(b"label", b"spki", b"nonce", tdx.SCHEME.challenge_size)
    verify_tdx(trust_domain().attest(challenge), challenge=challenge)


@pytest.mark.parametrize(
    "expected",
    [
        bytes(64),
        CHALLENGE[:-1] + b"\0",
        CHALLENGE[:32],
        CHALLENGE[:63],
        CHALLENGE[1:] + CHALLENGE[:1],
    ],
)
def test_another_challenge_is_refused(expected: bytes) -> None:
    with pytest.raises(FreshnessError, match="report_data"):
        verify_tdx(QUOTE, challenge=expected)


def test_a_shorter_challenge_is_not_the_padded_one() -> None:
    """report_data has 64 octets; the guest's own padding is not for the Verifier to guess."""
    padded = trust_domain().attest(CHALLENGE[:32])
    with pytest.raises(FreshnessError):
        verify_tdx(padded, challenge=CHALLENGE[:32])
    verify_tdx(padded, challenge=CHALLENGE[:32] + bytes(32))


def test_freshness_may_be_left_unchecked_and_shows() -> None:
    assert verify_tdx(QUOTE, challenge=UNCHECKED).freshness is UNCHECKED


@pytest.mark.parametrize("version", ["4", "5"])
def test_no_octet_of_a_quote_can_be_changed(version: str) -> None:
    """But for the copy of the root in it: which root counts is the Verifier's own knowledge."""
    quote = trust_domain(version=version).attest(CHALLENGE)
    root = quote.rindex(b"-----BEGIN CERTIFICATE-----")
    for at in range(0, root, 13):
        changed = bytearray(quote)
        changed[at] ^= 1 << at % 8
        with pytest.raises((VerificationError, DecodeError)):
            verify_tdx(bytes(changed))


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ({"mr_signer": b"x" * 32}, "QE MRSIGNER mismatch"),
        ({"isv_prod_id": b"\3\0"}, "QE ISVPRODID mismatch"),
        ({"misc_select": b"\1"}, "QE MISCSELECT mismatch"),
        ({"attributes": b"\x13"}, "QE report validation failed"),
        ({"attributes": b"\x31"}, "QE ATTRIBUTES mismatch"),
        ({"report_data": b"another key"}, "QE report hash mismatch"),
    ],
)
def test_another_quoting_enclave_is_refused(field: dict[str, bytes], problem: str) -> None:
    with pytest.raises(SignatureError, match=problem):
        verify_tdx(trust_domain(qe=field).attest(CHALLENGE))


@pytest.mark.parametrize("debug", [b"\0", b"\1"])
@pytest.mark.parametrize(
    "field",
    [
        {"mr_signer": b"x" * 32},
        {"isv_prod_id": b"\3\0"},
        {"misc_select": b"\1"},
        {"attributes": b"\x13"},
        {"report_data": b"another key"},
    ],
)
def test_another_quoting_enclave_is_refused_for_a_trust_domain_in_debug_mode_too(
    field: dict[str, bytes], debug: bytes
) -> None:
    """There the library's objection comes first or not at all; our own check must hold."""
    fields = {"td_attributes": debug + bytes([0, 0, 0x10, 0, 0, 0, 0])}
    with pytest.raises(SignatureError):
        verify_tdx(trust_domain(qe=field, fields=fields).attest(CHALLENGE))


def test_a_revoked_platform_is_refused() -> None:
    for revoked in (PLATFORM.certificate, AUTHORITY.authorities["platform"]):
        with pytest.raises(ChainError, match="revoked"):
            verify_tdx(QUOTE, collateral=tdx_collateral(revoked=[revoked]))


def test_a_revoked_platform_is_refused_for_a_trust_domain_in_debug_mode_too() -> None:
    quote = trust_domain(fields={"td_attributes": b"\1\0\0\x10"}).attest(CHALLENGE)
    assert verify_tdx(quote).platform.objection == "Debug mode is enabled"
    with pytest.raises(ChainError, match="revoked"):
        verify_tdx(quote, collateral=tdx_collateral(revoked=[PLATFORM.certificate]))


def test_a_platforms_certificate_has_a_validity() -> None:
    quote = trust_domain(platform=AUTHORITY.platform(not_after=NOW)).attest(CHALLENGE)
    verify_tdx(quote, now=NOW)
    with pytest.raises(ChainError, match="'Intel SGX PCK Certificate' is valid"):
        verify_tdx(quote, now=NOW.replace(minute=1))


@pytest.mark.parametrize("vendors", [(), ("intel",), ("amd", "aws", "intel")])
def test_a_root_has_to_be_a_trust_anchor(vendors: tuple[str, ...]) -> None:
    with pytest.raises(ChainError, match="'Intel SGX Root CA', which is no trust anchor"):
        verify_tdx(QUOTE, roots=(), vendors=vendors)
    with pytest.raises(ChainError, match="no trust anchor"):
        verify_tdx(QUOTE, roots=(IntelAuthority().root,), vendors=vendors)


def test_an_authority_or_a_platform_is_no_root() -> None:
    for certificate in (AUTHORITY.authorities["platform"], PLATFORM.certificate):
        with pytest.raises(ChainError, match="no trust anchor"):
            verify_tdx(QUOTE, roots=(certificate,))


def test_the_simulator_is_refused_unless_allowed() -> None:
    with pytest.raises(SignatureError, match="platform simulator"):
        verify_tdx(QUOTE, allow_simulator=False)
    own = IntelAuthority(organization="Example")
    domain = trust_domain(authority=own, platform=own.platform())
    collateral = own.collateral("TDX", [UP_TO_DATE])
    verified = verify_tdx(
        domain.attest(CHALLENGE), roots=(own.root,), collateral=collateral, allow_simulator=False
    )
    assert verified.insecure == ()


@pytest.mark.parametrize(
    ("bits", "objection"),
    [
        (1 << 28 | 1, "Debug mode is enabled"),
        (1 << 28 | 1 << 4, "TD profiling is enabled"),
        (1 << 28 | 1 << 29, "TD migration is enabled"),
        (0, "SEPT_VE_DISABLE is not enabled"),
        (1 << 28 | 1 << 63 | 1 << 30 | 1 << 31, ""),
    ],
)
def test_what_an_authentic_trust_domain_must_not_be_is_left_to_appraisal(
    bits: int, objection: str
) -> None:
    fields = {"td_attributes": bits.to_bytes(8, "little")}
    verified = verify_tdx(trust_domain(fields=fields).attest(CHALLENGE))
    assert verified.platform.objection == objection


@pytest.mark.parametrize(
    ("cpu_svn", "status", "objection"),
    [
        ((2, 3, 2, 2, 4, 1, 0, 5), TcbStatus.OUT_OF_DATE, ""),
        ((1,), TcbStatus.REVOKED, "TCB status is invalid: Revoked"),
        ((0,), TcbStatus.BELOW_EVERY_LEVEL, "No matching TCB level found"),
    ],
)
def test_an_old_platform_is_left_to_appraisal_with_the_reasons(
    cpu_svn: tuple[int, ...], status: TcbStatus, objection: str
) -> None:
    platform = AUTHORITY.platform(cpu_svn=cpu_svn)
    found = verify_tdx(trust_domain(platform=platform).attest(CHALLENGE)).platform
    assert (found.status, found.objection) == (status, objection)
    first = found.shortfalls[0]
    assert (first.component, first.actual, first.needed) == ("sgxtcbcomponents[0]", cpu_svn[0], 3)


def test_a_library_that_is_missing_is_a_matter_of_installation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name == "dcap_qvl":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(library.importlib, "import_module", without)
    with pytest.raises(ConfigurationError, match=r"dcap-qvl.*install troth\[tdx\]"):
        verify_tdx(QUOTE)
    tdx.SCHEME.decode(QUOTE)


def test_nothing_but_our_errors_comes_out_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Verifier:
        def __init__(self, error: BaseException) -> None:
            self._error = error

        def verify_with_policy(self, *_: object) -> object:
            raise self._error

    for error in (PanicException("index out of bounds"), ValueError("something new")):
        monkeypatch.setattr(library, "_verifier", lambda _, error=error: Verifier(error))
        with pytest.raises(SignatureError, match=r"dcap-qvl failed|something new"):
            verify_tdx(QUOTE)
    monkeypatch.setattr(library, "_verifier", lambda _: Verifier(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        verify_tdx(QUOTE)
    assert builtins.KeyboardInterrupt is KeyboardInterrupt


def test_a_report_that_the_library_reads_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "_read", lambda _: ("another",))
    with pytest.raises(SignatureError, match="reads another report"):
        verify_tdx(QUOTE)


def test_the_time_has_to_be_given() -> None:
    evidence = tdx.SCHEME.decode(QUOTE)
    with pytest.raises(ApiMisuseError, match="clock reading"):
        tdx.SCHEME.verify(evidence, trust_anchors=None, freshness=UNCHECKED)  # type: ignore[arg-type]


def test_a_quote_is_recognised_and_no_other_schemes() -> None:
    assert detect(QUOTE) == "tdx"
    assert detect(trust_domain(version="4").attest(CHALLENGE)) == "tdx"
    assert detect(enclave().attest(CHALLENGE)) == "sgx"
    assert detect(TsmReport(provider="tdx_guest", outblob=QUOTE).to_cbor()) == "tdx"
    assert detect(TsmReport(provider="sev_guest", outblob=bytes(1184)).to_cbor()) == "sev_snp"
    assert by_media_type("application/vnd.intel.tdx.quote") == "tdx"


def test_a_report_of_the_kernel_is_taken() -> None:
    report = TsmReport(provider="tdx_guest", outblob=QUOTE + bytes(3000), auxblob=b"x")
    assert tdx.SCHEME.decode(report.to_cbor()).quote.raw == QUOTE
    with pytest.raises(UnsupportedError, match="expected tdx_guest"):
        tdx.SCHEME.decode(TsmReport(provider="sev_guest", outblob=QUOTE).to_cbor())
    assert tdx.SCHEME.decode(QUOTE).media_type == "application/vnd.intel.tdx.quote"
    assert TSM_REPORT_CBOR not in tdx.SCHEME.media_types


def test_evidence_of_trustees_guests_is_taken() -> None:
    value = {"cc_eventlog": None, "quote": base64.b64encode(QUOTE).decode()}
    assert tdx.SCHEME.decode(json.dumps(value).encode()).quote.raw == QUOTE
    media_type = "application/vnd.confidential-containers.tdx-evidence+json"
    assert tdx.SCHEME.decode(json.dumps(value).encode(), media_type=media_type).report


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{}", '"quote" is not a text'),
        (b'{"quote": 1}', '"quote" is not a text'),
        (b'{"quote": "*"}', '"quote" is not base64'),
        ('{"quote": "é"}'.encode(), '"quote" is not base64'),
        (b'{"quote": ""}', "the version needs 2 octets"),
        (b'{"hcl_report": "", "td_quote": ""}', "vouches for a virtual TPM"),
        (b"{" + b" " * 262_144, "max_bytes=262144"),
        (b"", "the version needs 2 octets"),
    ],
)
def test_what_is_no_evidence_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        tdx.SCHEME.decode(data)


def test_a_quote_of_an_enclave_is_not_of_a_trust_domain() -> None:
    with pytest.raises(UnsupportedError, match="of an SGX enclave"):
        tdx.SCHEME.decode(enclave().attest(CHALLENGE))
    assert issubclass(LimitExceededError, DecodeError)


def test_the_challenge_is_no_claim_that_a_verdict_hangs_on() -> None:
    claims = verify_tdx(QUOTE).claims_sets[0].claims
    assert set(claims) - set(without_nonces(claims)) == {"report_data"}


def test_collateral_at_hand_serves_many_quotes() -> None:
    for index in range(3):
        challenge = bytes([index]) * 64
        verify_tdx(trust_domain().attest(challenge), challenge=challenge, collateral=COLLATERAL)
