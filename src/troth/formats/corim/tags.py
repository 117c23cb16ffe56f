# SPDX-License-Identifier: Apache-2.0
"""CBOR tags and hash algorithms that CoRIM uses; registry values only.

Source: draft-ietf-rats-corim (0b855af) "New CBOR Tags"; IANA "Named Information Hash Algorithm".
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "BYTES",
    "CERTIFICATE",
    "CERTIFICATE_DER",
    "CERTIFICATE_PATH",
    "CERTIFICATE_PATH_THUMBPRINT",
    "CERTIFICATE_THUMBPRINT",
    "COMID",
    "CORIM",
    "COSE_KEY",
    "COSWID",
    "COTL",
    "EPOCH_TIME",
    "HASH_NAMES",
    "HASH_SIZES",
    "INT_RANGE",
    "KEY",
    "KEY_THUMBPRINT",
    "LEGACY_IMPLEMENTATION_ID",
    "LEGACY_SOFTWARE_COMPONENT",
    "MASKED_RAW_VALUE",
    "MIN_SVN",
    "OID",
    "SVN",
    "TAG_NAMES",
    "UEID",
    "URI",
    "UUID",
    "hash_name",
]

EPOCH_TIME: Final = 1
URI: Final = 32
UUID: Final = 37
OID: Final = 111
CORIM: Final = 501
COSWID: Final = 505
COMID: Final = 506
COTL: Final = 508
UEID: Final = 550
SVN: Final = 552
MIN_SVN: Final = 553
KEY: Final = 554
CERTIFICATE: Final = 555
CERTIFICATE_PATH: Final = 556
KEY_THUMBPRINT: Final = 557
COSE_KEY: Final = 558
CERTIFICATE_THUMBPRINT: Final = 559
BYTES: Final = 560
CERTIFICATE_PATH_THUMBPRINT: Final = 561
CERTIFICATE_DER: Final = 562
MASKED_RAW_VALUE: Final = 563
INT_RANGE: Final = 564

LEGACY_IMPLEMENTATION_ID: Final = 600
"""Arm's class identifier before `tag:arm.com,2025:…`; still found in CoSERV results."""

LEGACY_SOFTWARE_COMPONENT: Final = 601
"""Arm's measurement key {1 name, 4 version, 5 signer id} before `tag:arm.com,2025:…`."""

TAG_NAMES: Final = {
    UUID: "UUID",
    OID: "OID",
    UEID: "UEID",
    KEY: "PEM key",
    CERTIFICATE: "PEM certificate",
    CERTIFICATE_PATH: "PEM certificate path",
    KEY_THUMBPRINT: "key thumbprint",
    COSE_KEY: "COSE_Key",
    CERTIFICATE_THUMBPRINT: "certificate thumbprint",
    BYTES: "bytes",
    CERTIFICATE_PATH_THUMBPRINT: "certificate path thumbprint",
    CERTIFICATE_DER: "DER certificate",
}

HASH_NAMES: Final = {
    1: "sha-256",
    2: "sha-256-128",
    3: "sha-256-120",
    4: "sha-256-96",
    5: "sha-256-64",
    6: "sha-256-32",
    7: "sha-384",
    8: "sha-512",
    9: "sha3-224",
    10: "sha3-256",
    11: "sha3-384",
    12: "sha3-512",
}

HASH_SIZES: Final = {
    "sha-256": 32,
    "sha-256-128": 16,
    "sha-256-120": 15,
    "sha-256-96": 12,
    "sha-256-64": 8,
    "sha-256-32": 4,
    "sha-384": 48,
    "sha-512": 64,
    "sha3-224": 28,
    "sha3-256": 32,
    "sha3-384": 48,
    "sha3-512": 64,
}
"""Octets of a digest."""

# Firmware writes these without the hyphen of the registry; they can mean nothing else.
_SPELLINGS: Final = {"sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}


def hash_name(algorithm: int | str) -> str:
    """Return the one name under which digests of this algorithm are compared.

    The number, the registered name in any case and the common spelling without a hyphen are one
    algorithm. If they were three, a value could be stated twice and the comparison downgraded to
    the weaker statement (draft-ietf-rats-corim, "Comparison for digests entries").
    """
    if isinstance(algorithm, int):
        return HASH_NAMES.get(algorithm, str(algorithm))
    name = algorithm.lower()
    return _SPELLINGS.get(name, name)
