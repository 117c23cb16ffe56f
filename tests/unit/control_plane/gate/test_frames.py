# SPDX-License-Identifier: Apache-2.0
"""Frames between a gate and its agent: decoding strictly, writing only what a gate accepts."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.control_plane.gate.frames import (
    Admit,
    Close,
    Closed,
    CloseReason,
    FrameDecoder,
    GateFrame,
    GateRole,
    Hello,
    Opening,
    PeerData,
    PeerIdentity,
    Refuse,
    Resume,
    Resumed,
    Send,
    Update,
    Welcome,
    encode,
)
from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, UnsupportedError

DIGEST = bytes(range(32))


def frame(kind: int, connection: int, body: bytes, flags: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("!IBBHQ", len(body), kind, flags, reserved, connection) + body


def attribute(tag: int, value: bytes) -> bytes:
    return struct.pack("!HH", tag, len(value)) + value


ROLE, LABEL, ENVOY_CONNECTION = (
    attribute(5, b"\x02"),
    attribute(6, b"inbound"),
    attribute(10, (7).to_bytes(8)),
)
PEER_DIGEST = attribute(8, DIGEST.hex().encode())
HELLO_BODY = (
    attribute(1, b"\x00\x01")
    + attribute(2, b"0.1.0")
    + attribute(3, (4711).to_bytes(4))
    + attribute(4, bytes(16))
)
DECODED = [
    (frame(1, 0, HELLO_BODY), Hello("0.1.0", 4711, bytes(16))),
    (
        frame(2, 9, ROLE + LABEL + ENVOY_CONNECTION),
        Opening(9, GateRole.SERVER, "inbound", 7),
    ),
    (
        frame(3, 9, PEER_DIGEST + attribute(9, b"spiffe://a/b")),
        PeerIdentity(9, DIGEST, "spiffe://a/b"),
    ),
    (frame(3, 9, PEER_DIGEST), PeerIdentity(9, DIGEST, "")),
    (frame(4, 9, b"message"), PeerData(9, b"message", more=False)),
    (frame(4, 9, b"mess", flags=1), PeerData(9, b"mess", more=True)),
    (frame(5, 9, attribute(16, b"\x0b")), Closed(9, CloseReason.REVOKED)),
    (
        frame(5, 9, attribute(16, b"\x04") + attribute(14, b"class 2") + attribute(13, b"\x02")),
        Closed(9, CloseReason.PEER_REFUSED, "class 2", 2),
    ),
    (
        frame(
            6,
            9,
            ROLE
            + LABEL
            + ENVOY_CONNECTION
            + PEER_DIGEST
            + attribute(11, (60_000).to_bytes(8))
            + attribute(15, b"context"),
        ),
        Resume(9, GateRole.SERVER, "inbound", 7, DIGEST, 60_000, b"context"),
    ),
    (frame(7, 0, b""), Resumed()),
]


@pytest.mark.parametrize(("octets", "value"), DECODED)
def test_each_frame_of_a_gate_is_decoded(octets: bytes, value: GateFrame) -> None:
    assert list(FrameDecoder().feed(octets)) == [value]


@given(st.lists(st.sampled_from(DECODED), max_size=8), st.data())
def test_it_does_not_matter_how_the_octets_are_cut(
    chosen: list[tuple[bytes, GateFrame]], data: st.DataObject
) -> None:
    octets = b"".join(piece for piece, _ in chosen)
    decoder = FrameDecoder()
    decoded: list[GateFrame] = []
    while octets:
        size = data.draw(st.integers(1, len(octets)))
        decoded += decoder.feed(octets[:size])
        octets = octets[size:]
    assert decoded == [value for _, value in chosen]


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (frame(8, 9, b""), UnsupportedError),
        (frame(0x83, 9, b""), UnsupportedError),
        (frame(2, 9, LABEL + ENVOY_CONNECTION), DecodeError),
        (frame(2, 9, attribute(5, b"\x03") + LABEL + ENVOY_CONNECTION), UnsupportedError),
        (frame(2, 9, ROLE + ROLE + LABEL + ENVOY_CONNECTION), DecodeError),
        (frame(2, 9, ROLE + LABEL + ENVOY_CONNECTION + b"\x00"), DecodeError),
        (frame(2, 9, ROLE + LABEL + attribute(10, b"\x07")), DecodeError),
        (
            frame(
                1, 0, HELLO_BODY.replace(b"\x00\x01\x00\x02\x00\x01", b"\x00\x01\x00\x02\x00\x02")
            ),
            UnsupportedError,
        ),
        (frame(3, 9, attribute(8, DIGEST)), DecodeError),
        (frame(3, 9, attribute(8, DIGEST.hex().upper().encode())), DecodeError),
        (frame(5, 9, attribute(16, b"\x63")), UnsupportedError),
        (frame(5, 9, attribute(16, b"\x0b"), flags=1), DecodeError),
        (frame(4, 9, b"x", flags=2), DecodeError),
        (frame(4, 9, b"x", reserved=1), DecodeError),
        (struct.pack("!IBBHQ", 262_145, 4, 0, 0, 9), LimitExceededError),
    ],
)
def test_what_is_not_a_frame_of_a_gate_is_refused(octets: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(FrameDecoder().feed(octets))


@given(st.binary(max_size=200))
def test_arbitrary_octets_raise_decode_errors_only(octets: bytes) -> None:
    with contextlib.suppress(DecodeError):
        list(FrameDecoder().feed(octets))


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (Welcome(), frame(0x81, 0, attribute(1, b"\x00\x01"))),
        (Send(9, b"message"), frame(0x82, 9, b"message")),
        (
            Admit(9, 60_000, {"troth.tier": "measured"}, b"context"),
            frame(
                0x83,
                9,
                attribute(11, (60_000).to_bytes(8))
                + attribute(12, b"\x0atroth.tiermeasured")
                + attribute(15, b"context"),
            ),
        ),
        (Refuse(9, 1, "why"), frame(0x84, 9, attribute(13, b"\x01") + attribute(14, b"why"))),
        (Close(9, "expelled"), frame(0x85, 9, attribute(14, b"expelled"))),
        (Update(9), frame(0x86, 9, b"")),
        (
            Update(9, 1, context=b""),
            frame(0x86, 9, attribute(11, (1).to_bytes(8)) + attribute(15, b"")),
        ),
    ],
)
def test_each_frame_of_an_agent_is_written(value: Send, octets: bytes) -> None:
    assert encode(value) == octets


@pytest.mark.parametrize(
    "value",
    [
        Send(9, b""),
        Send(9, bytes(262_145)),
        Admit(9, 0),
        Admit(9, 31_622_400_001),
        Admit(9, 1, {"tier": "measured"}),
        Admit(9, 1, {"troth.": "measured"}),
        Admit(9, 1, {"troth." + "k" * 59: "measured"}),
        Admit(9, 1, {"troth.tier": "x" * 4097}),
        Admit(9, 1, {f"troth.{n}": "x" for n in range(33)}),
        Admit(9, 1, context=bytes(513)),
        Refuse(9, 0),
        Refuse(9, 16),
    ],
)
def test_what_a_gate_would_not_accept_is_not_written(value: Send) -> None:
    with pytest.raises(ApiMisuseError):
        encode(value)


def test_a_long_reason_is_shortened_and_never_refused() -> None:
    assert len(encode(Refuse(9, 1, "é" * 600))) == 16 + 5 + 4 + 512
