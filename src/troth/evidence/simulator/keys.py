# SPDX-License-Identifier: Apache-2.0
"""The private keys of a simulated platform, which real hardware would never let out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from troth.errors import ApiMisuseError, DecodeError
from troth.formats.signatures import MAC_ALGORITHMS
from troth.formats.signer import load_private_key

__all__ = [
    "SimulatedKeys",
    "generate_mac_key",
    "generate_signing_key",
    "private_pem",
    "read_private_pem",
]

_CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedKeys:
    """The keys of one platform.

    Attributes:
        attestation: IAK of a PSA device (octets where it is symmetric), or CPAK of a CCA platform.
        realm: RAK of a CCA platform, else None.
    """

    attestation: ec.EllipticCurvePrivateKey | bytes = field(repr=False)
    realm: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)

    @property
    def instance_id(self) -> bytes:
        """UEID of type RAND over the attestation key, as reference firmware makes it.

        A hash of the public point; of a symmetric key the hash of its hash (RFC 9783 appendix A.2).
        """
        if isinstance(self.attestation, bytes):
            identifier = hashlib.sha256(hashlib.sha256(self.attestation).digest()).digest()
        else:
            point = self.attestation.public_key().public_bytes(
                Encoding.X962, PublicFormat.UncompressedPoint
            )
            identifier = hashlib.sha256(point).digest()
        return b"\x01" + identifier


def generate_signing_key(
    algorithm: str, random: Callable[[int], bytes]
) -> ec.EllipticCurvePrivateKey:
    """Return a key for an ECDSA algorithm, which `random` alone determines.

    Raises:
        ApiMisuseError: the simulator has no such algorithm.
    """
    if algorithm not in _CURVES:
        raise ApiMisuseError(f"the simulator does not sign by {algorithm!r}")
    curve = _CURVES[algorithm]
    order = curve.group_order
    # Eight octets more than the order has, so that the remainder is close to uniform
    # (FIPS 186-5 appendix A.2.1).
    seed = int.from_bytes(random((order.bit_length() + 7) // 8 + 8))
    return ec.derive_private_key(seed % (order - 1) + 1, curve)


def generate_mac_key(algorithm: str, random: Callable[[int], bytes]) -> bytes:
    """Return a key as long as the hash of a MAC algorithm.

    Raises:
        ApiMisuseError: no such algorithm.
    """
    mac = MAC_ALGORITHMS.get(algorithm)
    if mac is None:
        raise ApiMisuseError(f"the simulator has no MAC {algorithm!r}")
    return random(mac.size)


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def read_private_pem(text: str, *, source: str) -> ec.EllipticCurvePrivateKey:
    """Read what `private_pem` wrote.

    Raises:
        DecodeError: not a PEM private key on a curve.
    """
    key = load_private_key(text.encode(), source=source)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DecodeError("is not an elliptic-curve key", format=source)
    return key
