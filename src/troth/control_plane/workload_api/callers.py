# SPDX-License-Identifier: Apache-2.0
"""From a call to what its caller gets: who it is by the kernel, and a stream of what changes.

1. The process is held by its pidfd since it connected (or was named, by a broker).
2. It is looked at; then it is looked whether it is still alive: only now was 1 the same as 2.
3. Its selectors give its identities. Before anything else is sent to it later, 2 is done again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from troth.control_plane.peer_process import PeerProcess
from troth.control_plane.workload_api.identities import WorkloadIdentities, WorkloadView
from troth.control_plane.workload_api.ports import Attestor
from troth.errors import UnavailableError
from troth.identity.selector import Selector

__all__ = ["Callers", "StreamLimits"]

_LOG = logging.getLogger(__name__)
_THREADS = 4


class StreamLimits:
    """How many calls may be open at once, of one user and together."""

    def __init__(self, *, per_user: int, together: int) -> None:
        self._per_user, self._together = per_user, together
        self._open: Counter[int] = Counter()

    @contextmanager
    def counted(self, uid: int) -> Iterator[None]:
        """Count one while the block runs.

        Raises:
            GRPCError: RESOURCE_EXHAUSTED.
        """
        if self._open[uid] >= self._per_user or self._open.total() >= self._together:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many calls are open")
        self._open[uid] += 1
        try:
            yield
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]

    @property
    def open(self) -> int:
        """Calls that are open now."""
        return self._open.total()


class Callers:
    """Knows processes and what they get.

    Args:
        identities: of this node's workloads.
        attestor: looks at processes.
    """

    def __init__(self, identities: WorkloadIdentities, attestor: Attestor) -> None:
        self._identities, self._attestor = identities, attestor
        # Names of users may come from a directory service: looking them up may take its time.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="attest")

    def close(self) -> None:
        """Give up the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def identities(self) -> WorkloadIdentities:
        """The identities of this node's workloads."""
        return self._identities

    async def selectors(self, process: PeerProcess) -> frozenset[Selector]:
        """Return what the process is.

        Raises:
            GRPCError: UNAVAILABLE: it has ended, or cannot be looked at.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, self._attest, process.pid, self._identities.needs_digest
            )
        except UnavailableError as exc:
            _LOG.info("%r: %s", process, exc)
            raise _unknown() from exc
        if not process.alive:
            raise _unknown()
        return found

    def _attest(self, pid: int, with_digest: bool) -> frozenset[Selector]:  # noqa: FBT001 - run_in_executor passes positions
        return self._attestor.attest(pid, with_digest=with_digest)

    async def view(self, process: PeerProcess) -> WorkloadView:
        """Return what the process gets now; without identities it is nobody.

        Raises:
            GRPCError: UNAVAILABLE: not known, or not now.
        """
        found = await self.selectors(process)
        return self._view(found)

    async def views(self, process: PeerProcess) -> AsyncIterator[WorkloadView]:
        """Yield what the process gets, now and whenever it becomes something else.

        Raises:
            GRPCError: as `view`.
        """
        while True:
            changed = self._identities.changed
            selectors = await self.selectors(process)
            view = self._view(selectors)
            yield view
            while view.mark == self._view(selectors).mark:
                await changed.wait()
                changed = self._identities.changed

    def _view(self, selectors: frozenset[Selector]) -> WorkloadView:
        try:
            return self._identities.view(selectors)
        except UnavailableError as exc:
            raise GRPCError(Status.UNAVAILABLE, str(exc)) from exc


def _unknown() -> GRPCError:
    return GRPCError(Status.UNAVAILABLE, "the calling process cannot be attested")
