# SPDX-License-Identifier: Apache-2.0
"""The registry port for Logical TEEs; the rules of `troth.mesh.registry` hold here too."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

from troth.mesh.logical_tee import LogicalTee

__all__ = ["MAX_LOGICAL_TEES", "LogicalTeeRegistry"]

MAX_LOGICAL_TEES: Final = 256
"""Logical TEEs on one server."""


class LogicalTeeRegistry(Protocol):
    """Durable definitions of Logical TEEs. Who is a member is nowhere stored: it is computed."""

    def logical_tees(self) -> tuple[LogicalTee, ...]:
        """Return all, by name."""
        ...

    def logical_tee(self, name: str) -> LogicalTee:
        """Return one.

        Raises:
            ConflictError: there is none of that name.
        """
        ...

    def put_logical_tee(self, tee: LogicalTee, *, actor: str, at: datetime) -> bool:
        """Write a definition in the place of the one of its name; say whether anything changed.

        Raises:
            ConflictError: epochs that began already are not as they were.
            UnavailableError: there are `MAX_LOGICAL_TEES` already.
        """
        ...

    def delete_logical_tee(self, name: str, *, actor: str, at: datetime) -> None:
        """Delete a definition; nothing happens to the nodes.

        Raises:
            ConflictError: there is none of that name.
        """
