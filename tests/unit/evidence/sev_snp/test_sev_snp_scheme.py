# SPDX-License-Identifier: Apache-2.0
"""`verify()` on fresh reports of a simulated chip: each acceptance beside a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from support.vendor_evidence import CHALLENGE, NOW, UNCHECKED, Roots, verify_with
from troth.errors import (
    ApiMisuseError,
    BindingError,
    FreshnessError,
    SignatureError,
    UnavailableError,
)
from troth.evidence.context import VerificationContext
from troth.evidence.evidence import NonceMatched, VerifiedEvidence
from troth.evidence.sev_snp import SCHEME
from troth.evidence.sev_snp.certificate_table import ARK, ASK, VCEK, encode_table
from troth.evidence.sev_snp.report import SIGNED_SIZE
from troth.testing.sev_snp import SimulatedSnpGuest, SnpAuthority

GUEST = SimulatedSnpGuest()
ARK_CERTIFICATE = GUEST.authority.ark
TURIN = SimulatedSnpGuest(
    authority=SnpAuthority(product="Turin"),
    hwid=b"8 octets",
    tcb={"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 200},
)


def verify(guest: SimulatedSnpGuest = GUEST, **given: object) -> VerifiedEvidence:
    return verify_with(guest.attest(CHALLENGE), "sev_snp", guest.authority.ark, **given)


def test_a_report_for_this_challenge_is_verified() -> None:
    verified = verify()
    assert verified.freshness == NonceMatched(CHALLENGE)
    assert verified.implementation_id == b"\x11" * 48
    assert verified.instance_id == verified.boot_session == b"\x22" * 32
    assert verified.insecure == ("platform simulator",)
    (claims_set,) = verified.claims_sets
    assert (claims_set.label, claims_set.component, claims_set.layer) == (
        "sev_snp",
        "vm",
        "hardware",
    )
    assert claims_set.claims["product"] == "Milan"


def test_the_simulator_is_refused_unless_allowed() -> None:
    with pytest.raises(SignatureError, match="platform simulator"):
        verify(allow_simulator=False)


@pytest.mark.parametrize(
    "other",
    [bytes(64), CHALLENGE[:-1] + b"\0", CHALLENGE[1:] + b"\0", CHALLENGE[:32], CHALLENGE[:63]],
    ids=["zeros", "last octet", "shifted", "half", "one octet less"],
)
def test_another_challenge_is_refused(other: bytes) -> None:
    with pytest.raises(FreshnessError, match="REPORT_DATA"):
        verify(challenge=other)


def test_a_shorter_challenge_is_not_compared_padded() -> None:
    """64 octets, exactly: unlike the RMM's, this firmware pads nothing."""
    data = GUEST.attest(b"c" * 32 + bytes(32))
    with pytest.raises(FreshnessError):
        verify_with(data, "sev_snp", ARK_CERTIFICATE, challenge=b"c" * 32)
    verify_with(data, "sev_snp", ARK_CERTIFICATE, challenge=b"c" * 32 + bytes(32))


def test_freshness_is_left_unchecked_only_explicitly() -> None:
    assert verify(challenge=UNCHECKED).freshness == UNCHECKED


@pytest.mark.parametrize("at", [*range(0x50, SIGNED_SIZE, 61), SIGNED_SIZE, SIGNED_SIZE + 72])
def test_one_bit_changed_anywhere_is_refused(at: int) -> None:
    report = bytearray(GUEST.report(CHALLENGE))
    report[at] ^= 1
    with pytest.raises((SignatureError, BindingError)):
        verify_with(bytes(report) + GUEST.table(), "sev_snp", ARK_CERTIFICATE, challenge=UNCHECKED)


def test_a_signature_of_zeros_is_refused() -> None:
    report = GUEST.report(CHALLENGE)[:SIGNED_SIZE] + bytes(512)
    with pytest.raises(SignatureError, match="does not verify"):
        verify_with(report + GUEST.table(), "sev_snp", ARK_CERTIFICATE)


def test_a_report_that_the_host_let_nobody_sign_is_refused() -> None:
    with pytest.raises(SignatureError, match="switched signing off"):
        verify(GUEST.with_fields(keys=7 << 2))


def test_a_vcek_of_another_chip_is_refused() -> None:
    other = replace(GUEST, hwid=bytes(range(2, 66)))
    with pytest.raises(BindingError, match="is of chip 0203"):
        verify(other.with_fields(chip_id=GUEST.hwid))


@pytest.mark.parametrize("part", ["bootloader", "tee", "snp", "microcode"])
def test_a_vcek_of_another_tcb_version_is_refused(part: str) -> None:
    other = replace(GUEST, tcb={**GUEST.tcb, part: 77})
    with pytest.raises(BindingError, match=f"is for TCB .*{part} 77"):
        verify(other.with_fields(reported_tcb=GUEST.tcb_version.value))


def test_a_tcb_version_with_bits_between_its_parts_is_no_certificates() -> None:
    with pytest.raises(BindingError, match="is for TCB"):
        verify(GUEST.with_fields(reported_tcb=GUEST.tcb_version.value | 1 << 20))


def test_a_masked_chip_is_not_compared() -> None:
    verified = verify(GUEST.with_fields(chip_id=b""))
    assert verified.claims_sets[0].claims["chip_id"] == "00" * 64


