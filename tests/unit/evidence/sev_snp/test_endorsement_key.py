# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from support.vectors import vectors
from troth.errors import DecodeError
from troth.evidence.certificates import PooledCertificate, load_certificate
from troth.evidence.sev_snp.endorsement_key import EndorsementKey, decode_endorsement_key
from troth.evidence.sev_snp.fields import TcbVersion
from troth.evidence.sev_snp.report import SigningKey
from troth.testing.sev_snp import SnpAuthority

KEY = ec.generate_private_key(ec.SECP384R1()).public_key()
TCB = TcbVersion.of_parts({"bootloader": 4, "snp": 24, "microcode": 219}, turin=False)
CHIP = bytes(range(1, 65))
AUTHORITY = SnpAuthority()


def read(certificate: x509.Certificate) -> EndorsementKey:
    return decode_endorsement_key(PooledCertificate(certificate, "test", in_evidence=True))


def vcek(**changes: object) -> x509.Certificate:
    return AUTHORITY.endorse(**{"key": KEY, "tcb": TCB, "hwid": CHIP, **changes})


def test_a_vcek_names_chip_product_and_tcb_version() -> None:
    key = read(vcek())
    assert (key.kind, key.product, key.hwid, key.csp_id) == (SigningKey.VCEK, "Milan", CHIP, "")
    assert key.tcb == TCB
    assert key.chip_id == CHIP


def test_a_vlek_names_the_provider_and_no_chip() -> None:
    key = read(AUTHORITY.endorse(KEY, TCB, csp_id="CN=example"))
    assert (key.kind, key.hwid, key.csp_id) == (SigningKey.VLEK, b"", "CN=example")
    assert key.chip_id == b""


def test_the_chips_id_may_be_wrapped_in_der() -> None:
    assert read(vcek(der_hwid=True)).hwid == CHIP


@pytest.mark.parametrize("wrapped", [False, True])
def test_turins_short_id_is_filled_up_as_the_report_does(wrapped: bool) -> None:  # noqa: FBT001
    tcb = TcbVersion.of_parts({"fmc": 1, "bootloader": 2, "snp": 4, "microcode": 200}, turin=True)
    key = read(SnpAuthority(product="Turin").endorse(KEY, tcb, hwid=b"8 octets", der_hwid=wrapped))
    assert key.tcb == tcb
    assert key.chip_id == b"8 octets" + bytes(56)


def test_levels_from_128_on_are_read() -> None:
    assert read(vcek()).tcb.parts["microcode"] == 219


@pytest.mark.parametrize(
    ("arc", "value", "problem"),
    [
        ("3.1", b"\x02\x01\xff", "3704.1.3.1 is no integer"),
        ("3.1", b"\x02\x02\x00\x04", "is no integer"),
        ("3.1", b"\x02\x02\x01\x00", "is no integer"),
        ("3.1", b"\x02\x01\x04\x00", "is not DER"),
        ("3.1", b"\x04\x01\x04", "is not DER of tag 0x02"),
        ("3.8", b"", "is not DER"),
        ("3.4", b"\x02\x01\x01", "is a reserved level and not 0"),
        ("2", b"\x0c\x05Milan", "is not DER of tag 0x16"),
        ("2", b"\x16\x00", "is no printable text"),
        ("2", b"\x16\x02\xff\xff", "is no printable text"),
        ("4", bytes(63), "is not DER"),
        ("4", b"\x04\x3f" + bytes(63), "has 63 octets"),
        ("5", b"\x16\x01x", "names a chip and a provider"),
    ],
)
def test_an_extension_of_another_form_is_refused(arc: str, value: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        read(vcek(more=[(arc, value)]))


def test_a_vcek_without_a_chip_is_refused() -> None:
    with pytest.raises(DecodeError, match="names no chip and no provider"):
        read(vcek(hwid=b""))


def test_a_vlek_by_name_with_a_chip_is_refused() -> None:
    with pytest.raises(DecodeError, match="is called VLEK, but names a chip"):
        read(vcek(common_name="SEV-VLEK"))


def test_another_common_name_is_no_endorsement_key() -> None:
    with pytest.raises(DecodeError, match="no VCEK or VLEK"):
        read(vcek(common_name="SEV-CEK"))


def test_a_key_on_another_curve_is_refused() -> None:
    with pytest.raises(DecodeError, match="not on P-384"):
        read(vcek(key=ec.generate_private_key(ec.SECP256R1()).public_key()))


@pytest.mark.parametrize(
    ("name", "hwid"),
    [
        ("go-sev-guest/vcek.testcer", "3ac3fe21e13fb099"),
        ("trustee/test-vcek.der", "c38427a30d4c7af9"),
        ("trustee/test-vcek-invalid-legacy.der", "0001020304050607"),
        ("trustee/test-vcek-invalid-new.der", "0001020304050607"),
    ],
)
def test_the_serial_number_0_of_real_vceks_causes_no_warning(name: str, hwid: str) -> None:
    """Warnings are errors here. When the library begins to refuse, this is where it shows."""
    data = (vectors("sev-snp") / name).read_bytes()
    key = read(load_certificate(data, format=name))
    assert key.kind is SigningKey.VCEK
    assert key.product == "Milan"
    assert key.hwid.hex().startswith(hwid)


def test_a_real_vlek_is_read() -> None:
    data = (vectors("sev-snp") / "trustee" / "test-vlek.der").read_bytes()
    key = read(load_certificate(data, format="VLEK"))
    assert key.csp_id == "CN=cc-us-east-2.amazonaws.com"
    assert str(key.tcb) == "bootloader 4, tee 0, snp 24, microcode 217"
