# SPDX-License-Identifier: Apache-2.0
"""FIDO ownership vouchers: a maker's paper trail that says whose device this is.

A voucher names a device by its certificate, and carries one signed entry for each owner in the
supply chain: the maker signs for the first, each owner for the next. Whoever holds the key in the
last entry owns the device.

The order of `verify_voucher()`, whose numbers the code wears:

1. the maker in the header is one that is believed;
2. the device's certificates are those whose hash is in the header;
3. each entry is signed by the owner before it, and continues the voucher up to there;
4. the last owner is us.

The device itself can check one thing more, the HMAC over the header; it takes part in no protocol
here. Protocols TO0 to TO2 are not implemented: the device presents itself by its certificate.

Source: FIDO Device Onboard 1.1 (April 2022), sections 3.3.6, 3.3.7 and 5.5.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from troth.errors import BindingError, DecodeError, SignatureError, UnsupportedError
from troth.formats import cbor
from troth.formats.keys import load_keys, spki
from troth.formats.limits import Limits
from troth.formats.signatures import verify_signature
from troth.formats.verification_key import VerificationKey

__all__ = [
    "VOUCHER_LIMITS",
    "OwnershipVoucher",
    "VerifiedVoucher",
    "decode_voucher",
    "verify_voucher",
]

VOUCHER_LIMITS: Final = Limits(max_bytes=65_536, max_items=2_048, max_depth=8)
"""One voucher: some ten owners with RSA keys and certificates take 20 kB."""

_FORMAT: Final = "ownership voucher"
_VERSION: Final = 101
_GUID_SIZE: Final = 16
_HASHES: Final = {-16: "sha256", -43: "sha384"}
_SIGNATURES: Final = {-7: "ES256", -35: "ES384", -37: "PS256", -257: "RS256"}
_ALG: Final = 1
_X509, _X5CHAIN, _COSE = 1, 2, 3
_SIGN1: Final = 18


@dataclass(frozen=True, slots=True)
class _Hash:
    algorithm: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    encoded: bytes
    protected: bytes
    algorithm: str
    payload: bytes
    signature: bytes
    previous: _Hash
    header_info: _Hash
    owner: VerificationKey


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipVoucher:
    """A decoded voucher. Nothing in it is believed yet.

    Attributes:
        guid: the device's number, 16 octets.
        device_info: the maker's words about it.
        maker: key of the maker.
        certificates: DER, the device's own first; none where the voucher has none.
        chain_hash: of them, as the header has it, or None.
        header, header_mac: as received; the first entry continues them.
        entries: one for each owner after the maker.
    """

    guid: bytes
    device_info: str
    maker: VerificationKey
    certificates: tuple[bytes, ...] = field(repr=False)
    chain_hash: _Hash | None
    header: bytes = field(repr=False)
    header_mac: bytes = field(repr=False)
    entries: tuple[_Entry, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedVoucher:
    """What a voucher proves. Only `verify_voucher` makes one.

    Attributes:
        guid, device_info: as in the voucher.
        device_key: DER SubjectPublicKeyInfo of the device's own certificate.
        owner: DER SubjectPublicKeyInfo of the last owner.
        transfers: how often it changed hands.
    """

    guid: bytes
    device_info: str
    device_key: bytes
    owner: bytes
    transfers: int


def decode_voucher(data: bytes) -> OwnershipVoucher:
    """Decode one voucher in CBOR.

    Raises:
        DecodeError: not one.
        UnsupportedError: another version, key or algorithm.
        LimitExceededError: a limit was crossed.
    """
    match cbor.decode(data, format=_FORMAT, limits=VOUCHER_LIMITS):
        case [int() as version, bytes() as header, [int(), bytes()] as mac, chain, list() as items]:
            pass
        case _:
            raise DecodeError(
                "is not an array of version, header, HMAC, chain, entries", format=_FORMAT
            )
    _require_version(version)
    match cbor.decode(header, format=f"{_FORMAT} header", limits=VOUCHER_LIMITS):
        case [int() as inner, bytes() as guid, list(), str() as info, maker, chain_hash] if (
            len(guid) == _GUID_SIZE
        ):
            _require_version(inner)
        case _:
            raise DecodeError("its header has another form", format=_FORMAT)
    if chain is not None and not (
        isinstance(chain, list) and chain and all(isinstance(each, bytes) for each in chain)
    ):
        raise DecodeError("its certificates are not an array of octets", format=_FORMAT)
    return OwnershipVoucher(
        guid=guid,
        device_info=info,
        maker=_key(maker),
        certificates=tuple(chain or ()),
        chain_hash=None if chain_hash is None else _hash(chain_hash),
        header=header,
        header_mac=cbor.encode(mac),
        entries=tuple(map(_entry, items)),
    )


def verify_voucher(
    voucher: OwnershipVoucher, *, makers: Collection[bytes], owners: Collection[bytes]
) -> VerifiedVoucher:
    """Establish that a believed maker's device was handed on, from owner to owner, to us.

    Does NOT check the device's certificates against a root: the maker signs for them by the first
    entry. Nor that the device exists.

    Args:
        voucher: as decoded.
        makers: DER SubjectPublicKeyInfo of makers that are believed.
        owners: DER SubjectPublicKeyInfo of our own keys.

    Raises:
        SignatureError: another maker or owner, nobody has signed it on, or an entry does not
            verify.
        BindingError: certificates or an entry do not belong to this voucher.
        DecodeError: the device's certificate is none.
    """
    if spki(voucher.maker) not in makers:  # (1)
        raise SignatureError(
            "the voucher is from a maker that is not believed",
            remedy="Name the maker's key if you know it from the maker itself.",
        )
    device_key = _device_key(voucher)  # (2)
    if not voucher.entries:
        raise SignatureError(
            "nobody has signed the voucher on: it belongs to its maker",
            remedy="Have the seller extend the voucher to your key.",
        )
    signer = voucher.maker
    before = voucher.header + voucher.header_mac
    for number, entry in enumerate(voucher.entries):  # (3)
        _verify_entry(entry, voucher, before, signer, number)
        signer, before = entry.owner, entry.encoded
    owner = spki(signer)
    if owner not in owners:  # (4)
        raise SignatureError(
            "the voucher's last owner is somebody else",
            remedy="Have that owner extend the voucher to your key.",
        )
    return VerifiedVoucher(
        guid=voucher.guid,
        device_info=voucher.device_info,
        device_key=device_key,
        owner=owner,
        transfers=len(voucher.entries),
    )


def _verify_entry(
    entry: _Entry, voucher: OwnershipVoucher, before: bytes, signer: VerificationKey, number: int
) -> None:
    where = f"{_FORMAT} entry {number}"
    covered = cbor.encode(["Signature1", entry.protected, b"", entry.payload])
    verify_signature(signer, entry.algorithm, entry.signature, covered, format=where)
    if not _equals(entry.previous, before):
        raise BindingError(f"{where} does not continue the voucher before it")
    if not _equals(entry.header_info, voucher.guid + voucher.device_info.encode()):
        raise BindingError(f"{where} is about another device")


def _device_key(voucher: OwnershipVoucher) -> bytes:
    if not voucher.certificates or voucher.chain_hash is None:
        raise SignatureError(
            "the voucher names no certificate of its device (EPID is not taken)",
            remedy="Enter the device by something else that it can prove.",
        )
    if not _equals(voucher.chain_hash, b"".join(voucher.certificates)):
        raise BindingError("the voucher's certificates are not those that its header names")
    return spki(_one_key(voucher.certificates[0]))


def _equals(expected: _Hash, data: bytes) -> bool:
    return hmac.compare_digest(
        expected.value, hashlib.new(_HASHES[expected.algorithm], data).digest()
    )


def _require_version(version: int) -> None:
    if version != _VERSION:
        raise UnsupportedError(f"version {version}, expected {_VERSION}", format=_FORMAT)


def _hash(value: object) -> _Hash:
    match value:
        case [int() as algorithm, bytes() as digest]:
            pass
        case _:
            raise DecodeError("a hash is not an array of algorithm and octets", format=_FORMAT)
    if algorithm not in _HASHES:
        raise UnsupportedError(f"hash algorithm {algorithm}", format=_FORMAT)
    return _Hash(algorithm, digest)


def _entry(value: object) -> _Entry:
    message = value.value if isinstance(value, cbor.Tag) and value.number == _SIGN1 else None
    match message:
        case [bytes() as protected, dict() as open_header, bytes() as payload, bytes() as proof]:
            pass
        case _:
            raise DecodeError("an entry is not a COSE_Sign1", format=_FORMAT)
    header = cbor.decode(protected, format=f"{_FORMAT} entry header", limits=VOUCHER_LIMITS)
    if not isinstance(header, dict) or header.keys() != {_ALG} or open_header:
        raise DecodeError("an entry has other headers than its algorithm", format=_FORMAT)
    named = header[_ALG]
    algorithm = _SIGNATURES.get(named) if isinstance(named, int) else None
    if algorithm is None:
        raise UnsupportedError("an entry is signed by another algorithm", format=_FORMAT)
    match cbor.decode(payload, format=f"{_FORMAT} entry", limits=VOUCHER_LIMITS):
        case [previous, header_info, None | bytes(), owner]:
            pass
        case _:
            raise DecodeError("an entry's payload has another form", format=_FORMAT)
    return _Entry(
        encoded=cbor.encode(value),
        protected=protected,
        algorithm=algorithm,
        payload=payload,
        signature=proof,
        previous=_hash(previous),
        header_info=_hash(header_info),
        owner=_key(owner),
    )


def _key(value: object) -> VerificationKey:
    match value:
        case [int(), int() as encoding, body]:
            pass
        case _:
            raise DecodeError("a public key is not an array of three", format=_FORMAT)
    if encoding == _X509 and isinstance(body, bytes):
        return _one_key(body)
    if encoding == _X5CHAIN and isinstance(body, list) and body and isinstance(body[0], bytes):
        return _one_key(body[0])
    if encoding == _COSE and isinstance(body, dict):
        return _one_key(cbor.encode(body))
    raise UnsupportedError(f"a public key in encoding {encoding}", format=_FORMAT)


def _one_key(data: bytes) -> VerificationKey:
    keys = load_keys(data, source=_FORMAT)
    if len(keys) != 1:
        raise DecodeError("not one public key", format=_FORMAT)
    return keys[0]
