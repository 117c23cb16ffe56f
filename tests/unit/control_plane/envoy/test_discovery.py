# SPDX-License-Identifier: Apache-2.0
"""The xDS protocol without sockets."""

from __future__ import annotations

from dataclasses import dataclass

from troth.control_plane.envoy.discovery import (
    Answer,
    DiscoveryRequest,
    DiscoveryResponse,
    DiscoveryStream,
    ResourceTable,
)
from troth.control_plane.envoy.resources import CLUSTER, LISTENER, SECRET

ALL = frozenset({SECRET, CLUSTER, LISTENER})


@dataclass
class Packed:
    type_url: str
    value: bytes


def _publish(table: ResourceTable, type_url: str, **contents: bytes) -> int:
    return table.publish(
        type_url, {name: Packed(type_url, value) for name, value in contents.items()}
    )


def _ask(stream: DiscoveryStream, type_url: str, *names: str) -> None:
    assert stream.receive(DiscoveryRequest(type_url, frozenset(names))) is None


def _answer(
    stream: DiscoveryStream, response: DiscoveryResponse, *names: str, error: str = ""
) -> Answer | None:
    return stream.receive(
        DiscoveryRequest(response.type_url, frozenset(names), response.nonce, error)
    )


def _summary(responses: list[DiscoveryResponse]) -> list[tuple[str, int, list[str]]]:
    return [(item.type_url, item.version, sorted(item.resources)) for item in responses]


def test_the_first_request_gets_everything_and_the_acknowledgement_settles_it() -> None:
    table = ResourceTable()
    version = _publish(table, CLUSTER, a=b"1", b=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, CLUSTER)
    (response,) = stream.due()
    assert _summary([response]) == [(CLUSTER, 1, ["a", "b"])]
    assert stream.due() == []
    assert stream.applied(CLUSTER) == 0
    assert _answer(stream, response) == Answer(CLUSTER, 1, "")
    assert stream.applied(CLUSTER) == version
    assert stream.due() == []


def test_nothing_is_sent_before_something_is_published() -> None:
    """An empty answer would mean "no listeners"; not yet knowing is different."""
    table = ResourceTable()
    stream = DiscoveryStream(table, ALL)
    _ask(stream, LISTENER)
    assert stream.due() == []
    _publish(table, LISTENER)
    assert _summary(stream.due()) == [(LISTENER, 1, [])]


def test_publishing_the_same_again_sends_nothing() -> None:
    table = ResourceTable()
    assert _publish(table, CLUSTER, a=b"1") == 1
    stream = DiscoveryStream(table, ALL)
    _ask(stream, CLUSTER)
    _answer(stream, stream.due()[0])
    assert _publish(table, CLUSTER, a=b"1") == 1
    assert stream.due() == []
    assert _publish(table, CLUSTER, a=b"2") == 2
    assert _summary(stream.due()) == [(CLUSTER, 2, ["a"])]


def test_a_removal_is_sent_as_the_state_without_it() -> None:
    table = ResourceTable()
    _publish(table, LISTENER, a=b"1", b=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, LISTENER)
    stream.due()
    _publish(table, LISTENER, a=b"1")
    assert _summary(stream.due()) == [(LISTENER, 2, ["a"])]


def test_what_a_listener_refers_to_comes_before_it() -> None:
    table = ResourceTable()
    stream = DiscoveryStream(table, ALL)
    for type_url in (LISTENER, CLUSTER):
        _ask(stream, type_url)
        _publish(table, type_url, a=b"1")
    _ask(stream, SECRET, "a")
    _publish(table, SECRET, a=b"1")
    assert [response.type_url for response in stream.due()] == [SECRET, CLUSTER, LISTENER]


def test_a_refused_version_is_kept_as_a_refusal_and_not_sent_again() -> None:
    table = ResourceTable()
    _publish(table, LISTENER, a=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, LISTENER)
    _answer(stream, stream.due()[0])
    _publish(table, LISTENER, a=b"bad")
    refusal = _answer(stream, stream.due()[0], error="no")
    assert refusal == Answer(LISTENER, 2, "no")
    assert stream.refused(LISTENER) == refusal
    assert stream.applied(LISTENER) == 1
    assert stream.due() == []
    _publish(table, LISTENER, a=b"3")
    _answer(stream, stream.due()[0])
    assert stream.refused(LISTENER) is None
    assert stream.applied(LISTENER) == 3


