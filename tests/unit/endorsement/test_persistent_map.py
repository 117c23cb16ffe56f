# SPDX-License-Identifier: Apache-2.0
"""The persistent map behaves as a dict of which every version is kept."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from troth.endorsement.persistent_map import PersistentMap


@dataclass(frozen=True)
class Clumsy:
    """A key whose hash collides with many others'."""

    number: int

    def __hash__(self) -> int:
        return self.number % 3


def test_an_old_version_stays_as_it_was() -> None:
    first = PersistentMap[str, int]().set("a", 1)
    second = first.set("b", 2)
    third = second.delete("a")
    fourth = third.set("b", 3)
    assert dict(first.items()) == {"a": 1}
    assert dict(second.items()) == {"a": 1, "b": 2}
    assert dict(third.items()) == {"b": 2}
    assert dict(fourth.items()) == {"b": 3}
    assert [len(each) for each in (first, second, third, fourth)] == [1, 2, 1, 1]


def test_deleting_what_is_not_there_changes_nothing() -> None:
    held = PersistentMap[str, int]().set("a", 1)
    assert held.delete("b") is held


def test_an_emptied_map_holds_no_nodes() -> None:
    held = PersistentMap[int, int]()
    for number in range(1000):
        held = held.set(number, number)
    for number in range(1000):
        held = held.delete(number)
    assert len(held) == 0
    assert held._root is None


def test_keys_whose_hashes_collide_are_kept_apart() -> None:
    held = PersistentMap[Clumsy, int]()
    for number in range(500):
        held = held.set(Clumsy(number), number)
    assert len(held) == 500
    assert all(held.get(Clumsy(number)) == number for number in range(500))
    assert held.get(Clumsy(500)) is None


def test_a_lookup_passes_few_nodes_however_many_entries_there_are() -> None:
    held = PersistentMap[bytes, int]()
    for number in range(50_000):
        held = held.set(number.to_bytes(8), number)

    def depth(node: object) -> int:
        return 1 + max(map(depth, node)) if isinstance(node, tuple) else 0

    def widest(node: object) -> int:
        if isinstance(node, tuple):
            return max(map(widest, node))
        return len(node) if isinstance(node, dict) else 0

    # 32 to the fourth is a million: four tuples and one dict of at most 32.
    assert depth(held._root) <= 4
    assert widest(held._root) <= 32


KEYS = st.one_of(st.integers(0, 40), st.integers(0, 40).map(Clumsy), st.text(max_size=2))


@given(st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers()))))
def test_it_agrees_with_a_dict(steps: list[tuple[object, int | None]]) -> None:
    model: dict[object, int] = {}
    held = PersistentMap[object, int]()
    versions = [(dict(model), held)]
    for key, value in steps:
        if value is None:
            model.pop(key, None)
            held = held.delete(key)
        else:
            model[key] = value
            held = held.set(key, value)
        versions.append((dict(model), held))
    for expected, version in versions:
        assert dict(version.items()) == expected
        assert len(version) == len(expected)
        assert sorted(map(repr, version)) == sorted(map(repr, expected))
        assert all(version.get(key) == value for key, value in expected.items())
