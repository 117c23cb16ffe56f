# SPDX-License-Identifier: Apache-2.0
"""JSON Web Keys: one key or a set, and their thumbprints.

Source: RFC 7517; RFC 7518 section 6; RFC 8037 section 2; RFC 7638 section 3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.quoting import shown
from troth.formats.verification_key import (
    CURVES,
    PublicKey,
    VerificationKey,
    supported_public_key,
)

__all__ = [
    "MAX_KEYS",
    "decode_jwk",
    "decode_jwks",
    "ec_thumbprint",
    "required_members",
    "rsa_thumbprint",
    "thumbprint",
]

MAX_KEYS = 256
"""Keys that one set may hold."""

_CURVE_NAMES = {curve.name: name for name, curve in CURVES.items()}
# The MAC algorithms go by their COSE names in Troth; JOSE calls the same ones HS….
_MACS = {"HS256": "HMAC 256/256", "HS384": "HMAC 384/384", "HS512": "HMAC 512/512"}


def decode_jwks(value: object, *, format: str) -> list[VerificationKey]:
    """Read every key of a JWK Set.

    Raises:
        DecodeError: not a JWK Set, or one of its keys is not taken by `decode_jwk`.
        LimitExceededError: more than `MAX_KEYS` keys.
    """
    keys = value.get("keys") if isinstance(value, Mapping) else None
    if not isinstance(keys, list):
        raise DecodeError('a JWK Set is an object with an array "keys"', format=format)
    if len(keys) > MAX_KEYS:
        raise LimitExceededError(format=format, limit="max_keys", value=MAX_KEYS)
    return [decode_jwk(key, format=f"{format} key {at}") for at, key in enumerate(keys)]


def decode_jwk(value: object, *, format: str) -> VerificationKey:
    """Read one JWK; a private key gives its public half, whose parts must be there.

    Does not look at certificates in it (`x5c`), nor at `use` and `key_ops`: published attestation
    keys carry "enc" there, and who put the key among the trust anchors meant it for verifying.

    Raises:
        DecodeError: a member is missing or malformed, or the point is not on its curve.
        UnsupportedError: a key type, curve or size that Troth does not verify with.
    """
    if not isinstance(value, Mapping):
        raise DecodeError("a JWK is an object", format=format)
    kty = value.get("kty")
    material: PublicKey | bytes
    if kty == "EC":
        material = _ec(value, format)
    elif kty == "OKP":
        material = _okp(value, format)
    elif kty == "RSA":
        material = supported_public_key(_rsa(value, format), format=format)
    elif kty == "oct":
        material = _octets(value, "k", format)
        if not material:
            raise DecodeError("an empty symmetric key", format=format)
    else:
        raise UnsupportedError(f"key type {shown(kty)}", format=format)
    algorithm = _text(value, "alg", format)
    return VerificationKey(
        material,
        key_id=_text(value, "kid", format),
        algorithm=_MACS.get(algorithm, algorithm),
    )


def required_members(material: PublicKey | bytes) -> dict[str, str]:
    """Return the members of a JWK that make the key, in the order of RFC 7638."""
    if isinstance(material, bytes):
        return {"k": encode_base64url(material), "kty": "oct"}
    if isinstance(material, ed25519.Ed25519PublicKey):
        x = encode_base64url(material.public_bytes_raw())
        return {"crv": "Ed25519", "kty": "OKP", "x": x}
    if isinstance(material, ec.EllipticCurvePublicKey):
        size = (material.curve.key_size + 7) // 8
        point = material.public_numbers()
        return {
            "crv": _CURVE_NAMES[material.curve.name],
            "kty": "EC",
            "x": encode_base64url(point.x.to_bytes(size)),
            "y": encode_base64url(point.y.to_bytes(size)),
        }
    numbers = material.public_numbers()
    e, n = (number.to_bytes((number.bit_length() + 7) // 8) for number in (numbers.e, numbers.n))
    return {"e": encode_base64url(e), "kty": "RSA", "n": encode_base64url(n)}


def thumbprint(key: VerificationKey | PublicKey | bytes) -> str:
    """Return the RFC 7638 SHA-256 thumbprint as lower-case hex.

    A symmetric key's thumbprint is a hash of the secret: show it for strong keys only.
    """
    material = key.material if isinstance(key, VerificationKey) else key
    canonical = json.dumps(required_members(material), separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def ec_thumbprint(curve: ec.EllipticCurve, x: bytes, y: bytes) -> str:
    """Return `thumbprint` of the key with these coordinates, each at the curve's full length."""
    crv = _CURVE_NAMES[curve.name]
    members = (
        f'{{"crv":"{crv}","kty":"EC","x":"{encode_base64url(x)}","y":"{encode_base64url(y)}"}}'
    )
    return hashlib.sha256(members.encode()).hexdigest()


def rsa_thumbprint(modulus: bytes, exponent: int) -> str:
    """Return `thumbprint` of the RSA key with these numbers; zeros before the modulus are ignored."""
    e = exponent.to_bytes((exponent.bit_length() + 7) // 8)
    members = (
        f'{{"e":"{encode_base64url(e)}","kty":"RSA",'
        f'"n":"{encode_base64url(modulus.lstrip(bytes(1)))}"}}'
    )
    return hashlib.sha256(members.encode()).hexdigest()


def _ec(value: Mapping[str, object], format: str) -> ec.EllipticCurvePublicKey:
    crv = value.get("crv")
    curve = CURVES.get(crv) if isinstance(crv, str) else None
    if curve is None:
        raise UnsupportedError(
            f"curve {shown(crv)}; accepted are {', '.join(CURVES)}", format=format
        )
    size = (curve.key_size + 7) // 8
    x, y = _octets(value, "x", format), _octets(value, "y", format)
    if len(x) != size or len(y) != size:
        raise DecodeError(f"x and y on {crv} have {size} bytes each", format=format)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError as exc:
        raise DecodeError(f"the point is not on {crv}", format=format) from exc


def _okp(value: Mapping[str, object], format: str) -> ed25519.Ed25519PublicKey:
    if value.get("crv") != "Ed25519":
        raise UnsupportedError(
            f"curve {shown(value.get('crv'))}; accepted is Ed25519", format=format
        )
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(_octets(value, "x", format))
    except ValueError as exc:
        raise DecodeError("x is not an Ed25519 public key", format=format) from exc


def _rsa(value: Mapping[str, object], format: str) -> rsa.RSAPublicKey:
    n, e = (int.from_bytes(_octets(value, name, format)) for name in ("n", "e"))
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as exc:
        raise DecodeError("n and e are not an RSA public key", format=format) from exc


def _octets(value: Mapping[str, object], name: str, format: str) -> bytes:
    text = value.get(name)
    if not isinstance(text, str):
        raise DecodeError(f'"{name}" is not a text', format=format)
    return decode_base64url(text, format=f'{format} "{name}"')


def _text(value: Mapping[str, object], name: str, format: str) -> str:
    text = value.get(name, "")
    if not isinstance(text, str):
        raise DecodeError(f'"{name}" is not a text', format=format)
    return text
