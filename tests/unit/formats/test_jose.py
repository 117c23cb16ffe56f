# SPDX-License-Identifier: Apache-2.0
import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from joserfc import jwt as other_jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from troth.errors import (
    ApiMisuseError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.formats.jose import (
    DEFAULT_ALGORITHMS,
    MAX_KEYS_TRIED,
    check_times,
    sign_jwt,
    verify_jwt,
)
from troth.formats.keys import VerificationKey
from troth.formats.limits import Limits
from troth.formats.signer import LocalSigner

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
CLAIMS = {"sub": "node-1", "n": 1}


def key(private: object, kid: str = "", algorithm: str = "") -> VerificationKey:
    return VerificationKey(private.public_key(), kid, algorithm=algorithm)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(
    header: Mapping[str, object] | bytes,
    payload: bytes = b'{"sub":"node-1"}',
    private: object = P256,
) -> str:
    """Sign exactly these octets, however wrong they are."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    signed = f"{b64(head)}.{b64(payload)}"
    return f"{signed}.{b64(LocalSigner(private).sign(signed.encode()))}"


@pytest.mark.parametrize(
    ("private", "stranger", "algorithm"),
    [
        (P256, ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (P384, ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (P521, ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ED25519, ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (RSA, rsa.generate_private_key(65537, 2048), "PS256"),
    ],
)
def test_what_is_signed_verifies_under_its_own_key_only(
    private: object, stranger: object, algorithm: str
) -> None:
    token = sign_jwt(CLAIMS, LocalSigner(private, "k"), header={"typ": "test"})
    header, claims = verify_jwt(token, [key(private)], typ="test")
    assert header == {"alg": algorithm, "kid": "k", "typ": "test"}
    assert claims == CLAIMS
    with pytest.raises(SignatureError):
        verify_jwt(token, [key(stranger)])


@pytest.mark.parametrize(
    ("private", "jwk", "algorithm"),
    [
        (P256, ECKey, "ES256"),
        (P384, ECKey, "ES384"),
        (P521, ECKey, "ES512"),
        (ED25519, OKPKey, "Ed25519"),
        (RSA, RSAKey, "PS256"),
        (RSA, RSAKey, "PS384"),
        (RSA, RSAKey, "PS512"),
        (RSA, RSAKey, "RS256"),
        (RSA, RSAKey, "RS512"),
    ],
)
def test_another_implementations_tokens_verify(private: object, jwk: type, algorithm: str) -> None:
    token = other_jwt.encode(
        {"alg": algorithm}, CLAIMS, jwk.import_key(_pem(private)), algorithms=[algorithm]
    )
    _, claims = verify_jwt(token, [key(private)], algorithms={algorithm})
    assert claims == CLAIMS


def test_another_implementation_verifies_our_tokens() -> None:
    token = sign_jwt(CLAIMS, LocalSigner(P256))
    assert (
        other_jwt.decode(token, ECKey.import_key(_pem(P256)), algorithms=["ES256"]).claims == CLAIMS
    )


def _pem(private: object) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_no_key_means_refusal() -> None:
    with pytest.raises(SignatureError, match="none of the 0 keys"):
        verify_jwt(sign_jwt(CLAIMS, LocalSigner(P256)), [])


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "ES256K", "RS256", ""])
def test_an_algorithm_outside_the_callers_list_is_refused(algorithm: str) -> None:
    token = forge({"alg": algorithm})
    with pytest.raises(SignatureError, match="not allowed"):
        verify_jwt(token, [key(P256), key(RSA)])
    with pytest.raises(SignatureError, match="not allowed"):
        verify_jwt(token.rsplit(".", 1)[0] + ".", [key(P256)])


def test_an_allowed_algorithm_that_the_caller_left_out_is_refused() -> None:
    with pytest.raises(SignatureError, match="not allowed"):
        verify_jwt(sign_jwt(CLAIMS, LocalSigner(P256)), [key(P256)], algorithms={"ES384"})
    with pytest.raises(SignatureError, match=r"allowed: none"):
        verify_jwt(sign_jwt(CLAIMS, LocalSigner(P256)), [key(P256)], algorithms=())


def test_a_caller_cannot_allow_what_does_not_exist() -> None:
    with pytest.raises(ApiMisuseError, match="HS256"):
        verify_jwt(sign_jwt(CLAIMS, LocalSigner(P256)), [key(P256)], algorithms={"HS256"})


def test_pkcs1_signatures_need_a_caller_who_names_them() -> None:
    head = b64(json.dumps({"alg": "RS256"}).encode())
    signed = f"{head}.{b64(b'{}')}"
    token = f"{signed}.{b64(RSA.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
    assert verify_jwt(token, [key(RSA)], algorithms={"RS256"})[1] == {}
    with pytest.raises(SignatureError):
        verify_jwt(token, [key(RSA)])
    with pytest.raises(SignatureError):
        verify_jwt(token, [key(RSA)], algorithms={"PS256"})


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [("ES384", P256), ("ES256", P384), ("EdDSA", P256), ("PS256", P256), ("ES256", ED25519)],
)
def test_an_algorithm_that_is_not_the_keys_own_is_refused(algorithm: str, private: object) -> None:
    with pytest.raises(SignatureError, match="none of the 1 keys"):
        verify_jwt(forge({"alg": algorithm}, private=private), [key(private)])


def test_a_symmetric_key_never_fits() -> None:
    with pytest.raises(SignatureError, match="none of the 1 keys"):
        verify_jwt(forge({"alg": "ES256"}), [VerificationKey(b"0" * 32)])


def test_a_key_bound_to_one_algorithm_serves_no_other() -> None:
    token = sign_jwt(CLAIMS, LocalSigner(RSA))
    assert verify_jwt(token, [key(RSA, algorithm="PS256")])
    with pytest.raises(SignatureError, match="none of the 1 keys"):
        verify_jwt(token, [key(RSA, algorithm="PS512")])


def test_kid_selects_among_the_callers_keys() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    token = sign_jwt(CLAIMS, LocalSigner(P256, "a"))
    assert verify_jwt(token, [key(other, "b"), key(P256, "a")])
    with pytest.raises(SignatureError, match="does not verify"):
        verify_jwt(token, [key(other, "a"), key(P256, "b")])
    with pytest.raises(SignatureError, match="kid 'a'"):
        verify_jwt(token, [key(P256, "b")])


def test_a_nameless_key_is_a_candidate_for_any_kid() -> None:
    assert verify_jwt(sign_jwt(CLAIMS, LocalSigner(P256, "a")), [key(P256)])
    assert verify_jwt(sign_jwt(CLAIMS, LocalSigner(P256)), [key(P256, "b")])


def test_a_token_without_kid_does_not_make_us_try_many_keys() -> None:
    token = sign_jwt(CLAIMS, LocalSigner(P256))
    strangers = [key(ec.generate_private_key(ec.SECP256R1())) for _ in range(MAX_KEYS_TRIED)]
    assert verify_jwt(token, [*strangers[1:], key(P256)])
    with pytest.raises(LimitExceededError):
        verify_jwt(token, [*strangers, key(P256)])


def test_a_key_in_the_token_is_never_taken() -> None:
    attacker = ec.generate_private_key(ec.SECP256R1())
    jwk = ECKey.import_key(_pem(attacker)).as_dict(private=False)
    token = forge({"alg": "ES256", "jwk": jwk}, private=attacker)
    with pytest.raises(SignatureError):
        verify_jwt(token, [key(P256)])
    assert verify_jwt(forge({"alg": "ES256", "jwk": jwk}), [key(P256)])


@pytest.mark.parametrize(
    ("header", "error", "words"),
    [
        ({"alg": "ES256", "crit": ["exp"], "exp": 1}, UnsupportedError, "critical"),
        ({"alg": "ES256", "crit": []}, UnsupportedError, "critical"),
        ({"alg": "ES256", "crit": ["b64"], "b64": False}, UnsupportedError, "critical"),
        ({"alg": "ES256", "b64": False}, UnsupportedError, "b64"),
        ({"alg": "ES256", "kid": 7}, DecodeError, "kid is not text"),
        ({"alg": ["ES256"]}, DecodeError, "no alg"),
        ({}, DecodeError, "no alg"),
        (b'{"alg":"ES256","alg":"ES256"}', DecodeError, "twice"),
        (b'{"alg":"none","alg":"ES256"}', DecodeError, "twice"),
        (b'["ES256"]', DecodeError, "not an object"),
        (b'{"alg":"ES256","x":' + b"[" * 5 + b"]" * 5 + b"}", LimitExceededError, "max_depth"),
        (b'{"alg":"ES256","x":"' + b"x" * 5000 + b'"}', LimitExceededError, "max_bytes"),
    ],
)
def test_a_header_that_we_do_not_wholly_understand_is_refused(
    header: Mapping[str, object] | bytes, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        verify_jwt(forge(header), [key(P256)])


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b'{"sub":"a","sub":"b"}', "twice"),
        (b'{"exp":NaN}', "NaN"),
        (b"[]", "not an object"),
        (b"", "not JSON"),
        (b"{} ", None),
    ],
)
def test_a_payload_is_one_strict_json_object(payload: bytes, words: str | None) -> None:
    token = forge({"alg": "ES256"}, payload)
    if words is None:
        assert verify_jwt(token, [key(P256)])[1] == {}
        return
    with pytest.raises(DecodeError, match=words):
        verify_jwt(token, [key(P256)])


def test_a_payload_is_not_parsed_before_its_signature_holds() -> None:
    head, _, signature = forge({"alg": "ES256"}).split(".")
    with pytest.raises(SignatureError):
        verify_jwt(f"{head}.{b64(b'not json')}.{signature}", [key(P256)])


@pytest.mark.parametrize("part", [0, 1, 2])
def test_one_changed_bit_anywhere_is_refused(part: int) -> None:
    parts = sign_jwt(CLAIMS, LocalSigner(P256)).split(".")
    octets = bytearray(base64.urlsafe_b64decode(parts[part] + "=="))
    octets[3] ^= 1
    parts[part] = b64(bytes(octets))
    with pytest.raises((SignatureError, DecodeError)):
        verify_jwt(".".join(parts), [key(P256)])


def test_only_one_spelling_of_each_part_is_taken() -> None:
    token = sign_jwt({"a": 1}, LocalSigner(P256))
    verify_jwt(token, [key(P256)])
    head, payload, signature = token.split(".")
    last = signature[-1]
    twin = chr(ord(last) + 1)
    for spelling in (
        token + "=",
        f"{head}.{payload}.{signature}==",
        f"{head}.{payload}.{signature[:-1]}{twin}",
        f"{head}.{payload}. {signature}",
        f"{head}.{payload}.{signature}\n",
        f"{head}\n.{payload}.{signature}",
        f"{head}.{payload}",
        f"{head}.{payload}.{signature}.",
        f"{head}.{payload}.{signature}.x.y",
        "..",
        "",
        f"{head}.{payload}.é",
    ):
        with pytest.raises((DecodeError, SignatureError)):
            verify_jwt(spelling, [key(P256)])
    with pytest.raises(DecodeError, match="ASCII"):
        verify_jwt(token.encode() + b"\xff", [key(P256)])


def test_a_der_signature_is_not_a_jose_signature() -> None:
    signed = forge({"alg": "ES256"}, b"{}").rsplit(".", 1)[0]
    der = P256.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    with pytest.raises(SignatureError):
        verify_jwt(f"{signed}.{b64(der)}", [key(P256)])


def test_a_token_longer_than_the_limit_is_refused() -> None:
    token = sign_jwt({"x": "y" * 100}, LocalSigner(P256))
    limits = Limits(max_bytes=len(token), max_items=100, max_depth=4)
    verify_jwt(token, [key(P256)], limits=limits)
    limits = Limits(max_bytes=len(token) - 1, max_items=100, max_depth=4)
    with pytest.raises(LimitExceededError, match="max_bytes"):
        verify_jwt(token, [key(P256)], limits=limits)


@pytest.mark.parametrize("typ", ["wit+jwt", "WIT+JWT", "application/wit+jwt"])
def test_a_type_compares_without_case_and_prefix(typ: str) -> None:
    token = sign_jwt(CLAIMS, LocalSigner(P256), header={"typ": typ})
    assert verify_jwt(token, [key(P256)], typ="wit+jwt")


@pytest.mark.parametrize("typ", ["JWT", "wit", "wit+jwt ", 7, None])
def test_another_kind_of_token_is_refused(typ: object) -> None:
    token = sign_jwt(CLAIMS, LocalSigner(P256), header={"typ": typ})
    with pytest.raises(UnsupportedError, match="another kind"):
        verify_jwt(token, [key(P256)], typ="wit+jwt")


@pytest.mark.parametrize("name", ["alg", "kid", "crit", "b64"])
def test_a_caller_does_not_set_the_signers_header_parameters(name: str) -> None:
    with pytest.raises(ApiMisuseError, match=name):
        sign_jwt(CLAIMS, LocalSigner(P256), header={name: "x"})


def test_nothing_but_the_listed_algorithms_is_signed() -> None:
    signer = LocalSigner(P256)
    signer.algorithm = "ESP256"
    with pytest.raises(ApiMisuseError, match="ESP256"):
        sign_jwt(CLAIMS, signer)


NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": SECONDS + 1},
        {"exp": SECONDS + 0.5},
        {"nbf": SECONDS, "iat": SECONDS, "exp": SECONDS + 1},
    ],
)
def test_times_around_now_are_in_force(claims: Mapping[str, object]) -> None:
    check_times(claims, now=NOW, require_exp=False)


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": SECONDS}, "expired"),
        ({"exp": SECONDS - 1}, "expired 1 s ago"),
        ({"nbf": SECONDS + 1}, "not valid yet"),
        ({"iat": SECONDS + 1}, "in the future"),
    ],
)
def test_times_off_now_are_stale_unless_leeway_covers_them(
    claims: Mapping[str, object], words: str
) -> None:
    with pytest.raises(FreshnessError, match=words):
        check_times(claims, now=NOW, require_exp=False)
    check_times(claims, now=NOW, require_exp=False, leeway=timedelta(seconds=2))


@pytest.mark.parametrize("value", ["1", True, None, [], -1, 1e300, 1 << 70])
def test_a_time_is_a_number_within_the_calendar(value: object) -> None:
    with pytest.raises(DecodeError):
        check_times({"exp": value}, now=NOW, require_exp=False)


def test_a_token_that_never_ends_is_refused_where_an_end_is_required() -> None:
    with pytest.raises(DecodeError, match="no exp"):
        check_times({}, now=NOW, require_exp=True)


def test_the_default_algorithms_have_no_mac_and_no_pkcs1() -> None:
    assert {name[:2] for name in DEFAULT_ALGORITHMS} == {"ES", "Ed", "PS"}
