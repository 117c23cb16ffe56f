# SPDX-License-Identifier: Apache-2.0
"""Which of the caller's keys may have signed a message, by its algorithm and key identifier.

The key identifier comes from an unauthenticated header: it narrows the caller's keys down and can
never add one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from troth.errors import LimitExceededError, SignatureError
from troth.formats.signatures import ECDSA_ALGORITHMS
from troth.formats.verification_key import VerificationKey

__all__ = ["MAX_KEYS_TRIED", "select_keys"]

MAX_KEYS_TRIED: Final = 8
"""A message without `kid` may fit several keys; each try costs us a public-key operation."""


def select_keys(
    keys: Sequence[VerificationKey], *, algorithm: str, key_id: str | None, format: str
) -> Sequence[VerificationKey]:
    """Return the keys that fit `algorithm` and, where the message has one, its key identifier.

    A key that came without an identifier of its own is a candidate for any.

    Raises:
        SignatureError: none fits.
        LimitExceededError: more than `MAX_KEYS_TRIED` fit.
    """
    fitting = [key for key in keys if _fits(key, algorithm)]
    if key_id is not None:
        named = [key for key in fitting if key.key_id == key_id]
        fitting = named or [key for key in fitting if not key.key_id]
    if not fitting:
        kid = "" if key_id is None else f" and kid {key_id[:64]!r}"
        raise SignatureError(
            f"{format}: none of the {len(keys)} keys given fits alg {algorithm}{kid}",
            remedy="add the signer's public key, or correct its kid, where these keys come from",
        )
    if len(fitting) > MAX_KEYS_TRIED:
        raise LimitExceededError(format=format, limit="max_keys_tried", value=MAX_KEYS_TRIED)
    return fitting


def _fits(key: VerificationKey, algorithm: str) -> bool:
    if key.algorithm not in {"", algorithm}:
        return False
    material = key.material
    if isinstance(material, ec.EllipticCurvePublicKey):
        ecdsa = ECDSA_ALGORITHMS.get(algorithm)
        return ecdsa is not None and ecdsa.curve == material.curve.name
    if isinstance(material, ed25519.Ed25519PublicKey):
        return algorithm in {"EdDSA", "Ed25519"}
    return isinstance(material, rsa.RSAPublicKey) and algorithm[:2] in {"PS", "RS"}
