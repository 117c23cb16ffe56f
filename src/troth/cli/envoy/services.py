# SPDX-License-Identifier: Apache-2.0
"""What an Envoy is for: the agent's configuration, a list of services, or both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from troth.cli.envoy.files import read_envoy_file
from troth.control_plane.agent.config import AgentConfig, GateSection, InboundSection
from troth.control_plane.config_file import Address as AddressText
from troth.control_plane.config_file import Name, SpiffeIdText, convert_config, load_config
from troth.control_plane.envoy.description import Address, GateSetting, Protocol
from troth.control_plane.envoy.patch.wish import PatchWish, Profile
from troth.control_plane.envoy.static import (
    StaticInbound,
    StaticMesh,
    StaticOutbound,
    outbound_cluster,
)
from troth.control_plane.gate import MODULE_PATH
from troth.errors import ConfigurationError

__all__ = ["EnvoyPlan", "ListedServices", "load_plan"]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; unknown keys are errors."""


class ListedOutbound(_Table, frozen=True, kw_only=True):
    """A peer's service, with where it is.

    Attributes:
        name: as in the agent's `[[outbound]]`.
        listen: where local programs connect to.
        endpoints: where its peers' Envoys listen.
        peer: SPIFFE ID; may be absent where the agent's configuration has it.
        protocol: "http", "http2" or "tcp".
        server_name: SNI to announce.
    """

    name: Name
    listen: AddressText
    endpoints: list[AddressText]
    peer: SpiffeIdText | None = None
    protocol: Protocol = Protocol.HTTP
    server_name: str = ""


class ListedServices(_Table, frozen=True, kw_only=True):
    """The file of `--services`. The first five stand for what an agent's configuration says.

    Attributes:
        node: name of the node.
        xds_socket: where the agent serves secrets.
        gate_socket: where it serves the gate; absent: no gate.
        admin_socket: for Envoy's admin interface.
        access_log: file for Envoy's lines.
        inbound: local services for peers.
        outbound: peers' services.
    """

    node: Name | None = None
    xds_socket: str = ""
    gate_socket: str = ""
    admin_socket: str = ""
    access_log: str = ""
    inbound: list[InboundSection] = []
    outbound: list[ListedOutbound] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyPlan:
    """Everything that generating or patching has to know.

    Attributes:
        node: name of the node.
        xds_socket: the agent's.
        admin_socket: for Envoy's admin interface.
        access_log: a file, or "".
        gate: the gate, or None.
        inbound: services for peers.
        outbound: peers' services, those whose endpoints are known.
        peers: outbound service to SPIFFE ID, all that are known.
        unknown_to_agent: outbound services that the agent's configuration lacks.
        missing: what else the agent's configuration lacks for an Envoy with a file of its own.
    """

    node: str
    xds_socket: Path
    admin_socket: Path
    access_log: str
    gate: GateSetting | None
    inbound: tuple[InboundSection, ...]
    outbound: tuple[ListedOutbound, ...]
    peers: dict[str, str]
    unknown_to_agent: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def wish(
        self,
        *,
        clusters: dict[str, str] | None = None,
        leave: frozenset[str] = frozenset(),
        announce: str = "",
    ) -> PatchWish:
        """Return the wish to patch by.

        Args:
            clusters: cluster name to outbound service, where they differ.
            leave: names that are not of the mesh.
            announce: this node's id, for servers that their agents configure.

        Raises:
            ConfigurationError: a cluster is said to lead to a service that is not known.
        """
        named = {name: name for name in self.peers} | {
            outbound_cluster(name): name for name in self.peers
        }
        for cluster, service in (clusters or {}).items():
            if service not in self.peers:
                raise ConfigurationError(
                    source="--server",
                    value=f"{cluster}={service}",
                    accepted=f"an outbound service of the agent: {', '.join(self.peers) or 'none'}",
                )
            named[cluster] = service
        return PatchWish(
            node_id=self.node,
            xds_socket=self.xds_socket,
            gate=self.gate,
            inbound={each.listen: each.name for each in self.inbound},
            outbound={name: (service, self.peers[service]) for name, service in named.items()},
            leave=leave,
            announce=announce,
            access_log=self.access_log,
        )

    def agent_lacks(self) -> list[str]:
        """Return what has to be added to the agent's configuration, a line each."""
        services = [
            f'[[outbound]] name = "{name}", peer = "{self.peers[name]}"'
            for name in self.unknown_to_agent
        ]
        return [*self.missing, *services]

    def mesh(self) -> StaticMesh:
        """Return the services to generate a whole configuration for."""
        return StaticMesh(
            inbound=[
                StaticInbound(
                    name=each.name,
                    protocol=Protocol(each.protocol),
                    listen=Address.parse(each.listen, source=f"inbound {each.name}"),
                    upstream=Address.parse(each.upstream, source=f"inbound {each.name}"),
                )
                for each in self.inbound
            ],
            outbound=[
                StaticOutbound(
                    name=each.name,
                    protocol=each.protocol,
                    listen=Address.parse(each.listen, source=f"outbound {each.name}"),
                    endpoints=[
                        Address.parse(text, source=f"outbound {each.name}")
                        for text in each.endpoints
                    ],
                    server_name=each.server_name,
                )
                for each in self.outbound
            ],
            admin_socket=self.admin_socket,
            access_log=self.access_log,
        )


