# SPDX-License-Identifier: Apache-2.0
"""The messages of an exchange, and what a request says that it would accept.

A message is one octet of kind, two of round, and the body. Requests and proofs are made and read
by the channel binding (`binding.py`); here they are opaque. Rounds count from 0 on each side's
requests; an answer names the round it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import lru_cache

from troth.errors import DecodeError, LimitExceededError
from troth.formats import cbor

__all__ = [
    "MAX_PROOF_OCTETS",
    "MAX_REQUEST_OCTETS",
    "MAX_ROUNDS",
    "PROOF_ALGORITHMS",
    "Message",
    "MessageKind",
    "Model",
    "RequestParameters",
    "Verdict",
    "decode_message",
    "encode_message",
]

MAX_REQUEST_OCTETS = 1 << 14
MAX_PROOF_OCTETS = 1 << 18
MAX_ROUNDS = 1 << 16

PROOF_ALGORITHMS = frozenset({"ES256", "ES384", "EdDSA", "PS256"})
"""What a proof may be signed with, by JOSE name: what TLS 1.3 has for these keys."""

_FORMAT = "exchange message"
_PARAMETERS = "request parameters"
_MAX_LISTED = 64
_MAX_TEXT = 512


class MessageKind(IntEnum):
    """What a message is."""

    REQUEST = 1
    PROOF = 2
    DECISION = 3


class Verdict(IntEnum):
    """The coarse class of a decision: all that a peer is told."""

    ACCEPTED = 0
    REFUSED = 1
    NOT_FRESH = 2
    MALFORMED = 3
    UNAVAILABLE = 4
    TIMEOUT = 5
    DECLINED = 6


_HEADER_OCTETS = 3
_KINDS = {int(kind): kind for kind in MessageKind}
_LIMITS = {
    MessageKind.REQUEST: MAX_REQUEST_OCTETS,
    MessageKind.PROOF: MAX_PROOF_OCTETS,
    MessageKind.DECISION: 1,
}
_VERDICTS = frozenset(int(verdict) for verdict in Verdict)


class Model(Enum):
    """How the proof may reach the decision (RFC 9334 section 5)."""

    PASSPORT = "passport"
    BACKGROUND_CHECK = "background_check"


@dataclass(frozen=True, slots=True)
class Message:
    """One decoded message."""

    kind: MessageKind
    round: int
    body: bytes = field(repr=False)


def encode_message(message: Message) -> bytes:
    """Return the message's octets."""
    return bytes([message.kind]) + message.round.to_bytes(2, "big") + message.body


def decode_message(data: bytes) -> Message:
    """Decode one message.

    Raises:
        DecodeError: unknown kind, or too short.
        LimitExceededError: the body is longer than its kind may be.
    """
    if len(data) < _HEADER_OCTETS:
        raise DecodeError(f"{len(data)} octets are too few", format=_FORMAT, offset=0)
    kind = _KINDS.get(data[0])
    if kind is None:
        raise DecodeError(f"unknown kind {data[0]}", format=_FORMAT, offset=0)
    limit = _LIMITS[kind]
    if len(data) - _HEADER_OCTETS > limit:
        raise LimitExceededError(format=_FORMAT, limit=f"octets of {kind.name}", value=limit)
    number, body = int.from_bytes(data[1:_HEADER_OCTETS], "big"), data[_HEADER_OCTETS:]
    if kind is MessageKind.DECISION and (len(body) != 1 or body[0] not in _VERDICTS):
        raise DecodeError("a decision is one known octet", format=_FORMAT, offset=3)
    return Message(kind, number, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParameters:
    """What the requester would accept.

    Attributes:
        models: acceptable ways, preferred first; at least one.
        media_types: Evidence that the requester can have appraised; empty for any.
        verifiers: names of the Verifiers whose results it believes; empty where it only takes
            Evidence.
        max_proof_octets: longest attestation payload that it takes inline. A longer one may be
            compressed or sent by reference, if it also takes that.
        encodings: names of compressions that it takes, such as "deflate".
        takes_references: whether a payload may be sent as digest and address.
    """

    models: Sequence[Model]
    media_types: Sequence[str] = ()
    verifiers: Sequence[str] = ()
    max_proof_octets: int = 1 << 16
    encodings: Sequence[str] = ()
    takes_references: bool = False

    def __post_init__(self) -> None:
        for name in ("models", "media_types", "verifiers", "encodings"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    # Few different ones are in use at any time, and each connection encodes and decodes one.
    @lru_cache(maxsize=64)  # noqa: B019 - small frozen values
    def encode(self) -> bytes:
        """Return the parameters as deterministic CBOR."""
        return cbor.encode(
            {
                1: [model.value for model in self.models],
                2: list(self.media_types),
                3: list(self.verifiers),
                4: self.max_proof_octets,
                5: list(self.encodings),
                6: self.takes_references,
            }
        )

    @classmethod
    @lru_cache(maxsize=64)
    def decode(cls, data: bytes) -> RequestParameters:
        """Decode what a peer sent; unknown keys and unknown models are ignored.

        Raises:
            DecodeError: malformed, or no model that we know is among them.
        """
        tree = cbor.decode(data, format=_PARAMETERS)
        if not isinstance(tree, dict):
            raise DecodeError("not a map", format=_PARAMETERS)
        names = {model.value: model for model in Model}
        models = tuple(names[name] for name in _texts(tree, 1) if name in names)
        if not models:
            raise DecodeError("no known model is offered", format=_PARAMETERS)
        most = tree.get(4, 0)
        references = tree.get(6, False)
        if not isinstance(most, int) or isinstance(most, bool) or most < 0:
            raise DecodeError("key 4 (octets) is not a count", format=_PARAMETERS)
        if not isinstance(references, bool):
            raise DecodeError("key 6 (references) is not a truth value", format=_PARAMETERS)
        return cls(
            models=models,
            media_types=_texts(tree, 2),
            verifiers=_texts(tree, 3),
            max_proof_octets=min(most, MAX_PROOF_OCTETS),
            encodings=_texts(tree, 5),
            takes_references=references,
        )


def _texts(tree: dict[object, object], key: int) -> tuple[str, ...]:
    value = tree.get(key, [])
    if not isinstance(value, list) or len(value) > _MAX_LISTED:
        raise DecodeError(f"key {key} is not a list of at most {_MAX_LISTED}", format=_PARAMETERS)
    for entry in value:
        if not isinstance(entry, str) or len(entry) > _MAX_TEXT:
            raise DecodeError(f"key {key} holds something else than text", format=_PARAMETERS)
    return tuple(value)
