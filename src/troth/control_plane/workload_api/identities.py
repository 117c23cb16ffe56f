# SPDX-License-Identifier: Apache-2.0
"""The identities of this node's workloads: entries, SVIDs with their keys, and bundles.

Theory of operation. The agent holds an X.509-SVID for every entry of its node before anybody asks
for it, and replaces each after a third of its life: the one before is handed out until the next
one is there, so no workload ever sees a gap. A change of entries or bundles is told by the feed and
acted on at once; the SVIDs of an entry that is gone are forgotten. When the node is no member any
more everything is forgotten.

Readers take a `WorkloadView` for some selectors and wait for `changed` to look again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from troth.clock import Clock
from troth.control_plane.workload_api.jwt_cache import JwtCache
from troth.control_plane.workload_api.ports import WorkloadServer
from troth.errors import AuthorizationError, DecodeError, TrothError, UnavailableError
from troth.identity.jwt_svid import JwtSvid, read_jwt_svid
from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_svid import X509Svid
from troth.mesh.deadline import refresh_after
from troth.mesh.event import Bundles, EntriesChanged, FeedNotice, decode_bundles
from troth.mesh.workload_messages import MAX_BATCH, AgentEntry, SvidRequest

__all__ = ["HeldIdentity", "WorkloadIdentities", "WorkloadView"]

_LOG = logging.getLogger(__name__)
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.5, 30.0
_REFUSED_RETRY = timedelta(seconds=30)
_SHORTEST_LIFE = timedelta(seconds=1)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_DIGEST = "sha256:"


@dataclass(frozen=True, slots=True, eq=False)
class HeldIdentity:
    """One entry with its SVID; `svid` is None for the moment before it is issued.

    Attributes:
        entry: whose.
        svid: with the private key.
        refresh_at: when the next one is asked for.
        chain, key: as DER, encoded once for all who ask.
    """

    entry: AgentEntry
    svid: X509Svid | None = None
    refresh_at: datetime | None = None
    chain: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)

    @property
    def spiffe_id(self) -> SpiffeId:
        """Who it is."""
        return SpiffeId.decode(self.entry.spiffe_id)


@dataclass(frozen=True, slots=True, eq=False)
class WorkloadView:
    """What a workload with some selectors gets, at one moment.

    Attributes:
        identities: its entries, in order; no two with the same hint.
        own: bundle of the trust domain.
        federated: bundles of the others that its entries name and that are known.
        mark: equal for two views that give a workload the same.
    """

    identities: tuple[HeldIdentity, ...]
    own: TrustBundle
    federated: Mapping[TrustDomain, TrustBundle]
    mark: object

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """Return the bundle of exactly this trust domain, or None: a TrustBundleSource."""
        if trust_domain == self.own.trust_domain:
            return self.own
        return self.federated.get(trust_domain)


class WorkloadIdentities:
    """Holds the identities of one node. Not for several threads.

    Args:
        server: issues.
        clock: time.
    """

    def __init__(self, server: WorkloadServer, *, clock: Clock) -> None:
        self._server, self._clock = server, clock
        self._own: TrustBundle | None = None
        self._foreign: Mapping[TrustDomain, TrustBundle] = MappingProxyType({})
        self._bundles_revision = -1
        self._wanted_entries = 0
        self._member = False
        self._ready = False
        self._synced: object = None
        self._epoch = object()
        self._held: dict[str, HeldIdentity] = {}
        self._order: dict[str, int] = {}
        self._index: dict[Selector, list[tuple[AgentEntry, frozenset[Selector]]]] = {}
        self._tokens = JwtCache()
        self.changed = asyncio.Event()
        self._wake = asyncio.Event()
        self.needs_digest = False

    # What the agent tells

    def adopt(self, bundle: TrustBundle) -> None:
        """The node has joined or renewed; `bundle` is that of its trust domain."""
        self._member = True
        if self._own is None or not _newer(self._own, bundle):
            self._set_bundles(bundle, self._foreign)
        self._synced = None  # what the node may run depends on its result too
        self._look_again()

    def withdraw(self) -> None:
        """The node is no member any more: forget everything."""
        self._member = False
        self._forget()

    def notice(self, notice: FeedNotice) -> None:
        """Take what the feed says beside its messages."""
        if isinstance(notice, EntriesChanged):
            self._wanted_entries = max(self._wanted_entries, notice.revision)
            self._look_again()
        else:
            self._take_bundles(notice)

    # What readers ask

    @property
    def ready(self) -> bool:
        """Say whether it is known which workloads this node may run."""
        return self._own is not None and self._ready

    def view(self, selectors: frozenset[Selector]) -> WorkloadView:
        """Return what a process with these selectors gets; no identities if it is nobody.

        Raises:
            UnavailableError: it is not known yet.
        """
        if self._own is None or not self._ready:
            raise UnavailableError("this node is no member yet", retry_after_seconds=1.0)
        found = tuple(_distinct_hints(self._matching(selectors)))
        wanted = {TrustDomain(name) for held in found for name in held.entry.federates_with}
        federated = {
            domain: self._foreign[domain] for domain in sorted(wanted) if domain in self._foreign
        }
        marks = (self.needs_digest, self._own, *federated.values(), *found)
        return WorkloadView(
            identities=found,
            own=self._own,
            federated=MappingProxyType(federated),
            # The objects themselves are part of it, so that no id is taken over meanwhile.
            mark=_Mark(marks),
        )

    async def jwt_svid(self, identity: HeldIdentity, audience: Sequence[str]) -> JwtSvid:
        """Return a JWT-SVID for one of a view's identities.

        Raises:
            DecodeError: an audience that is not issued for.
            AuthorizationError: this node may have none any more.
            UnavailableError: not now.
        """
        now = self._clock.now()
        known = self._tokens.find(identity.entry, audience, now=now)
        if known is not None:
            return known
        epoch = self._epoch
        token = await self._server.issue_jwt_svid(identity.entry.id, audience)
        svid = read_jwt_svid(token)
        if str(svid.spiffe_id) != identity.entry.spiffe_id or epoch is not self._epoch:
            raise UnavailableError("the entry changed meanwhile", retry_after_seconds=1.0)
        self._tokens.keep(identity.entry, audience, svid, now=now)
        return svid

    # What happens by itself

    async def run(self) -> None:
        """Keep identities fresh until cancelled."""
        retry = _FIRST_RETRY_SECONDS
        while True:
            self._wake.clear()
            try:
                wait = await self.step()
                retry = _FIRST_RETRY_SECONDS
            except AuthorizationError as exc:
                _LOG.warning("no identities for this node's workloads: %s", exc)
                self._forget()
                wait = _LAST_RETRY_SECONDS
            except TrothError as exc:
                _LOG.warning("identities cannot be renewed: %s", exc)
                wait = retry
                retry = min(2 * retry, _LAST_RETRY_SECONDS)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def step(self) -> float | None:
        """Do what is due now; return the seconds until there is more to do, or None.

        Raises:
            AuthorizationError, UnavailableError: what the server said; what is held stays.
        """
        if not self._member:
            return None
        epoch = self._epoch
        self._drop_ended()
        if self._bundles_revision < 0:
            self._take_bundles(await self._server.bundles())
        await self._sync(epoch)
        while self._epoch is epoch and (due := self._due()):
            await self._issue(due[:MAX_BATCH], epoch)
        return self._seconds_to_next()

    async def _sync(self, epoch: object) -> None:
        """Read the entries again unless nothing has changed since they were read."""
        key = (epoch, self._wanted_entries)
        if self._synced == key:
            return
        reply = await self._server.workload_entries()
        if self._epoch is not epoch:
            return
        self._wanted_entries = max(self._wanted_entries, reply.revision)
        self._take_entries(reply.entries)
        self._synced, self._ready = (epoch, self._wanted_entries), True
        self._tell()

    def _take_entries(self, entries: Iterable[AgentEntry]) -> None:
        held: dict[str, HeldIdentity] = {}
        for entry in entries:
            known = self._held.get(entry.id)
            if known is None or known.entry.spiffe_id != entry.spiffe_id:
                held[entry.id] = HeldIdentity(entry)
            elif known.entry == entry:
                held[entry.id] = known
            else:
                # With another form it is issued anew; until then the present one serves.
                refresh_at = known.refresh_at if known.entry.form == entry.form else None
                held[entry.id] = HeldIdentity(entry, known.svid, refresh_at, known.chain, known.key)
        self._held = held
        self._order = {entry_id: position for position, entry_id in enumerate(held)}
        self._index = _index(each.entry for each in held.values())
        self.needs_digest = any(
            selector.type == "unix" and selector.value.startswith(_DIGEST)
            for items in self._index.values()
            for _, wanted in items
            for selector in wanted
        )

    async def _issue(self, due: Sequence[HeldIdentity], epoch: object) -> None:
        keys, requests = await asyncio.to_thread(_requests, [held.entry.id for held in due])
        outcomes = await self._server.issue_x509_svids(requests)
        now = self._clock.now()
        for held, key, outcome in zip(due, keys, outcomes, strict=True):
            present = self._held.get(held.entry.id)
            if self._epoch is not epoch or present is None or present.entry.form != held.entry.form:
                continue  # withdrawn or changed while we asked
            try:
                self._held[held.entry.id] = _identity(present.entry, outcome.svid, key, now)
            except DecodeError as exc:
                why = outcome.error or str(exc)
                _LOG.warning("no SVID for entry %s: %s", held.entry.id, why)
                self._held[held.entry.id] = _postponed(present, now)
        self._tell()

    def _due(self) -> list[HeldIdentity]:
        now = self._clock.now()
        due = [
            each for each in self._held.values() if not each.refresh_at or each.refresh_at <= now
        ]
        # Those that nobody can use yet first, then those that end first.
        return sorted(due, key=lambda held: held.svid.not_after if held.svid else _LONG_AGO)

    def _drop_ended(self) -> None:
        now = self._clock.now()
        ended = [h for h in self._held.values() if h.svid is not None and h.svid.not_after <= now]
        for held in ended:
            self._held[held.entry.id] = HeldIdentity(held.entry, refresh_at=held.refresh_at)
        if ended:
            self._tell()

    def _seconds_to_next(self) -> float | None:
        moments = [held.refresh_at for held in self._held.values() if held.refresh_at is not None]
        if not moments:
            return None
        return max((min(moments) - self._clock.now()).total_seconds(), 0.0)

    def _matching(self, selectors: frozenset[Selector]) -> list[HeldIdentity]:
        found = [
            entry
            for selector in selectors
            for entry, wanted in self._index.get(selector, ())
            if wanted <= selectors
        ]
        found.sort(key=lambda entry: self._order[entry.id])
        return [self._held[entry.id] for entry in found]

    def _take_bundles(self, bundles: Bundles) -> None:
        if self._own is None or bundles.revision <= self._bundles_revision:
            return
        try:
            own, foreign = decode_bundles(bundles, self._own.trust_domain)
        except DecodeError as exc:
            _LOG.warning("the server sent bundles that cannot be read: %s", exc)
            return
        self._bundles_revision = bundles.revision
        # Equal ones stay the same objects, so that readers see no change where there is none.
        kept = {d: b if self._foreign.get(d) != b else self._foreign[d] for d, b in foreign.items()}
        self._set_bundles(own, MappingProxyType(kept))

    def _set_bundles(self, own: TrustBundle, foreign: Mapping[TrustDomain, TrustBundle]) -> None:
        if own != self._own:
            self._own = own
            self._tokens.trim({key.key_id for key in own.jwt_authorities})
        self._foreign = foreign
        self._tell()

    @property
    def own_bundle(self) -> TrustBundle | None:
        """The newest bundle of the node's own trust domain."""
        return self._own

    def _forget(self) -> None:
        self._epoch, self._synced = object(), None
        self._take_entries(())
        self._tokens.clear()
        self._bundles_revision = -1
        # It is known that nobody is anybody now; before the first join nothing was known.
        self._ready = self._own is not None
        self._tell()

    def _look_again(self) -> None:
        self._wake.set()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class _Mark:
    """Equal to another mark of the very same objects."""

    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[object, ...]) -> None:
        self._parts = parts

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Mark) or len(self._parts) != len(other._parts):
            return False
        return all(a is b for a, b in zip(self._parts, other._parts, strict=True))

    __hash__ = None  # type: ignore[assignment]  # compared, never a key


