# SPDX-License-Identifier: Apache-2.0
"""Workloads: which a node may run, and SVIDs for them on the node's result.

An SVID is issued only

1. to the agent of a node, recognised by its own SVID (`Members`);
2. while the node is admitted, and is still admitted after the signature (5);
3. for an entry that is this node's by parent and by node selectors;
4. for a key whose holder asked, ending with the node's Attestation Result at the latest.

Who loses membership between 2 and 5 gets nothing of the batch.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from troth.clock import Clock
from troth.control_plane.server.bundles import ServerBundles
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.issuer import IssuedWit, SvidIssuer, WorkloadIssuer
from troth.control_plane.server.worker import Worker
from troth.errors import AuthorizationError, TrothError
from troth.identity.certificate_request import decode_csr
from troth.identity.jwt_svid import JwtSvid
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.mesh.entry_index import EntryIndex, NodeEntries
from troth.mesh.event import EntriesChanged
from troth.mesh.node import PERMISSIONS
from troth.mesh.node_record import AppraisedEvidence, NodeRecord
from troth.mesh.registry import Registry
from troth.mesh.tier import Tier, TierLifetimes
from troth.mesh.workload_entry import WorkloadEntry, refused_field
from troth.mesh.workload_messages import (
    AgentEntry,
    EntriesReply,
    SvidOutcome,
    SvidRequest,
    WitRequest,
)

__all__ = ["Workloads"]

_LOG = logging.getLogger(__name__)


class Workloads:
    """Registration and issuing for workloads.

    Args:
        registry, registry_worker: membership, and the one thread that it is used from.
        issuer, issuing_worker: makes SVIDs, and the threads that it does so in.
        bundles: whom entries can federate with.
        hub: tells agents that entries changed.
        clock: time.
        lifetimes: of X.509-SVIDs, by tier.
        jwt_lifetime: of JWT-SVIDs whose entries say nothing.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        registry_worker: Worker,
        issuer: SvidIssuer,
        issuing_worker: Worker,
        bundles: ServerBundles,
        hub: FeedHub,
        clock: Clock,
        lifetimes: Mapping[Tier, TierLifetimes],
        jwt_lifetime: timedelta,
    ) -> None:
        self._registry, self._registry_worker = registry, registry_worker
        self._issuer, self._issuing_worker = issuer, issuing_worker
        self._bundles, self._hub, self._clock = bundles, hub, clock
        self._lifetimes, self._jwt_lifetime = lifetimes, jwt_lifetime
        self._index = EntryIndex()
        self._announced = -1
        self._reading = asyncio.Lock()

    # For agents

    async def entries(self, node: NodeRecord) -> EntriesReply:
        """Return the workloads that `node` may run.

        Raises:
            AuthorizationError: the node's state allows no SVIDs.
        """
        _admitted(node)
        view = await self._view(node)
        return EntriesReply(
            revision=view.revision, entries=tuple(_told(entry) for entry in view.all())
        )

    async def issue(
        self, node: NodeRecord, requests: Sequence[SvidRequest]
    ) -> tuple[SvidOutcome, ...]:
        """Issue a batch of X.509-SVIDs for workloads of `node`; each succeeds or fails alone.

        Raises:
            AuthorizationError, VerificationError: the node may have none at all.
            UnavailableError: not now.
        """
        appraised = _admitted(node)
        view = await self._view(node)
        now = self._clock.now()
        outcomes = await self._issuing_worker.run(
            self._issue_batch, node.id, appraised, view, requests, now
        )
        await self._still_admitted(node)
        return outcomes

    async def issue_jwt(self, node: NodeRecord, entry_id: str, audience: Sequence[str]) -> JwtSvid:
        """Issue a JWT-SVID for a workload of `node`.

        Raises:
            AuthorizationError: the node may have none, or not for this entry.
            DecodeError: an audience that is not issued for.
            UnavailableError: not now.
        """
        appraised = _admitted(node)
        entry = (await self._view(node)).find(entry_id)
        if entry is None:
            raise _not_this_nodes(entry_id)
        svid = await self._issuing_worker.run(
            self._issuer.issue_jwt,
            SpiffeId.decode(entry.spiffe_id),
            audience,
            now=self._clock.now(),
            ttl=entry.jwt_svid_ttl or self._jwt_lifetime,
            not_after=appraised.result.expires,
        )
        await self._still_admitted(node)
        return svid

    async def issue_wit(self, node: NodeRecord, request: WitRequest) -> IssuedWit:
        """Issue a WIT for a key of a workload of `node`, or of the node itself.

        Raises:
            AuthorizationError: the node may have none, or not for this entry.
            DecodeError, VerificationError: the key is not held, or not the node's.
            UnavailableError: not now.
        """
        appraised = _admitted(node)
        subject, ttl = node.spiffe_id, self._jwt_lifetime
        if request.entry_id:
            entry = (await self._view(node)).find(request.entry_id)
            if entry is None:
                raise _not_this_nodes(request.entry_id)
            subject, ttl = entry.spiffe_id, entry.jwt_svid_ttl or ttl
        key = decode_csr(request.csr)
        issued = await self._issuing_worker.run(
            self._issuer.issue_wit,
            key,
            SpiffeId.decode(subject),
            appraised,
            node_id=node.id,
            own=not request.entry_id,
            ttl=ttl,
            now=self._clock.now(),
        )
        await self._still_admitted(node)
        return issued

    def _issue_batch(
        self,
        node_id: str,
        appraised: AppraisedEvidence,
        view: NodeEntries,
        requests: Sequence[SvidRequest],
        now: datetime,
    ) -> tuple[SvidOutcome, ...]:
        issuer = self._issuer.for_workloads(appraised, node_id=node_id, now=now)
        default = self._lifetimes[appraised.result.tier].svid
        return tuple(
            _outcome(issuer, view.find(request.entry_id), request, default) for request in requests
        )

    async def _still_admitted(self, node: NodeRecord) -> None:
        _admitted(await self._registry_worker.run(self._registry.node, node.id))

    async def _view(self, node: NodeRecord) -> NodeEntries:
        await self._refresh()
        return self._index.of(node)

    async def _refresh(self) -> None:
        async with self._reading:
            revision = await self._registry_worker.run(self._registry.entries_revision)
            if revision != self._index.revision:
                self._index = await self._registry_worker.run(self._read)

    def _read(self) -> EntryIndex:
        # The number first: what changes after it was read is read again the next time.
        revision = self._registry.entries_revision()
        return EntryIndex(self._registry.workload_entries(), revision=revision)

    # For operators

    async def all(self) -> tuple[WorkloadEntry, ...]:
        """Return all entries for workloads and all aliases."""
        return await self._registry_worker.run(self._registry.workload_entries)

    async def create(self, entry: WorkloadEntry, *, actor: str) -> None:
        """Add an entry.

        Raises:
            DecodeError: it cannot be in this trust domain; names the field.
            ConflictError: its id is taken, or another entry says the same.
        """
        self._check(entry)
        await self._registry_worker.run(
            self._registry.create_workload_entry, entry, actor=actor, at=self._clock.now()
        )
        await self.look()

    async def replace(self, entry: WorkloadEntry, *, actor: str) -> None:
        """Put an entry in the place of the one with its id; raises as `create`."""
        self._check(entry)
        await self._registry_worker.run(
            self._registry.replace_workload_entry, entry, actor=actor, at=self._clock.now()
        )
        await self.look()

    async def delete(self, entry_id: str, *, actor: str) -> None:
        """Delete an entry: agents forget its SVIDs at once, SVIDs at large end by themselves.

        Raises:
            ConflictError: there is none of that id.
        """
        await self._registry_worker.run(
            self._registry.delete_workload_entry, entry_id, actor=actor, at=self._clock.now()
        )
        await self.look()

    async def look(self) -> None:
        """Tell agents if entries have changed since the last look, here or on another server.

        Raises:
            UnavailableError: the registry cannot be used.
        """
        await self._refresh()
        if self._index.revision == self._announced:
            return
        self._announced = self._index.revision
        self._hub.announce(EntriesChanged(revision=self._announced))

    def _check(self, entry: WorkloadEntry) -> None:
        own = self._bundles.own.trust_domain
        if SpiffeId.decode(entry.spiffe_id).trust_domain != own:
            raise refused_field("spiffe_id", f"{entry.spiffe_id} is not of trust domain {own}")
        for name in entry.federates_with:
            if TrustDomain(name) not in self._bundles.federations:
                raise refused_field(
                    "federates_with",
                    f"there is no bundle of trust domain {name}",
                    remedy=f"`troth bundle set {name}` first",
                )


