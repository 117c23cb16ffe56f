# SPDX-License-Identifier: Apache-2.0
"""Published reports and certificates of real chips, with what is known of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509

from support.vectors import vectors
from support.vendor_evidence import UNCHECKED, verify_with
from troth.errors import ChainError, FreshnessError, SignatureError, TrothError, UnavailableError
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.vendors import VENDOR_ROOTS, is_vendor_root, spki_digest

IN_2024 = datetime(2024, 1, 1, tzinfo=UTC)
IN_2025 = datetime(2025, 6, 1, tzinfo=UTC)

GOOGLE = ("go-sev-guest/attestation.bin", "go-sev-guest/vcek.testcer")
TRUSTEE = ("trustee/test-report.bin", "trustee/test-vcek.der")
TRUSTEE_VLEK = ("trustee/test-vlek-report.bin", "trustee/test-vlek.der")
MILAN = "go-sev-guest/ask_ark_milan.pem"
MILAN_VLEK = "go-sev-guest/ask_ark_milan_vlek.pem"
ALL_MILAN = "trustee/milan_ask_ark_asvk.pem"


def read(name: str) -> bytes:
    return (vectors("sev-snp") / name).read_bytes()


def verify(
    report: str,
    *documents: str,
    now: datetime = IN_2024,
    vendors: tuple[str, ...] = ("amd",),
    challenge: object = UNCHECKED,
) -> VerifiedEvidence:
    return verify_with(
        read(report),
        "sev_snp",
        now=now,
        vendors=vendors,
        challenge=challenge,
        collateral={name: read(name) for name in documents},
        allow_simulator=False,
    )


@pytest.mark.parametrize(
    ("report", "key", "chain", "now"),
    [
        (*GOOGLE, MILAN, IN_2024),
        (*GOOGLE, ALL_MILAN, IN_2024),
        (*TRUSTEE, MILAN, IN_2024),
        (*TRUSTEE, ALL_MILAN, IN_2024),
        (*TRUSTEE_VLEK, MILAN_VLEK, IN_2025),
        (*TRUSTEE_VLEK, ALL_MILAN, IN_2025),
    ],
)
def test_a_real_report_verifies_up_to_amds_published_root(
    report: str, key: str, chain: str, now: datetime
) -> None:
    verified = verify(report, key, chain, now=now)
    assert verified.insecure == ()
    assert verified.claims_sets[0].claims["product"] == "Milan"
    assert verified.signer == "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"


def test_the_root_may_be_provisioned_instead() -> None:
    roots = x509.load_pem_x509_certificates(read(MILAN))
    verify_with(
        read(TRUSTEE[0]),
        "sev_snp",
        *roots,
        now=IN_2024,
        challenge=UNCHECKED,
        collateral={"vcek": read(TRUSTEE[1])},
    )


def test_amds_roots_are_not_believed_unless_named() -> None:
    with pytest.raises(ChainError, match="trust anchor"):
        verify(*TRUSTEE, ALL_MILAN, vendors=())


def test_the_report_data_of_a_real_report_is_compared() -> None:
    nonce = bytes.fromhex("0102030405" + "00" * 59)
    verify(*GOOGLE, MILAN, challenge=nonce)
    with pytest.raises(FreshnessError):
        verify(*GOOGLE, MILAN, challenge=bytes(64))


def test_the_google_report_allows_debugging() -> None:
    claims = verify(*GOOGLE, MILAN).claims_sets[0].claims
    assert claims["policy"] == 0xB0000
    assert claims["policy_debug_allowed"] is True


@pytest.mark.parametrize(
    "name", ["trustee/test-vcek-invalid-legacy.der", "trustee/test-vcek-invalid-new.der"]
)
def test_a_vcek_that_was_tampered_with_verifies_nothing(name: str) -> None:
    with pytest.raises(UnavailableError, match="is of chip 000102"):
        verify(TRUSTEE[0], name, ALL_MILAN)


@pytest.mark.parametrize(
    "name", ["trustee/test-vcek-invalid-legacy.der", "trustee/test-vcek-invalid-new.der"]
)
def test_a_vcek_that_was_tampered_with_does_not_chain_even_where_it_fits(name: str) -> None:
    """A report of that chip at that TCB: only the signatures are left to stand in the way."""
    forged = bytearray(read(TRUSTEE[0]))
    legacy = name.endswith("legacy.der")
    forged[0x1A0:0x1E0] = bytes(range(64))
    forged[0x180:0x188] = bytes.fromhex("0300000000000aa9" if legacy else "000000000000001e")
    with pytest.raises((ChainError, SignatureError)):
        verify_with(
            bytes(forged),
            "sev_snp",
            now=IN_2024,
            vendors=["amd"],
            challenge=UNCHECKED,
            collateral={"vcek": read(name), "chain": read(ALL_MILAN)},
        )


@pytest.mark.parametrize(
    ("report", "documents"),
    [
        (GOOGLE[0], (TRUSTEE[1], MILAN)),
        (TRUSTEE[0], (GOOGLE[1], MILAN)),
        (TRUSTEE_VLEK[0], (TRUSTEE[1], ALL_MILAN)),
        (TRUSTEE[0], (TRUSTEE_VLEK[1], ALL_MILAN)),
        (TRUSTEE[0], (TRUSTEE[1],)),
        (TRUSTEE[0], (TRUSTEE[1], "go-sev-guest/ask_ark_genoa.pem")),
        (TRUSTEE[0], (TRUSTEE[1], MILAN_VLEK)),
        (TRUSTEE_VLEK[0], (TRUSTEE_VLEK[1], MILAN)),
    ],
)
def test_documents_of_others_verify_nothing(report: str, documents: tuple[str, ...]) -> None:
    with pytest.raises(TrothError):
        verify(report, *documents, now=IN_2025)


@pytest.mark.parametrize(
    ("vector", "now"),
    [
        (TRUSTEE, datetime(2023, 1, 1, tzinfo=UTC)),
        (TRUSTEE, datetime(2031, 1, 1, tzinfo=UTC)),
        (TRUSTEE_VLEK, datetime(2024, 12, 1, tzinfo=UTC)),
        (TRUSTEE_VLEK, datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_real_certificate_has_its_time(vector: tuple[str, str], now: datetime) -> None:
    with pytest.raises(ChainError, match="are valid from"):
        verify(*vector, ALL_MILAN, now=now)


@pytest.mark.parametrize("at", [0x08, 0x50, 0x90, 0x180, 0x1A0, 0x29F, 0x2A0, 0x2E8])
def test_a_real_report_with_one_bit_changed_is_refused(at: int) -> None:
    report = bytearray(read(TRUSTEE[0]))
    report[at] ^= 1
    with pytest.raises((SignatureError, UnavailableError)):
        verify_with(
            bytes(report),
            "sev_snp",
            now=IN_2024,
            vendors=["amd"],
            challenge=UNCHECKED,
            collateral={"vcek": read(TRUSTEE[1]), "chain": read(MILAN)},
        )


@pytest.mark.parametrize(
    ("name", "root"),
    [
        (MILAN, "ARK-Milan"),
        ("go-sev-guest/ask_ark_genoa.pem", "ARK-Genoa"),
        ("go-sev-guest/ask_ark_turin_vcek.pem", "ARK-Turin"),
        (MILAN_VLEK, "ARK-Milan"),
        (ALL_MILAN, "ARK-Milan"),
    ],
)
def test_the_thumbprints_of_amds_roots_are_those_of_its_certificates(name: str, root: str) -> None:
    certificates = x509.load_pem_x509_certificates(read(name))
    known = [VENDOR_ROOTS["amd"].get(spki_digest(each)) for each in certificates]
    assert known.count(root) == 1
    assert known.count(None) == len(certificates) - 1
    assert sum(is_vendor_root(each, "amd", believed={"amd"}) for each in certificates) == 1
    assert not any(is_vendor_root(each, "amd", believed={"aws"}) for each in certificates)
    assert not any(is_vendor_root(each, "aws", believed={"amd", "aws"}) for each in certificates)
