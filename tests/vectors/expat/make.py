# SPDX-License-Identifier: Apache-2.0
"""Make the vectors of this directory again: `.venv/bin/python tests/vectors/expat/make.py`.

Everything follows from fixed seeds, so that the files do not change unless the format does.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from support.rfc9261 import binder, exporter, keys_of  # noqa: E402 - the path comes first
from troth.formats import cmw  # noqa: E402
from troth.formats.exported_authenticator import (  # noqa: E402
    AuthenticatorRequest,
    Role,
    SignatureScheme,
    certificate_message,
    certificate_verify_input,
    decode_request,
    finish_authenticator,
)
from troth.formats.keys import spki  # noqa: E402
from troth.formats.tls_wire import handshake_message, vector  # noqa: E402
from troth.tls.core.messages import Model, RequestParameters  # noqa: E402
from troth.tls.core.profile import EXPAT_03  # noqa: E402
from troth.tls.core.session import SessionBinding  # noqa: E402

SEED = b"troth expat vectors"
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CMW = EXPAT_03.cmw_extension
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def draw(what: str, size: int = 32) -> bytes:
    return hashlib.shake_256(SEED + b"/" + what.encode()).digest(size)


def key(kind: str, what: str) -> PrivateKey:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(draw(what))
    number = int.from_bytes(draw(what, 40), "big") % (ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


AUTHORITY = ed25519.Ed25519PrivateKey.from_private_bytes(draw("authority"))


def certificate(subject: PrivateKey, name: str) -> bytes:
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vectors")])
    uri = x509.UniformResourceIdentifier(f"spiffe://vectors.example/{name}")
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .public_key(subject.public_key())
        .serial_number(int.from_bytes(draw(name, 8), "big") >> 1)
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
        .sign(AUTHORITY, None)
    )
    return built.public_bytes(serialization.Encoding.DER)


def sign(private: PrivateKey, data: bytes) -> tuple[SignatureScheme, bytes, str, bytes]:
    """Return the scheme, the signature in TLS form, and both in JOSE form."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        made = private.sign(data)
        return SignatureScheme.ED25519, made, "EdDSA", made
    made = private.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(made)
    jose = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return SignatureScheme.ECDSA_SECP256R1_SHA256, made, "ES256", jose


@dataclass
class Setting:
    """One exchange of a request and a proof, and everything that it follows from."""

    requester: Role
    hash_name: str
    kind: str

    def __post_init__(self) -> None:
        name = f"{self.requester.value}-{self.hash_name}"
        size = hashlib.new(self.hash_name).digest_size
        self.secret = draw(f"exporter master secret {name}", size)
        self.export = exporter(self.secret, self.hash_name)
        self.context = draw(f"context {name}")
        self.private = key(self.kind, f"key {name}")
        self.certificate = certificate(self.private, name)
        self.parameters = RequestParameters(
            models=(Model.PASSPORT, Model.BACKGROUND_CHECK),
            verifiers=("verifier.example",),
            encodings=("deflate",),
        )
        self.asking = self.binding(self.requester)
        self.proving = self.binding(self.requester.other)
        self.request = self.asking.make_request(self.context, self.parameters)
        challenge = binder(self.export, self.context, self.spki, self.hash_name)
        # In place of a platform's Evidence: something that carries the binder.
        evidence = b"evidence about " + challenge
        self.payload = cmw.encode_cbor(
            cmw.CmwRecord("application/vnd.example.evidence", evidence, cmw.Indicator.EVIDENCE)
        )
        self.challenge = challenge

    def binding(self, role: Role) -> SessionBinding:
        return SessionBinding(role=role, exporter=self.export, hash_name=self.hash_name)

    @property
    def spki(self) -> bytes:
        return spki(self.private.public_key())

    def prove(self, payload: bytes | None = None) -> bytes:
        request = self.proving.read_request(self.request.raw)
        shown = self.payload if payload is None else payload
        pending = self.proving.begin_proof(request, [self.certificate], shown)
        _, _, algorithm, signature = sign(self.private, pending.to_sign)
        return self.proving.finish_proof(pending, algorithm, signature)

    def crafted(
        self,
        change: Callable[[AuthenticatorRequest, bytes], bytes],
        *,
        sender: Role | None = None,
        signer: PrivateKey | None = None,
    ) -> bytes:
        """A proof that is wrong in one thing and signed all the same."""
        keys = self.proving._keys_of(sender or self.requester.other)
        asked = decode_request(self.request.raw, self.requester)
        message = change(asked, certificate_message(asked, [self.certificate], {CMW: self.payload}))
        scheme, signature, _, _ = sign(
            signer or self.private, certificate_verify_input(keys, asked, message)
        )
        return finish_authenticator(keys, asked, message, scheme=scheme, signature=signature)

    def describe(self, expect: str, authenticator: bytes, **more: object) -> dict[str, object]:
        size = hashlib.new(self.hash_name).digest_size
        handshake_context, finished_key = keys_of(
            self.export, self.requester.other.value, self.hash_name
        )
        return {
            "expect": expect,
            "requester": self.requester.value,
            "hash": self.hash_name,
            "exporter_master_secret": self.secret.hex(),
            "certificate_request_context": self.context.hex(),
            "request": self.request.raw.hex(),
            "authenticator": authenticator.hex(),
            "intermediate": {
                "request_parameters": self.parameters.encode().hex(),
                "handshake_context": handshake_context.hex(),
                "finished_key": finished_key.hex(),
                "attestation_exported_value": self.export(
                    EXPAT_03.exporter_label, self.context, EXPAT_03.exporter_octets
                ).hex(),
                "subject_public_key_info": self.spki.hex(),
                "binder": self.challenge.hex(),
                "binder_in_64_octets": self.challenge.ljust(64, b"\0").hex(),
                "hash_octets": size,
                "certificate": self.certificate.hex(),
                "cmw": self.payload.hex(),
            },
            **more,
        }


