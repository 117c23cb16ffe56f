# SPDX-License-Identifier: Apache-2.0
"""Signature and MAC algorithms under the names that JOSE and COSE share.

An algorithm fits one kind of key only, so that a key cannot be talked into another algorithm:
ES256 needs P-256, ES384 P-384 and ES512 P-521, although RFC 9053 section 2.1 leaves the curve
open. ECDSA signatures are r and s at the curve's full length, nothing else.

Source: RFC 9053 sections 2 and 3; RFC 8230 section 2; RFC 8812; RFC 9864 section 2.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from troth.errors import ApiMisuseError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Collection

    from troth.formats.verification_key import VerificationKey

__all__ = [
    "ECDSA_ALGORITHMS",
    "LEGACY_SIGNATURE_ALGORITHMS",
    "MAC_ALGORITHMS",
    "PSS_ALGORITHMS",
    "SIGNATURE_ALGORITHMS",
    "EcdsaAlgorithm",
    "MacAlgorithm",
    "PssAlgorithm",
    "admit_algorithm",
    "compute_mac",
    "verify_mac",
    "verify_signature",
]


@dataclass(frozen=True, slots=True)
class EcdsaAlgorithm:
    """ECDSA with one hash on one curve.

    Attributes:
        curve: name of the curve as cryptography spells it.
        scheme: the hash, as cryptography wants it.
        size: octets of r, and of s.
    """

    curve: str
    scheme: ec.ECDSA
    size: int


@dataclass(frozen=True, slots=True)
class PssAlgorithm:
    """RSASSA-PSS with one hash, MGF1 over the same, and a salt of its length."""

    hash: hashes.HashAlgorithm

    @property
    def padding(self) -> padding.PSS:
        """The padding, as cryptography wants it."""
        return padding.PSS(padding.MGF1(self.hash), self.hash.digest_size)


@dataclass(frozen=True, slots=True)
class MacAlgorithm:
    """HMAC with one hash, not truncated.

    Attributes:
        hash: name of the hash as hashlib spells it.
        size: octets of the tag, and the fewest that the key may have.
    """

    hash: str
    size: int


_ES256 = EcdsaAlgorithm("secp256r1", ec.ECDSA(hashes.SHA256()), 32)
_ES384 = EcdsaAlgorithm("secp384r1", ec.ECDSA(hashes.SHA384()), 48)
_ES512 = EcdsaAlgorithm("secp521r1", ec.ECDSA(hashes.SHA512()), 66)

ECDSA_ALGORITHMS = {
    "ES256": _ES256,
    "ES384": _ES384,
    "ES512": _ES512,
    "ESP256": _ES256,
    "ESP384": _ES384,
    "ESP512": _ES512,
}
_EDDSA_ALGORITHMS = frozenset({"EdDSA", "Ed25519"})
PSS_ALGORITHMS = {
    "PS256": PssAlgorithm(hashes.SHA256()),
    "PS384": PssAlgorithm(hashes.SHA384()),
    "PS512": PssAlgorithm(hashes.SHA512()),
}
SIGNATURE_ALGORITHMS = frozenset(ECDSA_ALGORITHMS) | _EDDSA_ALGORITHMS | frozenset(PSS_ALGORITHMS)
"""Every signature algorithm that Troth knows; what a caller accepts is the caller's choice."""

LEGACY_SIGNATURE_ALGORITHMS = {
    "RS256": hashes.SHA256(),
    "RS384": hashes.SHA384(),
    "RS512": hashes.SHA512(),
}
"""RSASSA-PKCS1-v1_5, which JWTs of others still use; never allowed unless a caller names it."""

MAC_ALGORITHMS = {
    "HMAC 256/256": MacAlgorithm("sha256", 32),
    "HMAC 384/384": MacAlgorithm("sha384", 48),
    "HMAC 512/512": MacAlgorithm("sha512", 64),
}


def admit_algorithm(
    algorithm: str, key: VerificationKey, *, algorithms: Collection[str], format: str
) -> None:
    """Check a message's algorithm against what the caller and the key's source allow.

    Raises:
        SignatureError: it is not in `algorithms` (an empty list allows nothing), or the key is
            bound to another.
    """
    if algorithm not in algorithms:
        allowed = ", ".join(sorted(algorithms)) or "none"
        raise SignatureError(f"{format}: algorithm {algorithm} is not allowed (allowed: {allowed})")
    if key.algorithm and key.algorithm != algorithm:
        raise SignatureError(
            f"{format}: algorithm {algorithm}, but the key{_from(key)} is for {key.algorithm} only"
        )


