# SPDX-License-Identifier: Apache-2.0
"""An agent's side towards the workloads of its node: identities, and the sockets to get them on."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from troth.clock import Clock, SystemClock
from troth.control_plane.agent.config import BrokerSection, WorkloadApiSection
from troth.control_plane.agent.ports import Membership
from troth.control_plane.workload_api.endpoint import (
    BrokerEndpoint,
    EndpointOptions,
    WorkloadEndpoint,
)
from troth.control_plane.workload_api.identities import WorkloadIdentities
from troth.control_plane.workload_api.ports import Attestor, WorkloadServer
from troth.control_plane.workload_api.sds_secrets import SecretNames
from troth.errors import TrothError
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.event import FeedNotice

__all__ = ["WorkloadSide"]

_LOG = logging.getLogger(__name__)


class WorkloadSide:
    """Serves workloads while the node is a member. Use as `async with`; `run` keeps it fresh.

    Args:
        server: issues.
        attestor: looks at processes.
        api: how the Workload API is served.
        broker: how the Broker API is served, or None.
        clock: time.
    """

    def __init__(
        self,
        *,
        server: WorkloadServer,
        attestor: Attestor,
        api: WorkloadApiSection,
        broker: BrokerSection | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.identities = WorkloadIdentities(server, clock=clock)
        self._endpoint = WorkloadEndpoint(
            self.identities,
            attestor,
            EndpointOptions(
                socket=api.path,
                calls_per_user=api.calls_per_user,
                calls_together=api.calls_together,
                sds=api.sds,
                secret_names=SecretNames(
                    svid=api.default_svid_name,
                    bundle=api.default_bundle_name,
                    all_bundles=api.default_all_bundles_name,
                ),
                spiffe_validator=not api.disable_spiffe_cert_validation,
            ),
            clock=clock,
        )
        self._broker: BrokerEndpoint | None = None
        if broker is not None:
            self._broker = BrokerEndpoint(
                self.identities,
                attestor,
                socket=broker.path,
                brokers=[SpiffeId.decode(text) for text in broker.callers],
                clock=clock,
            )
        self._membership: Membership | None = None
        self._joined = asyncio.Event()

    def adopt(self, membership: Membership) -> None:
        """The node has joined or renewed."""
        self._membership = membership
        self.identities.adopt(membership.bundle)
        self._joined.set()

    def withdraw(self) -> None:
        """The node is no member any more: its workloads are nobody."""
        self._membership = None
        self.identities.withdraw()

    def notice(self, notice: FeedNotice) -> None:
        """Take what the feed says beside its messages."""
        self.identities.notice(notice)

    def believe(self, bundle: TrustBundle) -> None:
        """Know brokers by this bundle too."""
        if self._broker is not None:
            self._broker.believe(bundle)

    async def run(self) -> None:
        """Keep identities fresh, and the broker's endpoint in step with the node, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.identities.run())
            tasks.create_task(self._keep_broker())

    async def _keep_broker(self) -> None:
        while True:
            await self._joined.wait()
            self._joined.clear()
            membership = self._membership
            if self._broker is None or membership is None:
                continue
            try:
                await self._broker.adopt(membership.svid, membership.bundle)
            except TrothError as exc:
                _LOG.error("the Broker API cannot be served: %s", exc)

    async def __aenter__(self) -> Self:
        await self._endpoint.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._endpoint.stop()
        if self._broker is not None:
            await self._broker.stop()
