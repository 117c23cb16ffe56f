# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from support.vectors import vectors
from support.vendor_evidence import NOW
from support.x509 import Plan, sign, signing
from troth.errors import DecodeError, LimitExceededError
from troth.evidence.certificates import (
    MAX_DOCUMENT_BYTES,
    MAX_POOLED_CERTIFICATES,
    VendorDocuments,
    load_certificate,
)
from troth.evidence.context import Collateral
from troth.testing.sev_snp import SnpAuthority

CERTIFICATE = sign(Plan(), signing())
PEM, DER = (CERTIFICATE.public_bytes(each) for each in (Encoding.PEM, Encoding.DER))
LIST = SnpAuthority().revocations(made=NOW, next_update=NOW + timedelta(days=1))


def pool(*documents: bytes) -> VendorDocuments:
    found = VendorDocuments()
    for document in documents:
        found.add(document, source="test", in_evidence=True)
    return found


@pytest.mark.parametrize("data", [PEM, DER, PEM.replace(b"\n", b"\r\n"), b"text\n" + PEM + b"more"])
def test_a_certificate_is_taken_in_der_and_pem(data: bytes) -> None:
    assert [each.certificate for each in pool(data).certificates] == [CERTIFICATE]


def test_a_list_is_told_from_a_certificate() -> None:
    found = pool(LIST, PEM)
    assert len(found.revocation_lists) == len(found.certificates) == 1


def test_the_same_certificate_twice_is_one() -> None:
    assert len(pool(PEM, DER, PEM + PEM).certificates) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        DER[:-1],
        DER + b"\0",
        b"\x30\x00",
        PEM.replace(b"M", b"*", 1),
        PEM[:40],
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        LIST[:-1],
    ],
)
def test_what_is_neither_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        pool(data)


def test_collateral_of_other_kinds_is_left_out_and_damage_is_told() -> None:
    found = VendorDocuments()
    found.add_collateral(
        Collateral({"good": PEM, "damaged": DER[:-1], "note": b"read me", "qe": b'{"a": 1}'})
    )
    assert [each.source for each in found.certificates] == ["collateral good"]
    assert found.unreadable == ["damaged"]


def test_the_number_of_certificates_is_limited() -> None:
    issuer = signing()
    many = [sign(Plan(), issuer) for _ in range(MAX_POOLED_CERTIFICATES + 1)]
    encoded = [each.public_bytes(Encoding.DER) for each in many]
    found = pool(*encoded[:-1])
    with pytest.raises(LimitExceededError, match="MAX_POOLED_CERTIFICATES"):
        found.add(encoded[-1], source="one more", in_evidence=False)


def test_the_length_of_a_document_is_limited() -> None:
    longest = PEM.ljust(MAX_DOCUMENT_BYTES)
    assert pool(longest).certificates
    with pytest.raises(LimitExceededError, match="MAX_DOCUMENT_BYTES"):
        pool(longest + b" ")
    found = VendorDocuments()
    found.add_collateral(Collateral({"long": longest + b" ", "good": PEM}))
    assert [each.source for each in found.certificates] == ["collateral good"]


def test_the_number_of_lists_is_limited() -> None:
    found = pool(*[LIST] * MAX_POOLED_CERTIFICATES)
    with pytest.raises(LimitExceededError, match="MAX_POOLED_CERTIFICATES"):
        found.add(LIST, source="one more", in_evidence=False)


def test_the_warning_about_serial_numbers_is_kept_in_and_no_other() -> None:
    """A library that refuses such certificates one day fails this test."""
    data = (vectors("sev-snp") / "trustee" / "test-vcek.der").read_bytes()
    before = list(warnings.filters)
    certificate = load_certificate(data, format="VCEK")
    assert warnings.filters == before
    with pytest.warns(CryptographyDeprecationWarning, match="serial number"):
        assert certificate.serial_number == 0
