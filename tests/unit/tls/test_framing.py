# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import DecodeError, LimitExceededError
from troth.tls.core.framing import MAX_FRAME_OCTETS, Frame, FrameKind, FrameReader, encode_frames

APPLICATION = st.tuples(st.just(FrameKind.APPLICATION), st.binary(min_size=1, max_size=40_000))
EXCHANGE = st.tuples(st.just(FrameKind.EXCHANGE_END), st.binary(min_size=1, max_size=40_000))


@given(st.lists(APPLICATION | EXCHANGE, max_size=5), st.integers(1, 5000))
def test_frames_survive_any_cutting_of_the_stream(
    items: list[tuple[FrameKind, bytes]], cut: int
) -> None:
    wire = b"".join(b"".join(encode_frames(kind, payload)) for kind, payload in items)
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


def test_a_frame_longer_than_the_limit_is_refused_before_it_arrives() -> None:
    header = bytes([FrameKind.APPLICATION]) + (MAX_FRAME_OCTETS + 1).to_bytes(3, "big")
    with pytest.raises(LimitExceededError):
        FrameReader().feed(header)
    assert (
        FrameReader().feed(bytes([FrameKind.APPLICATION]) + MAX_FRAME_OCTETS.to_bytes(3, "big"))
        == []
    )


def test_a_message_that_never_ends_is_refused() -> None:
    reader = FrameReader()
    piece = (
        bytes([FrameKind.EXCHANGE]) + MAX_FRAME_OCTETS.to_bytes(3, "big") + bytes(MAX_FRAME_OCTETS)
    )
    for _ in range(16):
        reader.feed(piece)
    with pytest.raises(LimitExceededError):
        reader.feed(piece)


def test_nothing_follows_the_end_of_the_stream_but_exchanges() -> None:
    reader = FrameReader()
    reader.feed(b"".join(encode_frames(FrameKind.END_OF_STREAM)))
    assert reader.ended
    assert reader.feed(b"".join(encode_frames(FrameKind.EXCHANGE_END, b"x")))
    with pytest.raises(DecodeError, match="after its end"):
        reader.feed(b"".join(encode_frames(FrameKind.APPLICATION, b"x")))
