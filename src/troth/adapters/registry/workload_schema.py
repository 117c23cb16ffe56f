# SPDX-License-Identifier: Apache-2.0
"""Tables of workloads and foreign trust domains."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["BUNDLES", "ENTRIES", "OWN_BUNDLE", "create_tables", "federations", "workload_entries"]

# Counters: revisions of the entries and of all bundles, and the sequence of our own bundle.
ENTRIES = "entries"
BUNDLES = "bundles"
OWN_BUNDLE = "own_bundle"

_meta = sa.MetaData()

workload_entries = sa.Table(
    "workload_entries",
    _meta,
    sa.Column("id", sa.String(64), primary_key=True),
    # The revision that the entry came with: entries are given out in this order.
    sa.Column("position", sa.BigInteger, nullable=False, index=True),
    # Of parent, identity and selectors: no two entries say the same.
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("body", sa.Text, nullable=False),
)

federations = sa.Table(
    "federations",
    _meta,
    sa.Column("trust_domain", sa.String(255), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)


def create_tables(connection: Connection, counters: sa.Table) -> None:
    """Make the tables and the rows of their counters, those that are not there yet."""
    _meta.create_all(connection)
    present = set(connection.execute(sa.select(counters.c.name)).scalars())
    for name in (ENTRIES, BUNDLES, OWN_BUNDLE):
        if name not in present:
            connection.execute(sa.insert(counters).values(name=name, value=0, digest=""))
