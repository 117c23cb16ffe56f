# SPDX-License-Identifier: Apache-2.0
"""The gate's side of one agent: what it shows, what it demands, and whose connections must end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from troth.clock import Clock, SystemClock
from troth.control_plane.agent.config import AgentConfig, GateSection
from troth.control_plane.agent.gate_sides import GateSides
from troth.control_plane.agent.peers import JudgedPeer
from troth.control_plane.agent.ports import Membership
from troth.control_plane.agent.trust import AgentTrust
from troth.control_plane.envoy.description import GateSetting
from troth.control_plane.gate import MODULE_PATH
from troth.control_plane.gate.connection import GateSide, OwnSide
from troth.control_plane.gate.frames import GateRole
from troth.control_plane.gate.service import GateService, LiveConnection
from troth.evidence.attester import Attester
from troth.formats.keys import VerificationKey
from troth.mesh.member import Member
from troth.mesh.passport import TrustedVerifier
from troth.mesh.peer_policy import Decision, Peer, authorize
from troth.tls.core.certificate import MAX_OWN_CERTIFICATES
from troth.tls.credentials import Credentials
from troth.tls.judge import BackgroundCheck

__all__ = ["AgentGate"]


class AgentGate:
    """Holds the gate service and keeps it to the agent's present knowledge."""

    def __init__(
        self,
        config: AgentConfig,
        section: GateSection,
        *,
        attester: Attester,
        trust: AgentTrust,
        check: BackgroundCheck | None = None,
        clock: Clock | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """Prepare; `service` is to be started by the owner.

        Args:
            config: the node's.
            section: its gate.
            attester: makes this node's Evidence, where a peer wants some.
            trust: whom to believe.
            check: whom to ask about a peer's Evidence; may be set until the first `adopt`.
            clock: time.
            registry: for metrics.
        """
        self._config = config
        self._section = section
        self._attester = attester
        self.check = check
        self._clock = clock or SystemClock()
        self._bundles = trust
        self._own: OwnSide | None = None
        self._verifiers: Sequence[TrustedVerifier] = ()
        self._members: dict[str, Member] = {}
        self._heard = False
        self._sides: dict[GateRole, GateSides] = {}
        self._called = {section.name: section.peer for section in config.outbound}
        self.service = GateService(
            path=Path(section.socket),
            own=lambda: self._own,
            sides=self._find,
            clock=self._clock,
            registry=registry,
        )

    @property
    def setting(self) -> GateSetting:
        """What Envoy is told."""
        return GateSetting(
            module=self._section.module or str(MODULE_PATH),
            agent_socket=self._section.socket,
            permissive=self._section.permissive,
        )

    def adopt(self, membership: Membership, verifiers: Sequence[TrustedVerifier]) -> None:
        """Show this membership from now on, and believe these Verifiers."""
        self._verifiers = verifiers
        newest = membership.svid.fingerprint
        before = self._own.shown if self._own is not None else ()
        shown = (newest, *(digest for digest in before if digest != newest))
        self._own = OwnSide(
            credentials=Credentials(
                svid=membership.svid, bundles=self._bundles, attester=self._attester
            ),
            shown=shown[:MAX_OWN_CERTIFICATES],
        )
        for role, rules in (
            (GateRole.SERVER, self._config.clients),
            (GateRole.CLIENT, self._config.servers),
        ):
            self._sides[role] = GateSides(
                rules,
                verifiers=verifiers,
                bundles=self._bundles,
                known=self._one_member,
                check=self.check,
            )

    def result_keys(self, name: str) -> Sequence[VerificationKey]:
        """Return the keys of the Verifier that rules call `name`; none before the first join."""
        return [key for each in self._verifiers if each.name == name for key in each.keys]

    def withdraw(self) -> None:
        """Show nothing any more: this node is no member."""
        self._own = None

    async def settle(self, judged: Sequence[JudgedPeer], *, heard: bool, now: datetime) -> bool:
        """End what must end and extend what may live on, after something changed.

        Args:
            judged: every other member and this node's decisions about it.
            heard: whether the feed has said anything yet; before that nothing is ended for being
                unknown.
            now: aware UTC.

        Returns:
            True when the gates have acknowledged every end.
        """
        self._members = {peer.member.node_id: peer.member for peer in judged}
        self._heard = heard
        by_key = {peer.key_pin: peer for peer in judged if peer.key_pin}
        by_name: dict[str, list[JudgedPeer]] = {}
        for peer in judged:
            by_name.setdefault(peer.member.spiffe_id, []).append(peer)
        for live in self.service.live():
            if (holder := by_key.get(live.key_digest)) is not None:
                self._extend(live, holder, now)

        def must_end(live: LiveConnection) -> bool:
            if self._own is None:
                return True
            if live.key_digest:
                known = by_key.get(live.key_digest)
                return heard if known is None else not _decision(known, live).admitted
            # Known by its SPIFFE ID alone: it goes when no member of that name may stay.
            same = by_name.get(live.spiffe_id, [])
            return heard and bool(same) and not any(_decision(p, live).admitted for p in same)

        return await self.service.close_where(must_end, "the peer is no longer admitted")

    def _extend(self, live: LiveConnection, peer: JudgedPeer, now: datetime) -> None:
        """Let a connection live on where a newer result about the same key meets the policy."""
        held, passport = live.peer, peer.passport
        if held is None or held.result is None or passport is None or peer.member.deadline is None:
            return
        if passport.ear.issued_at <= held.result.issued_at:
            return
        side = self._side(live.role, live.service, live.spiffe_id)
        if side is None or side.judge.policy.model == "background_check":
            return
        decision = authorize(
            Peer(
                spiffe_id=live.spiffe_id,
                svid_not_after=peer.member.deadline,
                result=passport.result,
            ),
            side.judge.policy.peer_policy(""),
            now=now,
        )
        if decision.admitted and decision.deadline is not None:
            extended = replace(held, result=passport.ear, decision=decision)
            self.service.extend_where(lambda each: each is live, decision.deadline, extended)

    def _find(self, role: GateRole, service: str, peer: str) -> GateSide | None:
        # A client's gate asks before anybody has answered: the configuration says whom it calls.
        wanted = self._called.get(service, "") if role is GateRole.CLIENT else peer
        return self._side(role, service, wanted)

    def _side(self, role: GateRole, service: str, spiffe_id: str) -> GateSide | None:
        sides = self._sides.get(role)
        return sides.find(spiffe_id, service) if sides is not None and spiffe_id else None

    def _one_member(self, spiffe_id: str) -> Member | None:
        found = [m for m in self._members.values() if m.spiffe_id == spiffe_id]
        return found[0] if len(found) == 1 else None


def _decision(peer: JudgedPeer, live: LiveConnection) -> Decision:
    return peer.as_client if live.role is GateRole.SERVER else peer.as_server
