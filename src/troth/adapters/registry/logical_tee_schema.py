# SPDX-License-Identifier: Apache-2.0
"""The table of Logical TEEs."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["create_logical_tee_tables", "logical_tees"]

_meta = sa.MetaData()

logical_tees = sa.Table(
    "logical_tees",
    _meta,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)


def create_logical_tee_tables(connection: Connection) -> None:
    """Make the table if it is not there yet."""
    _meta.create_all(connection)
