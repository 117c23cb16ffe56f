# SPDX-License-Identifier: Apache-2.0
"""One node's agent: join, renew, follow the feed, and keep the proxy to what follows from it.

Everything the proxy does is a function of three things: this node's SVID, what the feed says of
the others, and the clock. Whenever one of them changes, the whole wish is described anew and
applied; equal wishes disturb nothing.

- No SVID: the proxy gets nothing, so it listens nowhere.
- A refusal at renewal wipes the SVID at once; a server that cannot be reached does not, the SVID
  then ends by itself.
- Without the gate, a connection ends at the deadline of the decision it was admitted on, although
  its peer has renewed meanwhile: the peer's chain is replaced once at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as pseudo_random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from troth.clock import Clock, SystemClock
from troth.control_plane.agent.config import AgentConfig, RuleSection
from troth.control_plane.agent.peers import JudgedPeer, PeerTable
from troth.control_plane.agent.ports import Membership, MeshProxy, MeshServer
from troth.control_plane.agent.trust import AgentTrust
from troth.control_plane.agent.wish import describe
from troth.control_plane.envoy.description import MeshDescription, ProxyIdentity
from troth.control_plane.envoy.resources import MeshResources
from troth.errors import AuthorizationError, FreshnessError, TrothError, UnavailableError
from troth.evidence.attester import Attester
from troth.formats.keys import VerificationKey, load_keys
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.event import Bundles, Event, FeedMessage, FeedNotice
from troth.mesh.member import Service
from troth.mesh.node import PERMISSIONS
from troth.mesh.passport import TrustedVerifier
from troth.mesh.peer_policy import PeerPolicy
from troth.mesh.renewal import LAST_RETRY_SECONDS, retry_seconds

if TYPE_CHECKING:
    # What an agent does without it does not load.
    from troth.control_plane.agent.agent_gate import AgentGate
    from troth.control_plane.agent.delegations import DelegationFiles
    from troth.control_plane.agent.metrics import AgentMetrics
    from troth.control_plane.agent.static_side import StaticSide
    from troth.control_plane.agent.workload_side import WorkloadSide

__all__ = ["NodeAgent"]

_log = structlog.get_logger("troth.agent")

_REFUSED_RETRY_SECONDS = 30.0
_APPLY_SECONDS = 10.0
_APPLY_RETRY_SECONDS = 1.0


class NodeAgent:
    """The agent of one node. `run` returns only by cancellation or by a refusal at the start."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        server: MeshServer,
        proxy: MeshProxy,
        attester: Attester,
        verifier_keys: dict[str, Sequence[VerificationKey]] | None = None,
        delegations: DelegationFiles | None = None,
        gate: AgentGate | None = None,
        static: StaticSide | None = None,
        trust: AgentTrust | None = None,
        workloads: WorkloadSide | None = None,
        metrics: AgentMetrics | None = None,
        on_bundle: Callable[[TrustBundle], None] | None = None,
        clock: Clock | None = None,
        on_joined: Callable[[Membership], None] | None = None,
    ) -> None:
        """Put an agent together; nothing happens before `run`.

        Args:
            config: the node's configuration.
            server: the server to join.
            proxy: this node's proxy.
            attester: makes this node's Evidence.
            verifier_keys: result keys from files, by the Verifier's name.
            delegations: the Verifiers that are believed within bounds.
            gate: the gate's side, where the configuration has a gate; its service is started.
            static: what the proxy gets where its listeners and clusters are its own.
            trust: whom to believe; the gate's too, where there is one.
            workloads: serves the node's workloads; is started.
            metrics: counts what happens.
            on_bundle: told each new bundle of our trust domain.
            clock: time.
            on_joined: told once, after the first join.
        """
        self._config = config
        self._server = server
        self._proxy = proxy
        self._attester = attester
        self._gate, self._workloads, self._static = gate, workloads, static
        self._trust = trust or AgentTrust()
        self._metrics = metrics
        self._on_bundle = on_bundle
        server.on_notice = self._notice
        self._verifier_keys = dict(verifier_keys or {})
        self._delegations = delegations
        self._clock = clock or SystemClock()
        self._on_joined = on_joined
        # One key for the agent's life: peers pin it, so a renewal must not change it.
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._membership: Membership | None = None
        self._table: PeerTable | None = None
        self._cuts: dict[str, tuple[int, datetime]] = {}
        self._changed = asyncio.Event()
        self._acknowledged = -1
        # The server took this node's membership away: ask again at once.
        self._excluded = asyncio.Event()
        # Whether every proxy is known to have the last wish in effect.
        self._settled = False

    async def run(self) -> None:
        """Join, then serve until cancelled.

        Raises:
            AuthorizationError: the server refused this node at the start; the error has the
                findings as far as the server tells them.
        """
        membership = await self._join_at_start()
        self._adopt(membership)
        if self._on_joined is not None:
            self._on_joined(membership)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew())
            tasks.create_task(self._follow())
            tasks.create_task(self._keep_proxy())
            if self._workloads is not None:
                tasks.create_task(self._workloads.run())

    async def _join_at_start(self) -> Membership:
        attempt = 0
        while True:
            try:
                return await self._join()
            except (UnavailableError, FreshnessError) as exc:
                attempt += 1
                self._count_failure(exc)
                wait = _retry_seconds(exc, attempt)
                _log.warning("cannot join yet", why=str(exc), retry_in_seconds=round(wait, 1))
                await asyncio.sleep(wait)

    async def _join(self) -> Membership:
        membership = await self._server.join(
            self._attester,
            self._key,
            node_name=self._config.node.name,
            services=[
                Service(
                    name=section.name,
                    protocol=section.protocol,
                    address=section.advertise or section.listen,
                )
                for section in self._config.inbound
            ],
        )
        await self._load_result_keys()
        return membership

    async def _load_result_keys(self) -> None:
        """Take the server's result keys for the Verifiers that have none from a file."""
        wanted = [v.name for v in self._config.verifiers if not (v.keys or v.delegation)]
        if not wanted:
            return
        published = load_keys(await self._server.result_keys(), source="the server's result keys")
        for name in wanted:
            self._verifier_keys[name] = published

    def _notice(self, notice: FeedNotice) -> None:
        """Take what the feed says beside its messages."""
        if isinstance(notice, Bundles) and self._trust.take(notice):
            self._believe()
        if self._workloads is not None:
            self._workloads.notice(notice)

    def _believe(self) -> None:
        """The bundle of our trust domain, or of another, has changed."""
        own = self._trust.own
        if own is None:
            return
        self._server.believe(own.encode_pem().decode("ascii"))
        if self._workloads is not None:
            self._workloads.believe(own)
        if self._on_bundle is not None:
            self._on_bundle(own)
        self._changed.set()

    def _adopt(self, membership: Membership) -> None:
        self._membership = membership
        if self._metrics is not None:
            self._metrics.joined(membership)
        if self._trust.adopt(membership.bundle):
            self._believe()
        if self._workloads is not None:
            self._workloads.adopt(membership)
        if self._table is None:
            self._table = PeerTable(
                own_node_id=membership.node_id,
                clients=self._policy(self._config.clients),
                servers=self._policy(self._config.servers),
            )
        self._table.own_node_id = membership.node_id
        self._table.verifiers = self._believed()
        if self._gate is not None:
            self._gate.adopt(membership, self._table.verifiers)
        if self._static is not None:
            self._static.adopt(str(membership.spiffe_id), self._table.verifiers)
        _log.info(
            "member",
            node_id=membership.node_id,
            spiffe_id=str(membership.spiffe_id),
            expires=membership.expires.isoformat(),
        )
        self._changed.set()

    def _believed(self) -> Sequence[TrustedVerifier]:
        believed = [
            TrustedVerifier(name=name, keys=keys) for name, keys in self._verifier_keys.items()
        ]
        if self._delegations is not None:
            believed += self._delegations.believed(now=self._clock.now())
        return believed

    def _policy(self, rules: Sequence[RuleSection]) -> PeerPolicy:
        # Behind the gate a chain is only the way to it: each connection is decided on there.
        if self._gate is not None:
            return PeerPolicy(rules=tuple(rule.chain_rule() for rule in rules))
        return PeerPolicy(rules=tuple(rule.rule() for rule in rules))

    async def _renew(self) -> None:
        attempt = 0
        wait = _spread(self._refresh_seconds())
        while True:
            await self._wait_to_renew(wait)
            try:
                self._adopt(await self._join())
            except (UnavailableError, FreshnessError) as exc:
                attempt += 1
                self._count_failure(exc)
                wait = _retry_seconds(exc, attempt)
                _log.warning("renewal failed", why=str(exc), retry_in_seconds=round(wait, 1))
            except AuthorizationError as exc:
                self._count_failure(exc)
                self._lose_membership()
                wait = _spread(_REFUSED_RETRY_SECONDS)
                _log.error("no longer a member", why=str(exc), what_to_do=exc.remedy)
            except TrothError as exc:
                self._count_failure(exc)
                wait = _spread(LAST_RETRY_SECONDS)
                _log.error("renewal failed", why=str(exc), what_to_do=exc.remedy)
            else:
                attempt = 0
                wait = _spread(self._refresh_seconds())

    def _count_failure(self, exc: TrothError) -> None:
        if self._metrics is not None:
            self._metrics.failed(exc)

    def _lose_membership(self) -> None:
        self._membership = None
        if self._metrics is not None:
            self._metrics.lost()
        if self._gate is not None:
            self._gate.withdraw()
        if self._static is not None:
            self._static.withdraw()
        if self._workloads is not None:
            self._workloads.withdraw()
        self._changed.set()

    async def _wait_to_renew(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._excluded.wait()
        self._excluded.clear()

    def _look_at_own(self, message: FeedMessage) -> None:
        """Act on the server's word that this node may have no SVID any more."""
        membership = self._membership
        if (
            membership is not None
            and isinstance(message, Event)
            and message.member.node_id == membership.node_id
            and PERMISSIONS[message.member.state].svid == "no"
        ):
            _log.error("membership was taken away", state=message.member.state.value)
            self._lose_membership()
            self._excluded.set()

    def _refresh_seconds(self) -> float:
        return self._membership.refresh_after.total_seconds() if self._membership else 0.0

    async def _follow(self) -> None:
        while True:
            after = self._table.sequence if self._table and self._table.sequence >= 0 else None
            try:
                async for message in self._server.feed(after):
                    self._look_at_own(message)
                    if self._table is not None and self._table.apply(
                        message, now=self._clock.now()
                    ):
                        self._changed.set()
                    if self._metrics is not None and self._table is not None:
                        self._metrics.heard(self._table.sequence, now=self._clock.now())
                    await self._acknowledge_unchanged()
            except TrothError as exc:
                # Not allowed (any more), or not our server: what is known ages until it lapses.
                _log.warning("the feed is closed to us", why=str(exc))
            await asyncio.sleep(_spread(1.0))

    async def _acknowledge_unchanged(self) -> None:
        """Acknowledge events that change nothing for this node's proxy."""
        if self._table is not None and self._settled and not self._changed.is_set():
            await self._acknowledge(self._table.sequence)

    async def _keep_proxy(self) -> None:
        while True:
            self._changed.clear()
            self._settled = False
            now = self._clock.now()
            sequence = self._table.sequence if self._table else -1
            judged = self._table.judge(now=now) if self._table else []
            if self._metrics is not None:
                self._metrics.judged(judged)
            resources, wake = self._resources(judged, now)
            applying = asyncio.create_task(self._apply(resources, sequence, judged))
            try:
                await self._wait_for_change(wake)
            finally:
                # What was published stays published; only the waiting for it ends.
                applying.cancel()
                await asyncio.wait({applying})

    async def _apply(
        self, resources: MeshResources, sequence: int, judged: Sequence[JudgedPeer]
    ) -> None:
        settling = asyncio.create_task(self._settle_gate(judged, heard=sequence >= 0))
        try:
            await self._proxy.apply(resources, timeout_seconds=_APPLY_SECONDS)
        except UnavailableError as exc:
            _log.debug("no proxy has it yet", why=str(exc))
        except TrothError as exc:
            _log.error("the proxy refuses its configuration", why=str(exc))
        else:
            if await settling:
                if self._static is not None and self._gate is None:
                    # Nobody can end what is open: it is in force when all of that has ended.
                    await asyncio.sleep(self._static.unsettled_seconds(self._clock.now()))
                self._settled = True
                await self._acknowledge(sequence)
                return
            _log.warning("a gate has not acknowledged the end of every connection")
        await asyncio.sleep(_APPLY_RETRY_SECONDS)
        self._changed.set()

    async def _settle_gate(self, judged: Sequence[JudgedPeer], *, heard: bool) -> bool:
        if self._gate is None:
            return True
        return await self._gate.settle(judged, heard=heard, now=self._clock.now())

    async def _acknowledge(self, sequence: int) -> None:
        if sequence <= self._acknowledged:
            return
        with contextlib.suppress(TrothError):
            await self._server.acknowledge(sequence)
            self._acknowledged = sequence

    def _resources(
        self, judged: Sequence[JudgedPeer], now: datetime
    ) -> tuple[MeshResources, datetime | None]:
        """Return what the proxy gets now, and when that changes by itself."""
        membership = self._membership
        if membership is None or now >= membership.expires:
            if self._static is not None:
                return self._static.withdrawn(), None
            return MeshResources(secrets=(), clusters=(), listeners=()), None
        wish = describe(
            self._config,
            identity=ProxyIdentity(
                node_id=membership.node_id,
                spiffe_id=str(membership.spiffe_id),
                certificate_chain=membership.svid.encode_pem(),
                private_key=membership.svid.encode_private_key(serialization.Encoding.PEM),
            ),
            trust_bundles=self._trust.pem_by_domain(),
            peers=judged,
            generations=self._generations(judged, now),
            gate=self._gate.setting if self._gate is not None else None,
        )
        self._say(wish.description, judged, wish.unreachable)
        moments = [membership.expires, *(at for _, at in self._cuts.values())]
        if self._table is not None and (lapse := self._table.next_change(judged, now=now)):
            moments.append(lapse)
        wake = min(m for m in moments if m > now)
        if self._static is not None:
            described = wish.description
            heard = self._table is not None and self._table.sequence >= 0
            secrets = self._static.resources(
                described.identity, described.trust_bundles, judged, heard=heard, now=now
            )
            return secrets, wake
        return MeshResources.build(wish.description), wake

    def _generations(self, judged: Sequence[JudgedPeer], now: datetime) -> dict[str, int]:
        """Return each admitted peer's generation; it grows when its connections have to end.

        The gate ends each connection at its own deadline, so with it no chain has to be replaced.
        """
        if self._gate is not None:
            return {}
        cuts: dict[str, tuple[int, datetime]] = {}
        for peer in judged:
            if peer.deadline is None:
                continue
            generation, cut_at = self._cuts.get(peer.member.node_id, (0, peer.deadline))
            if now >= cut_at:
                generation, cut_at = generation + 1, peer.deadline
            cuts[peer.member.node_id] = (generation, cut_at)
        self._cuts = cuts
        return {node_id: generation for node_id, (generation, _) in cuts.items()}

    def _say(
        self, wish: MeshDescription, judged: Sequence[JudgedPeer], unreachable: Sequence[str]
    ) -> None:
        _log.info(
            "peers",
            admitted=[peer.node_id for peer in wish.peers],
            refused={
                peer.member.node_id: "; ".join(
                    str(objection)
                    for objection in (*peer.as_client.objections, *peer.as_server.objections)
                )
                or peer.objection
                for peer in judged
                if not peer.as_client.admitted and not peer.as_server.admitted
            },
            unreachable=list(unreachable),
        )

    async def _wait_for_change(self, at: datetime | None) -> None:
        seconds = None if at is None else max((at - self._clock.now()).total_seconds(), 0.0)
        # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


def _retry_seconds(exc: TrothError, attempt: int) -> float:
    told = exc.retry_after_seconds if isinstance(exc, UnavailableError) else None
    # Jitter spreads a fleet's load; it protects nothing.
    return retry_seconds(attempt, told=told, jitter=pseudo_random.random())  # noqa: S311 - see above


def _spread(seconds: float) -> float:
    # Jitter spreads a fleet's load; it protects nothing.
    return seconds * pseudo_random.uniform(0.8, 1.0)  # noqa: S311 - see above
