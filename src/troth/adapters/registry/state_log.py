# SPDX-License-Identifier: Apache-2.0
"""The hash-chained log: what happened to the membership, in order.

Row n holds canonical JSON and `digest_n = SHA-256(label || digest_(n-1) || JSON)`. Changing,
dropping or inserting a row breaks the chain from there on. Cutting rows off the end does not:
that shows only against a `LogHead` kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry.schema import counters, nodes, state_log
from troth.errors import VerificationError
from troth.mesh.node import NodeState
from troth.mesh.registry import LogHead, LogRow

__all__ = ["append", "next_number", "rows", "verify"]

_LABEL = b"troth state log v1\x00"
_GENESIS = "0" * 64
_PAGE = 1000
# Where nodes that are gone may go: promised for all versions of the transition table.
_FINAL: Mapping[str, tuple[str, ...]] = {
    NodeState.EXPELLED.value: (NodeState.RETIRED.value,),
    NodeState.RETIRED.value: (),
}


def next_number(connection: Connection, name: str) -> int:
    """Return the next number of a counter; other writers wait for it until this one commits."""
    number: int = connection.execute(
        sa.update(counters)
        .where(counters.c.name == name)
        .values(value=counters.c.value + 1)
        .returning(counters.c.value)
    ).scalar_one()
    return number


def append(
    connection: Connection, kind: str, *, actor: str, at: datetime, data: Mapping[str, object]
) -> None:
    """Write one row in the caller's transaction.

    Args:
        connection: the open transaction.
        kind: what happened, such as "transition".
        actor: who did it.
        at: when.
        data: JSON values that say what exactly.
    """
    sequence = next_number(connection, "log")
    previous = connection.execute(
        sa.select(counters.c.digest).where(counters.c.name == "log")
    ).scalar_one()
    previous = previous or _GENESIS
    entry = _canonical(
        {"sequence": sequence, "at": at.isoformat(), "kind": kind, "actor": actor, "data": data}
    )
    digest = _digest(previous, entry)
    connection.execute(
        sa.insert(state_log).values(
            sequence=sequence, previous=previous, entry=entry, digest=digest
        )
    )
    connection.execute(sa.update(counters).where(counters.c.name == "log").values(digest=digest))


def rows(connection: Connection, *, after: int, limit: int) -> tuple[LogRow, ...]:
    """Return at most `limit` rows after number `after`."""
    found = connection.execute(
        sa.select(state_log)
        .where(state_log.c.sequence > after)
        .order_by(state_log.c.sequence)
        .limit(limit)
    )
    return tuple(
        LogRow(sequence=row.sequence, previous=row.previous, entry=row.entry, digest=row.digest)
        for row in found
    )


def verify(connection: Connection, *, head: LogHead | None) -> LogHead:
    """Verify the chain from its first row, and the nodes table against it; see the port.

    1. Numbers run from 1 without gaps, and each row says its own number.
    2. Each row continues the digest before it.
    3. The chain ends where the counter says.
    4. It holds `head`, if one was kept.
    5. Each row of a node continues the one before it: its state, its generation, and none after
       it was retired, none but its retirement after it was expelled.
    6. Each node has the state and generation of its last row.

    It does not hold rows against the present transition table: an earlier program may have had
    another one.

    Raises:
        VerificationError: naming the row or the node.
    """
    sequence, digest = 0, _GENESIS
    standings: dict[str, tuple[str, int]] = {}
    head_found = head is None or head.sequence == 0
    while page := rows(connection, after=sequence, limit=_PAGE):
        for row in page:
            entry = _verified_entry(row, sequence + 1, digest)
            sequence, digest = row.sequence, row.digest
            if head is not None and head.sequence == sequence:
                if head.digest != digest:
                    raise _broken(sequence, "is not the row whose digest was kept")
                head_found = True
            _follow(standings, entry, sequence)
    recorded = connection.execute(sa.select(counters).where(counters.c.name == "log")).one()
    if (recorded.value, recorded.digest or _GENESIS) != (sequence, digest):
        raise _broken(sequence, f"is the last one, but {recorded.value} were written")
    if not head_found:
        raise _broken(sequence, "is the last one, but a later one was kept as head")
    _verify_nodes(connection, standings)
    return LogHead(sequence=sequence, digest=digest)


def _verified_entry(row: LogRow, expected: int, previous: str) -> dict[str, object]:
    if row.sequence != expected:
        raise _broken(expected, f"is missing; row {row.sequence} follows")
    if row.previous != previous:
        raise _broken(expected, "does not continue the row before it")
    if row.digest != _digest(previous, row.entry):
        raise _broken(expected, "was changed")
    entry: dict[str, object] = json.loads(row.entry)
    if entry.get("sequence") != expected:
        raise _broken(expected, "stands in another row's place")
    return entry


def _follow(standings: dict[str, tuple[str, int]], entry: dict[str, object], sequence: int) -> None:
    data = entry["data"]
    if entry["kind"] not in ("registered", "transition") or not isinstance(data, dict):
        return
    node_id, after = str(data["node_id"]), (str(data["state"]), int(data["generation"]))
    before = standings.get(node_id)
    if entry["kind"] == "registered":
        continues = before is None and after == (NodeState.REGISTERED.value, 0)
    else:
        continues = before == (data.get("from"), after[1] - 1) and (
            before[0] not in _FINAL or after[0] in _FINAL[before[0]]
        )
    if not continues:
        raise _broken(sequence, f"leads node {node_id} to {after}, which does not follow {before}")
    standings[node_id] = after


def _verify_nodes(connection: Connection, standings: Mapping[str, tuple[str, int]]) -> None:
    present = {
        row.id: (row.state, row.generation)
        for row in connection.execute(sa.select(nodes.c.id, nodes.c.state, nodes.c.generation))
    }
    for node_id in sorted(present.keys() | standings.keys()):
        if present.get(node_id) != standings.get(node_id):
            raise VerificationError(
                f"node {node_id} is {present.get(node_id)}, but the state log ends with "
                f"{standings.get(node_id)}",
                remedy="somebody changed the database beside the server; restore a backup",
            )


def _broken(sequence: int, what: str) -> VerificationError:
    return VerificationError(
        f"state log: row {sequence} {what}",
        remedy="somebody changed the log beside the server; compare with a backup",
    )


def _canonical(value: Mapping[str, object]) -> str:
    # The subset of RFC 8785 that strings and whole numbers need.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(previous: str, entry: str) -> str:
    return hashlib.sha256(_LABEL + bytes.fromhex(previous) + entry.encode()).hexdigest()
