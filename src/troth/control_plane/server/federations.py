# SPDX-License-Identifier: Apache-2.0
"""Federation: foreign bundles are fetched again and again, kept apart, and told to agents.

An operator says which trust domain a bundle is of, where it is fetched, and how the endpoint shows
who it is; the fetched document says none of that. What fails is tried again at the next interval
and not sooner (SPIFFE Federation section 6.2); what is known meanwhile stays.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from troth.clock import Clock
from troth.control_plane.server.bundles import ServerBundles
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.worker import Worker
from troth.errors import ChainError, ConflictError, TrothError
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.federation import Federation, refresh_interval, takes_over
from troth.mesh.registry import Registry
from troth.mesh.workload_entry import refused_field

__all__ = ["BundleFetcher", "FederationStatus", "Federations"]

_LOG = logging.getLogger(__name__)
_AT_ONCE = 8
_FIRST_FETCH_RETRY = timedelta(seconds=30)


class BundleFetcher(Protocol):
    """Fetches bundles from endpoints, as `troth.adapters.bundle_endpoint` does."""

    async def fetch(
        self, federation: Federation, *, endpoint_bundle: TrustBundle | None
    ) -> TrustBundle:
        """Return the bundle that the federation's endpoint serves, as that of its trust domain.

        Args:
            federation: has an endpoint.
            endpoint_bundle: for `https_spiffe`, the bundle of the endpoint's own trust domain.

        Raises:
            ChainError: whoever answers is not the endpoint.
            DecodeError: no bundle. UnavailableError: no answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationStatus:
    """A foreign trust domain as operators see it.

    Attributes:
        federation: as it is registered.
        next_refresh: when it is fetched again, or None.
        problem: why the last fetch failed, or "".
    """

    federation: Federation
    next_refresh: datetime | None
    problem: str


