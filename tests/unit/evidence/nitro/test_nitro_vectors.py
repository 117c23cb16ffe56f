# SPDX-License-Identifier: Apache-2.0
"""Published documents of real enclaves, with what is known of them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from cryptography import x509

from support.vectors import vectors
from support.vendor_evidence import UNCHECKED, verify_with
from troth.errors import ChainError, FreshnessError, TrothError
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.nitro import SCHEME
from troth.evidence.registry import detect
from troth.evidence.vendors import is_vendor_root

DEBUG_AT = datetime(2022, 10, 12, 14, 0, tzinfo=UTC)
RELEASE_AT = datetime(2022, 10, 13, 9, 0, tzinfo=UTC)
BASE64_AT = datetime(2023, 9, 18, 16, 0, tzinfo=UTC)
IN_CERTIFICATE_AT = datetime(2023, 1, 18, 14, 0, tzinfo=UTC)
LATER = datetime(2026, 1, 1, tzinfo=UTC)


def read(name: str) -> bytes:
    return (vectors("nitro") / "evervault" / name).read_bytes()


def release() -> bytes:
    return read("valid-attestation-doc-bytes")


def debug() -> bytes:
    return read("debug-mode-attestation-doc-bytes")


def from_base64() -> bytes:
    return base64.b64decode(read("valid-attestation-doc-base64"))


def from_certificate() -> bytes:
    name = "non-debug-cert-containing-attestation-document-18-1-23.pem"
    certificate = x509.load_pem_x509_certificate(read(name))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (text,) = (each for each in names.get_values_for_type(x509.DNSName) if each.startswith("8444"))
    return bytes.fromhex(text.partition(".")[0])


def verify(data: bytes, now: datetime, **given: object) -> VerifiedEvidence:
    return verify_with(
        data,
        "nitro",
        now=now,
        allow_simulator=False,
        **{"vendors": ("aws",), "challenge": UNCHECKED, **given},
    )


DOCUMENTS = {
    "release": (release, RELEASE_AT, False),
    "debug": (debug, DEBUG_AT, True),
    "base64": (from_base64, BASE64_AT, True),
    "in a certificate": (from_certificate, IN_CERTIFICATE_AT, False),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_real_document_verifies_at_its_time_up_to_awss_published_root(name: str) -> None:
    load, now, debug_mode = DOCUMENTS[name]
    data = load()
    assert detect(data) == "nitro"
    verified = verify(data, now)
    assert verified.insecure == ()
    assert verified.claims_sets[0].claims["debug_mode"] is debug_mode
    assert verified.signer == "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_real_document_does_not_verify_today(name: str) -> None:
    load, _, _ = DOCUMENTS[name]
    with pytest.raises(ChainError, match="are valid from"):
        verify(load(), LATER)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_awss_root_is_not_believed_unless_named(name: str) -> None:
    load, now, _ = DOCUMENTS[name]
    with pytest.raises(ChainError, match="is no trust anchor"):
        verify(load(), now, vendors=())


def test_the_root_may_be_provisioned_instead() -> None:
    root = x509.load_pem_x509_certificate(read("nitro.pem"))
    verify_with(release(), "nitro", root, now=RELEASE_AT, challenge=UNCHECKED)
    assert is_vendor_root(root, "aws", believed={"aws"})


def test_the_registers_are_those_that_the_publisher_expects() -> None:
    expected = json.loads(
        read("valid_attestation_doc_in_non_debug_mode_with_correct_pcrs_time_sensitive.json")
    )["pcrs"]
    pcrs = verify(from_certificate(), IN_CERTIFICATE_AT).claims_sets[0].claims["pcrs"]
    assert {name: pcrs[name.removeprefix("pcr")] for name in expected} == expected


def test_a_long_nonce_is_no_challenge_of_ours() -> None:
    nonce = SCHEME.decode(release()).document.nonce
    assert nonce is not None
    assert len(nonce) == 256
    with pytest.raises(FreshnessError):
        verify(release(), RELEASE_AT, challenge=nonce[:64])


@pytest.mark.parametrize("at", [*range(8, 4600, 271), -1])
def test_a_real_document_with_one_bit_changed_is_refused(at: int) -> None:
    data = bytearray(release())
    data[at] ^= 1
    with pytest.raises(TrothError):
        verify(bytes(data), RELEASE_AT)
