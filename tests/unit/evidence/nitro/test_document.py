# SPDX-License-Identifier: Apache-2.0
"""Every rule of the attestation document's form, each broken alone."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.vendor_evidence import CHALLENGE
from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.evidence.nitro import SCHEME, decode_document
from troth.evidence.nitro.document import MEDIA_TYPE
from troth.evidence.registry import detect
from troth.formats import cbor
from troth.formats.cose import sign1
from troth.formats.signer import LocalSigner
from troth.testing.nitro import SimulatedEnclave

ENCLAVE = SimulatedEnclave()
DIGEST = b"d" * 48
GOOD: dict[object, object] = {
    "module_id": "i-0-enc1",
    "digest": "SHA384",
    "timestamp": 1,
    "pcrs": {0: DIGEST},
    "certificate": b"c",
    "cabundle": [b"r"],
}


def test_the_least_document_is_taken() -> None:
    document = decode_document(GOOD)
    assert (document.public_key, document.user_data, document.nonce) == (None, None, None)
    assert not document.debug_mode


@pytest.mark.parametrize(
    "changes",
    [
        {"pcrs": dict.fromkeys(range(32), DIGEST)},
        {"pcrs": {31: bytes(32)}},
        {"pcrs": {0: bytes(64)}},
        {"certificate": bytes(1024), "cabundle": [bytes(1024)] * 10},
        {"public_key": b"k"},
        {"public_key": bytes(1024)},
        {"public_key": None, "user_data": None, "nonce": None},
        {"user_data": b"", "nonce": b""},
        {"user_data": bytes(512), "nonce": bytes(512)},
        {"timestamp": 253_402_300_799_999},
    ],
)
def test_every_size_that_the_format_allows_is_taken(changes: dict[object, object]) -> None:
    decode_document({**GOOD, **changes}).to_json()


@pytest.mark.parametrize("name", GOOD)
def test_no_claim_of_the_least_document_may_be_missing(name: str) -> None:
    with pytest.raises(DecodeError, match=f"{name} is missing"):
        decode_document({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("module_id", "", "is not a text, or empty"),
        ("module_id", b"i-0", "is not a text"),
        ("digest", 384, "is not a text"),
        ("timestamp", 0, "is not a time"),
        ("timestamp", -1, "is not a time"),
        ("timestamp", True, "is not a time"),
        ("timestamp", 1.0, "is not a time"),
        ("timestamp", 253_402_300_800_000, "is not a time"),
        ("pcrs", {}, "1 to 32 entries"),
        ("pcrs", [DIGEST], "1 to 32 entries"),
        ("pcrs", dict.fromkeys(range(33), DIGEST), "1 to 32 entries"),
        ("pcrs", {32: DIGEST}, "has the index 32"),
        ("pcrs", {-1: DIGEST}, "has the index -1"),
        ("pcrs", {"0": DIGEST}, "has the index '0'"),
        ("pcrs", {0: bytes(47)}, r"pcrs\[0\] is not 32, 48 or 64"),
        ("pcrs", {0: ""}, r"pcrs\[0\] is not 32, 48 or 64"),
        ("certificate", b"", "is not 1 to 1024 octets"),
        ("certificate", bytes(1025), "is not 1 to 1024 octets"),
        ("certificate", "c", "is not 1 to 1024 octets"),
        ("cabundle", [], "is not an array"),
        ("cabundle", b"r", "is not an array"),
        ("cabundle", [b"r", b""], r"cabundle\[1\] is not 1 to 1024"),
        ("cabundle", [bytes(1025)], r"cabundle\[0\] is not 1 to 1024"),
        ("cabundle", [None], r"cabundle\[0\] is not 1 to 1024"),
        ("public_key", b"", "is not 1 to 1024 octets"),
        ("public_key", bytes(1025), "is not 1 to 1024 octets"),
        ("user_data", bytes(513), "is not 0 to 512 octets"),
        ("nonce", bytes(513), "is not 0 to 512 octets"),
        ("nonce", "text", "is not 0 to 512 octets"),
        ("nonce", 0, "is not 0 to 512 octets"),
    ],
)
def test_a_claim_of_another_type_or_size_is_refused(name: str, value: object, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        decode_document({**GOOD, name: value})


def test_another_digest_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="digest is 'SHA256'"):
        decode_document({**GOOD, "digest": "SHA256"})


@pytest.mark.parametrize("name", ["Nonce", 1, b"nonce", "extra"])
def test_a_claim_that_the_format_does_not_have_is_unsupported(name: object) -> None:
    with pytest.raises(UnsupportedError, match="is none of the format"):
        decode_document({**GOOD, name: b""})


@pytest.mark.parametrize("payload", [None, [], "text", 1])
def test_a_payload_that_is_no_map_is_refused(payload: object) -> None:
    with pytest.raises(DecodeError, match="not a map"):
        decode_document(payload)


def test_the_number_of_certificates_is_limited() -> None:
    with pytest.raises(LimitExceededError, match="max_certificates=10"):
        decode_document({**GOOD, "cabundle": [b"r"] * 11})


@pytest.mark.parametrize("tagged", [False, True])
def test_the_envelope_may_have_its_tag(tagged: bool) -> None:  # noqa: FBT001
    data = SimulatedEnclave(tagged=tagged).attest(CHALLENGE)
    assert detect(data) == "nitro"
    evidence = SCHEME.decode(data)
    assert evidence.document.nonce == CHALLENGE
    assert evidence.media_type == MEDIA_TYPE


@pytest.mark.parametrize("algorithm", ["ES256", "ES512"])
def test_another_algorithm_than_es384_is_refused(algorithm: str) -> None:
    curve = {"ES256": ec.SECP256R1(), "ES512": ec.SECP521R1()}[algorithm]
    data = sign1(cbor.encode(GOOD), LocalSigner(ec.generate_private_key(curve)))
    with pytest.raises(DecodeError, match=f"signed with {algorithm}, not ES384"):
        SCHEME.decode(data)


def test_what_follows_the_document_is_refused() -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(ENCLAVE.attest(CHALLENGE) + b"\0")


def test_a_truncated_document_is_refused() -> None:
    data = ENCLAVE.attest(CHALLENGE)
    for size in range(0, len(data), 173):
        with pytest.raises(DecodeError):
            SCHEME.decode(data[:size])


def test_the_size_is_limited() -> None:
    with pytest.raises(LimitExceededError):
        SCHEME.decode(ENCLAVE.attest(CHALLENGE).ljust(32_769, b"\0"))