def same(_: AuthenticatorRequest, message: bytes) -> bytes:
    return message


def entry(setting: Setting, extensions: bytes) -> bytes:
    return vector(setting.certificate, 3) + vector(extensions, 2)


def extension(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(value, 2)


def with_entries(setting: Setting, *blocks: bytes) -> Callable[..., bytes]:
    def change(asked: AuthenticatorRequest, _: bytes) -> bytes:
        entries = b"".join(entry(setting, block) for block in blocks)
        return handshake_message(11, vector(asked.context, 1) + vector(entries, 3))

    return change


def other_context(asked: AuthenticatorRequest, message: bytes) -> bytes:
    return message.replace(asked.context, draw("another context"))


def vectors() -> dict[str, dict[str, object]]:
    made: dict[str, dict[str, object]] = {}
    for requester in Role:
        for hash_name, kind in (("sha256", "p256"), ("sha384", "ed25519")):
            setting = Setting(requester, hash_name, kind)
            name = f"{requester.value}-asks-{hash_name}"
            made[f"{name}-valid"] = setting.describe("valid", setting.prove())
            request = setting.proving.read_request(setting.request.raw)
            empty = setting.proving.decline(request)
            made[f"{name}-empty"] = setting.describe("PeerError", empty)
    setting = Setting(Role.CLIENT, "sha256", "p256")
    attest = extension(CMW, setting.payload)
    stranger = Setting(Role.CLIENT, "sha384", "p256")
    stranger.hash_name, stranger.export = "sha256", exporter(draw("another session"), "sha256")
    stranger.proving = stranger.binding(Role.SERVER)
    stranger.request, stranger.private = setting.request, setting.private
    stranger.certificate, stranger.payload = setting.certificate, setting.payload
    valid = setting.prove()
    bad = {
        "other-session": ("SignatureError", stranger.prove()),
        "other-direction": ("SignatureError", setting.crafted(same, sender=Role.CLIENT)),
        "other-context": ("PeerError", setting.crafted(other_context)),
        "other-key": (
            "SignatureError",
            setting.crafted(same, signer=key("p256", "another key")),
        ),
        "unasked-extension": (
            "PeerError",
            setting.crafted(with_entries(setting, attest + extension(0xFF77, b"x"))),
        ),
        "extension-on-second": (
            "PeerError",
            setting.crafted(with_entries(setting, b"", attest)),
        ),
        "extension-twice": ("DecodeError", setting.crafted(with_entries(setting, attest * 2))),
        "finished": ("SignatureError", valid[:-1] + bytes([valid[-1] ^ 1])),
        "trailing": ("DecodeError", valid + b"\0"),
        "without-finished": ("DecodeError", valid[:-36]),
    }
    for reason, (expect, authenticator) in bad.items():
        made[f"client-asks-sha256-bad-{reason}"] = setting.describe(expect, authenticator)
    return made


if __name__ == "__main__":
    for name, value in vectors().items():
        (HERE / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
