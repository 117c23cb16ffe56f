# SPDX-License-Identifier: Apache-2.0
"""The standard APIs of the Verifier that a server has inside, beside its own routes.

They have threads, sessions and limits of their own, so that they cannot keep joins waiting for
longer than the processor does. Their results name no key, and nothing is issued on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import CollectorRegistry

from troth.clock import Clock
from troth.control_plane.server.config import ServerConfig
from troth.control_plane.server.endorsement_set import EndorsementSet
from troth.control_plane.server.keys import ServerKeys
from troth.control_plane.server.operators import Operators
from troth.control_plane.server.worker import WAITING_THREADS, Worker
from troth.control_plane.verification.apis import ApiNeeds, StandardApis, standard_apis
from troth.control_plane.verification.coserv_routes import CoservUpstream
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.control_plane.verification.session import SESSION_KEY_BYTES
from troth.endorsement.repository import Provisioned
from troth.verifier.background_check import BackgroundCheck
from troth.verifier.session_book import MemorySessionBook

__all__ = ["EmbeddedApis", "embedded_apis"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedApis:
    """The standard APIs of one server.

    Attributes:
        apis: the interfaces.
        book: used sessions; pruned by whoever keeps house.
        kept_results: sessions whose outcome is kept.
        workers: threads, to be closed.
    """

    apis: StandardApis
    book: MemorySessionBook = field(repr=False)
    kept_results: int
    workers: tuple[Worker, ...]

    def prune(self, now: datetime) -> None:
        """Forget sessions that are over; cheap enough for the event loop."""
        self.book.prune(now=now, keep=self.kept_results)

    async def close(self) -> None:
        """Wait for what was begun."""
        for worker in self.workers:
            await worker.close()


def embedded_apis(
    config: ServerConfig,
    *,
    verifier: BackgroundCheck,
    keys: ServerKeys,
    endorsements: EndorsementSet,
    operators: Operators,
    upstream: CoservUpstream | None,
    registry: CollectorRegistry,
    clock: Clock,
    random: Callable[[int], bytes],
) -> EmbeddedApis:
    """Put them together; their session key lives as long as this process.

    Args:
        config: of the server.
        verifier: the one that joins are appraised by.
        keys: sign results.
        endorsements: what is provisioned.
        operators: how more of it gets there.
        upstream: another CoSERV service, or None.
        registry: of the server's metrics.
        clock: time.
        random: source of randomness.
    """
    book = MemorySessionBook(keep=config.challenge_response.kept_results)
    metrics = VerificationMetrics(registry)
    waiting = config.limits.appraisals_waiting
    elsewhere = bool(
        config.verifier.remote.kind or config.coserv.upstream or config.verifier.collateral_fetch
    )
    appraising = Worker(
        "verification", threads=WAITING_THREADS if elsewhere else 1, max_waiting=waiting
    )
    querying = Worker("CoSERV", threads=WAITING_THREADS if upstream else 1, max_waiting=waiting)

    async def provision(data: bytes, source: str, actor: str) -> Provisioned:
        return await operators.provision(data, source=source, actor=actor)

    apis = standard_apis(
        ApiNeeds(
            sections=config,
            directory=config.directory,
            verifier=verifier,
            keys=keys.results,
            book=book,
            session_key=random(SESSION_KEY_BYTES),
            endorsements=endorsements,
            refresh=lambda _: None,  # this process alone changes them
            provision=provision,
            upstream=upstream,
            appraising=appraising,
            querying=querying,
            metrics=metrics,
            clock=clock,
            random=random,
        )
    )
    return EmbeddedApis(
        apis=apis,
        book=book,
        kept_results=config.challenge_response.kept_results,
        workers=(appraising, querying),
    )
