# SPDX-License-Identifier: Apache-2.0
"""The port behind which a private key stays, and a signer for a key in this process."""

from __future__ import annotations

from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from troth.errors import DecodeError, UnsupportedError
from troth.formats.signatures import ECDSA_ALGORITHMS, PSS_ALGORITHMS
from troth.formats.verification_key import PublicKey, supported_public_key

__all__ = ["LocalSigner", "PrivateKey", "Signer", "load_private_key"]

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class Signer(Protocol):
    """Something that signs with one key under one algorithm, such as a key in a device.

    Attributes:
        algorithm: JOSE and COSE name, such as "ES256".
        public_key: the key that the signatures verify under.
        key_id: `kid` to put into headers, or "".
    """

    @property
    def algorithm(self) -> str: ...  # noqa: D102 - documented above

    @property
    def public_key(self) -> PublicKey: ...  # noqa: D102 - documented above

    @property
    def key_id(self) -> str: ...  # noqa: D102 - documented above

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`; for ECDSA r and s at full length, not DER.

        Raises:
            UnavailableError: the key's holder does not answer.
        """
        ...


class LocalSigner:
    """Signs with a private key that lives in this process.

    Python cannot wipe a key from memory: use a signer in a device where that matters.
    """

    def __init__(self, private_key: PrivateKey, key_id: str = "") -> None:
        """Take the algorithm from the key: its curve's ECDSA, EdDSA, or PS256 for RSA.

        Raises:
            UnsupportedError: a key that Troth would not verify with.
        """
        self.public_key = supported_public_key(private_key.public_key(), format="private key")
        self.key_id = key_id
        self._private_key = private_key
        if isinstance(private_key, ec.EllipticCurvePrivateKey):
            self.algorithm = _CURVE_ALGORITHMS[private_key.curve.name]
        elif isinstance(private_key, ed25519.Ed25519PrivateKey):
            self.algorithm = "EdDSA"
        else:
            self.algorithm = "PS256"

    def __repr__(self) -> str:
        return f"LocalSigner({self.algorithm}, key_id={self.key_id!r})"

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`; for ECDSA r and s at full length, not DER."""
        key = self._private_key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            algorithm = ECDSA_ALGORITHMS[self.algorithm]
            r, s = decode_dss_signature(key.sign(data, algorithm.scheme))
            return r.to_bytes(algorithm.size) + s.to_bytes(algorithm.size)
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(data)
        pss = PSS_ALGORITHMS[self.algorithm]
        return key.sign(data, pss.padding, pss.hash)


def load_private_key(data: bytes, *, source: str) -> PrivateKey:
    """Read one unencrypted private key, PEM or DER.

    Raises:
        DecodeError: something else, or damaged.
        UnsupportedError: a key that Troth would not verify with.
    """
    remedy = "Give one unencrypted private key, PEM or DER (PKCS#8)."
    load = (
        serialization.load_pem_private_key
        if b"-----BEGIN " in data
        else serialization.load_der_private_key
    )
    try:
        key = load(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise DecodeError(f"not a private key: {exc}", format=source, remedy=remedy) from exc
    if isinstance(key, PrivateKey):
        supported_public_key(key.public_key(), format=source)
        return key
    raise UnsupportedError(f"a {type(key).__name__}", format=source, remedy=remedy)
