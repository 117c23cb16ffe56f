# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import DecodeError, LimitExceededError
from troth.tls.core.framing import (
    MAX_APPLICATION_OCTETS,
    MAX_EXCHANGE_OCTETS,
    MAX_FRAME_OCTETS,
    Frame,
    FrameKind,
    FrameReader,
    encode_frames,
)

APPLICATION = st.tuples(st.just(FrameKind.APPLICATION), st.binary(min_size=1, max_size=40_000))
EXCHANGE = st.tuples(st.just(FrameKind.EXCHANGE_END), st.binary(min_size=1, max_size=40_000))


def encoded(kind: FrameKind, payload: bytes | bytearray | memoryview = b"") -> bytes:
    return b"".join(encode_frames(kind, payload))


@given(st.lists(APPLICATION | EXCHANGE, max_size=5), st.integers(1, 5000))
def test_frames_survive_any_cutting_of_the_stream(
    items: list[tuple[FrameKind, bytes]], cut: int
) -> None:
    wire = b"".join(encoded(kind, payload) for kind, payload in items)
    reader = FrameReader()
    heard: list[Frame] = []
    for begin in range(0, len(wire), cut):
        heard += reader.feed(wire[begin : begin + cut])
    for kind in (FrameKind.APPLICATION, FrameKind.EXCHANGE_END):
        sent = [payload for item, payload in items if item is kind]
        got = [frame.payload for frame in heard if frame.kind is kind]
        assert b"".join(got) == b"".join(sent)
        if kind is FrameKind.EXCHANGE_END:
            assert got == sent


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(DecodeError, match="unknown kind 9"):
        FrameReader().feed(bytes([9, 0, 0, 0]))


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (FrameKind.APPLICATION, MAX_APPLICATION_OCTETS),
        (FrameKind.EXCHANGE, MAX_FRAME_OCTETS),
        (FrameKind.EXCHANGE_END, MAX_FRAME_OCTETS),
        (FrameKind.END_OF_STREAM, 0),
    ],
)
def test_a_frame_longer_than_the_limit_is_refused_before_it_arrives(
    kind: FrameKind, most: int
) -> None:
    with pytest.raises(LimitExceededError):
        FrameReader().feed(bytes([kind]) + (most + 1).to_bytes(3, "big"))
    FrameReader().feed(bytes([kind]) + most.to_bytes(3, "big"))


def test_application_bytes_go_on_before_their_frame_is_complete_and_uncopied() -> None:
    reader = FrameReader()
    piece = bytes(1000)
    assert reader.feed(bytes([FrameKind.APPLICATION]) + (3000).to_bytes(3, "big")) == []
    for _ in range(2):
        (frame,) = reader.feed(piece)
        assert frame.payload is piece
    (rest, message) = reader.feed(piece + encoded(FrameKind.EXCHANGE_END, b"x"))
    assert rest.payload == piece
    assert message == (FrameKind.EXCHANGE_END, b"x")


def test_a_message_that_never_ends_is_refused() -> None:
    reader = FrameReader()
    piece = (
        bytes([FrameKind.EXCHANGE]) + MAX_FRAME_OCTETS.to_bytes(3, "big") + bytes(MAX_FRAME_OCTETS)
    )
    for _ in range(MAX_EXCHANGE_OCTETS // MAX_FRAME_OCTETS):
        reader.feed(piece)
    with pytest.raises(LimitExceededError):
        reader.feed(piece)


def test_nothing_follows_the_end_of_the_stream_but_exchanges() -> None:
    reader = FrameReader()
    reader.feed(encoded(FrameKind.END_OF_STREAM))
    assert reader.ended
    assert reader.feed(encoded(FrameKind.EXCHANGE_END, b"x"))
    with pytest.raises(DecodeError, match="after its end"):
        reader.feed(encoded(FrameKind.APPLICATION, b"x"))


@pytest.mark.parametrize(
    "kind", [FrameKind.EXCHANGE, FrameKind.EXCHANGE_END, FrameKind.APPLICATION]
)
def test_an_empty_frame_is_refused_and_never_made(kind: FrameKind) -> None:
    with pytest.raises(DecodeError, match="an empty"):
        FrameReader().feed(bytes([kind, 0, 0, 0]))
    assert encode_frames(kind, b"") == []


def test_a_full_frame_is_one_full_tls_record() -> None:
    assert len(encoded(FrameKind.APPLICATION, bytes(MAX_FRAME_OCTETS))) == 1 << 14


def test_what_is_sent_may_be_any_kind_of_buffer() -> None:
    data = bytes(range(256)) * 100
    views = (data, bytearray(data), memoryview(data), memoryview(bytearray(data)).cast("I"))
    assert len({encoded(FrameKind.APPLICATION, view) for view in views}) == 1
