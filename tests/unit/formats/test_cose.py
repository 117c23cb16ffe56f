# SPDX-License-Identifier: Apache-2.0
"""COSE_Sign1 and COSE_Mac0: what verifies, and everything beside it that must not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from support.certificates import TestAuthority
from support.diag import encode_diag
from support.vectors import vectors
from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, SignatureError
from troth.formats import cbor
from troth.formats.cose import (
    ALG,
    CONTENT_TYPE,
    CRIT,
    KID,
    X5CHAIN,
    CoseKey,
    Header,
    Mac0,
    Sign1,
    mac0,
    sign1,
)
from troth.formats.cose_key import ALGORITHM_IDS
from troth.formats.jwk import decode_jwk
from troth.formats.keys import load_keys
from troth.formats.signer import LocalSigner, PrivateKey
from troth.formats.verification_key import VerificationKey

PAYLOAD = b"This is the content."
SECRET = bytes(range(64))

# RFC 9052 appendix C.2.1, and key "11" of appendix C.7.1.
EXAMPLE = """
18([
  / protected / h'a10126',
  / unprotected / {4: h'3131'},
  / payload / 'This is the content.',
  / signature / h'8eb33e4ca31d1c465ab05aac34cc6b23d58fef5c083106c4d25a91aef0b0117e
                  2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4c345cacb36'
])
"""
EXAMPLE_KEY = """
{
  1: 2, 2: '11', -1: 1,
  -2: h'bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff',
  -3: h'20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e'
}
"""


def signer(algorithm: str) -> LocalSigner:
    return LocalSigner(_KEYS[algorithm])


_KEYS: dict[str, PrivateKey] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "PS256": rsa.generate_private_key(65537, 2048),
}


def public(algorithm: str) -> VerificationKey:
    return VerificationKey(signer(algorithm).public_key)


def rebuilt(
    encoded: bytes,
    *,
    protected: Mapping[int | str, object] | bytes | None = None,
    unprotected: Mapping[int | str, object] | None = None,
    payload: object = ...,
    proof: bytes | None = None,
) -> bytes:
    """Return a message with some of its four parts replaced and the signature left as it is."""
    message = cbor.decode(encoded, format="COSE")
    assert isinstance(message, cbor.Tag)
    assert isinstance(message.value, list)
    parts = list(message.value)
    if protected is not None:
        parts[0] = protected if isinstance(protected, bytes) else cbor.encode(protected)
    if unprotected is not None:
        parts[1] = unprotected
    if payload is not ...:
        parts[2] = payload
    if proof is not None:
        parts[3] = proof
    return cbor.encode(cbor.Tag(message.number, parts))


def signed(protected: Mapping[int | str, object] | bytes, unprotected: Header) -> bytes:
    """Return a message whose signature covers whatever protected header is asked for."""
    octets = protected if isinstance(protected, bytes) else cbor.encode(protected)
    covered = cbor.encode(["Signature1", octets, b"", PAYLOAD])
    parts = [octets, unprotected, PAYLOAD, signer("ES256").sign(covered)]
    return cbor.encode(cbor.Tag(18, parts))


def test_the_example_of_rfc_9052_verifies_under_its_key() -> None:
    message = Sign1.decode(encode_diag(EXAMPLE), format="example")
    key = CoseKey.decode(encode_diag(EXAMPLE_KEY))
    assert message.verify(key, algorithms=["ES256"]) == PAYLOAD
    assert (message.algorithm, message.key_id, key.key_id) == ("ES256", b"11", "11")


@pytest.mark.parametrize("part", ["protected", "payload", "proof"])
def test_one_changed_bit_in_what_is_covered_is_refused(part: str) -> None:
    encoded = sign1(PAYLOAD, signer("ES256"), protected={CONTENT_TYPE: "text/plain"})
    changed = {
        "protected": {"protected": {ALG: -7, CONTENT_TYPE: "text/plaim"}},
        "payload": {"payload": b"This is the content/"},
        "proof": {"proof": Sign1.decode(encoded, format="x").signature[:-1] + b"\0"},
    }[part]
    Sign1.decode(encoded, format="x").verify(public("ES256"), algorithms=["ES256"])
    with pytest.raises(SignatureError, match="does not verify"):
        Sign1.decode(rebuilt(encoded, **changed), format="x").verify(  # type: ignore[arg-type]
            public("ES256"), algorithms=["ES256"]
        )


@pytest.mark.parametrize("algorithm", list(_KEYS))
def test_each_signature_algorithm_round_trips_and_fits_its_own_kind_of_key_only(
    algorithm: str,
) -> None:
    encoded = sign1(PAYLOAD, signer(algorithm))
    message = Sign1.decode(encoded, format="x")
    assert message.verify(public(algorithm), algorithms=[algorithm]) == PAYLOAD
    for other in _KEYS.keys() - {algorithm}:
        with pytest.raises(SignatureError, match=f"{algorithm} needs"):
            message.verify(public(other), algorithms=[algorithm])
    with pytest.raises(SignatureError, match=f"{algorithm} needs"):
        message.verify(VerificationKey(SECRET), algorithms=[algorithm])


@pytest.mark.parametrize("algorithm", ["HMAC 256/256", "HMAC 384/384", "HMAC 512/512"])
def test_each_mac_algorithm_round_trips_under_its_own_key_only(algorithm: str) -> None:
    message = Mac0.decode(mac0(PAYLOAD, SECRET, algorithm=algorithm), format="x")
    assert message.verify(VerificationKey(SECRET), algorithms=[algorithm]) == PAYLOAD
    with pytest.raises(SignatureError, match="does not verify"):
        message.verify(VerificationKey(SECRET[::-1]), algorithms=[algorithm])
    with pytest.raises(SignatureError, match="symmetric key"):
        message.verify(VerificationKey(SECRET[:16]), algorithms=[algorithm])
    with pytest.raises(SignatureError, match="symmetric key"):
        message.verify(public("ES256"), algorithms=[algorithm])


def test_a_public_key_is_never_taken_for_a_mac_key() -> None:
    spki = cbor.encode(CoseKey.to_value(public("ES256")))
    forged = mac0(PAYLOAD, spki)
    with pytest.raises(SignatureError, match="symmetric key"):
        Mac0.decode(forged, format="x").verify(public("ES256"), algorithms=["HMAC 256/256"])


def test_a_truncated_mac_is_refused() -> None:
    encoded = mac0(PAYLOAD, SECRET)
    short = rebuilt(encoded, proof=Mac0.decode(encoded, format="x").tag[:8])
    with pytest.raises(SignatureError, match="does not verify"):
        Mac0.decode(short, format="x").verify(VerificationKey(SECRET), algorithms=["HMAC 256/256"])


def test_only_algorithms_that_the_caller_lists_are_accepted() -> None:
    message = Sign1.decode(sign1(PAYLOAD, signer("ES256")), format="x")
    message.verify(public("ES256"), algorithms=["ES384", "ES256"])
    for algorithms in (["ES384"], []):
        with pytest.raises(SignatureError, match="not allowed"):
            message.verify(public("ES256"), algorithms=algorithms)


def test_a_key_that_is_bound_to_an_algorithm_verifies_no_other() -> None:
    message = Sign1.decode(sign1(PAYLOAD, signer("PS256")), format="x")
    material = public("PS256").material
    message.verify(VerificationKey(material, algorithm="PS256"), algorithms=["PS256"])
    with pytest.raises(SignatureError, match="for PS384 only"):
        message.verify(VerificationKey(material, algorithm="PS384"), algorithms=["PS256"])


@pytest.mark.parametrize(
    ("protected", "unprotected"),
    [
        (b"", {ALG: -7}),
        (b"\xa0", {ALG: -7}),
        ({KID: b"x"}, {ALG: -7}),
        ({KID: b"x"}, {}),
        ({ALG: "ES256"}, {}),
        ({ALG: -65535}, {}),
        ({ALG: 5}, {}),
        ({ALG: [-7]}, {}),
    ],
)
def test_an_algorithm_that_is_not_a_known_one_in_the_protected_header_is_refused(
    protected: bytes | dict[int | str, object], unprotected: Header
) -> None:
    message = Sign1.decode(signed(protected, unprotected), format="x")
    with pytest.raises(SignatureError, match="alg in the protected header"):
        message.verify(public("ES256"), algorithms=["ES256", "HMAC 256/256"])


def test_the_stated_algorithm_must_be_the_keys_even_if_the_signature_would_verify() -> None:
    message = Sign1.decode(signed({ALG: -35}, {}), format="x")
    with pytest.raises(SignatureError, match="ES384 needs a key on secp384r1"):
        message.verify(public("ES256"), algorithms=["ES256", "ES384"])


@pytest.mark.parametrize(
    ("protected", "unprotected", "says"),
    [
        ({ALG: -7, CRIT: [-70000], -70000: 1}, {}, "does not know"),
        ({ALG: -7, CRIT: ["x"], "x": 1}, {}, "does not know"),
        ({ALG: -7, CRIT: [CRIT]}, {}, "does not know"),
        ({ALG: -7, CRIT: [KID]}, {KID: b"x"}, "not in the protected header"),
        ({ALG: -7, CRIT: [CONTENT_TYPE]}, {}, "not in the protected header"),
        ({ALG: -7, CRIT: []}, {}, "array of one label or more"),
        ({ALG: -7, CRIT: 4, KID: b"x"}, {}, "array of one label or more"),
        ({ALG: -7, CRIT: [[1]]}, {}, "not in the protected header"),
        ({ALG: -7, CRIT: [True]}, {}, "not in the protected header"),
        ({ALG: -7}, {CRIT: [ALG]}, "crit in the unprotected"),
        ({ALG: -7}, {ALG: -7}, "label 1 in both"),
        ({ALG: -7, "x": 1}, {"x": 1}, "label 'x' in both"),
        ({ALG: -7, b"\1": 1}, {}, "label is a byte string"),
        ({ALG: -7}, {b"\1": 1}, "label is a byte string"),
        (b"\xa2\x01\x26\x01\x26", {}, "occurs twice"),
        (b"\xa1\x01\x26\x00", {}, "1 bytes after"),
        (b"\x81\x01", {}, "not a map"),
        (b"\xff", {}, "break"),
    ],
)
def test_headers_that_the_rfc_forbids_are_refused_though_properly_signed(
    protected: bytes | dict[int | str, object], unprotected: Header, says: str
) -> None:
    with pytest.raises(DecodeError, match=says):
        Sign1.decode(signed(protected, unprotected), format="x")


def test_a_critical_label_is_accepted_from_a_caller_that_processes_it() -> None:
    encoded = signed({ALG: -7, CRIT: [KID, -70000], KID: b"x", -70000: 1}, {})
    message = Sign1.decode(encoded, format="x", understood=[-70000])
    assert message.verify(public("ES256"), algorithms=["ES256"]) == PAYLOAD
    with pytest.raises(DecodeError, match="-70000"):
        Sign1.decode(encoded, format="x", understood=[-70001])


def test_labels_repeated_in_the_unprotected_header_are_refused() -> None:
    with pytest.raises(DecodeError, match="occurs twice"):
        Sign1.decode(encode_diag("18([h'a10126', {4: '1', 4: '2'}, '', h'00'])"), format="x")


@pytest.mark.parametrize(
    ("notation", "says"),
    [
        ("18([h'a10126', {}, 'p'])", "not an array of"),
        ("18([h'a10126', {}, 'p', h'00', 1])", "not an array of"),
        ("18([{1: -7}, {}, 'p', h'00'])", "not an array of"),
        ("18([h'a10126', [], 'p', h'00'])", "not an array of"),
        ("18([h'a10126', {}, \"p\", h'00'])", "not an array of"),
        ("18([h'a10126', {}, 'p', \"00\"])", "not an array of"),
        ("18([h'a10126', {}, 'p', null])", "not an array of"),
        ("18({})", "not an array of"),
        ("18(h'')", "not an array of"),
        ("17([h'a10126', {}, 'p', h'00'])", "tag 17, expected tag 18"),
        ("98([h'a10126', {}, 'p', h'00'])", "tag 98, expected tag 18"),
        ("18(18([h'a10126', {}, 'p', h'00']))", "not an array of"),
        ("61(18([h'a10126', {}, 'p', h'00']))", "tag 61, expected tag 18"),
        ("[h'a10126', {}, 'p', h'00']", "no tag, expected tag 18"),
        ("18([_ h'a10126', {}, 'p', h'00'])", "indefinite"),
    ],
)
def test_other_shapes_are_refused(notation: str, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        Sign1.decode(encode_diag(notation), format="x")


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(DecodeError, match="1 bytes after"):
        Sign1.decode(sign1(PAYLOAD, signer("ES256")) + b"\0", format="x")


def test_the_tag_is_there_or_not_by_the_callers_choice() -> None:
    tagged = sign1(PAYLOAD, signer("ES256"))
    untagged = sign1(PAYLOAD, signer("ES256"), tagged=False)
    assert (tagged[0], untagged[0]) == (0xD2, 0x84)
    for encoded in (tagged, untagged):
        message = Sign1.decode(encoded, format="x", tagging="either")
        assert message.verify(public("ES256"), algorithms=["ES256"]) == PAYLOAD
    Sign1.decode(untagged, format="x", tagging="absent")
    with pytest.raises(DecodeError, match="expected no tag"):
        Sign1.decode(tagged, format="x", tagging="absent")
    with pytest.raises(DecodeError, match="expected tag 18"):
        Sign1.decode(untagged, format="x")


def test_a_detached_payload_is_verified_with_the_message() -> None:
    encoded = sign1(PAYLOAD, signer("ES256"), detached=True)
    message = Sign1.decode(encoded, format="x", detached=True)
    verified = message.verify(public("ES256"), algorithms=["ES256"], detached_payload=PAYLOAD)
    assert verified == PAYLOAD
    assert message.payload == b""
    with pytest.raises(SignatureError, match="does not verify"):
        message.verify(public("ES256"), algorithms=["ES256"], detached_payload=b"")


def test_a_payload_is_where_the_caller_expects_it() -> None:
    attached = sign1(PAYLOAD, signer("ES256"))
    detached = sign1(PAYLOAD, signer("ES256"), detached=True)
    with pytest.raises(DecodeError, match="nil, expected attached"):
        Sign1.decode(detached, format="x")
    with pytest.raises(DecodeError, match="attached, expected nil"):
        Sign1.decode(attached, format="x", detached=True)
    with pytest.raises(ApiMisuseError, match="detached"):
        Sign1.decode(attached, format="x").verify(
            public("ES256"), algorithms=["ES256"], detached_payload=PAYLOAD
        )
    with pytest.raises(ApiMisuseError, match="detached"):
        Sign1.decode(detached, format="x", detached=True).verify(
            public("ES256"), algorithms=["ES256"]
        )


@pytest.mark.parametrize("kind", ["sign1", "mac0"])
def test_external_data_is_covered(kind: str) -> None:
    if kind == "sign1":
        message: Sign1 | Mac0 = Sign1.decode(
            sign1(PAYLOAD, signer("ES256"), external_aad=b"channel"), format="x"
        )
        key, algorithms = public("ES256"), ["ES256"]
    else:
        message = Mac0.decode(mac0(PAYLOAD, SECRET, external_aad=b"channel"), format="x")
        key, algorithms = VerificationKey(SECRET), ["HMAC 256/256"]
    assert message.verify(key, algorithms=algorithms, external_aad=b"channel") == PAYLOAD
    for other in (b"", b"another"):
        with pytest.raises(SignatureError, match="does not verify"):
            message.verify(key, algorithms=algorithms, external_aad=other)


def test_a_signature_is_not_a_mac_over_the_same_octets() -> None:
    encoded = mac0(PAYLOAD, SECRET)
    retagged = cbor.encode(cbor.Tag(18, cbor.decode(encoded, format="x").value))  # type: ignore[attr-defined]
    with pytest.raises(SignatureError, match="Signature1 message needs"):
        Sign1.decode(retagged, format="x").verify(
            VerificationKey(SECRET), algorithms=["HMAC 256/256"]
        )


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
@pytest.mark.parametrize(
    "altered",
    [
        lambda raw: raw[:0],
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: b"\0" + raw,
        lambda raw: bytes(len(raw)),
        lambda raw: b"\xff" * len(raw),
    ],
)
def test_ecdsa_signatures_of_another_length_or_out_of_range_are_refused(
    algorithm: str, altered: Callable[[bytes], bytes]
) -> None:
    encoded = sign1(PAYLOAD, signer(algorithm))
    raw = Sign1.decode(encoded, format="x").signature
    message = Sign1.decode(rebuilt(encoded, proof=altered(raw)), format="x")
    with pytest.raises(SignatureError):
        message.verify(public(algorithm), algorithms=[algorithm])


def test_a_der_signature_is_refused() -> None:
    key = _KEYS["ES256"]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    octets = cbor.encode({ALG: -7})
    der = key.sign(cbor.encode(["Signature1", octets, b"", PAYLOAD]), ec.ECDSA(hashes.SHA256()))
    message = Sign1.decode(cbor.encode(cbor.Tag(18, [octets, {}, PAYLOAD, der])), format="x")
    with pytest.raises(SignatureError, match="instead of 64"):
        message.verify(public("ES256"), algorithms=["ES256"])


def test_the_protected_header_is_verified_as_received_not_as_it_would_be_written() -> None:
    unusual = bytes.fromhex("b801180126")  # {1: -7}, which we would write a1 01 26
    message = Sign1.decode(signed(unusual, {}), format="x")
    assert message.verify(public("ES256"), algorithms=["ES256"]) == PAYLOAD
    assert message.protected_bytes == unusual


@pytest.mark.parametrize(
    ("protected", "unprotected"),
    [
        ({ALG: -7}, {}),
        ({}, {ALG: -7}),
        ({KID: b"x"}, {KID: b"x"}),
        ({}, {CRIT: [KID]}),
        ({CRIT: [-70000]}, {}),
        ({b"x": 1}, {}),
    ],
)
def test_a_message_that_would_be_refused_cannot_be_made(
    protected: Header, unprotected: Header
) -> None:
    with pytest.raises(ApiMisuseError):
        sign1(PAYLOAD, signer("ES256"), protected=protected, unprotected=unprotected)


def test_a_mac_key_shorter_than_the_hash_cannot_be_used() -> None:
    with pytest.raises(ApiMisuseError, match="32 bytes"):
        mac0(PAYLOAD, SECRET[:31])


@pytest.mark.parametrize("where", ["protected", "unprotected"])
def test_certificates_are_given_out_leaf_first_from_either_header(where: str) -> None:
    authority = TestAuthority()
    leaf = authority.issue("spiffe://example.org/a").certificate
    root = x509.load_pem_x509_certificate(authority.bundle)
    chain = [certificate.public_bytes(Encoding.DER) for certificate in (leaf, root)]
    encoded = sign1(PAYLOAD, signer("ES256"), **{where: {X5CHAIN: chain}})  # type: ignore[arg-type]
    assert Sign1.decode(encoded, format="x").x5chain() == [leaf, root]
    single = sign1(PAYLOAD, signer("ES256"), **{where: {X5CHAIN: chain[0]}})  # type: ignore[arg-type]
    assert Sign1.decode(single, format="x").x5chain() == [leaf]


def test_a_message_without_certificates_gives_none() -> None:
    assert Sign1.decode(sign1(PAYLOAD, signer("ES256")), format="x").x5chain() == []


@pytest.mark.parametrize("chain", [b"", b"\x30\x00", [], [b"\x30\x00"], "text", 10**9, [1, 2]])
def test_a_certificate_header_of_another_shape_is_refused(chain: object) -> None:
    message = Sign1.decode(
        sign1(PAYLOAD, signer("ES256"), unprotected={X5CHAIN: chain}), format="x"
    )
    with pytest.raises(DecodeError, match="x5chain"):
        message.x5chain()


def test_more_certificates_than_the_limit_are_refused_unparsed() -> None:
    encoded = sign1(PAYLOAD, signer("ES256"), unprotected={X5CHAIN: [b""] * 11})
    with pytest.raises(LimitExceededError, match="max_certificates"):
        Sign1.decode(encoded, format="x").x5chain()


def test_secrets_and_payload_headers_do_not_show_key_material() -> None:
    assert SECRET.hex() not in repr(VerificationKey(SECRET))
    assert str(SECRET) not in repr(VerificationKey(SECRET))


def test_every_algorithm_number_has_one_name() -> None:
    assert len(set(ALGORITHM_IDS.values())) == len(ALGORITHM_IDS) == 14


# Tokens from elsewhere.


def test_the_psa_tokens_of_rfc_9783_verify_under_their_keys() -> None:
    folder = vectors("psa") / "rfc9783"
    (key,) = load_keys((folder / "tfm-es-iak.json").read_bytes(), source="tfm-es-iak.json")
    token = Sign1.decode(_hex(folder / "psa-sign1.hex"), format="PSA token")
    assert token.verify(key, algorithms=["ES256"])[:1] == b"\xa8"

    folded = (folder / "tfm-hs-iak.json").read_text()  # as RFC 8792 section 8 folds lines
    secret = decode_jwk(
        json.loads(re.sub(r"^=.*\n|\\\n *\\", "", folded)), format="tfm-hs-iak.json"
    )
    mac = Mac0.decode(_hex(folder / "psa-mac0.hex"), format="PSA token")
    assert secret.algorithm == "HMAC 256/256"
    assert mac.verify(secret, algorithms=["HMAC 256/256"])[:1] == b"\xa8"


def test_the_veraison_psa_token_verifies_under_its_key_and_no_other() -> None:
    folder = vectors("psa") / "veraison-services"
    (key,) = load_keys((folder / "ec.p256.jwk").read_bytes(), source="ec.p256.jwk")
    token = Sign1.decode((folder / "psa.good.cose").read_bytes(), format="PSA token")
    token.verify(key, algorithms=["ES256"])
    with pytest.raises(SignatureError):
        token.verify(public("ES256"), algorithms=["ES256"])


def test_a_nitro_document_verifies_untagged_under_its_leaf_certificate() -> None:
    folder = vectors("nitro") / "evervault"
    document = Sign1.decode(
        (folder / "valid-attestation-doc-bytes").read_bytes(),
        format="Nitro document",
        tagging="absent",
    )
    claims = cbor.decode(document.payload, format="Nitro document")
    assert isinstance(claims, dict)
    leaf = x509.load_der_x509_certificate(claims["certificate"])
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    document.verify(VerificationKey(key), algorithms=["ES384"])


def test_a_signed_corim_verifies_under_its_key() -> None:
    folder = vectors("corim")
    (key,) = load_keys((folder / "ec-p256.jwk").read_bytes(), source="ec-p256.jwk")
    manifest = Sign1.decode((folder / "signed-good-corim.cbor").read_bytes(), format="CoRIM")
    manifest.verify(key, algorithms=["ES256"])


def _hex(path: Path) -> bytes:
    return bytes.fromhex("".join(path.read_text().split()))
