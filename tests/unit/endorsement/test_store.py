# SPDX-License-Identifier: Apache-2.0
"""The store in memory: what every repository does, and what is its own."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest

from conformance.endorsement_repository import (
    CLASS,
    DAY,
    INSTANCE,
    NOW,
    EndorsementRepositoryConformance,
    good_corim,
)
from troth.endorsement.repository import EndorsementRepository
from troth.endorsement.store import EndorsementStore
from troth.errors import ApiMisuseError, LimitExceededError
from troth.formats.corim import Validity


class TestStore(EndorsementRepositoryConformance):
    @pytest.fixture
    def repository(self) -> EndorsementRepository:
        return EndorsementStore()


class _Clock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


def test_the_store_answers_by_its_clock_where_no_time_is_given() -> None:
    clock = _Clock()
    store = EndorsementStore(clock=clock)
    store.provision(good_corim(validity=Validity(None, NOW + DAY)), now=NOW, source="a")
    assert len(store.find("psa", class_id=CLASS)) == 2
    assert len(store.keys("psa", implementation_id=CLASS, instance_id=INSTANCE)) == 1
    assert len(store.trust_anchors("psa", implementation_id=CLASS, instance_id=INSTANCE)) == 1
    assert store.certificates("psa") == []
    epoch = store.epoch
    clock.time = NOW + DAY + timedelta(seconds=1)
    assert not store.find("psa", class_id=CLASS)
    assert store.epoch != epoch


def test_a_full_store_refuses_more_and_keeps_what_it_has() -> None:
    store = EndorsementStore(max_endorsements=5)
    store.provision(good_corim(), now=NOW, source="a")
    with pytest.raises(LimitExceededError, match="max_endorsements=5"):
        store.provision(good_corim("next"), now=NOW, source="b")
    assert [held.id for held in store.list(now=NOW)] == ["good"]
    # What is withdrawn or replaced makes room.
    store.replace("good", good_corim("next"), now=NOW, source="b")
    store.withdraw("next/next:state#0", now=NOW)
    store.provision(good_corim("third"), now=NOW, source="c")
    with pytest.raises(LimitExceededError):
        store.provision(good_corim("fourth"), now=NOW, source="d")
    store.withdraw("next", now=NOW)
    store.withdraw("third", now=NOW)
    store.provision(good_corim("fourth"), now=NOW, source="d")


def test_a_time_without_a_timezone_is_a_mistake_of_the_caller() -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(ApiMisuseError):
        EndorsementStore().snapshot(naive)


def test_the_same_key_is_the_same_object_each_time() -> None:
    # The Verifier remembers a key's thumbprint by the object (troth.evidence.anchor).
    store = EndorsementStore()
    store.provision(good_corim(), now=NOW, source="a")
    first = store.keys("psa", implementation_id=CLASS, instance_id=INSTANCE)
    again = store.snapshot(NOW).keys("psa", implementation_id=CLASS, instance_id=INSTANCE)
    assert first[0] is again[0]


def test_readers_see_whole_sets_while_corims_come_and_go() -> None:
    store = EndorsementStore()
    stop = threading.Event()
    torn: list[int] = []

    def read() -> None:
        while not stop.is_set():
            count = len(store.snapshot(NOW).find("psa", class_id=CLASS))
            if count not in {0, 2}:
                torn.append(count)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(50):
            store.provision(good_corim(), now=NOW, source="a", reinstate=True)
            store.withdraw("good", now=NOW)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert torn == []


def test_a_withdrawal_of_what_is_not_yet_valid_holds_when_it_would_be() -> None:
    store = EndorsementStore()
    validity = Validity(NOW + DAY, NOW + 2 * DAY)
    store.provision(good_corim(validity=validity), now=NOW, source="a")
    store.withdraw("good/good:state#0", now=NOW)
    found = store.snapshot(NOW + DAY).find("psa", class_id=CLASS)
    assert [value.name for value in found] == ["prot"]


def test_identifiers_of_an_endorser_cannot_pass_for_others() -> None:
    store = EndorsementStore()
    done = store.provision(good_corim("a/b#c%"), now=NOW, source="a")
    assert done.id == "a%2Fb%23c%25"
    assert done.reference_values[0] == "a%2Fb%23c%25/a%2Fb%23c%25:state#0"
    store.withdraw(done.reference_values[0], now=NOW)
    store.withdraw(done.id, now=NOW)
