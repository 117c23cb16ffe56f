# SPDX-License-Identifier: Apache-2.0
"""Ownership vouchers of another implementation, and our own with one thing changed each."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from support.vectors import vectors
from troth.errors import (
    BindingError,
    DecodeError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.formats import cbor
from troth.formats.cose import sign1
from troth.formats.keys import spki
from troth.formats.signer import LocalSigner
from troth.mesh.ownership_voucher import VOUCHER_LIMITS, decode_voucher, verify_voucher

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GUID = bytes(range(16))
INFO = "gateway mark 1"


def read(name: str) -> bytes:
    text = (vectors("fdo") / name).read_text()
    return base64.b64decode("".join(text.splitlines()[1:-1]))


def test_a_foreign_voucher_with_six_owners_verifies() -> None:
    voucher = decode_voucher(read("ov_extended.pem"))
    maker, owner = spki(voucher.maker), spki(voucher.entries[-1].owner)
    proved = verify_voucher(voucher, makers=[maker], owners=[owner])
    assert proved.transfers == 6
    assert proved.guid.hex() == "f1d0fd0066bd4ef392bc1b7c393fbe18"
    assert proved.device_info == "I am a virtual FIDO Alliance device!"
    with pytest.raises(SignatureError, match="maker"):
        verify_voucher(voucher, makers=[], owners=[owner])
    with pytest.raises(SignatureError, match="somebody else"):
        verify_voucher(voucher, makers=[maker], owners=[spki(voucher.entries[-2].owner)])


def test_a_foreign_voucher_that_nobody_signed_on_is_its_makers() -> None:
    voucher = decode_voucher(read("ov.pem"))
    maker = load_pem_private_key((vectors("fdo") / "mfg_key.pem").read_bytes(), None).public_key()
    assert spki(voucher.maker) == spki(maker)  # type: ignore[arg-type]  # an EC key
    with pytest.raises(SignatureError, match="belongs to its maker"):
        verify_voucher(voucher, makers=[spki(voucher.maker)], owners=[spki(voucher.maker)])


MAKER, DEALER, OWNER, DEVICE = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))


def certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(MAKER, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def digest(data: bytes) -> list[object]:
    return [-16, hashlib.sha256(data).digest()]


def public(key: ec.EllipticCurvePrivateKey) -> list[object]:
    return [10, 1, spki(key.public_key())]


def voucher_of(
    *,
    info: str = INFO,
    signers: tuple[ec.EllipticCurvePrivateKey, ...] = (MAKER, DEALER),
    previous: bytes | None = None,
    chain_hash: list[object] | None = None,
    version: int = 101,
    extra: Any = None,
) -> bytes:
    chain = [certificate(DEVICE)]
    hashed = chain_hash or digest(chain[0])
    header = cbor.encode([version, GUID, [], INFO, public(MAKER), hashed])
    mac: list[object] = [5, bytes(32)]
    before = header + cbor.encode(mac)
    entries = []
    for number, signer in enumerate(signers):
        owner = (DEALER, OWNER)[number]
        said = previous if previous is not None and number else before
        about = digest(GUID + info.encode())
        payload = cbor.encode([digest(said), about, extra, public(owner)])
        before = sign1(payload, LocalSigner(signer))
        entries.append(cbor.decode(before, format="entry"))
    return cbor.encode([101, header, mac, chain, entries])


def prove(data: bytes) -> Any:
    return verify_voucher(
        decode_voucher(data),
        makers=[spki(MAKER.public_key())],
        owners=[spki(OWNER.public_key())],
    )


def test_a_voucher_shows_the_devices_key_and_that_it_is_ours() -> None:
    proved = prove(voucher_of())
    assert proved.device_key == spki(DEVICE.public_key())
    assert (proved.owner, proved.transfers) == (spki(OWNER.public_key()), 2)
    assert prove(voucher_of(extra=b"words")).transfers == 2


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"signers": (MAKER, OWNER)}, SignatureError, "entry 1"),
        ({"signers": (DEALER, DEALER)}, SignatureError, "entry 0"),
        ({"signers": (MAKER,)}, SignatureError, "somebody else"),
        ({"previous": b"another"}, BindingError, "does not continue"),
        ({"info": "another device"}, BindingError, "about another device"),
        ({"chain_hash": digest(b"")}, BindingError, "not those that its header names"),
        ({"version": 100}, UnsupportedError, "version 100"),
        ({"extra": 7}, DecodeError, "payload"),
        ({"chain_hash": [-44, bytes(64)]}, UnsupportedError, "hash algorithm"),
    ],
)
def test_one_thing_changed_is_refused(changes: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        prove(voucher_of(**changes))


@pytest.mark.parametrize("data", [b"", b"\x80", cbor.encode([101, b"", [5, b""], None, []])])
def test_other_octets_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_voucher(data)


def test_a_voucher_that_is_too_long_is_refused() -> None:
    with pytest.raises(LimitExceededError):
        decode_voucher(bytes(VOUCHER_LIMITS.max_bytes + 1))
