# SPDX-License-Identifier: Apache-2.0
"""What this node's proxy should do now: configuration, own SVID and judged peers put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from troth.control_plane.agent.config import AgentConfig, InboundSection, OutboundSection
from troth.control_plane.agent.peers import JudgedPeer
from troth.control_plane.envoy.description import (
    Address,
    AdmittedPeer,
    GateSetting,
    InboundService,
    MeshDescription,
    OutboundService,
    Protocol,
    ProxyIdentity,
)

__all__ = ["Wish", "describe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One description, and which outbound services found nobody to reach."""

    description: MeshDescription
    unreachable: tuple[str, ...]


def describe(
    config: AgentConfig,
    *,
    identity: ProxyIdentity,
    trust_bundles: Mapping[str, bytes],
    peers: Sequence[JudgedPeer],
    generations: Mapping[str, int],
    gate: GateSetting | None = None,
) -> Wish:
    """Return what the proxy should do.

    An outbound service goes to the first admitted node, by node id, that has the wanted SPIFFE ID
    and advertises the service.

    Args:
        config: of this node.
        identity: this node's SVID.
        trust_bundles: trust domain ID to CA certificates, PEM.
        peers: the other nodes, judged.
        generations: node id to a number whose change ends that peer's connections once.
        gate: the gate, or None without one.
    """
    outbound: list[OutboundService] = []
    unreachable: list[str] = []
    for section in config.outbound:
        found = _find(section, peers)
        if found is None:
            unreachable.append(section.name)
        else:
            outbound.append(found)
    called = {service.node_id for service in outbound}
    return Wish(
        description=MeshDescription(
            identity=identity,
            trust_bundles=trust_bundles,
            peers=tuple(
                _admitted(peer, generations.get(peer.member.node_id, 0))
                for peer in peers
                if peer.as_client.admitted or peer.member.node_id in called
            ),
            inbound=tuple(_inbound(section) for section in config.inbound),
            outbound=tuple(outbound),
            access_log=config.envoy.access_log if config.envoy else "",
            log_interval_seconds=(config.envoy.access_log_interval_seconds if config.envoy else 0),
            gate=gate,
        ),
        unreachable=tuple(unreachable),
    )


def _admitted(peer: JudgedPeer, generation: int) -> AdmittedPeer:
    return AdmittedPeer(
        node_id=peer.member.node_id,
        spiffe_id=peer.member.spiffe_id,
        key_pins=(peer.key_pin,) if peer.key_pin else (),
        generation=generation,
        inbound=peer.as_client.admitted,
    )


def _find(section: OutboundSection, peers: Sequence[JudgedPeer]) -> OutboundService | None:
    for peer in peers:
        if not peer.as_server.admitted or peer.member.spiffe_id != section.peer:
            continue
        for service in peer.member.services:
            if service.name == section.name and service.protocol == section.protocol:
                return OutboundService(
                    name=section.name,
                    protocol=Protocol(section.protocol),
                    listen=Address.parse(section.listen, source=f"outbound {section.name}"),
                    node_id=peer.member.node_id,
                    address=Address.parse(service.address, source=f"service {service.name}"),
                )
    return None


def _inbound(section: InboundSection) -> InboundService:
    return InboundService(
        name=section.name,
        protocol=Protocol(section.protocol),
        listen=Address.parse(section.listen, source=f"inbound {section.name}"),
        upstream=Address.parse(section.upstream, source=f"inbound {section.name}"),
    )
