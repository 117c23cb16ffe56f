# SPDX-License-Identifier: Apache-2.0
"""Frames on a connection that carries an exchange beside application bytes.

RFC 9261 leaves it to the application to carry authenticators. `troth.tls` puts everything into
frames, so that a later round can run while application bytes move, without losing or reordering
one. A frame is one octet of kind, three of length, and the payload.

Application bytes are not held until their frame is complete: what has arrived of one goes on at
once, and uncopied where TLS delivered it in a piece of its own.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from troth.errors import DecodeError, LimitExceededError
from troth.tls.core.messages import MAX_PROOF_OCTETS

__all__ = ["Frame", "FrameKind", "FrameReader", "encode_frames"]

_HEADER = 4
# Pieces of an exchange message; with its header a full one is one full TLS record.
MAX_FRAME_OCTETS = (1 << 14) - _HEADER
# Application bytes in one frame. An exchange message waits behind no more than that.
MAX_APPLICATION_OCTETS = 1 << 16
MAX_EXCHANGE_OCTETS = MAX_PROOF_OCTETS + 3

_FORMAT = "frame"


class FrameKind(IntEnum):
    """What a frame carries.

    EXCHANGE pieces are put together until EXCHANGE_END: a large proof does not hold application
    bytes up for long.
    """

    EXCHANGE = 1
    EXCHANGE_END = 2
    APPLICATION = 3
    END_OF_STREAM = 4


_KINDS = {int(kind): kind for kind in FrameKind}
_LIMITS = {
    FrameKind.EXCHANGE: MAX_FRAME_OCTETS,
    FrameKind.EXCHANGE_END: MAX_FRAME_OCTETS,
    FrameKind.APPLICATION: MAX_APPLICATION_OCTETS,
    FrameKind.END_OF_STREAM: 0,
}


class Frame(NamedTuple):
    """One exchange message put together, or some application data, or the end of it."""

    kind: FrameKind
    payload: bytes = b""


def encode_frames(
    kind: FrameKind, payload: bytes | bytearray | memoryview = b""
) -> list[bytes | memoryview]:
    """Return what to write for `payload`: a whole message, some application bytes, or the end.

    Large application payloads are not copied: their frames' headers stand by themselves. Holding
    bytes back, so that headers share TLS records with them, was tried and is slower.
    """
    if kind is FrameKind.END_OF_STREAM:
        return [bytes([kind, 0, 0, 0])]
    view = memoryview(payload).cast("B")
    most, piece = MAX_FRAME_OCTETS, FrameKind.EXCHANGE
    if kind is FrameKind.APPLICATION:
        most, piece = MAX_APPLICATION_OCTETS, kind
    parts: list[bytes | memoryview] = []
    for begin in range(0, len(view), most):
        part = view[begin : begin + most]
        last = begin + len(part) == len(view)
        header = bytes([kind if last else piece]) + len(part).to_bytes(3, "big")
        if len(part) <= MAX_FRAME_OCTETS:
            parts.append(header + part)
        else:
            parts += (header, part)
    return parts


class FrameReader:
    """Cuts received octets into frames; holds at most one exchange message and a piece of one."""

    __slots__ = ("_buffer", "_ended", "_left", "_message")

    def __init__(self) -> None:
        self._buffer = b""
        # Octets of an application frame that are still to come.
        self._left = 0
        self._message = bytearray()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the peer has sent the end of its application data."""
        return self._ended

    def passes(self, data: bytes) -> bool:
        """Take octets that are application bytes as a whole; say whether these are.

        They need no `feed` then: the data path asks this first.
        """
        if 0 < len(data) <= self._left:
            self._left -= len(data)
            return True
        return False

    def feed(self, data: bytes) -> list[Frame]:
        """Take octets, return what is complete: exchange messages, and any application bytes.

        Raises:
            DecodeError: unknown kind, an empty frame, or application data after its end.
            LimitExceededError: a frame or message is longer than allowed.
        """
        if self.passes(data):
            return [Frame(FrameKind.APPLICATION, data)]
        frames: list[Frame] = []
        data = self._buffer + data if self._buffer else data
        end, position = len(data), 0
        while position < end:
            if self._left:
                begin = position
                position = min(end, begin + self._left)
                self._left -= position - begin
                frames.append(Frame(FrameKind.APPLICATION, data[begin:position]))
                continue
            begin = position + _HEADER
            if begin > end:
                break
            size = int.from_bytes(data[position + 1 : begin], "big")
            kind = self._kind(data[position], size)
            if kind is FrameKind.APPLICATION:
                position, self._left = begin, size
                continue
            if begin + size > end:
                break
            position = begin + size
            frame = self._take(kind, data[begin:position])
            if frame is not None:
                frames.append(frame)
        self._buffer = data[position:]
        return frames

    def _kind(self, code: int, size: int) -> FrameKind:
        kind = _KINDS.get(code)
        if kind is None:
            raise DecodeError(f"unknown kind {code}", format=_FORMAT)
        if self._ended and kind in (FrameKind.APPLICATION, FrameKind.END_OF_STREAM):
            raise DecodeError("application data after its end", format=_FORMAT)
        limit = _LIMITS[kind]
        if size == 0 and limit:
            # Nobody needs one, and a stream of them would cost us more than its sender.
            raise DecodeError(f"an empty {kind.name}", format=_FORMAT)
        if size > limit:
            raise LimitExceededError(format=_FORMAT, limit=f"octets of {kind.name}", value=limit)
        return kind

    def _take(self, kind: FrameKind, payload: bytes) -> Frame | None:
        if kind is FrameKind.END_OF_STREAM:
            self._ended = True
            return Frame(kind)
        if len(self._message) + len(payload) > MAX_EXCHANGE_OCTETS:
            raise LimitExceededError(
                format=_FORMAT, limit="octets of an exchange message", value=MAX_EXCHANGE_OCTETS
            )
        if kind is FrameKind.EXCHANGE:
            self._message += payload
            return None
        if self._message:
            payload = bytes(self._message + payload)
            self._message = bytearray()
        return Frame(FrameKind.EXCHANGE_END, payload)
