# SPDX-License-Identifier: Apache-2.0
"""All workload entries, arranged so that asking for those of one node costs what they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId
from troth.mesh.node_record import NodeRecord
from troth.mesh.workload_entry import NODE_PATH, WorkloadEntry, node_properties

__all__ = ["EntryIndex", "NodeEntries"]


@dataclass(frozen=True, slots=True)
class _Indexed:
    entry: WorkloadEntry
    position: int
    node_selectors: frozenset[Selector]


class EntryIndex:
    """One set of entries; it never changes.

    Args:
        entries: in the order in which they are given out.
        revision: number of the set.
    """

    def __init__(self, entries: Iterable[WorkloadEntry] = (), *, revision: int = 0) -> None:
        self.entries = tuple(entries)
        self.revision = revision
        self._aliases: list[_Indexed] = []
        self._by_parent: dict[str, list[_Indexed]] = {}
        self._by_id: dict[str, _Indexed] = {}
        for position, entry in enumerate(self.entries):
            indexed = _Indexed(entry, position, entry.node_selectors)
            if entry.is_alias:
                self._aliases.append(indexed)
            else:
                self._by_parent.setdefault(entry.parent_id, []).append(indexed)
                self._by_id[entry.id] = indexed

    def of(self, node: NodeRecord) -> NodeEntries:
        """Return the view of one node.

        Says nothing about whether the node may have SVIDs for them now: its state does.
        """
        properties = node_properties(node)
        domain = SpiffeId.decode(node.spiffe_id).trust_domain
        names = {node.spiffe_id, str(SpiffeId(domain, f"{NODE_PATH}{node.id}"))}
        names |= {
            alias.entry.spiffe_id for alias in self._aliases if alias.node_selectors <= properties
        }
        return NodeEntries(self, frozenset(names), properties)


class NodeEntries:
    """Which workloads may run on one node. Made by `EntryIndex.of`."""

    def __init__(
        self, index: EntryIndex, names: frozenset[str], properties: frozenset[Selector]
    ) -> None:
        self._index, self._names, self._properties = index, names, properties

    @property
    def revision(self) -> int:
        """Number of the set of entries."""
        return self._index.revision

    def all(self) -> tuple[WorkloadEntry, ...]:
        """Return them in their order."""
        found = [
            each
            for name in self._names
            for each in self._index._by_parent.get(name, ())  # noqa: SLF001 - made for each other
            if each.node_selectors <= self._properties
        ]
        return tuple(each.entry for each in sorted(found, key=lambda each: each.position))

    def find(self, entry_id: str) -> WorkloadEntry | None:
        """Return the entry of this id if it is one of this node's, else None."""
        found = self._index._by_id.get(entry_id)  # noqa: SLF001 - made for each other
        if (
            found is None
            or found.entry.parent_id not in self._names
            or not found.node_selectors <= self._properties
        ):
            return None
        return found.entry
