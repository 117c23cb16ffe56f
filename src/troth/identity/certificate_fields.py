# SPDX-License-Identifier: Apache-2.0
"""What goes into the fields of the certificates that Troth issues.

Source: RFC 5280 sections 4.1.2.2, 4.1.2.5, 4.2.1.3, 4.2.1.6; X509-SVID sections 4.3 and 4.4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from troth.errors import ApiMisuseError

__all__ = [
    "TLS_USES",
    "AuthorityKey",
    "checked_dns_names",
    "key_usage",
    "serial_number",
    "signature_hash",
    "whole_seconds",
]

AuthorityKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

TLS_USES: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)

_RANDOM_OCTETS: Final = 16
_MAX_DNS_NAMES: Final = 16
_DNS_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)


def serial_number(random: bytes) -> int:
    """Return a positive serial number of 16 octets (RFC 5280 section 4.1.2.2 allows 20).

    Raises:
        ApiMisuseError: fewer than 16 random octets.
    """
    if len(random) < _RANDOM_OCTETS:
        raise ApiMisuseError(f"a serial number takes {_RANDOM_OCTETS} random octets")
    number = int.from_bytes(random[:_RANDOM_OCTETS])
    # The top bit clear keeps it positive, the next one set keeps its length, so 126 bits are free.
    return number & ((1 << 126) - 1) | 1 << 126


def whole_seconds(now: datetime) -> datetime:
    """Certificates know no fractions of a second."""
    return now.astimezone(UTC).replace(microsecond=0)


def signature_hash(key: AuthorityKey) -> hashes.SHA256 | hashes.SHA384:
    """Return the hash that goes with the strength of the authority's key."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1":
        return hashes.SHA384()
    return hashes.SHA256()


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """Return the key usage of an authority or of a leaf: nothing beyond what each needs."""
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def checked_dns_names(names: Sequence[str]) -> Sequence[str]:
    """Return DNS names for a SAN, all of them in lower case and without wildcards.

    Raises:
        ApiMisuseError: one is not, or there are more than 16.
    """
    if len(names) > _MAX_DNS_NAMES:
        raise ApiMisuseError(f"more than {_MAX_DNS_NAMES} DNS names")
    for name in names:
        if not _DNS_NAME.fullmatch(name):
            raise ApiMisuseError(f"{name[:64]!r} is not a DNS name in lower case")
    return names
