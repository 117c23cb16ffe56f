# SPDX-License-Identifier: Apache-2.0
"""Frames between a gate and its agent, as values.

A gate speaks `Hello`, `Opening`, `PeerIdentity`, `PeerData`, `Closed`, `Resume` and `Resumed`; an
agent answers with `Welcome`, `Send`, `Admit`, `Refuse`, `Close` and `Update`. `FrameDecoder` turns
a gate's octets into the former and refuses everything else; `encode` writes the latter and refuses
what a gate would refuse, since a gate answers a malformed frame by ending the link.

Says nothing about the order of frames; the agent's connection states do.

Spec: docs/reference/gate-protocol.md, sections 3 to 5.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, UnsupportedError

__all__ = [
    "MAX_EXCHANGE_BYTES",
    "MAX_MESSAGE_BYTES",
    "PROTOCOL_VERSION",
    "Admit",
    "AgentFrame",
    "Close",
    "CloseReason",
    "Closed",
    "FrameDecoder",
    "GateFrame",
    "GateRole",
    "Hello",
    "Opening",
    "PeerClass",
    "PeerData",
    "PeerIdentity",
    "Refuse",
    "Resume",
    "Resumed",
    "Send",
    "Update",
    "Welcome",
    "encode",
]

PROTOCOL_VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 262_144
MAX_EXCHANGE_BYTES: Final = 1_048_576
MAX_DEADLINE_MS: Final = 31_622_400_000
MAX_STATES: Final = 32
MAX_STATE_KEY_BYTES: Final = 64
MAX_STATE_VALUE_BYTES: Final = 4_096
MAX_CONTEXT_BYTES: Final = 512
MAX_TEXT_BYTES: Final = 512
STATE_KEY_PREFIX: Final = "troth."

_FORMAT = "gate frame"
_HEAD = struct.Struct("!IBBHQ")
_ATTRIBUTE = struct.Struct("!HH")
_DIGEST = re.compile(rb"[0-9a-f]{64}")


class GateRole(IntEnum):
    """Which end of the connection the gate is."""

    CLIENT = 1
    SERVER = 2


class CloseReason(IntEnum):
    """Why a connection ended. The names are those of Envoy's counters and access logs."""

    PEER = 1
    LOCAL = 2
    REFUSED = 3
    PEER_REFUSED = 4
    PLAIN = 5
    PROTOCOL = 6
    TIMEOUT = 7
    UNAVAILABLE = 8
    AGENT_PROTOCOL = 9
    DEADLINE = 10
    REVOKED = 11
    UNKNOWN = 12
    MISCONFIGURED = 13
    LIMIT = 14


class PeerClass(IntEnum):
    """All that a refused peer is told. 6 to 15 are free for agents."""

    REFUSED = 1
    UNAVAILABLE = 2
    TIMEOUT = 3
    PROTOCOL = 4
    VERSION = 5


@dataclass(frozen=True, slots=True)
class Hello:
    """A gate greets.

    Attributes:
        build: version of the module.
        pid: process of Envoy.
        instance: 16 random octets; others after a restart of Envoy, the same after a lost link.
    """

    build: str
    pid: int
    instance: bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """A connection wants an exchange.

    Attributes:
        connection: the gate's number for it, on which all later frames agree.
        role: which end the gate is.
        label: `label` of the filter's configuration.
        envoy_connection: `%CONNECTION_ID%` in Envoy's logs.
    """

    connection: int
    role: GateRole
    label: str
    envoy_connection: int


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who Envoy says is at the other end.

    Attributes:
        connection: the gate's number.
        digest: SHA-256 of the peer's certificate, 32 octets.
        spiffe_id: first URI SAN of that certificate, or "". Informs; `digest` identifies.
    """

    connection: int
    digest: bytes
    spiffe_id: str


@dataclass(frozen=True, slots=True)
class PeerData:
    """A piece of a message from the peer's agent; the last one where `more` is false."""

    connection: int
    data: bytes
    more: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """A connection is gone.

    Attributes:
        connection: the gate's number.
        reason: why. A reason that this version does not know is refused by the decoder.
        text: details for an operator, or "".
        peer_class: with `PEER_REFUSED`, the class that the peer's gate gave, else None.
    """

    connection: int
    reason: CloseReason
    text: str = ""
    peer_class: int | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """A connection that an earlier link admitted and that lives on.

    Attributes:
        connection: the gate's number.
        role: which end the gate is.
        label: `label` of the filter's configuration.
        envoy_connection: `%CONNECTION_ID%` in Envoy's logs.
        digest: SHA-256 of the peer's certificate, 32 octets.
        deadline_ms: what is left of the admission.
        context: what the agent gave with the admission.
    """

    connection: int
    role: GateRole
    label: str
    envoy_connection: int
    digest: bytes
    deadline_ms: int
    context: bytes


@dataclass(frozen=True, slots=True)
class Resumed:
    """Every `Resume` of this link has been sent."""


