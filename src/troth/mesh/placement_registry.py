# SPDX-License-Identifier: Apache-2.0
"""The registry port for placements; the rules of `troth.mesh.registry` hold here too."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from troth.mesh.placement import Placement

__all__ = ["PlacementRegistry"]


class PlacementRegistry(Protocol):
    """Durable placements and their secrets. A secret's value is in no log and in no listing."""

    def placements(self) -> tuple[Placement, ...]:
        """Return all, by name."""
        ...

    def put_placement(self, placement: Placement, *, actor: str, at: datetime) -> bool:
        """Write a placement in the place of the one of its name; say whether anything changed.

        Values of secrets that it does not name any more are forgotten.

        Raises:
            ConflictError: there is no such Logical TEE, or it has no such class.
            UnavailableError: there are `MAX_PLACEMENTS` already.
        """
        ...

    def delete_placement(self, name: str, *, actor: str, at: datetime) -> None:
        """Delete a placement with its secrets; its nodes drain.

        Raises:
            ConflictError: there is none of that name.
        """

    def put_secret(
        self, placement: str, name: str, value: bytes, *, actor: str, at: datetime
    ) -> None:
        """Set the value of a secret that a placement names.

        Raises:
            ConflictError: there is no such placement, or it does not name the secret.
        """

    def secrets_of(self, placement: str) -> Mapping[str, bytes]:
        """Return the values of a placement's secrets that were set."""
        ...
