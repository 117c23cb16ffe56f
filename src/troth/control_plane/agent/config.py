# SPDX-License-Identifier: Apache-2.0
"""What an agent is told: one TOML file (reference: docs/reference/agent.md)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from troth.control_plane.config_file import (
    Address,
    HttpsUrl,
    Name,
    OptionalAddress,
    SpiffeIdText,
)

__all__ = [
    "AgentConfig",
    "AttesterSection",
    "EnvoySection",
    "InboundSection",
    "NodeSection",
    "OutboundSection",
    "PeerPolicySection",
    "ServerSection",
]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; unknown keys are errors."""


class NodeSection(_Section, frozen=True, kw_only=True):
    """`[node]`: name shown to operators. The SPIFFE ID comes from the server's registration entry."""

    name: Name


class ServerSection(_Section, frozen=True, kw_only=True):
    """`[server]`: where the server is and how it is recognised.

    Attributes:
        url: https address of the server.
        trust_bundle: PEM file with the certificate authority of the trust domain.
        spiffe_id: SPIFFE ID that the server's certificate must have.
    """

    url: HttpsUrl
    trust_bundle: str
    spiffe_id: SpiffeIdText


class AttesterSection(_Section, frozen=True, kw_only=True):
    """`[attester]`: where Evidence comes from.

    Attributes:
        kind: "simulator" is insecure: its keys are in a file.
        device: for the simulator, its device file.
    """

    kind: Literal["simulator"] = "simulator"
    device: str = ""


class EnvoySection(_Section, frozen=True, kw_only=True):
    """`[envoy]`: how this node's Envoy reaches the agent.

    Attributes:
        xds_socket: Unix socket that the agent serves SDS, LDS and CDS on (at most 107 octets).
        admin_socket: Unix socket for Envoy's own admin interface, written into the bootstrap.
        bootstrap: file that the agent writes for Envoy's `--config-path`; empty for none.
        access_log: file that Envoy writes one JSON line per request or connection to.
        binary: Envoy binary whose descriptors are used; empty for the installed one.
    """

    xds_socket: str
    admin_socket: str = ""
    bootstrap: str = ""
    access_log: str = ""
    binary: str = ""


class InboundSection(_Section, frozen=True, kw_only=True):
    """`[[inbound]]`: a local service that peers may call.

    Attributes:
        name: service name, unique on this node; peers ask for it by this name.
        protocol: "http" (HTTP/1.1, HTTP/2, WebSocket, gRPC) or "tcp".
        listen: address that Envoy accepts attested connections on.
        upstream: address of the service itself.
        advertise: address that peers connect to, where it differs from `listen`.
    """

    name: Name
    protocol: Literal["http", "tcp"] = "http"
    listen: Address
    upstream: Address
    advertise: OptionalAddress = ""


class OutboundSection(_Section, frozen=True, kw_only=True):
    """`[[outbound]]`: a peer's service that local programs call.

    Attributes:
        name: service name as the peer advertises it.
        peer: SPIFFE ID of the peer.
        protocol: as the peer's.
        listen: plain-text address for the local programs; keep it on loopback.
    """

    name: Name
    peer: SpiffeIdText
    protocol: Literal["http", "tcp"] = "http"
    listen: Address


class PeerPolicySection(_Section, frozen=True, kw_only=True):
    """`[peer_policy]`: what a peer must show, in both directions. Without it nobody is admitted.

    Attributes:
        model: "passport" wants an affirming Attestation Result; "svid_only" wants identity alone.
        min_tier: lowest assurance tier.
        max_age_seconds: oldest acceptable result; 0 for as long as the result itself lasts.
        peers: SPIFFE IDs that may call this node's inbound services; "*" for any of the trust
            domain that meets the rest.
    """

    model: Literal["passport", "svid_only"] = "passport"
    min_tier: Literal["registered", "identified", "measured", "confidential"] = "measured"
    max_age_seconds: Annotated[int, msgspec.Meta(ge=0)] = 0
    peers: list[str] = []


class AgentConfig(_Section, frozen=True, kw_only=True):
    """The whole file."""

    node: NodeSection
    server: ServerSection
    attester: AttesterSection
    envoy: EnvoySection
    inbound: list[InboundSection] = []
    outbound: list[OutboundSection] = []
    peer_policy: PeerPolicySection | None = None
