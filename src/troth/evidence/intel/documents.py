# SPDX-License-Identifier: Apache-2.0
"""Intel's documents among the collateral, told apart by what is in them.

Names of files do not matter. Known are, as Intel's Provisioning Certification Service (PCS) and
caches of it (PCCS) answer:

- TCB info: `{"tcbInfo": {…}, "signature": "hex"}`;
- the identity of a quoting enclave: `{"enclaveIdentity": {…}, "signature": "hex"}`; both with
  `"issuerChain": "PEM"` besides where Troth has fetched them;
- revocation lists in DER, PEM, or DER in hexadecimal;
- certificates in PEM: the one that signed TCB info and identities, which the service sends in a
  header of its response, and roots;
- all of them in one object, `{"tcb_info": "…", "tcb_info_signature": "hex", "pck_crl": "hex", …}`,
  as dcap-qvl writes it.

What is none of these belongs to another vendor and is passed over.

Source: Intel PCS API version 4.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from troth.errors import DecodeError, LimitExceededError
from troth.evidence.context import Collateral
from troth.evidence.intel.pck import load_pem
from troth.evidence.intel.tcb import (
    QeIdentity,
    TcbInfo,
    decode_qe_identity,
    decode_tcb_info,
)
from troth.formats.strict_json import decode_json_object

__all__ = [
    "CHAIN_MEMBER",
    "MAX_DOCUMENT_BYTES",
    "IntelDocuments",
    "RevocationList",
    "SignedQeIdentity",
    "SignedTcbInfo",
]

MAX_DOCUMENT_BYTES: Final = 1_048_576
"""Octets of one of Intel's documents; TCB info has 4 to 20 KB, the longest revocation list some
100 KB."""

CHAIN_MEMBER: Final = "issuerChain"
"""Member in which Troth keeps the certificates that came in the header of an answer."""

_SIGNATURE_SIZE: Final = 64
_HEX: Final = re.compile(rb"\s*30[0-9A-Fa-f\s]+", re.ASCII)
_CRL_PEM: Final = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----")
_WHITE: Final = re.compile(r"[ \t\r\n]*")
_COMBINED: Final = (
    ("tcb_info", "tcbInfo"),
    ("qe_identity", "enclaveIdentity"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignedTcbInfo:
    """TCB info: the text that was signed, the signature, and what it says."""

    text: str = field(repr=False)
    signature: bytes = field(repr=False)
    content: TcbInfo


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignedQeIdentity:
    """The identity of a quoting enclave: the text that was signed, the signature, and what it says."""

    text: str = field(repr=False)
    signature: bytes = field(repr=False)
    content: QeIdentity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RevocationList:
    """A revocation list, its dates, and who made it: the encoded name."""

    content: x509.CertificateRevocationList = field(repr=False)
    der: bytes = field(repr=False)
    issuer: bytes = field(repr=False)
    last_update: datetime
    next_update: datetime


_Item = SignedTcbInfo | SignedQeIdentity | x509.Certificate | RevocationList


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelDocuments:
    """What of the collateral is Intel's. Nothing is verified.

    Attributes:
        tcb_infos, identities, certificates, revocation_lists: as found, in order.
        unreadable: names of documents that look like Intel's and are damaged, and why.
    """

    tcb_infos: tuple[SignedTcbInfo, ...]
    identities: tuple[SignedQeIdentity, ...]
    certificates: tuple[x509.Certificate, ...]
    revocation_lists: tuple[RevocationList, ...]
    unreadable: tuple[str, ...]

    @classmethod
    def of(cls, collateral: Collateral) -> IntelDocuments:
        """Sort the documents."""
        items: list[_Item] = []
        unreadable: list[str] = []
        for name, data in collateral.documents.items():
            try:
                items += _read(data)
            except DecodeError as exc:
                unreadable.append(f"{name} ({exc})")
        return cls(
            tcb_infos=tuple(each for each in items if isinstance(each, SignedTcbInfo)),
            identities=tuple(each for each in items if isinstance(each, SignedQeIdentity)),
            certificates=tuple(each for each in items if isinstance(each, x509.Certificate)),
            revocation_lists=tuple(each for each in items if isinstance(each, RevocationList)),
            unreadable=tuple(unreadable),
        )


@lru_cache(maxsize=128)
def _read(data: bytes) -> tuple[_Item, ...]:
    """Return what one document holds. A Verifier has the same ones for hours, so they are kept."""
    start = data[:64].lstrip()
    if start.startswith(b"{"):
        return tuple(_read_json(data))
    if start.startswith(b"\x30"):
        return tuple(_read_der(data))
    if _HEX.fullmatch(data):
        return tuple(_read_der(binascii.unhexlify(b"".join(data.split()))))
    return (*_read_certificates(data), *map(_crl_from_pem, _CRL_PEM.findall(data)))


def _read_json(data: bytes) -> Iterator[_Item]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise LimitExceededError(
            format="collateral", limit="MAX_DOCUMENT_BYTES", value=MAX_DOCUMENT_BYTES
        )
    try:
        text = data.decode()
        members = dict(_members(text))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise DecodeError(f"not a JSON object: {exc}", format="collateral") from exc
    for name in ("tcbInfo", "enclaveIdentity"):
        if name in members:
            yield _signed(name, members[name], json.loads(members.get("signature", "null")))
    if CHAIN_MEMBER in members:
        yield from _read_certificates(str(json.loads(members[CHAIN_MEMBER])).encode())
    if "tcb_info" in members and "qe_identity" in members:
        yield from _read_combined(data)


def _read_combined(data: bytes) -> Iterator[_Item]:
    found = decode_json_object(data, format="collateral of dcap-qvl")
    for name, inner in _COMBINED:
        yield _signed(inner, str(found.get(name)), found.get(f"{name}_signature"))
        yield from _read_certificates(str(found.get(f"{name}_issuer_chain")).encode())
    for name in ("pck_crl", "root_ca_crl"):
        yield from _read_der(_unhex(found.get(name), name))


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each member of the object: a signature is over a text, not a value."""
    decoder = json.JSONDecoder()
    at = _skip(text, _skip(text, 0) + 1)
    seen: set[str] = set()
    while text[at : at + 1] != "}":
        name, at = decoder.raw_decode(text, at)
        at = _skip(text, at)
        if not isinstance(name, str) or name in seen or text[at : at + 1] != ":":
            raise json.JSONDecodeError("expected another name and a colon", text, at)
        seen.add(name)
        start = _skip(text, at + 1)
        _, at = decoder.raw_decode(text, start)
        yield name, text[start:at]
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "}":
            raise json.JSONDecodeError("expected a comma or the end", text, at)
    if text[at + 1 :].strip():
        raise json.JSONDecodeError("there is more after the object", text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _WHITE.match(text, at)
    return found.end() if found is not None else at


def _signed(name: str, text: str, signature: object) -> SignedTcbInfo | SignedQeIdentity:
    octets = _unhex(signature, f"signature of {name}")
    if len(octets) != _SIGNATURE_SIZE:
        raise DecodeError(f"a signature of {len(octets)} octets; expected 64", format=name)
    if name == "tcbInfo":
        return SignedTcbInfo(
            text=text, signature=octets, content=decode_tcb_info(text, format=name)
        )
    return SignedQeIdentity(
        text=text, signature=octets, content=decode_qe_identity(text, format=name)
    )


def _unhex(value: object, name: str) -> bytes:
    try:
        return bytes.fromhex(value if isinstance(value, str) else "?")
    except ValueError as exc:
        raise DecodeError("is not hexadecimal", format=name) from exc


def _read_der(data: bytes) -> Iterator[_Item]:
    if len(data) > MAX_DOCUMENT_BYTES:
        return  # nothing of Intel's
    try:
        yield _usable(x509.load_der_x509_crl(data))
    except (ValueError, x509.InvalidVersion):
        return  # another vendor's certificate, say


def _crl_from_pem(data: bytes) -> _Item:
    try:
        return _usable(x509.load_pem_x509_crl(data))
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError(f"not a revocation list: {exc}", format="collateral") from exc


def _usable(found: x509.CertificateRevocationList) -> RevocationList:
    """Return the list if what we look at in it can be read; ValueError if not."""
    if found.next_update_utc is None:
        raise ValueError("a list that never runs out")
    return RevocationList(
        content=found,
        der=found.public_bytes(Encoding.DER),
        issuer=found.issuer.public_bytes(),
        last_update=found.last_update_utc,
        next_update=found.next_update_utc,
    )


def _read_certificates(data: bytes) -> list[x509.Certificate]:
    try:
        return load_pem(data, format="collateral")
    except DecodeError:
        return []  # RSA keys are other vendors'
