# SPDX-License-Identifier: Apache-2.0
"""The tables of placements and of their secrets."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["create_placement_tables", "placement_secrets", "placements"]

_meta = sa.MetaData()

placements = sa.Table(
    "placements",
    _meta,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)

# Values are as they are: whoever may read the database, as whoever may read the key files beside
# it, has what members are given.
placement_secrets = sa.Table(
    "placement_secrets",
    _meta,
    sa.Column("placement", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)


def create_placement_tables(connection: Connection) -> None:
    """Make the tables that are not there yet."""
    _meta.create_all(connection)
