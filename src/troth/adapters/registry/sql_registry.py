# SPDX-License-Identifier: Apache-2.0
"""`SqlRegistry`: the registry port on one database.

Which rows a promise of the port touches is in the modules beside this one; here is only what
belongs into one transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry import (
    appraisal_rows,
    endorsements,
    feed,
    registration,
    restoring,
    state_log,
)
from troth.adapters.registry.database import Database
from troth.adapters.registry.device_rows import SqlDeviceRegistry
from troth.adapters.registry.logical_tee_rows import SqlLogicalTeeRegistry
from troth.adapters.registry.node_rows import node_from, read_node
from troth.adapters.registry.placement_rows import SqlPlacementRegistry
from troth.adapters.registry.restoring import HighWaterMark
from troth.adapters.registry.schema import (
    boot_sessions,
    events,
    feed_consumers,
    issuances,
    nodes,
    refusals,
    sessions,
)
from troth.adapters.registry.transitions import apply_change, write_refusal
from troth.adapters.registry.transitions import require_epoch as check_epoch
from troth.adapters.registry.workload_rows import SqlWorkloadRegistry
from troth.errors import UnavailableError
from troth.mesh.admission import Step
from troth.mesh.event import Event, Snapshot
from troth.mesh.node import Actor, NodeState, Reason, Trigger
from troth.mesh.node_record import IssuedSvid, NodeRecord
from troth.mesh.registration_entry import RegistrationEntry
from troth.mesh.registry import (
    Change,
    Delivery,
    JoinRefusal,
    JoinSession,
    LogHead,
    LogRow,
    ProvisionedCorim,
    Registry,
    Withdrawal,
)
from troth.verifier.recorded import RecordedAppraisal

__all__ = ["SqlRegistry", "sqlite_url"]

# Long after its last lease an agent is a stranger again.
_FORGET_CONSUMER_AFTER = timedelta(hours=1)
# Which node held a key is remembered this long after the certificate has expired.
_FORGET_ISSUANCE_AFTER = timedelta(days=30)


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite database at `path`."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


class SqlRegistry(
    SqlWorkloadRegistry, SqlDeviceRegistry, SqlLogicalTeeRegistry, SqlPlacementRegistry, Registry
):
    """Durable membership in a SQL database. Thread-safe; one writer at a time goes ahead."""

    def __init__(self, url: str, *, mark: Path | None = None) -> None:
        """Open the database; see `Database`.

        Args:
            url: of the database.
            mark: file with the highest numbers seen; a database that is behind is not opened.

        Raises:
            ConfigurationError: also where the database has gone back.
        """
        self._database = Database(url)
        self._mark: HighWaterMark | None = None
        if mark is not None:
            try:
                self._mark = HighWaterMark(mark)
                self._mark.check(self._numbers())
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Give up the database; nothing is lost."""
        try:
            with contextlib.suppress(UnavailableError):
                self._note_numbers()
        finally:
            self._database.close()

    def mark_restored(self, *, actor: str, at: datetime) -> None:
        """Say that the database comes from a backup: no number is given out a second time."""
        with self._database.write() as connection:
            restoring.mark_restored(connection, actor=actor, at=at)

    def _numbers(self) -> dict[str, int]:
        with self._database.read() as connection:
            return restoring.read_numbers(connection)

    def _note_numbers(self) -> None:
        if self._mark is not None:
            self._mark.note(self._numbers())

    # Joining

    def open_session(self, session: JoinSession, *, max_open: int) -> None:
        """Remember a nonce."""
        with self._database.write() as connection:
            registration.open_session(connection, session, max_open=max_open)

    def take_session(self, session_id: str, *, now: datetime) -> JoinSession:
        """Return the session and use it up."""
        with self._database.write() as connection:
            return registration.take_session(connection, session_id, now=now)

    def find_node(self, *, device: str, spiffe_id: str) -> NodeRecord | None:
        """Return the node of this device in this role."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(nodes).where(nodes.c.device == device, nodes.c.spiffe_id == spiffe_id)
            ).one_or_none()
            return node_from(row) if row is not None else None

    def find_node_by_key(self, key_digest: str) -> NodeRecord | None:
        """Return the node that got an SVID for this key once."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(nodes)
                .join(issuances, issuances.c.node_id == nodes.c.id)
                .where(issuances.c.key_digest == key_digest)
                .limit(1)
            ).one_or_none()
            return node_from(row) if row is not None else None

    def boot_replaced(self, node_id: str, boot_session: bytes) -> bool:
        """Say whether the node was in this boot session once and in a later one since."""
        with self._database.read() as connection:
            seen = connection.execute(
                sa.select(nodes.c.boot_session)
                .join(boot_sessions, boot_sessions.c.node_id == nodes.c.id)
                .where(nodes.c.id == node_id, boot_sessions.c.boot_session == boot_session)
            ).scalar_one_or_none()
            return seen is not None and seen != boot_session

    def apply(
        self, change: Change, *, issue: Callable[[NodeRecord], IssuedSvid] | None = None
    ) -> NodeRecord:
        """Apply a change, with the issue of an SVID inside the transaction."""
        with self._database.write() as connection:
            return apply_change(connection, change, issue)

    def record_refusal(self, refusal: JoinRefusal) -> None:
        """Remember a refused join that is no node's."""
        with self._database.write() as connection:
            write_refusal(connection, refusal, actor="server")

    def look_at_session(self, session_id: str, *, now: datetime) -> JoinSession:
        """Return the session and leave it as it is."""
        with self._database.read() as connection:
            return registration.look_at_session(connection, session_id, now=now)

    # Reading

    def node(self, node_id: str) -> NodeRecord:
        """Return one node."""
        with self._database.read() as connection:
            return read_node(connection, node_id)

    def nodes(self) -> tuple[NodeRecord, ...]:
        """Return all nodes, oldest first."""
        with self._database.read() as connection:
            found = connection.execute(sa.select(nodes).order_by(nodes.c.registered_at, nodes.c.id))
            return tuple(node_from(row) for row in found)

    def lapsed(self, now: datetime, *, limit: int) -> tuple[NodeRecord, ...]:
        """Return admitted nodes whose deadline has passed."""
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(nodes)
                .where(nodes.c.state == NodeState.ADMITTED.value, nodes.c.deadline <= now)
                .order_by(nodes.c.deadline)
                .limit(limit)
            )
            return tuple(node_from(row) for row in found)

    def stalled(self, since: datetime, *, limit: int) -> tuple[NodeRecord, ...]:
        """Return nodes that have been attesting or attested since `since` or longer."""
        states = [NodeState.ATTESTING.value, NodeState.ATTESTED.value]
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(nodes)
                .where(nodes.c.state.in_(states), nodes.c.changed_at <= since)
                .order_by(nodes.c.changed_at)
                .limit(limit)
            )
            return tuple(node_from(row) for row in found)

    def count_by_state(self) -> Mapping[NodeState, int]:
        """Return how many nodes there are in each state."""
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(nodes.c.state, sa.func.count()).group_by(nodes.c.state)
            )
            return {NodeState(state): count for state, count in found}

    def refusal(self, refusal_id: str) -> JoinRefusal | None:
        """Return a refused join, or None."""
        with self._database.read() as connection:
            body = connection.execute(
                sa.select(refusals.c.body).where(refusals.c.id == refusal_id)
            ).scalar_one_or_none()
            return msgspec.json.decode(body, type=JoinRefusal) if body is not None else None

    def refusals(self, *, limit: int) -> tuple[JoinRefusal, ...]:
        """Return the newest refused joins, newest first."""
        with self._database.read() as connection:
            bodies = connection.execute(
                sa.select(refusals.c.body).order_by(refusals.c.at.desc()).limit(limit)
            ).scalars()
            return tuple(msgspec.json.decode(body, type=JoinRefusal) for body in bodies)

    # Registration entries

    def entries(self) -> tuple[RegistrationEntry, ...]:
        """Return all registration entries."""
        with self._database.read() as connection:
            return registration.read_entries(connection)

    def create_entry(self, entry: RegistrationEntry, *, actor: str, at: datetime) -> None:
        """Add an entry."""
        with self._database.write() as connection:
            registration.insert_entry(connection, entry, actor=actor, at=at)

    def delete_entry(self, entry_id: str, *, actor: str, at: datetime) -> tuple[str, ...]:
        """Delete an entry and quarantine the nodes that joined by it."""
        step = Step(trigger=Trigger.QUARANTINE, reason=Reason.ENTRY_DELETED, actor=Actor.SERVER)
        with self._database.write() as connection:
            registration.delete_entry(connection, entry_id, actor=actor, at=at)
            affected = registration.live_nodes_of(connection, entry_id)
            for node in affected:
                change = Change(
                    node_id=node.id, generation=node.generation, steps=(step,), actor=actor, at=at
                )
                apply_change(connection, change, None)
            return tuple(node.id for node in affected)

    # Endorsements

    @property
    def epoch(self) -> int:
        """Number of the set of endorsements and policy in force."""
        with self._database.read() as connection:
            return endorsements.present_epoch(connection)

    def corims(self) -> tuple[ProvisionedCorim, ...]:
        """Return all CoRIMs, the withdrawn ones too."""
        with self._database.read() as connection:
            return endorsements.read_corims(connection)

    def withdrawn_parts(self) -> tuple[str, ...]:
        """Return the identifiers of what was withdrawn out of CoRIMs."""
        with self._database.read() as connection:
            return endorsements.withdrawn_ids(connection)

    def provision(
        self,
        corim: ProvisionedCorim,
        *,
        replaces: str = "",
        overlap_until: datetime | None = None,
        withdraws: Sequence[str] = (),
    ) -> int:
        """Add a CoRIM and return the new epoch."""
        with self._database.write() as connection:
            return endorsements.provision(
                connection,
                corim,
                replaces=replaces,
                overlap_until=overlap_until,
                withdraws=withdraws,
            )

    def withdraw(
        self,
        withdrawal: Withdrawal,
        changes: Sequence[Change],
        *,
        require_epoch: int,
        require_sequence: int,
    ) -> int:
        """Withdraw, apply what follows for nodes, and return the new epoch."""
        with self._database.write() as connection:
            check_epoch(connection, require_epoch)
            feed.require_sequence(connection, require_sequence)
            epoch = endorsements.withdraw(connection, withdrawal)
            for change in changes:
                apply_change(connection, change, None)
            return epoch

    def adopt_policy(self, *, policy_id: str, digest: str, actor: str, at: datetime) -> int:
        """Write down the Appraisal Policy in force."""
        with self._database.write() as connection:
            return endorsements.adopt_policy(
                connection, policy_id=policy_id, digest=digest, actor=actor, at=at
            )

    # Appraisals on record

    def record_appraisals(self, records: Sequence[RecordedAppraisal]) -> None:
        """Remember appraisals."""
        with self._database.write() as connection:
            for record in records:
                appraisal_rows.write(connection, record)

    def appraisals(
        self, *, since: datetime, after: str, limit: int
    ) -> tuple[RecordedAppraisal, ...]:
        """Return records last seen at `since` or later, by id."""
        with self._database.read() as connection:
            return appraisal_rows.read(connection, since=since, after=after, limit=limit)

    def prune_appraisals(self, *, before: datetime, keep: int) -> None:
        """Forget records last seen before that time, and all but the newest `keep`."""
        with self._database.write() as connection:
            appraisal_rows.prune(connection, before=before, keep=keep)

    # Feed

    def events(self, *, after: int, limit: int) -> tuple[Event, ...]:
        """Return the events after number `after`, in order."""
        with self._database.read() as connection:
            return feed.read_events(connection, after=after, limit=limit)

    def snapshot(self) -> Snapshot:
        """Return all members and the number of the last event that they include."""
        with self._database.read() as connection:
            return feed.take_snapshot(connection)

    def last_event_of(self, node_id: str) -> int:
        """Return the number of the last event about a node, or 0."""
        with self._database.read() as connection:
            return feed.last_event_of(connection, node_id)

    def acknowledge(self, node_id: str, *, sequence: int, lease_until: datetime) -> None:
        """Note how far a node's agent has come."""
        with self._database.write() as connection:
            feed.acknowledge(connection, node_id, sequence=sequence, lease_until=lease_until)

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` whenever another server may have committed something."""
        self._database.listen(heard)

    def delivery(self, sequence: int, *, now: datetime) -> Delivery:
        """Say who has applied event `sequence`."""
        with self._database.read() as connection:
            return feed.delivery(connection, sequence, now=now)

    # Housekeeping and audit

    def prune(self, *, now: datetime, keep_events: int, keep_refusals: int) -> None:
        """Forget what nobody will ask for."""
        with self._database.write() as connection:
            connection.execute(sa.delete(sessions).where(sessions.c.expires <= now))
            connection.execute(
                sa.delete(feed_consumers).where(
                    feed_consumers.c.lease_until < now - _FORGET_CONSUMER_AFTER
                )
            )
            last = connection.execute(sa.select(sa.func.max(events.c.sequence))).scalar_one()
            connection.execute(
                sa.delete(events).where(events.c.sequence <= (last or 0) - keep_events)
            )
            _keep_newest_refusals(connection, keep_refusals)
            _forget_issuances(connection, now - _FORGET_ISSUANCE_AFTER)
        self._note_numbers()

    def log_rows(self, *, after: int, limit: int) -> tuple[LogRow, ...]:
        """Return rows of the state log, in order."""
        with self._database.read() as connection:
            return state_log.rows(connection, after=after, limit=limit)

    def verify_log(self, *, head: LogHead | None = None) -> LogHead:
        """Verify the whole state log, and that each node stands where the log says."""
        with self._database.read() as connection:
            return state_log.verify(connection, head=head)


def _keep_newest_refusals(connection: Connection, keep: int) -> None:
    oldest_kept = connection.execute(
        sa.select(refusals.c.at).order_by(refusals.c.at.desc()).offset(keep).limit(1)
    ).scalar_one_or_none()
    if oldest_kept is not None:
        connection.execute(sa.delete(refusals).where(refusals.c.at <= oldest_kept))


def _forget_issuances(connection: Connection, before: datetime) -> None:
    # The keys of expelled and retired nodes stay denied.
    gone = sa.select(nodes.c.id).where(
        nodes.c.state.in_([NodeState.EXPELLED.value, NodeState.RETIRED.value])
    )
    connection.execute(
        sa.delete(issuances).where(issuances.c.not_after < before, issuances.c.node_id.not_in(gone))
    )