GateFrame = Hello | Opening | PeerIdentity | PeerData | Closed | Resume | Resumed


@dataclass(frozen=True, slots=True)
class Welcome:
    """The agent greets back."""


@dataclass(frozen=True, slots=True)
class Send:
    """One message for the peer's agent."""

    connection: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Admit:
    """The peer is admitted; the last word of the exchange.

    Attributes:
        connection: the gate's number.
        deadline_ms: how long from now, at most `MAX_DEADLINE_MS`.
        states: filter state for RBAC, headers and access logs; keys begin with "troth.".
        context: up to 512 octets that the gate gives back in `Resume`.
    """

    connection: int
    deadline_ms: int
    states: Mapping[str, str] = field(default_factory=dict)
    context: bytes = b""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The peer is refused: it is told `peer_class`, the operator reads `text`."""

    connection: int
    peer_class: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection, whatever its state. Acknowledged by `Closed`."""

    connection: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """Change an admission. What is absent stays as it is."""

    connection: int
    deadline_ms: int | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    context: bytes | None = None


AgentFrame = Welcome | Send | Admit | Refuse | Close | Update


class _Tag(IntEnum):
    VERSION = 1
    BUILD = 2
    PID = 3
    INSTANCE = 4
    ROLE = 5
    LABEL = 6
    PEER_DIGEST = 8
    PEER_SAN = 9
    ENVOY_CONNECTION = 10
    DEADLINE_MS = 11
    STATE = 12
    CLASS = 13
    TEXT = 14
    CONTEXT = 15
    REASON = 16


# ---- from the gate ----


