# SPDX-License-Identifier: Apache-2.0
"""Two exchanges on one pretended TLS session, and what their owners do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from troth.formats.exported_authenticator import Role
from troth.tls.core.binding import ChannelBinding
from troth.tls.core.exchange import Appraise, DecideIdentity, Event, Exchange, Prove
from troth.tls.core.messages import Model, RequestParameters, Verdict
from troth.tls.core.session import SessionBinding

PASSPORT = RequestParameters(models=(Model.PASSPORT,), verifiers=("v",))


def exporter(secret: bytes) -> Callable[[str, bytes, int], bytes]:
    """A stand-in for a TLS exporter: different for each secret, label, context and length."""

    def export(label: str, context: bytes, size: int) -> bytes:
        seed = hmac.digest(secret, label.encode() + b"\0" + context + bytes([size]), "sha384")
        return (seed * 2)[:size]

    return export


def counter_random(seed: bytes) -> Callable[[int], bytes]:
    state = {"n": 0}

    def draw(size: int) -> bytes:
        state["n"] += 1
        return hashlib.shake_256(seed + state["n"].to_bytes(4, "big")).digest(size)

    return draw


@dataclass
class Identity:
    """A key and its certificate."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    certificate: bytes = b""

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = datetime.now(UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(9)
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .sign(self.key, hashes.SHA256())
        )
        self.certificate = built.public_bytes(serialization.Encoding.DER)

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def make_proof(binding: ChannelBinding, event: Prove, identity: Identity, payload: bytes) -> bytes:
    pending = binding.begin_proof(event.request, [identity.certificate], payload)
    return binding.finish_proof(pending, "ES256", identity.sign(pending.to_sign))


@dataclass
class End:
    """One end with an owner that accepts everything, unless told otherwise."""

    role: Role
    demand: RequestParameters | None
    secret: bytes = b"session"
    verdict: Verdict = Verdict.ACCEPTED
    identity: Identity = field(default_factory=lambda: Identity("end"))
    payload: bytes = b"\x82payload"
    events: list[Event] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.binding = SessionBinding(
            role=self.role, exporter=exporter(self.secret), hash_name="sha256"
        )
        self.exchange = Exchange(
            self.binding, self.demand, random=counter_random(self.role.value.encode())
        )

    def take(self, events: list[Event]) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, Prove):
                proof = make_proof(self.binding, event, self.identity, self.payload)
                self.take(self.exchange.proof_made(event.round, proof, self.now))
            elif isinstance(event, Appraise):
                self.take(self.exchange.decide(event.round, self.verdict))
            elif isinstance(event, DecideIdentity):
                self.take(self.exchange.decide(-1, self.verdict))

    def start(self) -> None:
        self.take(self.exchange.start(self.now))

    def saw(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.events)


def pump(one: End, other: End, tamper: Callable[[bytes], bytes] = lambda data: data) -> None:
    """Carry messages both ways until nobody has anything to say."""
    for _ in range(64):
        moved = False
        for sender, receiver in ((one, other), (other, one)):
            for message in sender.exchange.messages_to_send():
                moved = True
                receiver.take(receiver.exchange.receive(tamper(message), receiver.now))
        if not moved:
            return
    raise AssertionError("the exchange never came to rest")
