# SPDX-License-Identifier: Apache-2.0
"""Numbers of the TCG Algorithm Registry that Troth knows; registry values only.

Source: TCG Algorithm Registry, revision 1.34, tables 3 and 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "AES",
    "CFB",
    "CURVES",
    "ECC",
    "ECDSA",
    "HASHES",
    "HASH_BY_NAME",
    "NULL",
    "RSA",
    "RSAPSS",
    "RSASSA",
    "SHA1",
    "SHA2",
    "SHA256",
    "SHA384",
    "SHA512",
    "STRONG_HASHES",
    "Curve",
    "TpmHash",
    "algorithm_name",
]

RSA: Final = 0x0001
SHA1: Final = 0x0004
AES: Final = 0x0006
SHA256: Final = 0x000B
SHA384: Final = 0x000C
SHA512: Final = 0x000D
NULL: Final = 0x0010
RSASSA: Final = 0x0014
RSAES: Final = 0x0015
RSAPSS: Final = 0x0016
OAEP: Final = 0x0017
ECDSA: Final = 0x0018
ECDAA: Final = 0x001A
ECC: Final = 0x0023
CFB: Final = 0x0043


_FUNCTIONS: Final[Mapping[str, Callable[[bytes], hashlib._Hash]]] = {
    name: getattr(hashlib, name)
    for name in ("sha1", "sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512")
}


@dataclass(frozen=True, slots=True)
class TpmHash:
    """One hash algorithm.

    Attributes:
        id: TPM_ALG_ID.
        name: as CoRIM and claims spell it.
        hashlib_name: as hashlib and tpm2-tools spell it.
        size: octets of a digest.
        algorithm: as cryptography wants it.
    """

    id: int
    name: str
    hashlib_name: str
    size: int
    algorithm: hashes.HashAlgorithm

    def digest(self, data: bytes) -> bytes:
        """Return the digest of `data`."""
        return _FUNCTIONS[self.hashlib_name](data).digest()


HASHES: Final[Mapping[int, TpmHash]] = MappingProxyType(
    {
        each.id: each
        for each in (
            TpmHash(SHA1, "sha-1", "sha1", 20, hashes.SHA1()),  # noqa: S303 - SHA-1 banks exist and must be readable
            TpmHash(SHA256, "sha-256", "sha256", 32, hashes.SHA256()),
            TpmHash(SHA384, "sha-384", "sha384", 48, hashes.SHA384()),
            TpmHash(SHA512, "sha-512", "sha512", 64, hashes.SHA512()),
            TpmHash(0x0027, "sha3-256", "sha3_256", 32, hashes.SHA3_256()),
            TpmHash(0x0028, "sha3-384", "sha3_384", 48, hashes.SHA3_384()),
            TpmHash(0x0029, "sha3-512", "sha3_512", 64, hashes.SHA3_512()),
        )
    }
)
"""Hash algorithms by number."""

STRONG_HASHES: Final = frozenset(HASHES) - {SHA1}
"""Those whose collisions nobody finds; a register of another bank proves nothing."""

SHA2: Final = frozenset({SHA256, SHA384, SHA512})
"""Those that a TPM may sign over."""

HASH_BY_NAME: Final[Mapping[str, TpmHash]] = MappingProxyType(
    {name: each for each in HASHES.values() for name in (each.name, each.hashlib_name)}
)
"""Hash algorithms by either spelling."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One elliptic curve.

    Attributes:
        curve: as cryptography wants it.
        size: octets of a coordinate.
    """

    curve: ec.EllipticCurve
    size: int


CURVES: Final[Mapping[int, Curve]] = MappingProxyType(
    {
        0x0003: Curve(ec.SECP256R1(), 32),
        0x0004: Curve(ec.SECP384R1(), 48),
        0x0005: Curve(ec.SECP521R1(), 66),
    }
)
"""TPM_ECC_CURVE: the NIST curves that Troth verifies with."""

_NAMES: Final = {
    RSA: "RSA",
    AES: "AES",
    NULL: "none",
    RSASSA: "RSASSA",
    RSAES: "RSAES",
    RSAPSS: "RSAPSS",
    OAEP: "OAEP",
    ECDSA: "ECDSA",
    0x0019: "ECDH",
    ECDAA: "ECDAA",
    0x001B: "SM2",
    0x001C: "ECSCHNORR",
    0x0012: "SM3",
    0x0008: "KEYEDHASH",
    0x0025: "SYMCIPHER",
    ECC: "ECC",
    CFB: "CFB",
}


def algorithm_name(number: int) -> str:
    """Return the name of an algorithm, or its number in hexadecimal."""
    known = HASHES.get(number)
    return known.name if known else _NAMES.get(number, f"{number:#06x}")
