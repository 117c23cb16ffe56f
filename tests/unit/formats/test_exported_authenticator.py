# SPDX-License-Identifier: Apache-2.0
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import DecodeError, PeerError, SignatureError, TrothError
from troth.formats.exported_authenticator import (
    AuthenticatorKeys,
    AuthenticatorRequest,
    Role,
    SignatureScheme,
    certificate_message,
    certificate_verify_input,
    decode_request,
    empty_authenticator,
    encode_request,
    exporter_labels,
    finish_authenticator,
    validate_authenticator,
)

CMW = 0xFF00
CONTEXT = bytes(range(0x20, 0x40))


def expand_label(secret: bytes, label: str, context: bytes, size: int, hash_name: str) -> bytes:
    """HKDF-Expand-Label of RFC 8446 section 7.1, written apart from any library."""
    full = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(full)]) + full + bytes([len(context)]) + context
    block, output, counter = b"", b"", 1
    while len(output) < size:
        block = hmac.digest(secret, block + info + bytes([counter]), hash_name)
        output += block
        counter += 1
    return output[:size]


def exporter(secret: bytes, label: str, hash_name: str) -> bytes:
    empty = hashlib.new(hash_name, b"").digest()
    derived = expand_label(secret, label, empty, len(empty), hash_name)
    return expand_label(derived, "exporter", empty, len(empty), hash_name)


def keys_for(sender: Role, hash_name: str = "sha256", seed: bytes = b"") -> AuthenticatorKeys:
    secret = hashlib.new(hash_name, b"exporter_master_secret placeholder" + seed).digest()
    context, finished = exporter_labels(sender)
    return AuthenticatorKeys(
        exporter(secret, context, hash_name), exporter(secret, finished, hash_name), hash_name
    )


def leaf() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    return key, certificate.public_bytes(serialization.Encoding.DER)


KEY, CERTIFICATE = leaf()


def request(requester: Role = Role.CLIENT, context: bytes = CONTEXT) -> AuthenticatorRequest:
    encoded = encode_request(
        requester,
        context=context,
        signature_schemes=[SignatureScheme.ECDSA_SECP256R1_SHA256],
        extensions={CMW: b""},
    )
    return decode_request(encoded, requester)


def answer(
    keys: AuthenticatorKeys,
    asked: AuthenticatorRequest,
    *,
    payload: bytes = b"\x82payload",
    signer: ec.EllipticCurvePrivateKey = KEY,
) -> bytes:
    certificate = certificate_message(asked, [CERTIFICATE], {CMW: payload})
    signature = signer.sign(
        certificate_verify_input(keys, asked, certificate), ec.ECDSA(hashes.SHA256())
    )
    return finish_authenticator(
        keys,
        asked,
        certificate,
        scheme=SignatureScheme.ECDSA_SECP256R1_SHA256,
        signature=signature,
    )


def test_exporter_values_agree_with_independent_vectors() -> None:
    server, client = keys_for(Role.SERVER), keys_for(Role.CLIENT)
    assert server.handshake_context.hex().startswith("00b82f1bc2e96912934c3ad4e2a4d8dd")
    assert server.finished_key.hex().startswith("5638c811a556b327f2aca6038a5e5e2d")
    assert client.handshake_context.hex().startswith("f7082ffc288d8ad6f22e7b605fa42967")


def test_a_clients_request_has_type_17_and_matches_the_vector() -> None:
    encoded = encode_request(
        Role.CLIENT,
        context=CONTEXT,
        signature_schemes=[SignatureScheme.ED25519],
        extensions={CMW: b""},
    )
    assert encoded.hex() == "1100002f20" + CONTEXT.hex() + "000c000d000400020807ff000000"


def test_the_empty_authenticator_matches_the_vector() -> None:
    asked = decode_request(
        encode_request(
            Role.CLIENT,
            context=CONTEXT,
            signature_schemes=[SignatureScheme.ED25519],
            extensions={CMW: b""},
        ),
        Role.CLIENT,
    )
    assert (
        empty_authenticator(keys_for(Role.SERVER), asked).hex()
        == "14000020d86aa0b89e96a890d22081427b926866b1ee96440778594eec5fdf24324f4acf"
    )


def test_a_servers_request_has_type_13() -> None:
    encoded = encode_request(
        Role.SERVER, context=b"c", signature_schemes=[SignatureScheme.ED25519], extensions={}
    )
    assert encoded[0] == 13
    with pytest.raises(DecodeError, match="type 13"):
        decode_request(encoded, Role.CLIENT)


def test_an_authenticator_for_this_connection_is_accepted() -> None:
    keys, asked = keys_for(Role.SERVER), request()
    proved = validate_authenticator(keys, asked, answer(keys, asked))
    assert proved.chain == (CERTIFICATE,)
    assert proved.extensions == {CMW: b"\x82payload"}


