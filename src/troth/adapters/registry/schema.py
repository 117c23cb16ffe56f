# SPDX-License-Identifier: Apache-2.0
"""Tables and their versions. Nothing here is particular to one database.

Times are microseconds since 1970 UTC, structured values canonical JSON text: both look the same
everywhere and sort as they should.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from troth.adapters.registry.device_schema import create_device_tables
from troth.adapters.registry.logical_tee_schema import create_logical_tee_tables
from troth.adapters.registry.placement_schema import create_placement_tables
from troth.adapters.registry.workload_schema import create_tables
from troth.errors import ConfigurationError

__all__ = [
    "SCHEMA_VERSION",
    "appraisals",
    "boot_sessions",
    "corims",
    "counters",
    "entries",
    "events",
    "feed_consumers",
    "issuances",
    "migrate",
    "nodes",
    "policies",
    "refusals",
    "sessions",
    "state_log",
    "withdrawn_parts",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _UtcTime(sa.TypeDecorator[datetime]):
    """Aware datetimes as whole microseconds; the arithmetic is exact, unlike that of floats."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, ANN401 - SQLAlchemy's signature
        return None if value is None else _EPOCH + timedelta(microseconds=value)


_meta = sa.MetaData()

schema_version = sa.Table("schema_version", _meta, sa.Column("version", sa.Integer, nullable=False))

# "event", "log" and "epoch". A writer holds the row until it commits, so that numbers are given
# out in the order of commits and without gaps, on a database with many writers too.
counters = sa.Table(
    "counters",
    _meta,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, default=""),
)