def verify_signature(
    key: VerificationKey, algorithm: str, signature: bytes, data: bytes, *, format: str
) -> None:
    """Verify one signature.

    Says nothing about whether the key may be believed or the algorithm is wanted.

    Raises:
        SignatureError: the key does not fit the algorithm, or the signature is not the key's.
        ApiMisuseError: `algorithm` is none of `SIGNATURE_ALGORITHMS` nor of the legacy ones.
    """
    try:
        if algorithm in ECDSA_ALGORITHMS:
            _verify_ecdsa(key, algorithm, signature, data, format=format)
        elif algorithm in _EDDSA_ALGORITHMS:
            if not isinstance(key.material, ed25519.Ed25519PublicKey):
                raise _unfit(key, algorithm, "an Ed25519 key", format)
            key.material.verify(signature, data)
        elif pss := PSS_ALGORITHMS.get(algorithm):
            if not isinstance(key.material, rsa.RSAPublicKey):
                raise _unfit(key, algorithm, "an RSA key", format)
            key.material.verify(signature, data, pss.padding, pss.hash)
        elif pkcs1 := LEGACY_SIGNATURE_ALGORITHMS.get(algorithm):
            if not isinstance(key.material, rsa.RSAPublicKey):
                raise _unfit(key, algorithm, "an RSA key", format)
            key.material.verify(signature, data, padding.PKCS1v15(), pkcs1)
        else:
            raise ApiMisuseError(f"unknown signature algorithm {algorithm!r}")
    except InvalidSignature as exc:
        raise SignatureError(
            f"{format}: the {algorithm} signature does not verify under the key{_from(key)}"
        ) from exc


def _verify_ecdsa(
    key: VerificationKey, name: str, signature: bytes, data: bytes, *, format: str
) -> None:
    algorithm = ECDSA_ALGORITHMS[name]
    material = key.material
    if (
        not isinstance(material, ec.EllipticCurvePublicKey)
        or material.curve.name != algorithm.curve
    ):
        raise _unfit(key, name, f"a key on {algorithm.curve}", format)
    size = algorithm.size
    if len(signature) != 2 * size:
        raise SignatureError(
            f"{format}: a {name} signature of {len(signature)} bytes instead of {2 * size}"
        )
    r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
    material.verify(encode_dss_signature(r, s), data, algorithm.scheme)


def compute_mac(key: bytes, algorithm: str, data: bytes) -> bytes:
    """Return the tag over `data`.

    Raises:
        ApiMisuseError: the algorithm is unknown, or the key shorter than the hash.
    """
    mac = MAC_ALGORITHMS.get(algorithm)
    if mac is None:
        raise ApiMisuseError(f"unknown MAC algorithm {algorithm!r}")
    if len(key) < mac.size:
        raise ApiMisuseError(f"{algorithm} needs a key of {mac.size} bytes, not {len(key)}")
    return hmac.digest(key, data, mac.hash)


def verify_mac(
    key: VerificationKey, algorithm: str, tag: bytes, data: bytes, *, format: str
) -> None:
    """Verify one MAC, in constant time.

    Raises:
        SignatureError: the key is not a symmetric one or shorter than the hash (RFC 9053 section
            3.1 wants them equal), or the tag is not the key's.
        ApiMisuseError: `algorithm` is none of `MAC_ALGORITHMS`.
    """
    mac = MAC_ALGORITHMS.get(algorithm)
    if mac is None:
        raise ApiMisuseError(f"unknown MAC algorithm {algorithm!r}")
    if not isinstance(key.material, bytes) or len(key.material) < mac.size:
        raise _unfit(key, algorithm, f"a symmetric key of {mac.size} bytes or more", format)
    if not hmac.compare_digest(hmac.digest(key.material, data, mac.hash), tag):
        raise SignatureError(
            f"{format}: the {algorithm} tag does not verify under the key{_from(key)}"
        )


def _unfit(key: VerificationKey, algorithm: str, wanted: str, format: str) -> SignatureError:
    return SignatureError(f"{format}: {algorithm} needs {wanted}; the key{_from(key)} is not one")


def _from(key: VerificationKey) -> str:
    return f" from {key.source}" if key.source else ""