class Federations:
    """Foreign trust domains: the operators' verbs, and the fetching.

    Args:
        registry, registry_worker: membership, and the one thread that it is used from.
        bundles: what is known.
        fetcher: reaches endpoints; None leaves bundles to operators.
        hub: tells agents.
        clock: time.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        registry_worker: Worker,
        bundles: ServerBundles,
        fetcher: BundleFetcher | None,
        hub: FeedHub,
        clock: Clock,
    ) -> None:
        self._registry, self._registry_worker = registry, registry_worker
        self._bundles, self._fetcher = bundles, fetcher
        self._hub, self._clock = hub, clock
        self._due: dict[TrustDomain, datetime] = {}
        self._problems: dict[TrustDomain, str] = {}
        self._announced = -1
        self._loading = asyncio.Lock()

    def list(self) -> tuple[FederationStatus, ...]:
        """Return all foreign trust domains."""
        return tuple(map(self._status, self._bundles.federations.values()))

    def find(self, trust_domain: TrustDomain) -> FederationStatus:
        """Return one.

        Raises:
            ConflictError: it is not one of those believed.
        """
        federation = self._bundles.federations.get(trust_domain)
        if federation is None:
            raise ConflictError(
                f"there is no bundle of trust domain {trust_domain}", remedy="list the bundles"
            )
        return self._status(federation)

    async def put(self, federation: Federation, *, actor: str) -> None:
        """Add or replace a foreign trust domain; agents are told before this returns.

        Raises:
            DecodeError: it is our own trust domain, or the endpoint's is not known.
            UnavailableError: nothing was changed.
        """
        if federation.trust_domain == self._bundles.own.trust_domain:
            raise refused_field("trust_domain", "is this server's own: its bundle makes itself")
        endpoint = federation.endpoint_spiffe_id
        if (
            endpoint is not None
            and not federation.is_self_serving
            and self._bundles.known(endpoint.trust_domain) is None
        ):
            raise refused_field(
                "endpoint_spiffe_id",
                f"there is no bundle of trust domain {endpoint.trust_domain} to know it by",
                remedy=f"`troth bundle set {endpoint.trust_domain}` first",
            )
        await self._registry_worker.run(
            self._registry.put_federation, federation, actor=actor, at=self._clock.now()
        )
        self._due.pop(federation.trust_domain, None)
        self._problems.pop(federation.trust_domain, None)
        await self.look()

    async def delete(self, trust_domain: TrustDomain, *, actor: str) -> None:
        """Stop believing a trust domain.

        Raises:
            ConflictError: it is not believed, or entries federate with it.
        """
        await self._registry_worker.run(
            self._registry.delete_federation, trust_domain, actor=actor, at=self._clock.now()
        )
        self._due.pop(trust_domain, None)
        self._problems.pop(trust_domain, None)
        await self.look()

    async def refresh(self, trust_domain: TrustDomain) -> FederationStatus:
        """Fetch a bundle now.

        Raises:
            ConflictError: it has no endpoint, or is not believed.
            TrothError: why the fetch failed.
        """
        federation = self.find(trust_domain).federation
        if not federation.endpoint_url or self._fetcher is None:
            raise ConflictError(
                f"the bundle of {trust_domain} is set by hand", remedy="`troth bundle set` again"
            )
        await self._fetch(federation, self._fetcher)
        await self.look()
        return self.find(trust_domain)

    async def sweep(self) -> None:
        """Fetch what is due, a few at once; a failure is remembered and changes nothing."""
        if self._fetcher is None:
            return
        now = self._clock.now()
        due = [
            federation
            for federation in self._bundles.federations.values()
            if federation.endpoint_url and now >= self._next(federation, now)
        ]
        if not due:
            return
        turn = asyncio.Semaphore(_AT_ONCE)
        fetcher = self._fetcher

        async def fetch(federation: Federation) -> None:
            async with turn:
                try:
                    await self._fetch(federation, fetcher)
                except TrothError as exc:
                    _LOG.warning("bundle of %s: %s", federation.trust_domain, exc)

        async with asyncio.TaskGroup() as group:
            for federation in due:
                group.create_task(fetch(federation))
        await self.look()

    async def look(self) -> bool:
        """Read what is in force, here or by another server, and tell agents what changed.

        Raises:
            UnavailableError: the registry or the keys cannot be used.
        """
        async with self._loading:
            now = self._clock.now()
            changed = await self._registry_worker.run(self._bundles.load, self._registry, now)
            if self._bundles.revision != self._announced:
                self._announced = self._bundles.revision
                self._bundles.announce(self._hub)
            return changed

    async def _fetch(self, federation: Federation, fetcher: BundleFetcher) -> None:
        domain = federation.trust_domain
        known = federation.bundle is not None
        wait = refresh_interval(federation.bundle) if known else _FIRST_FETCH_RETRY
        # Set before the fetch, so that nobody begins a second one, and kept if this one fails.
        self._due[domain] = self._clock.now() + wait
        try:
            fetched = await fetcher.fetch(
                federation, endpoint_bundle=self._endpoint_bundle(federation)
            )
            takes_over(fetched, federation.bundle)  # refuses an older one
            now = self._clock.now()
            present = self._bundles.federations.get(domain)
            if present is None or present.endpoint_url != federation.endpoint_url:
                return  # an operator changed it while we asked
            await self._registry_worker.run(self._registry.store_bundle, fetched, at=now)
        except TrothError as exc:
            self._problems[domain] = str(exc)
            raise
        self._problems.pop(domain, None)
        self._due[domain] = now + refresh_interval(fetched)

    def _endpoint_bundle(self, federation: Federation) -> TrustBundle | None:
        endpoint = federation.endpoint_spiffe_id
        if endpoint is None:
            return None
        bundle = self._bundles.known(endpoint.trust_domain)
        if bundle is None:
            raise ChainError(f"there is no bundle of {endpoint.trust_domain} to know {endpoint} by")
        return bundle

    def _next(self, federation: Federation, now: datetime) -> datetime:
        planned = self._due.get(federation.trust_domain)
        if planned is not None:
            return planned
        if federation.refreshed_at is None:
            return now
        return federation.refreshed_at + refresh_interval(federation.bundle)

    def _status(self, federation: Federation) -> FederationStatus:
        fetched = bool(federation.endpoint_url) and self._fetcher is not None
        return FederationStatus(
            federation=federation,
            next_refresh=self._next(federation, self._clock.now()) if fetched else None,
            problem=self._problems.get(federation.trust_domain, ""),
        )
