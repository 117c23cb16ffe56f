# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from support.vectors import vectors
from support.vendor_evidence import CHALLENGE
from troth.errors import DecodeError, UnsupportedError
from troth.evidence.sev_snp import SigningKey, decode_report
from troth.testing.sev_snp import SimulatedSnpGuest, SnpAuthority, encode_report

GUEST = SimulatedSnpGuest()


def patched(at: int, *octets: int) -> bytes:
    report = bytearray(GUEST.report(CHALLENGE))
    report[at : at + len(octets)] = bytes(octets)
    return bytes(report)


def test_every_field_is_read_from_its_own_place() -> None:
    numbers = {
        "guest_svn": 7,
        "policy": 0x3001F,
        "vmpl": 2,
        "current_tcb": 0xDD18000000000004,
        "platform_info": 0x27,
        "keys": 0b00001,
        "reported_tcb": 0xD818000000000004,
        "cpuid_family": 0x19,
        "cpuid_model": 0x11,
        "cpuid_stepping": 3,
        "committed_tcb": 0xDB18000000000004,
        "launch_tcb": 0xDA18000000000004,
        "launch_mitigations": 5,
        "current_mitigations": 6,
    }
    octets = {
        "family_id": b"f" * 16,
        "image_id": b"i" * 16,
        "report_data": b"d" * 64,
        "measurement": b"m" * 48,
        "host_data": b"h" * 32,
        "id_key_digest": b"k" * 48,
        "author_key_digest": b"a" * 48,
        "report_id": b"r" * 32,
        "report_id_ma": b"e" * 32,
        "chip_id": b"c" * 64,
        "current_version": bytes([29, 55, 1]),
        "committed_version": bytes([8, 54, 1]),
    }
    fixed = {"version": 5, "signature_algorithm": 1}
    report = decode_report(encode_report({**fixed, **numbers, **octets}))
    read = {name: getattr(report, name) for name in octets if not name.endswith("version")}
    assert read == {name: value for name, value in octets.items() if name in read}
    assert report.current_version == "1.55.29"
    assert report.committed_version == "1.54.8"
    assert report.policy.value == 0x3001F
    assert report.platform_info.value == 0x27
    assert (report.guest_svn, report.vmpl) == (7, 2)
    assert (report.launch_mitigations, report.current_mitigations) == (5, 6)
    tcbs = [report.current_tcb, report.committed_tcb, report.launch_tcb, report.reported_tcb]
    assert [tcb.parts["microcode"] for tcb in tcbs] == [0xDD, 0xDB, 0xDA, 0xD8]
    assert report.author_key_enabled
    assert not report.mask_chip_key
    assert report.product == "Genoa"


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_versions_2_to_5_are_known_and_say_what_they_have(version: int) -> None:
    claims = decode_report(GUEST.with_fields(version=version).report(CHALLENGE)).to_json()
    assert claims["version"] == version
    assert ("cpuid_fam_id" in claims) == (version >= 3)
    assert ("launch_mit_vector" in claims) == (version >= 5)


@pytest.mark.parametrize("version", [0, 1, 6, 0x02000000])
def test_another_version_is_unsupported(version: int) -> None:
    with pytest.raises(UnsupportedError, match=f"version {version}"):
        decode_report(GUEST.with_fields(version=version).report(CHALLENGE))


@pytest.mark.parametrize("size", [0, 1, 1183, 1185])
def test_a_report_of_another_length_is_refused(size: int) -> None:
    report = GUEST.report(CHALLENGE).ljust(2000, b"\0")[:size]
    with pytest.raises(DecodeError, match=f"has {size} octets; expected 1184"):
        decode_report(report)


def test_another_signature_algorithm_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="signature algorithm 2"):
        decode_report(GUEST.with_fields(signature_algorithm=2).report(CHALLENGE))


def test_there_is_no_vmpl_4() -> None:
    with pytest.raises(DecodeError, match="VMPL 4"):
        decode_report(GUEST.with_fields(vmpl=4).report(CHALLENGE))


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 6])
def test_an_unknown_kind_of_signing_key_is_unsupported(kind: int) -> None:
    with pytest.raises(UnsupportedError, match=f"signing key {kind}"):
        decode_report(GUEST.with_fields(keys=kind << 2).report(CHALLENGE))


@pytest.mark.parametrize(
    ("keys", "expected"), [(0, SigningKey.VCEK), (4, SigningKey.VLEK), (28, SigningKey.NONE)]
)
def test_the_kind_of_signing_key_is_told(keys: int, expected: SigningKey) -> None:
    assert decode_report(GUEST.with_fields(keys=keys).report(CHALLENGE)).signing_key is expected


@pytest.mark.parametrize(("at", "name"), [(0x2A0 + 48, "R"), (0x2A0 + 71, "R"), (0x2E8 + 48, "S")])
def test_a_number_longer_than_p384_has_it_is_no_signature(at: int, name: str) -> None:
    with pytest.raises(DecodeError, match=f"{name} of the signature"):
        decode_report(patched(at, 1))


def test_turins_tcb_versions_begin_with_the_fmc() -> None:
    guest = SimulatedSnpGuest(
        authority=SnpAuthority(product="Turin"),
        hwid=b"8 octets",
        tcb={"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 200},
    )
    report = decode_report(guest.report(CHALLENGE))
    assert report.turin
    assert report.to_json()["reported_tcb_fmc"] == 1
    # Version 2 does not say which chip it is from, but for the length of its id.
    assert decode_report(guest.with_fields(version=2).report(CHALLENGE)).turin
    assert not decode_report(GUEST.with_fields(version=2).report(CHALLENGE)).turin


def test_a_published_report_reads_as_it_is_known_to() -> None:
    report = decode_report((vectors("sev-snp") / "trustee" / "test-vlek-report.bin").read_bytes())
    assert report.version == 3
    assert report.signing_key is SigningKey.VLEK
    assert report.vmpl == 1
    assert report.product == "Milan"
    assert report.platform_info.alias_check_complete
    assert report.current_version == "1.55.29"
    assert report.reported_tcb.parts == {
        "bootloader": 4,
        "tee": 0,
        "snp": 24,
        "microcode": 217,
    }
    assert report.current_tcb.parts["microcode"] == 220
    assert not report.chip_known
