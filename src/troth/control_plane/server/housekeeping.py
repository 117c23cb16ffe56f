# SPDX-License-Identifier: Apache-2.0
"""What happens by itself: results lapse, attempts time out, old rows go, keys are renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from troth.clock import Clock
from troth.control_plane.server.appraisal_recorder import AppraisalRecorder
from troth.control_plane.server.config import LimitSection
from troth.control_plane.server.endorsement_set import EndorsementSet
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.worker import Worker
from troth.errors import ConflictError, TrothError
from troth.mesh.admission import Step
from troth.mesh.node import Reason, Trigger
from troth.mesh.node_record import NodeRecord
from troth.mesh.registry import Change, Registry

__all__ = ["Housekeeping"]

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 1.0
_PRUNE_EVERY = timedelta(minutes=1)
_BATCH = 200

_STALE = Step(trigger=Trigger.DEGRADE, reason=Reason.RESULT_STALE)
_TIMED_OUT = Step(trigger=Trigger.GIVE_UP, reason=Reason.TIMED_OUT)


class Housekeeping:
    """Sweeps once a second.

    Args:
        registry, registry_worker: membership, and the one thread that it is used from.
        hub: is woken after a change.
        admission: as the join's.
        clock: time.
        limits: how long attempts may take and how much is kept.
        keep_keys: renews and rotates the server's keys if it is time.
        recorder: what appraisals are put on record by.
        endorsements: takes over what other servers on the same registry have changed.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        registry_worker: Worker,
        hub: FeedHub,
        admission: asyncio.Lock,
        clock: Clock,
        limits: LimitSection,
        keep_keys: Callable[[datetime], None],
        recorder: AppraisalRecorder,
        endorsements: EndorsementSet,
    ) -> None:
        self._registry, self._registry_worker = registry, registry_worker
        self._hub, self._admission, self._clock = hub, admission, clock
        self._limits, self._keep_keys, self._recorder = limits, keep_keys, recorder
        self._endorsements = endorsements
        self._prune_at: datetime | None = None

    async def run(self) -> None:
        """Sweep until cancelled. What fails is tried again at the next sweep."""
        while True:
            try:
                await self.sweep()
            except TrothError as exc:
                _LOG.warning("housekeeping: %s", exc)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Do what is due.

        Raises:
            UnavailableError: the registry cannot be used.
        """
        now = self._clock.now()
        self._keep_keys(now)
        lapsed = await self._registry_worker.run(self._registry.lapsed, now, limit=_BATCH)
        for node in lapsed:
            await self._move(node, _STALE, now)
        since = now - timedelta(seconds=self._limits.session_seconds)
        for node in await self._registry_worker.run(self._registry.stalled, since, limit=_BATCH):
            await self._move(node, _TIMED_OUT, now)
        await self._registry_worker.run(self._recorder.write)
        if self._prune_at is None or now >= self._prune_at:
            self._prune_at = now + _PRUNE_EVERY
            await self._registry_worker.run(
                self._registry.prune,
                now=now,
                keep_events=self._limits.kept_events,
                keep_refusals=self._limits.kept_refusals,
            )
            await self._registry_worker.run(
                self._registry.prune_appraisals,
                before=now - timedelta(days=self._limits.appraisal_days),
                keep=self._limits.kept_appraisals,
            )
        await self._registry_worker.run(self._endorsements.look, now=now)

    async def _move(self, node: NodeRecord, step: Step, now: datetime) -> None:
        change = Change(
            node_id=node.id, generation=node.generation, steps=(step,), actor="server", at=now
        )
        async with self._admission:
            try:
                await self._registry_worker.run(self._registry.apply, change)
            except ConflictError:
                return  # it renewed meanwhile, or an operator moved it
        self._hub.wake()
