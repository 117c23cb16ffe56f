# SPDX-License-Identifier: Apache-2.0
"""Root keys that vendors of hardware publish, by thumbprint.

Naming a vendor ("amd") says: believe the roots that this vendor publishes. It is never implied.
Only thumbprints stand here (SHA-256 of the DER SubjectPublicKeyInfo, lower-case hex), so the
certificate itself still has to come with the Evidence or the collateral. To check an entry, take
the root from the vendor's own site and compare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

__all__ = ["VENDOR_ROOTS", "is_vendor_root", "spki_digest"]

VENDOR_ROOTS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        # AMD Root Keys, one for each generation of EPYC; AMD Key Distribution Service.
        "amd": MappingProxyType(
            {
                "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "ARK-Milan",
                "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "ARK-Genoa",
                "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "ARK-Turin",
            }
        ),
        # AWS Nitro Enclaves Root-G1.
        "aws": MappingProxyType(
            {
                "f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225": (
                    "aws.nitro-enclaves"
                ),
            }
        ),
        # Intel SGX Root CA, of SGX and TDX alike; Intel Provisioning Certification Service.
        "intel": MappingProxyType(
            {
                "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e": (
                    "Intel SGX Root CA"
                ),
            }
        ),
    }
)
"""Vendor to thumbprint to the root's name."""


def spki_digest(certificate: x509.Certificate) -> str:
    """Return SHA-256 of the certificate's SubjectPublicKeyInfo, "" for a key nobody can read."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return ""
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()


def is_vendor_root(
    certificate: x509.Certificate, vendor: str, *, believed: Collection[str]
) -> bool:
    """Say whether the certificate has a root key of `vendor`, and `vendor` is among `believed`."""
    return vendor in believed and spki_digest(certificate) in VENDOR_ROOTS.get(vendor, ())