def test_an_authenticator_of_another_connection_is_refused() -> None:
    asked = request()
    data = answer(keys_for(Role.SERVER, seed=b"other"), asked)
    with pytest.raises(SignatureError):
        validate_authenticator(keys_for(Role.SERVER), asked, data)


def test_an_authenticator_made_for_the_other_direction_is_refused() -> None:
    asked = request()
    with pytest.raises(SignatureError):
        validate_authenticator(keys_for(Role.SERVER), asked, answer(keys_for(Role.CLIENT), asked))


def test_an_answer_to_an_earlier_request_is_refused() -> None:
    keys = keys_for(Role.SERVER)
    with pytest.raises(PeerError, match="another request"):
        validate_authenticator(keys, request(context=b"second"), answer(keys, request()))


def test_a_signature_by_another_key_is_refused() -> None:
    keys, asked = keys_for(Role.SERVER), request()
    data = answer(keys, asked, signer=leaf()[0])
    with pytest.raises(SignatureError):
        validate_authenticator(keys, asked, data)


def test_an_authentic_refusal_is_told_from_a_forged_one() -> None:
    keys, asked = keys_for(Role.SERVER), request()
    with pytest.raises(PeerError, match="declined"):
        validate_authenticator(keys, asked, empty_authenticator(keys, asked))
    with pytest.raises(SignatureError):
        validate_authenticator(
            keys, asked, empty_authenticator(keys_for(Role.SERVER, seed=b"x"), asked)
        )


def test_an_extension_that_was_not_requested_is_refused_by_both_ends() -> None:
    keys = keys_for(Role.SERVER)
    plain = decode_request(
        encode_request(
            Role.CLIENT,
            context=CONTEXT,
            signature_schemes=[SignatureScheme.ECDSA_SECP256R1_SHA256],
            extensions={},
        ),
        Role.CLIENT,
    )
    with pytest.raises(PeerError, match="not requested"):
        certificate_message(plain, [CERTIFICATE], {CMW: b"x"})
    with pytest.raises(PeerError, match="not requested"):
        validate_authenticator(keys, plain, answer(keys, request()))


def test_an_extension_on_a_later_certificate_is_refused() -> None:
    keys, asked = keys_for(Role.SERVER), request()
    entry = len(CERTIFICATE).to_bytes(3, "big") + CERTIFICATE
    entries = entry + b"\x00\x00" + entry + b"\x00\x05\xff\x00\x00\x01x"
    body = bytes([len(CONTEXT)]) + CONTEXT + len(entries).to_bytes(3, "big") + entries
    message = b"\x0b" + len(body).to_bytes(3, "big") + body
    signature = KEY.sign(certificate_verify_input(keys, asked, message), ec.ECDSA(hashes.SHA256()))
    data = finish_authenticator(
        keys,
        asked,
        message,
        scheme=SignatureScheme.ECDSA_SECP256R1_SHA256,
        signature=signature,
    )
    with pytest.raises(PeerError, match="other than the first"):
        validate_authenticator(keys, asked, data)


def test_a_signature_scheme_that_was_not_offered_is_refused() -> None:
    keys, asked = keys_for(Role.SERVER), request()
    certificate = certificate_message(asked, [CERTIFICATE], {})
    data = finish_authenticator(
        keys, asked, certificate, scheme=SignatureScheme.ED25519, signature=b"s"
    )
    with pytest.raises(PeerError, match="not offered"):
        validate_authenticator(keys, asked, data)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_changed_octet_is_refused(place: int, flip: int) -> None:
    keys, asked = keys_for(Role.SERVER), request()
    data = bytearray(answer(keys, asked))
    data[place % len(data)] ^= flip
    with pytest.raises(TrothError):
        validate_authenticator(keys, asked, bytes(data))


@given(st.binary(max_size=300))
def test_garbage_ends_in_a_named_error(data: bytes) -> None:
    with pytest.raises(TrothError):
        validate_authenticator(keys_for(Role.SERVER), request(), data)
    with pytest.raises(TrothError):
        decode_request(data, Role.SERVER)


@given(
    st.binary(min_size=1, max_size=255),
    st.dictionaries(st.integers(14, 65535), st.binary(max_size=64), max_size=4),
)
def test_requests_round_trip(context: bytes, extensions: dict[int, bytes]) -> None:
    encoded = encode_request(
        Role.SERVER,
        context=context,
        signature_schemes=list(SignatureScheme),
        extensions=extensions,
    )
    decoded = decode_request(encoded, Role.SERVER)
    assert (decoded.context, decoded.extensions) == (context, extensions)
