# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from support.x509 import named, p256
from troth.errors import DecodeError, LimitExceededError, SignatureError, UnsupportedError
from troth.formats.keys import spki
from troth.identity.certificate_request import MAX_REQUEST_BYTES, decode_csr

RSA = rsa.generate_private_key(65537, 2048)


def request(
    key: object,
    *,
    subject: str = "",
    sans: Sequence[x509.GeneralName] = (),
    algorithm: object = hashes.SHA256(),
    encoding: Encoding = Encoding.DER,
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(named(subject))
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return builder.sign(key, algorithm).public_bytes(encoding)


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
@pytest.mark.parametrize("key", [p256(), ec.generate_private_key(ec.SECP384R1()), RSA])
def test_a_request_gives_the_key_whose_holder_signed_it(key: object, encoding: Encoding) -> None:
    found = decode_csr(request(key, encoding=encoding))
    assert found.spki == spki(key.public_key()) == spki(found.public_key)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - what is to be refused
        rsa.generate_private_key(65537, 4104),
    ],
    ids=["P-521", "secp256k1", "RSA 1024", "RSA 4104"],
)
def test_a_key_that_some_tls_stack_of_the_mesh_refuses_is_refused(key: object) -> None:
    with pytest.raises(UnsupportedError):
        decode_csr(request(key))


def test_an_ed25519_key_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="P-256"):
        decode_csr(request(ed25519.Ed25519PrivateKey.generate(), algorithm=None))


def test_a_request_whose_key_was_exchanged_after_signing_is_refused() -> None:
    key = p256()
    der = request(key)
    assert decode_csr(der)
    with pytest.raises(SignatureError, match="holds the key"):
        decode_csr(der.replace(spki(key.public_key()), spki(p256().public_key())))


def test_what_a_request_asks_to_be_called_does_not_matter() -> None:
    key = p256()
    greedy = request(
        key,
        subject="admin",
        sans=[x509.UniformResourceIdentifier("spiffe://example.org/troth/server")],
    )
    assert decode_csr(greedy).spki == decode_csr(request(key)).spki


def test_a_request_has_a_longest_form() -> None:
    names = [x509.DNSName(f"{n}.example.org") for n in range(600)]
    long = request(p256(), sans=names)
    assert len(long) > MAX_REQUEST_BYTES
    with pytest.raises(LimitExceededError):
        decode_csr(long)
    assert decode_csr(request(p256(), sans=names[:300]))


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"-----BEGIN CERTIFICATE REQUEST-----", b"x"])
def test_what_is_no_request_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_csr(data)


@given(st.data())
def test_a_damaged_request_is_refused_by_a_named_error(data: st.DataObject) -> None:
    der = bytearray(_REQUEST)
    at = data.draw(st.integers(0, len(der) - 1))
    der[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((DecodeError, SignatureError)):
        decode_csr(bytes(der))


_REQUEST = request(p256(), subject="x")
