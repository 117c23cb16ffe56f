# SPDX-License-Identifier: Apache-2.0
"""Placements of this server: what operators define, and what one member is told and given."""

from __future__ import annotations

from troth.clock import Clock
from troth.control_plane.server.worker import Worker
from troth.errors import ConflictError
from troth.mesh.membership import membership_of
from troth.mesh.placement import Action, Assignment, Placement, decide
from troth.mesh.registry import Registry

__all__ = ["Placements"]


class Placements:
    """Defines placements, and releases workloads and secrets to admitted members alone.

    Args:
        registry, registry_worker: placements and nodes, and the one thread they are used from.
        clock: time.
    """

    def __init__(self, *, registry: Registry, registry_worker: Worker, clock: Clock) -> None:
        self._registry, self._worker, self._clock = registry, registry_worker, clock

    async def all(self) -> tuple[Placement, ...]:
        """Return all by name; without the values of secrets."""
        return await self._worker.run(self._registry.placements)

    async def one(self, name: str) -> Placement:
        """Return one.

        Raises:
            ConflictError: there is none of that name.
        """
        for each in await self.all():
            if each.name == name:
                return each
        raise ConflictError(f"there is no placement {name!r}", remedy="list the placements")

    async def put(self, placement: Placement, *, actor: str) -> bool:
        """Write a placement; say whether anything changed; raises as the registry does."""
        return await self._worker.run(
            self._registry.put_placement, placement, actor=actor, at=self._clock.now()
        )

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete a placement with its secrets; raises as the registry does."""
        await self._worker.run(
            self._registry.delete_placement, name, actor=actor, at=self._clock.now()
        )

    async def put_secret(self, placement: str, name: str, value: bytes, *, actor: str) -> None:
        """Set the value of a secret; raises as the registry does."""
        await self._worker.run(
            self._registry.put_secret, placement, name, value, actor=actor, at=self._clock.now()
        )

    async def assignments(self, node_id: str) -> tuple[Assignment, ...]:
        """Return what a node is to do with every placement, with secrets where it may have them.

        A placement that does not concern the node is not mentioned: what is not mentioned is
        drained.
        """
        return await self._worker.run(self._assign, node_id)

    def _assign(self, node_id: str) -> tuple[Assignment, ...]:
        # The node last: whatever became of it until then counts, before anything is released.
        placements = self._registry.placements()
        tees = {tee.name: tee for tee in self._registry.logical_tees()}
        secrets = {each.name: self._registry.secrets_of(each.name) for each in placements}
        node, now = self._registry.node(node_id), self._clock.now()
        memberships = {name: membership_of(tee, [node], now=now) for name, tee in tees.items()}
        found: list[Assignment] = []
        for each in placements:
            membership = memberships.get(each.ltee)
            if membership is None:
                continue
            match decide(each, membership, node_id):
                case Action.RUN:
                    given = dict(secrets[each.name])
                    found.append(
                        Assignment(
                            name=each.name, action=Action.RUN, units=each.units, secrets=given
                        )
                    )
                case Action.KEEP:
                    found.append(Assignment(name=each.name, action=Action.KEEP))
                case Action.DRAIN:
                    pass
        return tuple(found)
