# SPDX-License-Identifier: Apache-2.0
"""From the tagged keys of a CoRIM to keys and certificates that verify something.

Source: draft-ietf-rats-corim (0b855af) "Crypto Keys"; RFC 7468 sections 3, 5 and 13.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from troth.errors import DecodeError, UnsupportedError
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.node import Node
from troth.formats.cose_key import CoseKey
from troth.formats.keys import VerificationKey, spki
from troth.formats.verification_key import PublicKey, supported_public_key

__all__ = ["certificate_of", "key_from_spki", "key_tag", "public_key_of"]

_PEM: Final = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]{1,40})-----(?P<body>[A-Za-z0-9+/=\s]*)-----END (?P=label)-----",
    re.ASCII,
)


def public_key_of(tag: Tag, place: Node) -> PublicKey:
    """Return the public key of a PEM key (554) or COSE_Key (558).

    A bare base64 SubjectPublicKeyInfo is taken as well: the PSA profile's own example is one.
    Refuses private keys (a CoRIM is public), certificates and thumbprints.

    Raises:
        DecodeError: another form, or damaged.
        UnsupportedError: a key that Troth does not verify with.
    """
    if tag.number == tags.KEY:
        return key_from_spki(_pem(tag, place, "PUBLIC KEY"), place)
    if tag.number == tags.COSE_KEY:
        return _cose_key(tag, place)
    name = tags.TAG_NAMES.get(tag.number, "an unknown kind of key")
    raise place.error(f"tag {tag.number} ({name}) where a public key is expected")


def certificate_of(tag: Tag, place: Node) -> x509.Certificate:
    """Return the certificate of a PEM (555) or DER (562) certificate.

    Checks neither its signature nor its dates: it is about to be a trust anchor.

    Raises:
        DecodeError: another form, or damaged.
    """
    if tag.number == tags.CERTIFICATE:
        der = _pem(tag, place, "CERTIFICATE")
    elif tag.number == tags.CERTIFICATE_DER and isinstance(tag.value, bytes):
        der = tag.value
    else:
        name = tags.TAG_NAMES.get(tag.number, "an unknown kind of key")
        raise place.error(f"tag {tag.number} ({name}) where a certificate is expected")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as exc:
        raise place.error(f"not a certificate: {exc}") from exc


def key_from_spki(der: bytes, place: Node) -> PublicKey:
    """Return the public key in a DER SubjectPublicKeyInfo.

    Raises:
        DecodeError: not one, or a point that is not on its curve.
        UnsupportedError: a key that Troth does not verify with.
    """
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise place.error(f"not a SubjectPublicKeyInfo: {exc}") from exc
    try:
        return supported_public_key(key, format=place.format)
    except UnsupportedError as exc:
        raise place.unsupported(str(exc).partition(": ")[2]) from exc


def key_tag(key: PublicKey) -> Tag:
    """Return a public key as a PEM key (554)."""
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Tag(tags.KEY, pem.decode())


def _pem(tag: Tag, place: Node, wanted: str) -> bytes:
    if not isinstance(tag.value, str):
        raise place.error("expected text")
    text = tag.value.strip()
    body = text
    if text.startswith("-----BEGIN "):
        block = _PEM.fullmatch(text)
        if block is None:
            raise place.error("not one complete PEM block")
        if block["label"] != wanted:
            raise place.error(f"a PEM block {block['label']}; expected {wanted}")
        body = block["body"]
    try:
        return b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise place.error(f"not base64: {exc}") from exc


def _cose_key(tag: Tag, place: Node) -> PublicKey:
    try:
        key: VerificationKey = CoseKey.from_value(tag.value)
    except DecodeError as exc:
        raise place.error(str(exc)) from exc
    if isinstance(key.material, bytes):
        raise place.error("a symmetric key: a CoRIM is public, so the key is no secret any more")
    # Once through the SubjectPublicKeyInfo, so that both forms end in the same value.
    return key_from_spki(spki(key), place)
