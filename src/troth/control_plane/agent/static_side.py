# SPDX-License-Identifier: Apache-2.0
"""The agent's side towards an Envoy whose listeners and clusters stand in a file of its own.

It gets secrets, which say who this node is and whom it may call, and decisions about callers: by
the gate where there is one, else by ext_authz. What it has cannot be taken back as listeners can:
a node that is no member any more pins its outbound services to nobody and refuses every caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from troth.control_plane.agent.config import AgentConfig
from troth.control_plane.agent.gate_sides import GateSides
from troth.control_plane.agent.peers import JudgedPeer
from troth.control_plane.envoy.description import ProxyIdentity, trust_domain_id
from troth.control_plane.envoy.patch.listeners import MAX_UNGATED_SECONDS
from troth.control_plane.envoy.resources import MeshResources
from troth.control_plane.envoy.static_secrets import StaticServer, static_secrets
from troth.control_plane.ext_authz.decision import CertificateJudge
from troth.identity.trust_bundle import TrustBundleSource
from troth.mesh.passport import TrustedVerifier
from troth.tls.judge import Judge

__all__ = ["StaticSide"]

_log = structlog.get_logger("troth.agent")


class StaticSide:
    """Secrets and ext_authz decisions, from what the agent knows at the moment."""

    def __init__(self, config: AgentConfig, *, trust: TrustBundleSource) -> None:
        """Prepare; before `adopt` nobody is admitted."""
        self._config = config
        self._trust = trust
        self._sides: GateSides | None = None
        self._judge: CertificateJudge | None = None
        self._own_domain = ""
        self._judged: Sequence[JudgedPeer] = ()
        self._heard = False
        self._last: tuple[ProxyIdentity, Mapping[str, bytes]] | None = None
        self._admitted: set[tuple[bytes, str]] = set()
        self._withdrawn_at: datetime | None = None
        if config.ext_authz is not None and config.ext_authz.permissive:
            _log.warning("permissive: callers without an Attestation Result are let in")

    def judge(self) -> CertificateJudge | None:
        """Return who judges callers; None while this node is no member."""
        return self._judge

    def adopt(self, spiffe_id: str, verifiers: Sequence[TrustedVerifier]) -> None:
        """This node is a member with this SPIFFE ID; believe these Verifiers from now on."""
        self._own_domain = trust_domain_id(spiffe_id)
        self._sides = GateSides(
            self._config.clients, verifiers=verifiers, bundles=self._trust, known=lambda _: None
        )
        section = self._config.ext_authz
        self._judge = CertificateJudge(
            self._trust,
            find=self._find,
            veto=self._veto,
            permissive=section is not None and section.permissive,
        )

    def withdraw(self) -> None:
        """This node is no member any more."""
        self._judge = None

    def resources(
        self,
        identity: ProxyIdentity,
        trust_bundles: Mapping[str, bytes],
        judged: Sequence[JudgedPeer],
        *,
        heard: bool,
        now: datetime,
    ) -> MeshResources:
        """Return the secrets of the moment, and keep in mind who was judged how.

        Args:
            identity: this node's.
            trust_bundles: trust domain ID to CA certificates, PEM.
            judged: the other members.
            heard: whether the feed has said anything yet.
            now: aware UTC.
        """
        self._judged, self._heard = judged, heard
        self._note_withdrawals(now)
        self._last = identity, trust_bundles
        admitted: dict[str, list[bytes]] = {}
        for peer in judged:
            if peer.as_server.admitted and peer.key_pin:
                admitted.setdefault(peer.member.spiffe_id, []).append(peer.key_pin)
        return self._secrets(admitted)

    def unsettled_seconds(self, now: datetime) -> float:
        """Return how long a connection of a peer that was withdrawn may still live without a gate.

        That is the bound which patching gives connections. A new agent does not know what its
        Envoy had open before, and counts from its own beginning.
        """
        if self._withdrawn_at is None:
            return 0.0
        end = self._withdrawn_at + timedelta(seconds=MAX_UNGATED_SECONDS)
        return max(0.0, (end - now).total_seconds())

    def _note_withdrawals(self, now: datetime) -> None:
        admitted = {
            (peer.key_pin, role)
            for peer in self._judged
            for role, decision in (("client", peer.as_client), ("server", peer.as_server))
            if decision.admitted
        }
        if self._withdrawn_at is None or self._admitted - admitted:
            self._withdrawn_at = now
        self._admitted = admitted

    def withdrawn(self) -> MeshResources:
        """Return the secrets of a node that is no member: it reaches nobody, and admits nobody."""
        self.withdraw()
        return self._secrets({})

    def _secrets(self, admitted: Mapping[str, Sequence[bytes]]) -> MeshResources:
        if self._last is None:
            return MeshResources(secrets=(), clusters=(), listeners=())
        servers = [
            StaticServer(
                name=section.name,
                spiffe_id=section.peer,
                key_pins=admitted.get(section.peer, ()),
            )
            for section in self._config.outbound
        ]
        return MeshResources(
            secrets=static_secrets(*self._last, servers), clusters=(), listeners=()
        )

    def _find(self, spiffe_id: str) -> Judge | None:
        side = self._sides.find(spiffe_id, "") if self._sides is not None else None
        return side.judge if side is not None else None

    def _veto(self, key_digest: bytes, spiffe_id: str, has_result: bool) -> str:  # noqa: FBT001 - the port's order
        """Say why the feed speaks against a caller: it is told of withdrawals before results end."""
        if not self._heard or trust_domain_id(spiffe_id) != self._own_domain:
            return ""
        same_key = [peer for peer in self._judged if peer.key_pin == key_digest]
        same_name = [peer for peer in self._judged if peer.member.spiffe_id == spiffe_id]
        # A node's certificate carries a result and is known by its key; a workload's by its name.
        found = same_key or same_name
        if has_result and not same_key:
            return f"no member of the mesh has the key of this {spiffe_id}"
        if not found or any(peer.as_client.admitted for peer in found):
            return ""
        return (
            "; ".join(str(objection) for peer in found for objection in peer.as_client.objections)
            or f"{spiffe_id} is no longer admitted"
        )
