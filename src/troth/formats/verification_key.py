# SPDX-License-Identifier: Apache-2.0
"""The key that a signature or MAC is checked with, and which keys are strong enough to be one."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from troth.errors import UnsupportedError

__all__ = ["CURVES", "PublicKey", "VerificationKey", "supported_public_key"]

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
"""The curves for ECDSA, by their JOSE and COSE name."""

_CURVE_NAMES = {curve.name for curve in CURVES.values()}
_RSA_BITS = range(2048, 8193)
# RFC 8017 allows any odd exponent, but a long one is only a way to make verification slow.
_RSA_EXPONENT_BITS = 32


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key that signatures or MACs are checked with.

    Attributes:
        material: a public key, or the octets of a symmetric MAC key.
        key_id: `kid` where the source gave one, else "".
        source: where it came from, for messages ("file iak.pem", "CoRIM tag …").
        algorithm: the only algorithm that the key may be used with ("ES256"), where the source
            restricted it, else "".
    """

    # Not shown: it may be a MAC key, and messages end up in logs.
    material: PublicKey | bytes = field(repr=False)
    key_id: str = ""
    source: str = ""
    algorithm: str = ""


def supported_public_key(key: object, *, format: str) -> PublicKey:
    """Return `key` if it is of a type and size that Troth verifies with.

    Raises:
        UnsupportedError: another type or curve, RSA outside 2048 to 8192 bits, or an RSA
            exponent of more than 32 bits.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name in _CURVE_NAMES:
            return key
        raise UnsupportedError(
            f"curve {key.curve.name}; give a key on {', '.join(CURVES)}", format=format
        )
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in _RSA_BITS:
            raise UnsupportedError(
                f"an RSA key of {key.key_size} bits; accepted are 2048 to 8192", format=format
            )
        if key.public_numbers().e.bit_length() > _RSA_EXPONENT_BITS:
            raise UnsupportedError("an RSA exponent of more than 32 bits", format=format)
        return key
    raise UnsupportedError(
        f"a {type(key).__name__}; give an EC (P-256, P-384, P-521), Ed25519 or RSA key",
        format=format,
    )