def test_a_masked_chip_is_verified_by_the_key_that_came_along_whatever_else_is_at_hand() -> None:
    masked = GUEST.with_fields(chip_id=b"")
    stranger = ec.generate_private_key(ec.SECP384R1())
    other = replace(GUEST, hwid=bytes(range(2, 66)), key=stranger)
    collateral = {"a": other.certificate.public_bytes(Encoding.DER)}
    verify(masked, collateral=collateral)
    collateral["b"] = masked.certificate.public_bytes(Encoding.DER)
    verify(masked, collateral=collateral)


def test_a_chip_of_another_generation_than_its_certificates_is_refused() -> None:
    with pytest.raises(BindingError, match="is from a Genoa by its CPUID"):
        verify(GUEST.with_fields(cpuid_model=0x11))


def test_turins_layout_and_chip_id_are_compared_as_turins() -> None:
    verify(TURIN)
    with pytest.raises(BindingError, match="is of chip"):
        verify(replace(TURIN, hwid=b"others' ").with_fields(chip_id=TURIN.hwid))
    other = replace(TURIN, tcb={**TURIN.tcb, "fmc": 9})
    with pytest.raises(BindingError, match="fmc 9"):
        verify(other.with_fields(reported_tcb=TURIN.tcb_version.value))


def test_a_report_read_in_the_layout_of_another_generation_is_refused() -> None:
    milan = GUEST.with_fields(cpuid_family=0x1A, cpuid_model=2)
    with pytest.raises(BindingError):
        verify(milan)


def test_a_vlek_names_the_provider_in_the_claims() -> None:
    guest = SimulatedSnpGuest(csp_id="CN=cloud.example").with_fields(chip_id=b"")
    assert verify(guest).claims_sets[0].claims["csp_id"] == "CN=cloud.example"


def test_a_vlek_does_not_vouch_for_a_report_by_vcek() -> None:
    guest = SimulatedSnpGuest(csp_id="CN=cloud.example").with_fields(keys=0)
    with pytest.raises(UnavailableError, match="no VCEK certificate"):
        verify(guest)


def test_another_key_than_the_certified_one_is_refused() -> None:
    impostor = replace(GUEST, key=ec.generate_private_key(ec.SECP384R1()))
    data = impostor.report(CHALLENGE) + GUEST.table()
    with pytest.raises(SignatureError, match="does not verify under the VCEK"):
        verify_with(data, "sev_snp", ARK_CERTIFICATE)


def test_an_older_certificate_in_the_evidence_is_made_up_for_by_the_collateral() -> None:
    """Hosts forget to refresh the table after an update of their firmware."""
    older = replace(GUEST, tcb={**GUEST.tcb, "microcode": 1})
    authority = GUEST.authority
    table = encode_table(
        {
            VCEK: older.certificate.public_bytes(Encoding.DER),
            ASK: authority.ask.public_bytes(Encoding.DER),
            ARK: authority.ark.public_bytes(Encoding.DER),
        }
    )
    data = GUEST.report(CHALLENGE) + table
    with pytest.raises(BindingError, match="is not of its key"):
        verify_with(data, "sev_snp", ARK_CERTIFICATE)
    vcek = GUEST.certificate.public_bytes(Encoding.PEM)
    verify_with(data, "sev_snp", ARK_CERTIFICATE, collateral={"vcek.pem": vcek})


def test_another_chips_certificate_in_the_collateral_is_named_and_not_held_against_it() -> None:
    other = replace(GUEST, hwid=bytes(range(2, 66)))
    vcek = other.certificate.public_bytes(Encoding.DER)
    with pytest.raises(UnavailableError, match="other is of chip 0203") as caught:
        verify_with(GUEST.report(CHALLENGE), "sev_snp", ARK_CERTIFICATE, collateral={"other": vcek})
    assert "Key Distribution Service" in caught.value.remedy


def test_the_right_certificate_is_found_among_a_fleets() -> None:
    fleet = [replace(GUEST, hwid=bytes([index]) * 64) for index in range(1, 6)]
    collateral = {
        f"{index}.der": each.certificate.public_bytes(Encoding.DER)
        for index, each in enumerate(fleet)
    }
    collateral["chain.pem"] = GUEST.authority.chain()
    for each in fleet:
        verify_with(each.report(CHALLENGE), "sev_snp", ARK_CERTIFICATE, collateral=collateral)


def test_without_a_clock_reading_nothing_is_verified() -> None:
    evidence = SCHEME.decode(GUEST.attest(CHALLENGE))
    naive = VerificationContext(now=NOW.replace(tzinfo=None))
    for given in ({}, {"context": naive}):
        with pytest.raises(ApiMisuseError, match="clock reading"):
            SCHEME.verify(
                evidence, trust_anchors=Roots(ARK_CERTIFICATE), freshness=CHALLENGE, **given
            )


def test_two_guests_on_one_chip_are_two_instances() -> None:
    first, second = verify(), verify(GUEST.with_fields(report_id=b"\x33" * 32))
    assert first.instance_id != second.instance_id
    assert first.claims_sets[0].claims["chip_id"] == second.claims_sets[0].claims["chip_id"]