def _admitted(node: NodeRecord) -> AppraisedEvidence:
    if PERMISSIONS[node.state].svid != "yes" or node.appraised is None:
        raise AuthorizationError(
            f"a node that is {node.state} gets no SVIDs for workloads",
            remedy="see why with `troth node show`",
        )
    return node.appraised


def _not_this_nodes(entry_id: str) -> AuthorizationError:
    return AuthorizationError(f"entry {entry_id!r} is not one of this node")


def _outcome(
    issuer: WorkloadIssuer, entry: WorkloadEntry | None, request: SvidRequest, default: timedelta
) -> SvidOutcome:
    try:
        if entry is None:
            raise _not_this_nodes(request.entry_id)
        svid = issuer.issue(
            decode_csr(request.csr),
            SpiffeId.decode(entry.spiffe_id),
            ttl=entry.x509_svid_ttl or default,
            dns_names=entry.dns_names,
        )
    except TrothError as exc:
        _LOG.info("no SVID for entry %s: %s", request.entry_id, exc)
        return SvidOutcome(entry_id=request.entry_id, error=exc.code)
    return SvidOutcome(entry_id=entry.id, svid=svid.leaf.public_bytes(Encoding.DER))


def _told(entry: WorkloadEntry) -> AgentEntry:
    form = (entry.spiffe_id, str(entry.x509_svid_ttl), *entry.dns_names)
    return AgentEntry(
        id=entry.id,
        spiffe_id=entry.spiffe_id,
        selectors=tuple(sorted(str(selector) for selector in entry.process_selectors)),
        federates_with=entry.federates_with,
        hint=entry.hint,
        form=hashlib.sha256("\n".join(form).encode()).hexdigest()[:16],
    )
