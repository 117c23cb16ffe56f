# SPDX-License-Identifier: Apache-2.0
"""COSE_Key: one public or symmetric key as a CBOR map.

Source: RFC 9052 section 7; RFC 9053 section 7; RFC 8230 section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from troth.errors import ApiMisuseError, DecodeError, UnsupportedError
from troth.formats import cbor
from troth.formats.limits import DEFAULT_LIMITS, Limits
from troth.formats.quoting import shown
from troth.formats.verification_key import CURVES, PublicKey, VerificationKey, supported_public_key

__all__ = ["ALGORITHM_IDS", "ALGORITHM_NAMES", "CoseKey"]

ALGORITHM_NAMES: Mapping[int, str] = MappingProxyType(
    {
        -7: "ES256",
        -35: "ES384",
        -36: "ES512",
        -9: "ESP256",
        -51: "ESP384",
        -52: "ESP512",
        -8: "EdDSA",
        -19: "Ed25519",
        -37: "PS256",
        -38: "PS384",
        -39: "PS512",
        5: "HMAC 256/256",
        6: "HMAC 384/384",
        7: "HMAC 512/512",
    }
)
"""The algorithms that Troth knows, by their number in the IANA COSE registry."""

ALGORITHM_IDS: Mapping[str, int] = MappingProxyType({n: i for i, n in ALGORITHM_NAMES.items()})

_KTY, _KID, _ALG, _KEY_OPS, _BASE_IV = 1, 2, 3, 4, 5
_OKP, _EC2, _RSA, _SYMMETRIC = 1, 2, 3, 4
_CRV, _X, _Y = -1, -2, -3
_RSA_N, _RSA_E = -1, -2
_K = -1
_VERIFY, _MAC_VERIFY = 2, 10
_EC2_CURVES = {1: "P-256", 2: "P-384", 3: "P-521"}
_EC2_IDS = {CURVES[name].name: number for number, name in _EC2_CURVES.items()}
_ED25519 = 6


class CoseKey:
    """The codec for COSE_Key; its values are `VerificationKey`s, private parts are left behind."""

    @staticmethod
    def decode(
        data: bytes, *, format: str = "COSE_Key", limits: Limits = DEFAULT_LIMITS
    ) -> VerificationKey:
        """Decode an encoded COSE_Key.

        Raises:
            DecodeError: not a COSE_Key, or a point that is not on its curve.
            UnsupportedError: a key type, curve, size or algorithm that Troth does not verify with,
                or `key_ops` that do not include verifying.
        """
        return CoseKey.from_value(cbor.decode(data, format=format, limits=limits), format=format)

    @staticmethod
    def from_value(value: object, *, format: str = "COSE_Key") -> VerificationKey:
        """Read a COSE_Key from its decoded map.

        Raises:
            DecodeError: as `decode`.
        """
        if not isinstance(value, Mapping):
            raise DecodeError("a COSE_Key is a map", format=format)
        kty = value.get(_KTY)
        if type(kty) is not int:  # true equals 1 in Python
            raise UnsupportedError(f"key type {shown(kty)}", format=format)
        if kty == _EC2:
            material: PublicKey | bytes = _ec2(value, format)
        elif kty == _OKP:
            material = _okp(value, format)
        elif kty == _RSA:
            material = supported_public_key(_rsa(value, format), format=format)
        elif kty == _SYMMETRIC:
            material = _octets(value, _K, "k", format)
            if not material:
                raise DecodeError("an empty symmetric key", format=format)
        else:
            raise UnsupportedError(f"key type {kty}", format=format)
        wanted = _MAC_VERIFY if kty == _SYMMETRIC else _VERIFY
        ops = value.get(_KEY_OPS)
        if ops is not None and not (isinstance(ops, list) and wanted in ops):
            raise UnsupportedError("key_ops does not allow verifying", format=format)
        return VerificationKey(
            material, key_id=_key_id(value, format), algorithm=_algorithm(value, format)
        )

    @staticmethod
    def encode(key: VerificationKey) -> bytes:
        """Encode deterministically: points uncompressed, `kid` and `alg` where the key has them."""
        return cbor.encode(CoseKey.to_value(key))

    @staticmethod
    def to_value(key: VerificationKey) -> dict[int, object]:
        """Return the COSE_Key map, for embedding in another message."""
        material = key.material
        value: dict[int, object]
        if isinstance(material, bytes):
            value = {_KTY: _SYMMETRIC, _K: material}
        elif isinstance(material, ec.EllipticCurvePublicKey):
            size = (material.curve.key_size + 7) // 8
            numbers = material.public_numbers()
            value = {
                _KTY: _EC2,
                _CRV: _EC2_IDS[material.curve.name],
                _X: numbers.x.to_bytes(size),
                _Y: numbers.y.to_bytes(size),
            }
        elif isinstance(material, ed25519.Ed25519PublicKey):
            value = {_KTY: _OKP, _CRV: _ED25519, _X: material.public_bytes_raw()}
        else:
            rsa_numbers = material.public_numbers()
            value = {_KTY: _RSA, _RSA_N: _unsigned(rsa_numbers.n), _RSA_E: _unsigned(rsa_numbers.e)}
        if key.key_id:
            value[_KID] = key.key_id.encode()
        if key.algorithm:
            if key.algorithm not in ALGORITHM_IDS:
                raise ApiMisuseError(f"{key.algorithm!r} has no COSE number")
            value[_ALG] = ALGORITHM_IDS[key.algorithm]
        return value


def _ec2(value: Mapping[object, object], format: str) -> ec.EllipticCurvePublicKey:
    crv = value.get(_CRV)
    name = _EC2_CURVES.get(crv) if type(crv) is int else None
    if name is None:
        raise UnsupportedError(f"EC2 curve {shown(crv)}", format=format)
    curve = CURVES[name]
    size = (curve.key_size + 7) // 8
    x, y = _octets(value, _X, "x", format), value.get(_Y)
    if len(x) != size:
        raise DecodeError(f"x has {len(x)} bytes; {name} has {size}", format=format)
    if isinstance(y, bool):
        # RFC 9053 section 7.1.1: y may be the sign bit alone, as in SEC 1 section 2.3.3.
        point = (b"\x03" if y else b"\x02") + x
    elif isinstance(y, bytes) and len(y) == size:
        point = b"\x04" + x + y
    else:
        raise DecodeError(f"y is neither a sign bit nor {size} bytes", format=format)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError as exc:
        raise DecodeError(f"the point is not on {name}", format=format) from exc


def _okp(value: Mapping[object, object], format: str) -> ed25519.Ed25519PublicKey:
    crv = value.get(_CRV)
    if type(crv) is not int or crv != _ED25519:
        raise UnsupportedError(f"OKP curve {shown(crv)}", format=format)
    x = _octets(value, _X, "x", format)
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(x)
    except ValueError as exc:
        raise DecodeError(f"x has {len(x)} bytes; Ed25519 has 32", format=format) from exc


def _rsa(value: Mapping[object, object], format: str) -> rsa.RSAPublicKey:
    n, e = (int.from_bytes(_octets(value, k, w, format)) for k, w in ((_RSA_N, "n"), (_RSA_E, "e")))
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as exc:
        raise DecodeError("n and e are not an RSA public key", format=format) from exc


def _octets(value: Mapping[object, object], label: int, name: str, format: str) -> bytes:
    octets = value.get(label)
    if not isinstance(octets, bytes):
        raise DecodeError(f"{name} is not a byte string", format=format)
    return octets


def _key_id(value: Mapping[object, object], format: str) -> str:
    kid = value.get(_KID, b"")
    if not isinstance(kid, bytes):
        raise DecodeError("kid is not a byte string", format=format)
    try:
        return kid.decode()
    except UnicodeDecodeError:
        return kid.hex()


def _algorithm(value: Mapping[object, object], format: str) -> str:
    alg = value.get(_ALG)
    if alg is None:
        return ""
    name = ALGORITHM_NAMES.get(alg) if type(alg) is int else None
    if name is None:
        raise UnsupportedError(f"alg {shown(alg)}", format=format)
    return name


def _unsigned(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)
