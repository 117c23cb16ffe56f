# SPDX-License-Identifier: Apache-2.0
"""What the Workload API needs of the world: a server that issues, and somebody who knows processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from troth.identity.selector import Selector
from troth.mesh.event import Bundles
from troth.mesh.workload_messages import EntriesReply, SvidOutcome, SvidRequest

__all__ = ["Attestor", "WorkloadServer"]


class WorkloadServer(Protocol):
    """The server, as `troth.adapters.server_client.ServerClient` reaches it.

    Every method may raise AuthorizationError (this node may have none) and UnavailableError.
    """

    async def workload_entries(self) -> EntriesReply:
        """Return the workloads that this node may run."""
        ...

    async def issue_x509_svids(self, requests: Sequence[SvidRequest]) -> tuple[SvidOutcome, ...]:
        """Have X.509-SVIDs issued."""
        ...

    async def issue_jwt_svid(self, entry_id: str, audience: Sequence[str]) -> str:
        """Have a JWT-SVID issued."""
        ...

    async def bundles(self) -> Bundles:
        """Return all trust bundles as they are now."""
        ...


class Attestor(Protocol):
    """Finds out what a process is, as `troth.adapters.process_attestor.ProcessAttestor` does."""

    def attest(self, pid: int, *, with_digest: bool = False) -> frozenset[Selector]:
        """Return the selectors of the process that has this number now. Blocks.

        Raises:
            UnavailableError: there is no such process, or it cannot be looked at.
        """
        ...
