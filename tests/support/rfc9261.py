# SPDX-License-Identifier: Apache-2.0
"""RFC 9261 and the binder of draft-fossati-seat-expat-03 once more, from their texts alone.

Nothing of Troth is imported: this is what `troth` is checked against. It takes an exporter and
octets, and knows hashes, HMAC, HKDF and signatures by `cryptography`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["Checked", "binder", "check", "exporter", "keys_of"]

Exporter = Callable[[str, bytes, int], bytes]
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"sha256": hashes.SHA256, "sha384": hashes.SHA384}


def exporter(secret: bytes, hash_name: str) -> Exporter:
    """RFC 8446 section 7.5, from an exporter_master_secret."""

    def expand(key: bytes, label: str, context: bytes, size: int) -> bytes:
        full = b"tls13 " + label.encode()
        info = size.to_bytes(2, "big") + bytes([len(full)]) + full + bytes([len(context)]) + context
        return HKDFExpand(_HASHES[hash_name](), size, info).derive(key)

    def export(label: str, context: bytes, size: int) -> bytes:
        empty = hashlib.new(hash_name, b"").digest()
        derived = expand(secret, label, empty, len(empty))
        return expand(derived, "exporter", hashlib.new(hash_name, context).digest(), size)

    return export


def keys_of(export: Exporter, sender: str, hash_name: str) -> tuple[bytes, bytes]:
    """RFC 9261 section 5.1: handshake context and Finished MAC key of a "client" or "server"."""
    size = hashlib.new(hash_name).digest_size
    return (
        export(f"EXPORTER-{sender} authenticator handshake context", b"", size),
        export(f"EXPORTER-{sender} authenticator finished key", b"", size),
    )


def binder(export: Exporter, context: bytes, spki: bytes, hash_name: str) -> bytes:
    """The draft's binder, with the profile's choices."""
    return hashlib.new(hash_name, spki + export("Attestation", context, 32)).digest()


@dataclass(frozen=True)
class Checked:
    """What a request and an authenticator that hold together say."""

    context: bytes
    request_extensions: dict[int, bytes]
    chain: list[bytes]
    extensions: dict[int, bytes]
    spki: bytes


def check(
    export: Exporter, hash_name: str, requester: str, request: bytes, authenticator: bytes
) -> Checked:
    """Take both apart and recompute everything; AssertionError where something does not hold."""
    sender = "server" if requester == "client" else "client"
    handshake_context, finished_key = keys_of(export, sender, hash_name)
    assert request[0] == (17 if requester == "client" else 13)
    body = request[4:]
    assert int.from_bytes(request[1:4], "big") == len(body)
    context, body = body[1 : 1 + body[0]], body[1 + body[0] :]
    assert int.from_bytes(body[:2], "big") == len(body) - 2
    asked = _extensions(body[2:])
    schemes = {int.from_bytes(asked[13][i : i + 2], "big") for i in range(2, len(asked[13]), 2)}

    messages: list[tuple[int, bytes, bytes]] = []
    position = 0
    while position < len(authenticator):
        size = int.from_bytes(authenticator[position + 1 : position + 4], "big")
        whole = authenticator[position : position + 4 + size]
        messages.append((whole[0], whole[4:], whole))
        position += 4 + size
    assert [kind for kind, _, _ in messages] == [11, 15, 20]
    (_, certificate, certificate_raw), (_, verify, verify_raw), (_, finished, _) = messages

    assert certificate[1 : 1 + certificate[0]] == context
    rest = certificate[1 + certificate[0] :]
    assert int.from_bytes(rest[:3], "big") == len(rest) - 3
    rest = rest[3:]
    chain, extensions = [], {}
    while rest:
        size = int.from_bytes(rest[:3], "big")
        der, rest = rest[3 : 3 + size], rest[3 + size :]
        size = int.from_bytes(rest[:2], "big")
        block, rest = _extensions(rest[2 : 2 + size]), rest[2 + size :]
        assert not (chain and block), "extensions stand on the first entry only"
        if not chain:
            extensions = block
        chain.append(der)
    assert set(extensions) <= set(asked)

    def digest(*parts: bytes) -> bytes:
        return hashlib.new(hash_name, b"".join(parts)).digest()

    signed = (
        b"\x20" * 64
        + b"Exported Authenticator\x00"
        + digest(handshake_context, request, certificate_raw)
    )
    scheme = int.from_bytes(verify[:2], "big")
    signature = verify[4:]
    assert int.from_bytes(verify[2:4], "big") == len(signature)
    assert scheme in schemes
    key = x509.load_der_x509_certificate(chain[0]).public_key()
    if scheme == 0x0403:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    else:
        assert scheme == 0x0807
        assert isinstance(key, ed25519.Ed25519PublicKey)
        key.verify(signature, signed)
    transcript = digest(handshake_context, request, certificate_raw, verify_raw)
    assert hmac.digest(finished_key, transcript, hash_name) == finished
    return Checked(
        context=context,
        request_extensions=asked,
        chain=chain,
        extensions=extensions,
        spki=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


def _extensions(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while data:
        kind, size = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        assert kind not in found
        found[kind], data = data[4 : 4 + size], data[4 + size :]
    return found