def _newer(known: TrustBundle, other: TrustBundle) -> bool:
    return (known.sequence or 0) > (other.sequence or 0)


def _requests(
    entry_ids: Sequence[str],
) -> tuple[list[ec.EllipticCurvePrivateKey], list[SvidRequest]]:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in entry_ids]
    requests = [
        SvidRequest(entry_id=entry_id, csr=_csr(key))
        for entry_id, key in zip(entry_ids, keys, strict=True)
    ]
    return keys, requests


def _csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    # Names are the server's to give; a request is a key and the proof that we hold it.
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _identity(
    entry: AgentEntry, chain: bytes, key: ec.EllipticCurvePrivateKey, now: datetime
) -> HeldIdentity:
    svid = X509Svid.decode(chain, private_key=key)
    if str(svid.spiffe_id) != entry.spiffe_id:
        raise DecodeError(f"is for {svid.spiffe_id}", format="X.509-SVID")
    life = max(svid.not_after - now, _SHORTEST_LIFE)
    return HeldIdentity(
        entry,
        svid,
        now + refresh_after(issued=now, expires=now + life),
        svid.encode_der(),
        svid.encode_private_key(Encoding.DER),
    )


def _postponed(held: HeldIdentity, now: datetime) -> HeldIdentity:
    return HeldIdentity(held.entry, held.svid, now + _REFUSED_RETRY, held.chain, held.key)


def _index(
    entries: Iterable[AgentEntry],
) -> dict[Selector, list[tuple[AgentEntry, frozenset[Selector]]]]:
    """File each entry under its rarest selector: whoever lacks that one need not look at it."""
    wanted = [(entry, frozenset(map(Selector.decode, entry.selectors))) for entry in entries]
    counts = Counter(selector for _, selectors in wanted for selector in selectors)
    index: dict[Selector, list[tuple[AgentEntry, frozenset[Selector]]]] = {}
    for entry, selectors in wanted:
        if selectors:  # an entry without any is for nobody
            index.setdefault(min(selectors, key=counts.__getitem__), []).append((entry, selectors))
    return index


def _distinct_hints(identities: Sequence[HeldIdentity]) -> Iterable[HeldIdentity]:
    """Leave out an identity whose hint an earlier one has (Workload API section 5.2.1)."""
    hints: set[str] = set()
    for held in identities:
        if held.entry.hint and held.entry.hint in hints:
            continue
        hints.add(held.entry.hint)
        yield held
