# SPDX-License-Identifier: Apache-2.0
"""The proxy of an agent that has none: it serves workloads alone."""

from __future__ import annotations

from troth.control_plane.envoy.resources import MeshResources

__all__ = ["NoProxy"]


class NoProxy:
    """Has whatever it is told in effect at once: there is nobody whom it would let in."""

    async def apply(self, resources: MeshResources, *, timeout_seconds: float = 10) -> None:
        """Do nothing."""
        del resources, timeout_seconds
