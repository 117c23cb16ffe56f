# SPDX-License-Identifier: Apache-2.0
"""An immutable map whose changed copies share all that did not change.

The store hands out snapshots that never change under an appraisal, while values come and go. A
dict would have to be copied for each change; here a change copies a few nodes of at most 32
entries, whatever the size: looking up, adding and removing cost the same with ten entries and
with a million (tests/benchmarks).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Final, Generic, TypeVar

__all__ = ["PersistentMap"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_BITS: Final = 5
_WIDTH: Final = 1 << _BITS
_MASK: Final = _WIDTH - 1
_LEAF: Final = 32
_MAX_SHIFT: Final = 60

# A node is None (empty), a dict (leaf) or a tuple of `_WIDTH` nodes, chosen by the next five bits
# of the hash. A leaf that outgrows `_LEAF` splits, unless the hash is used up: keys that agree in
# 60 bits of a hash seeded for each process share a leaf.
_Node = Any


class PersistentMap(Generic[K, V]):
    """A map that `set` and `delete` copy instead of changing."""

    __slots__ = ("_root", "_size")

    def __init__(self, _root: _Node = None, _size: int = 0) -> None:
        self._root = _root
        self._size = _size

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: K) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self.items())

    def get(self, key: K) -> V | None:
        """Return the value under `key`, or None."""
        node = self._root
        bits = hash(key)
        while type(node) is tuple:
            node = node[bits & _MASK]
            bits >>= _BITS
        if node is None:
            return None
        value: V | None = node.get(key)
        return value

    def set(self, key: K, value: V) -> PersistentMap[K, V]:
        """Return a copy with `value` under `key`; None cannot be a value."""
        grown = 0 if key in self else 1
        return PersistentMap(_set(self._root, hash(key), 0, key, value), self._size + grown)

    def delete(self, key: K) -> PersistentMap[K, V]:
        """Return a copy without `key`, or this map where it is not there."""
        if key not in self:
            return self
        return PersistentMap(_delete(self._root, hash(key), key), self._size - 1)

    def items(self) -> Iterator[tuple[K, V]]:
        """Iterate over the entries, in no particular order."""
        return _items(self._root)

    def values(self) -> Iterator[V]:
        """Iterate over the values, in no particular order."""
        return (value for _, value in self.items())


def _set(node: _Node, bits: int, shift: int, key: Hashable, value: object) -> _Node:
    if node is None:
        return {key: value}
    if type(node) is tuple:
        at = bits & _MASK
        child = _set(node[at], bits >> _BITS, shift + _BITS, key, value)
        return (*node[:at], child, *node[at + 1 :])
    if key in node or len(node) < _LEAF or shift >= _MAX_SHIFT:
        return {**node, key: value}
    return _split({**node, key: value}, shift)


def _split(leaf: dict[Hashable, object], shift: int) -> _Node:
    children: list[_Node] = [None] * _WIDTH
    for key, value in leaf.items():
        at = hash(key) >> shift & _MASK
        if children[at] is None:
            children[at] = {}
        children[at][key] = value
    return tuple(
        _split(child, shift + _BITS)
        if child is not None and len(child) > _LEAF and shift + _BITS < _MAX_SHIFT
        else child
        for child in children
    )


def _delete(node: _Node, bits: int, key: Hashable) -> _Node:
    if type(node) is tuple:
        at = bits & _MASK
        child = _delete(node[at], bits >> _BITS, key)
        children = (*node[:at], child, *node[at + 1 :])
        return children if any(each is not None for each in children) else None
    return {each: value for each, value in node.items() if each != key} or None


def _items(node: _Node) -> Iterator[Any]:
    if type(node) is tuple:
        for child in node:
            yield from _items(child)
    elif node is not None:
        yield from node.items()