def load_plan(
    config: Path | None, services: Path | None, *, profile: Profile | None = None
) -> EnvoyPlan:
    """Read the agent's configuration, the list of services, or both; the list wins.

    Args:
        config: TOML file.
        services: YAML file.
        profile: the wanted one; None takes the gate where one is configured.

    Raises:
        ConfigurationError: neither is given, something is missing, or a peer is not known.
    """
    agent = load_config(config, AgentConfig) if config is not None else None
    listed = (
        convert_config(read_envoy_file(services), ListedServices, source=str(services))
        if services is not None
        else ListedServices()
    )
    if agent is None and services is None:
        raise ConfigurationError(
            source="troth envoy", accepted="--config AGENT.TOML, --services SERVICES.YAML, or both"
        )
    section = agent.envoy if agent is not None else None
    xds = listed.xds_socket or (section.xds_socket if section else "")
    node = listed.node or (agent.node.name if agent is not None else "")
    for key, value in (("xds_socket", xds), ("node", node)):
        if not value:
            raise ConfigurationError(
                source=str(services or config), key=key, accepted="a value: nothing says it"
            )
    told = {each.name: each.peer for each in agent.outbound} if agent is not None else {}
    peers = dict(told)
    for each in listed.outbound:
        if each.peer is not None:
            peers[each.name] = each.peer
        elif each.name not in peers:
            raise ConfigurationError(
                source=str(services),
                key=f"outbound.{each.name}.peer",
                accepted="the SPIFFE ID of its peers",
            )
    return EnvoyPlan(
        node=node,
        xds_socket=Path(xds),
        admin_socket=Path(
            listed.admin_socket or (section.admin_socket if section else "") or f"{xds}.admin"
        ),
        access_log=listed.access_log or (section.access_log if section else ""),
        gate=_gate(agent.gate if agent is not None else None, listed.gate_socket, profile),
        inbound=tuple(listed.inbound or (agent.inbound if agent is not None else ())),
        outbound=tuple(listed.outbound),
        peers=peers,
        unknown_to_agent=tuple(
            each.name for each in listed.outbound if told.get(each.name) != peers[each.name]
        ),
        missing=_missing(agent, profile),
    )


def _missing(agent: AgentConfig | None, profile: Profile | None) -> tuple[str, ...]:
    if agent is None:
        return ()
    missing = []
    if agent.envoy is None or not agent.envoy.static:
        missing.append("[envoy] static = true")
    gated = agent.gate is not None and profile is not Profile.NO_CODE
    if not gated and agent.ext_authz is None:
        missing.append("[ext_authz]")
    return tuple(missing)


def _gate(section: GateSection | None, socket: str, profile: Profile | None) -> GateSetting | None:
    if profile is Profile.NO_CODE:
        return None
    socket = socket or (section.socket if section else "")
    if not socket:
        if profile is Profile.GATE:
            raise ConfigurationError(
                source="troth envoy", key="gate.socket", accepted="the agent's socket for the gate"
            )
        return None
    return GateSetting(
        module=(section.module if section else "") or str(MODULE_PATH),
        agent_socket=socket,
        permissive=section.permissive if section else False,
    )