class FrameDecoder:
    """Turns a gate's octets into frames, whatever pieces they come in.

    Holds at most one unfinished frame, 262,160 octets. After an error it is of no further use: the
    agent closes the link.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[GateFrame]:
        """Give the frames that `data` completes.

        Raises:
            LimitExceededError: a body is longer than 262,144 octets.
            UnsupportedError: another version, or a type, role or reason that is not known.
            DecodeError: the octets are not a frame.
        """
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEAD.size:
            size, kind, flags, reserved, connection = _HEAD.unpack_from(self._buffer, start)
            if size > MAX_MESSAGE_BYTES:
                raise LimitExceededError(
                    format=_FORMAT, limit="max_body_bytes", value=MAX_MESSAGE_BYTES
                )
            if reserved or flags & ~int(kind == _PEER_DATA):
                raise DecodeError("flags or reserved octets are set", format=_FORMAT)
            end = start + _HEAD.size + size
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[start + _HEAD.size : end])
            start = end
            if kind == _PEER_DATA:
                yield PeerData(connection, body, more=bool(flags))
            elif (decode := _DECODERS.get(kind)) is None:
                raise UnsupportedError(f"type {kind:#04x} is not known", format=_FORMAT)
            else:
                yield decode(connection, _Attributes(body))
        del self._buffer[:start]


class _Attributes:
    """The attributes of one body; each may occur once."""

    def __init__(self, body: bytes) -> None:
        self._values: dict[int, bytes] = {}
        at = 0
        while at < len(body):
            if len(body) - at < _ATTRIBUTE.size:
                raise DecodeError("an attribute is cut off", format=_FORMAT, offset=at)
            tag, size = _ATTRIBUTE.unpack_from(body, at)
            at += _ATTRIBUTE.size
            if len(body) - at < size:
                raise DecodeError("an attribute is cut off", format=_FORMAT, offset=at)
            if tag in self._values:
                raise DecodeError(f"attribute {tag} occurs twice", format=_FORMAT, offset=at)
            self._values[tag] = body[at : at + size]
            at += size

    def octets(self, tag: _Tag, size: int | None = None) -> bytes:
        value = self._values.get(tag)
        if value is None:
            raise DecodeError(f"{tag.name} is missing", format=_FORMAT)
        if size is not None and len(value) != size:
            raise DecodeError(f"{tag.name} has {len(value)} octets, not {size}", format=_FORMAT)
        return value

    def integer(self, tag: _Tag, size: int) -> int:
        return int.from_bytes(self.octets(tag, size))

    def text(self, tag: _Tag, *, optional: bool = False) -> str:
        if optional and tag not in self._values:
            return ""
        # Certificates and refusals bring text from outside; it is shown to operators only.
        return self.octets(tag).decode("utf-8", errors="backslashreplace")

    def digest(self) -> bytes:
        value = self.octets(_Tag.PEER_DIGEST, 64)
        if not _DIGEST.fullmatch(value):
            raise DecodeError("PEER_DIGEST is not lower-case hexadecimal", format=_FORMAT)
        return bytes.fromhex(value.decode("ascii"))

    def role(self) -> GateRole:
        try:
            return GateRole(self.integer(_Tag.ROLE, 1))
        except ValueError as exc:
            raise UnsupportedError(f"role: {exc}", format=_FORMAT) from exc

    def reason(self) -> CloseReason:
        try:
            return CloseReason(self.integer(_Tag.REASON, 1))
        except ValueError as exc:
            raise UnsupportedError(f"reason: {exc}", format=_FORMAT) from exc

    def peer_class(self) -> int | None:
        return self.integer(_Tag.CLASS, 1) if _Tag.CLASS in self._values else None


def _hello(_connection: int, a: _Attributes) -> Hello:
    if (version := a.integer(_Tag.VERSION, 2)) != PROTOCOL_VERSION:
        raise UnsupportedError(f"protocol version {version}", format=_FORMAT)
    return Hello(a.text(_Tag.BUILD), a.integer(_Tag.PID, 4), a.octets(_Tag.INSTANCE, 16))


def _opening(connection: int, a: _Attributes) -> Opening:
    return Opening(connection, a.role(), a.text(_Tag.LABEL), a.integer(_Tag.ENVOY_CONNECTION, 8))


def _peer(connection: int, a: _Attributes) -> PeerIdentity:
    return PeerIdentity(connection, a.digest(), a.text(_Tag.PEER_SAN, optional=True))


def _closed(connection: int, a: _Attributes) -> Closed:
    return Closed(connection, a.reason(), a.text(_Tag.TEXT, optional=True), a.peer_class())


def _resume(connection: int, a: _Attributes) -> Resume:
    return Resume(
        connection,
        a.role(),
        a.text(_Tag.LABEL),
        a.integer(_Tag.ENVOY_CONNECTION, 8),
        a.digest(),
        a.integer(_Tag.DEADLINE_MS, 8),
        a.octets(_Tag.CONTEXT),
    )


def _resumed(_connection: int, _a: _Attributes) -> Resumed:
    return Resumed()


_PEER_DATA = 0x04
_DECODERS: Final[dict[int, Callable[[int, _Attributes], GateFrame]]] = {
    0x01: _hello,
    0x02: _opening,
    0x03: _peer,
    0x05: _closed,
    0x06: _resume,
    0x07: _resumed,
}


# ---- to the gate ----


def encode(frame: AgentFrame) -> bytes:
    """Write one frame.

    Raises:
        ApiMisuseError: a value is outside what a gate accepts.
    """
    match frame:
        case Welcome():
            return _frame(0x81, 0, _attribute(_Tag.VERSION, PROTOCOL_VERSION.to_bytes(2)))
        case Send(connection, message):
            _require(0 < len(message) <= MAX_MESSAGE_BYTES, f"a message of {len(message)} octets")
            return _frame(0x82, connection, message)
        case Admit(connection, deadline_ms, states, context):
            body = _deadline(deadline_ms) + _states(states) + _context(context)
            return _frame(0x83, connection, body)
        case Refuse(connection, peer_class, text):
            _require(1 <= peer_class <= 15, f"class {peer_class}")
            return _frame(
                0x84, connection, _attribute(_Tag.CLASS, bytes([peer_class])) + _text(text)
            )
        case Close(connection, text):
            return _frame(0x85, connection, _text(text))
        case Update(connection, deadline_ms, states, context):
            body = b"" if deadline_ms is None else _deadline(deadline_ms)
            body += _states(states) + (b"" if context is None else _context(context))
            return _frame(0x86, connection, body)


def _require(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise ApiMisuseError(f"a gate does not accept {what}")


def _frame(kind: int, connection: int, body: bytes) -> bytes:
    return _HEAD.pack(len(body), kind, 0, 0, connection) + body


def _attribute(tag: _Tag, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(tag, len(value)) + value


def _deadline(milliseconds: int) -> bytes:
    _require(1 <= milliseconds <= MAX_DEADLINE_MS, f"a deadline of {milliseconds} ms")
    return _attribute(_Tag.DEADLINE_MS, milliseconds.to_bytes(8))


def _states(states: Mapping[str, str]) -> bytes:
    _require(len(states) <= MAX_STATES, f"{len(states)} states")
    body = b""
    for key, value in states.items():
        name, content = key.encode(), value.encode()
        _require(
            key.startswith(STATE_KEY_PREFIX)
            and len(STATE_KEY_PREFIX) < len(name) <= MAX_STATE_KEY_BYTES
            and 0 < len(content) <= MAX_STATE_VALUE_BYTES,
            f"the state {key!r} with {len(content)} octets",
        )
        body += _attribute(_Tag.STATE, bytes([len(name)]) + name + content)
    return body


def _context(context: bytes) -> bytes:
    _require(len(context) <= MAX_CONTEXT_BYTES, f"a context of {len(context)} octets")
    return _attribute(_Tag.CONTEXT, context)


def _text(text: str) -> bytes:
    # Shortened rather than refused: a refusal must not fail because its reason is long.
    return _attribute(_Tag.TEXT, text.encode(errors="backslashreplace")[:MAX_TEXT_BYTES])
