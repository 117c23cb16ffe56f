# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime

import pytest

from troth.errors import DecodeError
from troth.mesh.event import (
    Bundles,
    EntriesChanged,
    Event,
    FeedMessage,
    FeedNotice,
    Heartbeat,
    Snapshot,
    decode_message,
    encode_message,
)
from troth.mesh.member import Member, Service
from troth.mesh.node import NodeState, Reason
from troth.mesh.tier import Tier

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
MEMBER = Member(
    node_id="n1",
    spiffe_id="spiffe://example.org/edge",
    state=NodeState.QUARANTINED,
    reason=Reason.REFERENCE_VALUE_WITHDRAWN,
    generation=4,
    tier=Tier.MEASURED,
    key_digest="ab" * 32,
    deadline=NOW,
    services=(Service(name="web", protocol="http", address="127.0.0.1:8080"),),
    insecure=("platform simulator",),
)


@pytest.mark.parametrize(
    "message",
    [
        Event(sequence=7, at=NOW, member=MEMBER),
        Snapshot(sequence=7, members=(MEMBER,)),
        Heartbeat(sequence=7),
        Bundles(revision=3, own="{}", federated={"other.example": "{}"}),
        EntriesChanged(revision=3),
    ],
)
def test_a_message_is_one_line_and_comes_back_as_it_was(message: FeedMessage | FeedNotice) -> None:
    line = encode_message(message)
    assert line.count(b"\n") == 1
    assert decode_message(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"type":"gossip","sequence":1}',
        b'{"type":"heartbeat","sequence":"1"}',
        b'{"type":"heartbeat","sequence":1} {}',
        encode_message(Event(sequence=7, at=NOW, member=MEMBER)).replace(b"quarant", b"guarant"),
        b'{"type":"heartbeat","sequence":\xff}',
    ],
)
def test_anything_else_is_malformed(line: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_message(line)
