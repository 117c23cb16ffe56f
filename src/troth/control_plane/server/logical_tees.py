# SPDX-License-Identifier: Apache-2.0
"""Logical TEEs of this server: their definitions, who is a member now, and the signed result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from troth.clock import Clock
from troth.control_plane.result_keys import ResultKeys
from troth.control_plane.server.worker import Worker
from troth.errors import AuthorizationError, DecodeError
from troth.formats.ear import VerifierId
from troth.identity.spiffe_id import TrustDomain
from troth.mesh.aggregated_result import aggregate, sign_aggregated_result
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.logical_tee_messages import ResultReply, StatusReply
from troth.mesh.membership import Membership, inclusion_proof, membership_of
from troth.mesh.registry import Registry
from troth.verifier.result import VerifierIdentity

__all__ = ["REUSE_SECONDS", "LogicalTees"]

REUSE_SECONDS: Final = 1.0
"""For so long one result answers everybody who asks over HTTPS: signing them is not for others."""


@dataclass(frozen=True, slots=True)
class _Signed:
    made: float
    token: str


class LogicalTees:
    """What operators, members and the public ask about Logical TEEs.

    Args:
        registry, registry_worker: definitions and nodes, and the one thread they are used from.
        worker: computes trees and signs, so that the registry's thread does not.
        keys: sign results.
        identity: who says so.
        trust_domain: the server's.
        clock: time.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        registry_worker: Worker,
        worker: Worker,
        keys: ResultKeys,
        identity: VerifierIdentity,
        trust_domain: TrustDomain,
        clock: Clock,
    ) -> None:
        self._registry, self._registry_worker, self._worker = registry, registry_worker, worker
        self._keys, self._identity = keys, identity
        self._trust_domain, self._clock = trust_domain, clock
        self._signed: dict[str, _Signed] = {}

    async def all(self) -> tuple[LogicalTee, ...]:
        """Return all definitions by name."""
        return await self._registry_worker.run(self._registry.logical_tees)

    async def definition(self, name: str) -> LogicalTee:
        """Return one definition; raises as the registry does."""
        return await self._registry_worker.run(self._registry.logical_tee, name)

    async def put(self, tee: LogicalTee, *, actor: str) -> bool:
        """Write a definition; say whether anything changed.

        Raises:
            DecodeError: it is for another trust domain.
            ConflictError, UnavailableError: as the registry.
        """
        if tee.trust_domain != str(self._trust_domain):
            raise DecodeError(
                f"trust_domain is not {self._trust_domain}, which this server is for",
                format="Logical TEE",
            )
        changed = await self._registry_worker.run(
            self._registry.put_logical_tee, tee, actor=actor, at=self._clock.now()
        )
        self._signed.pop(tee.name, None)
        return changed

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete a definition; raises as the registry does."""
        await self._registry_worker.run(
            self._registry.delete_logical_tee, name, actor=actor, at=self._clock.now()
        )
        self._signed.pop(name, None)

    async def status(self, name: str) -> StatusReply:
        """Return who is a member now, and who is not and why."""
        tee = await self.definition(name)
        nodes = await self._registry_worker.run(self._registry.nodes)
        now = self._clock.now()
        return await self._worker.run(
            lambda: StatusReply.of(membership_of(tee, nodes, now=now), now=now)
        )

    async def result(self, name: str, *, node_id: str = "") -> ResultReply:
        """Return the result as of now, with all members, or with the proofs of one node alone.

        Raises:
            ConflictError: there is no such Logical TEE.
            AuthorizationError: the node is no member of it.
        """
        tee = await self.definition(name)
        nodes = await self._registry_worker.run(self._registry.nodes)
        now = self._clock.now()

        def work() -> ResultReply:
            found = membership_of(tee, nodes, now=now)
            token = self._sign(found)
            if not node_id:
                return ResultReply(result=token, members=found.members)
            own = [member for member in found.members if member.node_id == node_id]
            if not own:
                raise AuthorizationError(f"node {node_id} is no member of {name}")
            proofs = tuple(inclusion_proof(found.members, member) for member in own)
            return ResultReply(result=token, proofs=proofs)

        return await self._worker.run(work)

    async def public_result(self, name: str) -> str | None:
        """Return the signed result for anybody, at most `REUSE_SECONDS` old, or None.

        None says that there is nothing for the public of that name.
        """
        tees = await self.all()
        if not any(tee.name == name and tee.public for tee in tees):
            return None
        moment = self._clock.monotonic()
        known = self._signed.get(name)
        if known is None or moment - known.made >= REUSE_SECONDS:
            known = _Signed(moment, (await self.result(name)).result)
            self._signed[name] = known
        return known.token

    def _sign(self, found: Membership) -> str:
        ear = aggregate(
            found,
            verifier=VerifierId(self._identity.developer, self._identity.build),
            name=self._identity.name,
            now=found.at,
        )
        return sign_aggregated_result(ear, self._keys.signer(found.at))
