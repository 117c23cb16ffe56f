# SPDX-License-Identifier: Apache-2.0
"""Tables of the inventory: devices, what they are known by, join tokens, activated keys."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["activated_keys", "create_device_tables", "device_identities", "devices", "join_tokens"]

_meta = sa.MetaData()

devices = sa.Table(
    "devices",
    _meta,
    sa.Column("id", sa.String(64), primary_key=True),
    # The Attester that it is known by, or NULL: no two devices are known by the same.
    sa.Column("bound", sa.String(512), unique=True),
    sa.Column("body", sa.Text, nullable=False),
)

device_identities = sa.Table(
    "device_identities",
    _meta,
    # An identity belongs to one device.
    sa.Column("identity", sa.String(512), primary_key=True),
    sa.Column("device_id", sa.String(64), nullable=False, index=True),
)

join_tokens = sa.Table(
    "join_tokens",
    _meta,
    # SHA-256 of the token: whoever reads the database cannot join with it.
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("device_id", sa.String(64), nullable=False, unique=True),
    sa.Column("expires", sa.BigInteger, nullable=False),
)

activated_keys = sa.Table(
    "activated_keys",
    _meta,
    # One key for each TPM: the last one that was activated.
    sa.Column("endorsement", sa.String(128), primary_key=True),
    sa.Column("name", sa.String(160), nullable=False, unique=True),
    sa.Column("public", sa.LargeBinary, nullable=False),
    sa.Column("vouched_by", sa.String(128), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)


def create_device_tables(connection: Connection) -> None:
    """Make the tables that are not there yet."""
    _meta.create_all(connection)
