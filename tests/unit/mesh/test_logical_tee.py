# SPDX-License-Identifier: Apache-2.0
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from support.logical_tees import GATEWAY, NOW, REALM, tee
from troth.errors import DecodeError
from troth.mesh.logical_tee import Epoch, LogicalTee

DAY = timedelta(days=1)


def epoch(number: int, *, days: int, overlap: int = 0) -> Epoch:
    return Epoch(
        id=number, not_before=NOW + days * DAY, registry_epoch=number, overlap_seconds=overlap
    )


def test_it_is_written_and_read_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(tee()), type=LogicalTee) == tee()


def test_its_digest_changes_with_anything_in_it() -> None:
    assert tee().definition_digest == tee().definition_digest
    assert tee(owner="insurer-b").definition_digest != tee().definition_digest


@pytest.mark.parametrize("field", ["schemes", "policy_ids", "entries"])
def test_a_class_that_names_nothing_is_refused(field: str) -> None:
    tee(classes=(REALM,))
    with pytest.raises(DecodeError, match=r"empty|neither"):
        tee(classes=(msgspec.structs.replace(REALM, **{field: ()}),))


@pytest.mark.parametrize(
    "change",
    [
        {"classes": (REALM, REALM)},
        {"trust_domain": "other.example"},
        {"epochs": (epoch(2, days=-2), epoch(1, days=-1))},
        {"epochs": (epoch(1, days=-1), epoch(2, days=-1))},
    ],
)
def test_a_contradictory_definition_is_refused(change: dict[str, Any]) -> None:
    tee(classes=(REALM, GATEWAY), epochs=(epoch(1, days=-2), epoch(2, days=-1)))
    with pytest.raises(DecodeError):
        tee(**change)


def test_an_epoch_never_asks_for_less_than_the_one_before() -> None:
    newer = msgspec.structs.replace(epoch(2, days=-1), registry_epoch=0)
    with pytest.raises(DecodeError, match="asks for less"):
        tee(epochs=(epoch(1, days=-2), newer))


def test_both_epochs_are_accepted_while_they_overlap_and_one_after() -> None:
    made = tee(epochs=(epoch(1, days=-10), epoch(2, days=0, overlap=3600)))
    accepted = [
        [each.id for each in made.epochs_in_force(NOW + timedelta(seconds=seconds))]
        for seconds in (-1, 0, 3599, 3600)
    ]
    assert accepted == [[1], [2, 1], [2, 1], [2]]
    assert made.next_change(NOW) == NOW + timedelta(hours=1)
    assert made.next_change(NOW + timedelta(hours=1)) is None


def test_three_epochs_overlap_in_a_chain_that_the_first_gap_ends() -> None:
    day = 24 * 3600
    first, second = epoch(1, days=-3), epoch(2, days=-2, overlap=30 * day)
    third = epoch(3, days=-1, overlap=30 * day)
    assert [each.id for each in tee(epochs=(first, second, third)).epochs_in_force(NOW)] == [
        3,
        2,
        1,
    ]
    cut = msgspec.structs.replace(third, overlap_seconds=60)
    assert [each.id for each in tee(epochs=(first, second, cut)).epochs_in_force(NOW)] == [3]


def test_before_the_first_epoch_nothing_is_accepted() -> None:
    assert tee(epochs=(epoch(1, days=1),)).epochs_in_force(NOW) == ()
