# SPDX-License-Identifier: Apache-2.0
"""Frames on a connection that carries an exchange beside application bytes.

RFC 9261 leaves it to the application to carry authenticators. `troth.tls` puts everything into
frames, so that a later round can run while application bytes move, without losing or reordering
one. A frame is one octet of kind, three of length, and the payload.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from troth.errors import DecodeError, LimitExceededError
from troth.tls.core.messages import MAX_PROOF_OCTETS

__all__ = ["Frame", "FrameKind", "FrameReader", "encode_frames"]

# With its header a full frame is one full TLS record, not one and a bit.
MAX_FRAME_OCTETS = (1 << 14) - 4
MAX_EXCHANGE_OCTETS = MAX_PROOF_OCTETS + 3

_FORMAT = "frame"
_HEADER = 4


class FrameKind(IntEnum):
    """What a frame carries.

    EXCHANGE pieces are put together until EXCHANGE_END: a large proof does not hold application
    bytes up for long.
    """

    EXCHANGE = 1
    EXCHANGE_END = 2
    APPLICATION = 3
    END_OF_STREAM = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One exchange message put together, or one piece of application data, or the end of it."""

    kind: FrameKind
    payload: bytes = field(repr=False, default=b"")


def encode_frames(
    kind: FrameKind, payload: bytes | bytearray | memoryview = b""
) -> Iterator[bytes]:
    """Return the frames for `payload`: a whole message, some application bytes, or the end."""
    if kind is FrameKind.END_OF_STREAM:
        yield bytes([kind, 0, 0, 0])
        return
    piece = FrameKind.EXCHANGE if kind is FrameKind.EXCHANGE_END else kind
    view = memoryview(payload).cast("B")
    for begin in range(0, len(view), MAX_FRAME_OCTETS):
        part = view[begin : begin + MAX_FRAME_OCTETS]
        last = begin + len(part) >= len(view)
        yield bytes([kind if last else piece]) + len(part).to_bytes(3, "big") + part


class FrameReader:
    """Cuts received octets into frames; holds at most one frame and one exchange message."""

    __slots__ = ("_buffer", "_ended", "_message")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message = bytearray()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the peer has sent the end of its application data."""
        return self._ended

    def feed(self, data: bytes) -> list[Frame]:
        """Take octets, return the frames that are complete.

        Raises:
            DecodeError: unknown kind, an empty frame, or application data after its end.
            LimitExceededError: a frame or message is longer than allowed.
        """
        self._buffer += data
        frames: list[Frame] = []
        position = 0
        while len(self._buffer) - position >= _HEADER:
            size = int.from_bytes(self._buffer[position + 1 : position + _HEADER], "big")
            kind = self._kind(self._buffer[position], size)
            if len(self._buffer) - position - _HEADER < size:
                break
            begin = position + _HEADER
            position = begin + size
            frame = self._take(kind, bytes(self._buffer[begin:position]))
            if frame is not None:
                frames.append(frame)
        del self._buffer[:position]
        return frames

    def _kind(self, code: int, size: int) -> FrameKind:
        try:
            kind = FrameKind(code)
        except ValueError as exc:
            raise DecodeError(f"unknown kind {code}", format=_FORMAT) from exc
        limit = 0 if kind is FrameKind.END_OF_STREAM else MAX_FRAME_OCTETS
        if size == 0 and kind is not FrameKind.END_OF_STREAM:
            # Nobody needs one, and a stream of them would cost us more than its sender.
            raise DecodeError(f"an empty {kind.name}", format=_FORMAT)
        if size > limit:
            raise LimitExceededError(format=_FORMAT, limit=f"octets of {kind.name}", value=limit)
        return kind

    def _take(self, kind: FrameKind, payload: bytes) -> Frame | None:
        if kind in (FrameKind.EXCHANGE, FrameKind.EXCHANGE_END):
            if len(self._message) + len(payload) > MAX_EXCHANGE_OCTETS:
                raise LimitExceededError(
                    format=_FORMAT, limit="octets of an exchange message", value=MAX_EXCHANGE_OCTETS
                )
            self._message += payload
            if kind is FrameKind.EXCHANGE:
                return None
            whole, self._message = bytes(self._message), bytearray()
            return Frame(FrameKind.EXCHANGE_END, whole)
        if self._ended:
            raise DecodeError("application data after its end", format=_FORMAT)
        if kind is FrameKind.END_OF_STREAM:
            self._ended = True
        return Frame(kind, payload)
