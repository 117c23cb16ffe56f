# SPDX-License-Identifier: Apache-2.0
"""Keeps authorities, bundles, entries and foreign bundles up to date, and agents with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from troth.clock import Clock
from troth.control_plane.server.authorities import Authorities
from troth.control_plane.server.bundle_endpoint import EndpointTls
from troth.control_plane.server.bundles import ServerBundles
from troth.control_plane.server.federations import Federations
from troth.control_plane.server.tls import ServerTls
from troth.control_plane.server.worker import Worker
from troth.control_plane.server.workloads import Workloads
from troth.errors import TrothError

__all__ = ["TrustUpkeep"]

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 1.0


class TrustUpkeep:
    """Looks once a second.

    Args:
        authorities: of the trust domain.
        worker: thread in which files are read.
        bundles, federations, workloads: what is kept.
        tls: of the HTTPS listener; believes what is in the bundle.
        endpoint: of the bundle endpoint, or None.
        write_bundle: keeps the bundle as PEM for agents that are set up.
        clock: time.
    """

    def __init__(
        self,
        *,
        authorities: Authorities,
        worker: Worker,
        bundles: ServerBundles,
        federations: Federations,
        workloads: Workloads,
        tls: ServerTls,
        endpoint: EndpointTls | None,
        write_bundle: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._authorities, self._worker = authorities, worker
        self._bundles, self._federations, self._workloads = bundles, federations, workloads
        self._tls, self._endpoint = tls, endpoint
        self._write_bundle, self._clock = write_bundle, clock
        self._written = ""

    async def run(self) -> None:
        """Look until cancelled. What fails is tried again at the next look."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_repeat(self.look))
            # Apart, because an endpoint that does not answer takes its time.
            tasks.create_task(_repeat(self._federations.sweep))

    async def look(self) -> None:
        """Do what is due, and tell agents what changed.

        Raises:
            UnavailableError, ConfigurationError: files or registry cannot be used.
        """
        await self._worker.run(self._authorities.look, self._clock.now())
        await self._federations.look()
        self._tls.believe()
        if self._endpoint is not None:
            self._endpoint.look()
        pem = self._bundles.own.encode_pem().decode("ascii")
        if pem != self._written:
            await self._worker.run(self._write_bundle, pem)
            self._written = pem
        await self._workloads.look()


async def _repeat(work: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await work()
        except TrothError as exc:
            _LOG.warning("upkeep: %s", exc)
        await asyncio.sleep(_SWEEP_SECONDS)
