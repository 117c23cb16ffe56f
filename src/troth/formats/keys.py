# SPDX-License-Identifier: Apache-2.0
"""Verification keys as PEM, DER, JWK and COSE_Key carry them."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

__all__ = ["PublicKey", "VerificationKey"]

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key that signatures or MACs are checked with.

    Attributes:
        material: a public key, or the octets of a symmetric MAC key.
        key_id: `kid` where the source gave one, else "".
        source: where it came from, for messages ("file iak.pem", "CoRIM tag …").
    """

    material: PublicKey | bytes
    key_id: str = ""
    source: str = ""