sessions = sa.Table(
    "join_sessions",
    _meta,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("nonce", sa.LargeBinary, nullable=False),
    sa.Column("node_name", sa.String(64), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("created", _UtcTime, nullable=False),
    sa.Column("expires", _UtcTime, nullable=False, index=True),
    sa.Column("used", sa.Boolean, nullable=False),
)

entries = sa.Table(
    "registration_entries",
    _meta,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("spiffe_id", sa.String(2048), nullable=False),
    sa.Column("selectors", sa.Text, nullable=False),
    sa.Column("min_tier", sa.String(16), nullable=False),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("created", _UtcTime, nullable=False),
)

nodes = sa.Table(
    "nodes",
    _meta,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("device", sa.String(512), nullable=False),
    sa.Column("entry_id", sa.String(64), nullable=False, index=True),
    sa.Column("spiffe_id", sa.String(2048), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.String(48)),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("registered_at", _UtcTime, nullable=False),
    sa.Column("changed_at", _UtcTime, nullable=False),
    sa.Column("services", sa.Text, nullable=False),
    sa.Column("scheme", sa.String(32)),
    sa.Column("media_type", sa.String(256)),
    sa.Column("evidence", sa.LargeBinary),
    sa.Column("challenge", sa.LargeBinary),
    sa.Column("spki", sa.LargeBinary),
    sa.Column("boot_session", sa.LargeBinary),
    sa.Column("result", sa.Text),
    sa.Column("ear", sa.Text),
    sa.Column("svid", sa.Text),
    sa.Column("deadline", _UtcTime, index=True),
    sa.UniqueConstraint("device", "spiffe_id", name="one_node_per_device_and_role"),
)

boot_sessions = sa.Table(
    "boot_sessions",
    _meta,
    sa.Column("node_id", sa.ForeignKey("nodes.id"), primary_key=True),
    sa.Column("boot_session", sa.LargeBinary, primary_key=True),
    sa.Column("first_seen", _UtcTime, nullable=False),
)

issuances = sa.Table(
    "issuances",
    _meta,
    sa.Column("serial", sa.String(64), primary_key=True),
    sa.Column("node_id", sa.ForeignKey("nodes.id"), nullable=False, index=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("key_digest", sa.String(64), nullable=False, index=True),
    sa.Column("issued", _UtcTime, nullable=False),
    sa.Column("not_after", _UtcTime, nullable=False, index=True),
)

corims = sa.Table(
    "corims",
    _meta,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("provisioned_at", _UtcTime, nullable=False),
    sa.Column("provisioned_by", sa.Text, nullable=False),
    sa.Column("withdrawn", sa.Boolean, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("scheme", sa.Text, nullable=False),
    sa.Column("retires_at", _UtcTime),
)

withdrawn_parts = sa.Table(
    "withdrawn_parts",
    _meta,
    sa.Column("id", sa.String(1024), primary_key=True),
    sa.Column("withdrawn_at", _UtcTime, nullable=False),
    sa.Column("withdrawn_by", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)

policies = sa.Table(
    "policies",
    _meta,
    sa.Column("epoch", sa.BigInteger, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("digest", sa.String(128), nullable=False),
    sa.Column("adopted_at", _UtcTime, nullable=False),
)

refusals = sa.Table(
    "refusals",
    _meta,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("at", _UtcTime, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
)

state_log = sa.Table(
    "state_log",
    _meta,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("entry", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)

events = sa.Table(
    "events",
    _meta,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", _UtcTime, nullable=False),
    sa.Column("node_id", sa.String(64), nullable=False, index=True),
    sa.Column("member", sa.Text, nullable=False),
)

feed_consumers = sa.Table(
    "feed_consumers",
    _meta,
    sa.Column("node_id", sa.String(64), primary_key=True),
    sa.Column("acknowledged", sa.BigInteger, nullable=False),
    sa.Column("lease_until", _UtcTime, nullable=False),
)

appraisals = sa.Table(
    "appraisals",
    _meta,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("device", sa.String(512), nullable=False),
    sa.Column("spiffe_id", sa.String(2048), nullable=False),
    sa.Column("first", _UtcTime, nullable=False),
    sa.Column("last", _UtcTime, nullable=False, index=True),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)


def _first(connection: Connection) -> None:
    _meta.create_all(connection)
    rows = [{"name": name, "value": 0, "digest": ""} for name in ("event", "log", "epoch")]
    connection.execute(sa.insert(counters), rows)
    connection.execute(sa.insert(schema_version), {"version": 0})


def _second(connection: Connection) -> None:
    # A new database has it by the first step already.
    appraisals.create(connection, checkfirst=True)


def _add_workloads(connection: Connection) -> None:
    create_tables(connection, counters)


def _order_corims(connection: Connection) -> None:
    added = {
        "sequence": "BIGINT NOT NULL DEFAULT 0",
        "scheme": "TEXT NOT NULL DEFAULT ''",
        "retires_at": "BIGINT",
    }
    present = {column["name"] for column in sa.inspect(connection).get_columns(corims.name)}
    for name, form in added.items():
        if name not in present:
            connection.exec_driver_sql(f"ALTER TABLE corims ADD COLUMN {name} {form}")


def _add_devices(connection: Connection) -> None:
    create_device_tables(connection)


# The n-th step leads from version n to n + 1. A released step is never edited.
_STEPS: Sequence[Callable[[Connection], None]] = (
    _first,
    _second,
    _add_workloads,
    _order_corims,
    _add_devices,
    create_logical_tee_tables,
    create_placement_tables,
)

SCHEMA_VERSION = len(_STEPS)


def migrate(connection: Connection) -> None:
    """Bring the schema up to `SCHEMA_VERSION`, in the caller's transaction.

    Raises:
        ConfigurationError: the database was written by a newer program.
    """
    present = 0
    if sa.inspect(connection).has_table(schema_version.name):
        present = connection.execute(sa.select(schema_version.c.version)).scalar_one()
    if present > SCHEMA_VERSION:
        raise ConfigurationError(
            source="database",
            key="schema version",
            value=str(present),
            accepted=f"at most {SCHEMA_VERSION}; this program is older than the database",
        )
    for step in _STEPS[present:]:
        step(connection)
    if present < SCHEMA_VERSION:
        connection.execute(sa.update(schema_version).values(version=SCHEMA_VERSION))