def test_an_answer_to_an_older_response_settles_only_that_one() -> None:
    table = ResourceTable()
    stream = DiscoveryStream(table, ALL)
    _ask(stream, CLUSTER)
    responses = []
    for value in (b"1", b"2"):
        _publish(table, CLUSTER, a=value)
        responses += stream.due()
    assert _answer(stream, responses[0]) == Answer(CLUSTER, 1, "")
    assert stream.applied(CLUSTER) == 1
    assert _answer(stream, responses[1]) == Answer(CLUSTER, 2, "")
    assert stream.applied(CLUSTER) == 2


def test_an_unknown_nonce_answers_nothing() -> None:
    table = ResourceTable()
    _publish(table, CLUSTER, a=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, CLUSTER)
    stream.due()
    assert stream.receive(DiscoveryRequest(CLUSTER, nonce="77")) is None
    assert stream.applied(CLUSTER) == 0


def test_a_secret_is_sent_to_who_asks_for_it() -> None:
    table = ResourceTable()
    _publish(table, SECRET, own=b"1", ca=b"1", other=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, SECRET, "own")
    (first,) = stream.due()
    assert list(first.resources) == ["own"]
    _answer(stream, first, "own", "ca")
    assert stream.applied(SECRET) == 0, "the second secret is still due"
    (second,) = stream.due()
    assert list(second.resources) == ["ca", "own"]
    _answer(stream, second, "own", "ca")
    assert stream.applied(SECRET) == 1


def test_a_change_of_another_secret_is_applied_without_being_sent() -> None:
    table = ResourceTable()
    _publish(table, SECRET, own=b"1", other=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, SECRET, "own")
    _answer(stream, stream.due()[0], "own")
    version = _publish(table, SECRET, own=b"1", other=b"2")
    assert stream.due() == []
    assert stream.applied(SECRET) == version


def test_an_unsent_change_is_applied_no_sooner_than_the_one_before_it() -> None:
    table = ResourceTable()
    _publish(table, SECRET, own=b"1", other=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, SECRET, "own")
    (response,) = stream.due()
    version = _publish(table, SECRET, own=b"1", other=b"2")
    assert stream.due() == []
    assert stream.applied(SECRET) < version
    _answer(stream, response, "own")
    assert stream.applied(SECRET) == version


def test_a_secret_that_is_dropped_and_wanted_again_is_sent_again() -> None:
    table = ResourceTable()
    _publish(table, SECRET, own=b"1", ca=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, SECRET, "own", "ca")
    _answer(stream, stream.due()[0], "own", "ca")
    _ask(stream, SECRET, "own")
    assert stream.due() == []
    _ask(stream, SECRET, "own", "ca")
    assert _summary(stream.due()) == [(SECRET, 1, ["ca", "own"])]


def test_a_secret_that_does_not_exist_yet_is_sent_when_it_does() -> None:
    table = ResourceTable()
    _publish(table, SECRET, own=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, SECRET, "ca")
    assert stream.due() == []
    _publish(table, SECRET, own=b"1", ca=b"1")
    assert _summary(stream.due()) == [(SECRET, 2, ["ca"])]


def test_a_renewed_type_is_sent_with_the_version_it_has() -> None:
    table = ResourceTable()
    _publish(table, LISTENER, a=b"1")
    stream = DiscoveryStream(table, ALL)
    _ask(stream, LISTENER)
    _answer(stream, stream.due()[0])
    stream.renew(LISTENER)
    stream.renew(CLUSTER)
    assert _summary(stream.due()) == [(LISTENER, 1, ["a"])]


def test_a_type_that_the_stream_does_not_serve_is_left_unanswered() -> None:
    table = ResourceTable()
    _publish(table, LISTENER, a=b"1")
    stream = DiscoveryStream(table, frozenset({SECRET}))
    _ask(stream, LISTENER)
    assert stream.due() == []
    _ask(stream, "type.googleapis.com/unknown")
    assert stream.due() == []


def test_answers_that_never_come_do_not_pile_up() -> None:
    table = ResourceTable()
    stream = DiscoveryStream(table, ALL)
    _ask(stream, CLUSTER)
    first = None
    for number in range(1000):
        _publish(table, CLUSTER, a=str(number).encode())
        (response,) = stream.due()
        first = first or response
    assert len(stream._subscriptions[CLUSTER].outstanding) <= 256
    assert _answer(stream, first) is None
    _answer(stream, response)
    assert stream.applied(CLUSTER) == 1000
