# SPDX-License-Identifier: Apache-2.0
"""What a peer of attested TLS can send: frames, messages, requests, proofs, payloads.

Besides the common invariant: octets make the same frames however they are cut, and no messages
that a fuzzer makes up open an exchange.
"""

from __future__ import annotations

import hashlib
import warnings
import zlib
from collections.abc import Callable

from cryptography.utils import CryptographyDeprecationWarning

from fuzz.harness import Target
from support.exchange import PASSPORT, Identity, exporter, make_proof
from troth.errors import DecodeError, PeerError, VerificationError
from troth.formats.exported_authenticator import Role, decode_request, validate_authenticator
from troth.tls.core.binding import ChannelBinding, Proof, Request
from troth.tls.core.certificate import CertificateBinding
from troth.tls.core.exchange import Exchange, Prove
from troth.tls.core.framing import FrameKind, FrameReader, encode_frames
from troth.tls.core.messages import (
    Message,
    MessageKind,
    RequestParameters,
    decode_message,
    encode_message,
)
from troth.tls.core.session import SessionBinding
from troth.tls.payload import inline_payload

__all__ = ["TLS_TARGETS"]

_REFUSALS = (DecodeError, PeerError, VerificationError)
_CONTEXT = bytes(range(32))
_PEER = Identity("peer")


def _session(role: Role) -> SessionBinding:
    return SessionBinding(role=role, exporter=exporter(b"fuzz"), hash_name="sha256")


def _gate(role: Role) -> CertificateBinding:
    digest = hashlib.sha256(_PEER.certificate).digest()
    return CertificateBinding(role=role, nonce=bytes(32), own=[digest], peer=digest)


def _sample(make: Callable[[Role], ChannelBinding]) -> tuple[ChannelBinding, Request, bytes]:
    """A client's request and the server's proof for it."""
    client, server = make(Role.CLIENT), make(Role.SERVER)
    request = client.make_request(_CONTEXT, PASSPORT)
    event = Prove(0, server.read_request(request.raw))
    return client, request, make_proof(server, event, _PEER, b"\x82payload")


_CLIENT, _REQUEST, _PROOF = _sample(_session)
_GATE_CLIENT, _GATE_REQUEST, _GATE_PROOF = _sample(_gate)
_MESSAGES = [
    encode_message(
        Message(MessageKind.REQUEST, 0, _session(Role.SERVER).make_request(bytes(32), PASSPORT).raw)
    ),
    encode_message(Message(MessageKind.PROOF, 0, _PROOF)),
    encode_message(Message(MessageKind.DECISION, 0, b"\0")),
]
_FRAMES = [
    b"".join(b"".join(encode_frames(FrameKind.EXCHANGE_END, message)) for message in _MESSAGES),
    b"".join(encode_frames(FrameKind.APPLICATION, b"hello"))
    + b"".join(encode_frames(FrameKind.EXCHANGE_END, bytes(2_000)))
    + b"".join(encode_frames(FrameKind.END_OF_STREAM)),
]


def _frames(data: bytes) -> None:
    whole = _read(data, max(len(data), 1))
    try:
        for cut in (1, 7):
            assert _read(data, cut) == whole
    except DecodeError as exc:
        raise AssertionError("refused in pieces only") from exc


def _read(data: bytes, cut: int) -> tuple[bytes, list[bytes], bool]:
    reader = FrameReader()
    application, messages = b"", []
    for begin in range(0, len(data), cut):
        for frame in reader.feed(data[begin : begin + cut]):
            if frame.kind is FrameKind.APPLICATION:
                application += frame.payload
            elif frame.kind is FrameKind.EXCHANGE_END:
                messages.append(frame.payload)
    return application, messages, reader.ended


def _exchange(data: bytes) -> None:
    """Feed messages, cut by length prefixes of two octets, to a client that wants proof."""
    exchange = Exchange(_session(Role.CLIENT), PASSPORT, random=bytes)
    exchange.start(0)
    position = 0
    while position + 2 <= len(data):
        size = int.from_bytes(data[position : position + 2], "big")
        message = data[position + 2 : position + 2 + size]
        position += 2 + size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            exchange.receive(message, 0)
        assert not exchange.flowing, "nobody has decided"


def _prefixed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def _proof(binding: ChannelBinding, request: Request) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return binding.read_proof(request, data)

    return read


def _authenticator(data: bytes) -> object:
    keys = _session(Role.CLIENT)._keys_of(Role.SERVER)
    asked = decode_request(_REQUEST.raw, Role.CLIENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return validate_authenticator(keys, asked, data)


def _inflate(data: bytes) -> object:
    return inline_payload(Proof(chain=(), payload=data, encoding="deflate", request=_REQUEST))


TLS_TARGETS = [
    Target("tls-frames", _frames, _FRAMES),
    Target("tls-message", decode_message, _MESSAGES),
    Target("tls-request-parameters", RequestParameters.decode, [PASSPORT.encode()]),
    Target(
        "tls-request",
        lambda data: _session(Role.SERVER).read_request(data),
        [_REQUEST.raw],
    ),
    Target("tls-authenticator", _authenticator, [_PROOF], _REFUSALS),
    Target(
        "tls-proof", _proof(_CLIENT, _REQUEST), [_PROOF, b"\x14\x00\x00\x20" + bytes(32)], _REFUSALS
    ),
    Target("tls-exchange", _exchange, [_prefixed(*_MESSAGES), _prefixed(_MESSAGES[0])]),
    Target("tls-deflate", _inflate, [zlib.compress(bytes(1000)), zlib.compress(bytes(1 << 18))]),
    Target("gate-request", lambda data: _gate(Role.SERVER).read_request(data), [_GATE_REQUEST.raw]),
    Target(
        "gate-proof",
        _proof(_GATE_CLIENT, _GATE_REQUEST),
        [_GATE_PROOF, _gate(Role.SERVER).decline(_GATE_REQUEST)],
        _REFUSALS,
    ),
]
