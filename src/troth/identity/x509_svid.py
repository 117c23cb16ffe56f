# SPDX-License-Identifier: Apache-2.0
"""The X.509-SVID as somebody presents it: well-formed by the letter, and trusted by nobody yet.

`X509Svid.decode` checks what a certificate says of itself. Whether an authority of the trust domain
says so too is `verify_x509_svid`'s.

Source: X509-SVID sections 2 to 5.2 (spiffe/spiffe, July 2026); RFC 5280 sections 4.1.2.6, 4.2.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from troth.errors import ApiMisuseError, DecodeError
from troth.formats.keys import PublicKey, spki
from troth.formats.signer import PrivateKey
from troth.identity.certificates import (
    FORMAT,
    decode_chain,
    key_of,
    key_usage_of,
    spiffe_id_of,
    subject_alternative_names,
    subject_of,
)
from troth.identity.spiffe_id import SpiffeId

__all__ = ["NODE_PREFIX", "X509Svid"]

NODE_PREFIX: Final = "node:"
"""What an organizational unit that names a node begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Svid:
    """A leaf certificate that is an X.509-SVID, with the certificates that came along.

    Attributes:
        spiffe_id: who it says it is.
        chain: the leaf, then signing certificates in the order in which they came.
        private_key: the leaf's private key, for its holder; else None.

    Raises:
        DecodeError: the leaf breaks a rule of the X509-SVID specification.
        ApiMisuseError: the private key is not the leaf's.
    """

    spiffe_id: SpiffeId = field(init=False)
    chain: Sequence[x509.Certificate]
    private_key: PrivateKey | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chain", tuple(self.chain))
        if not self.chain:
            raise DecodeError("there is no certificate", format=FORMAT)
        object.__setattr__(self, "spiffe_id", _leaf_id(self.leaf))
        if self.private_key is not None and spki(self.private_key.public_key()) != self.spki:
            raise ApiMisuseError(f"the private key is not that of {self.spiffe_id}'s certificate")

    @classmethod
    def decode(cls, data: bytes, *, private_key: PrivateKey | None = None) -> X509Svid:
        """Read an SVID from its chain: PEM blocks, or DER certificates one after the other.

        Raises:
            DecodeError: not such a chain, or the leaf breaks a rule.
        """
        return cls(chain=decode_chain(data), private_key=private_key)

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that carries the identity."""
        return self.chain[0]

    @property
    def public_key(self) -> PublicKey:
        """The leaf's public key."""
        return key_of(self.leaf)

    @property
    def spki(self) -> bytes:
        """The leaf's key as DER SubjectPublicKeyInfo; what an EAR's key is compared with."""
        return spki(self.public_key)

    @property
    def not_before(self) -> datetime:
        """When the leaf begins to be valid, UTC."""
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """When the leaf was valid for the last time, UTC."""
        return self.leaf.not_valid_after_utc

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the leaf's DER."""
        return hashlib.sha256(self.leaf.public_bytes(serialization.Encoding.DER)).digest()

    @property
    def node_id(self) -> str:
        """The node that the Subject names (`OU=node:…`), or "" where it names none.

        Raises:
            DecodeError: it names several.
        """
        subject = subject_of(self.leaf)
        units = subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        values = [unit.value for unit in units if isinstance(unit.value, str)]
        nodes = [value for value in values if value.startswith(NODE_PREFIX)]
        if len(nodes) > 1:
            raise DecodeError("the Subject names several nodes", format=FORMAT)
        return nodes[0].removeprefix(NODE_PREFIX) if nodes else ""

    def encode_pem(self) -> bytes:
        """Return the chain as concatenated PEM, leaf first."""
        return b"".join(cert.public_bytes(serialization.Encoding.PEM) for cert in self.chain)

    def encode_der(self) -> bytes:
        """Return the chain as concatenated DER, leaf first, as the Workload API sends it."""
        return b"".join(cert.public_bytes(serialization.Encoding.DER) for cert in self.chain)

    def encode_private_key(self, encoding: serialization.Encoding) -> bytes:
        """Return the private key as unencrypted PKCS#8, PEM or DER.

        Raises:
            ApiMisuseError: this SVID is not ours.
        """
        if self.private_key is None:
            raise ApiMisuseError(f"there is no private key for {self.spiffe_id}")
        return self.private_key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _leaf_id(leaf: x509.Certificate) -> SpiffeId:
    """Check the rules for leaves, numbered, and return the SPIFFE ID.

    1. Basic constraints, where present, do not make it a CA (section 4.1).
    2. Key usage is present and critical, with digitalSignature and neither keyCertSign nor
       cRLSign (section 4.3).
    3. Extended key usage, where present, has both serverAuth and clientAuth (section 4.4).
    4. There is exactly one URI SAN, a SPIFFE ID with a path (sections 2 and 3.1), critical where
       the Subject is empty (section 3.1).
    5. The key is of a type and size that Troth verifies with.
    """
    names = subject_alternative_names(leaf)
    extensions = leaf.extensions  # malformed ones have been refused just now
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise DecodeError("the leaf is a CA certificate", format=FORMAT)
        if isinstance(extension.value, x509.ExtendedKeyUsage) and not (
            {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
            <= set(extension.value)
        ):
            raise DecodeError("extended key usage lacks serverAuth or clientAuth", format=FORMAT)
    usage = key_usage_of(leaf)
    if not usage.critical:
        raise DecodeError("key usage is not critical", format=FORMAT)
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise DecodeError("the leaf's key usage is that of a CA", format=FORMAT)
    if not usage.value.digital_signature:
        raise DecodeError("key usage lacks digitalSignature", format=FORMAT)
    spiffe_id = spiffe_id_of(names)
    if spiffe_id is None:
        raise DecodeError("there is no URI SAN, so no SPIFFE ID", format=FORMAT)
    if not spiffe_id.path:
        raise DecodeError(f"{spiffe_id} has no path: it names an authority", format=FORMAT)
    if not subject_of(leaf).rdns and names is not None and not names.critical:
        raise DecodeError("the SAN of a leaf without Subject is not critical", format=FORMAT)
    key_of(leaf)
    return spiffe_id
