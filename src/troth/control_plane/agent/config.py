# SPDX-License-Identifier: Apache-2.0
"""What an agent is told: one TOML file (reference: docs/reference/agent.md)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from troth.control_plane.config_file import (
    Address,
    HttpsUrl,
    Name,
    OptionalAddress,
    SpiffeIdText,
)
from troth.mesh.peer_policy import PeerRule, ResultModel
from troth.mesh.tier import Tier

__all__ = [
    "AgentConfig",
    "AttesterSection",
    "BrokerSection",
    "EnvoySection",
    "ExtAuthzSection",
    "GateSection",
    "InboundSection",
    "NodeSection",
    "OutboundSection",
    "RuleSection",
    "ServerSection",
    "VerifierSection",
    "WorkloadApiSection",
]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; unknown keys are errors."""


class NodeSection(_Section, frozen=True, kw_only=True):
    """`[node]`: this node. Its SPIFFE ID comes from the server's registration entry.

    Attributes:
        name: shown to operators.
        site: where the node is; the Verifiers of this site are believed by their delegations.
    """

    name: Name
    site: str = ""


class ServerSection(_Section, frozen=True, kw_only=True):
    """`[server]`: where the server is and how it is recognised.

    Attributes:
        url: https address of the server.
        other_urls: addresses of further servers of the trust domain, on the same registry; the agent
            keeps to one that answers.
        trust_bundle: PEM file with the certificate authority of the trust domain.
        spiffe_id: SPIFFE ID that the server's certificate must have.
        bundle_cache: file that the agent keeps the newest bundle in; used at the next start if it
            is younger than `trust_bundle`. Without it an agent that was off during a whole rollover
            of the authority does not know the server any more.
    """

    url: HttpsUrl
    other_urls: list[HttpsUrl] = []
    trust_bundle: str
    spiffe_id: SpiffeIdText
    bundle_cache: str = ""


class AttesterSection(_Section, frozen=True, kw_only=True):
    """`[attester]`: where Evidence comes from.

    Attributes:
        kind: "auto" takes what hardware provides, never the simulator; "tsm" is a confidential
            VM's, "nsm" a Nitro Enclave's; "simulator" is insecure: its keys are in a file.
        device: for the simulator, its device file.
        state: for a TPM, the file that keeps its attestation key.
        tcti: for a TPM, how it is reached.
        registers: for a TPM, what it quotes; empty for the firmware's and boot loader's.
    """

    kind: Literal["auto", "simulator", "tsm", "nsm", "tpm"] = "auto"
    device: str = ""
    state: str = ""
    tcti: str = "device:/dev/tpmrm0"
    registers: list[Annotated[int, msgspec.Meta(ge=0, le=23)]] = []


class OnboardingSection(_Section, frozen=True, kw_only=True):
    """`[onboarding]`: what this machine shows to the server's inventory of devices when it joins.

    Attributes:
        activate: have the TPM's attestation key activated, so that nobody has to register it.
        join_token_file: file with the join token that an operator gave for this machine.
        claim_certificate: PEM file with its IDevID or claim certificate and the intermediates.
        claim_key: PEM file with the private key of that certificate.
    """

    activate: bool = False
    join_token_file: str = ""
    claim_certificate: str = ""
    claim_key: str = ""


class EnvoySection(_Section, frozen=True, kw_only=True):
    """`[envoy]`: how this node's Envoy reaches the agent.

    Attributes:
        xds_socket: Unix socket that the agent serves SDS, LDS and CDS on (at most 107 octets).
        admin_socket: Unix socket for Envoy's own admin interface, written into the bootstrap.
        bootstrap: file that the agent writes for Envoy's `--config-path`; empty for none.
        access_log: file that Envoy writes one JSON line per request or connection to.
        access_log_interval_seconds: also a line about each open connection this often; 0 for none.
        binary: Envoy binary whose descriptors are used; empty for the installed one.
        static: listeners and clusters stand in Envoy's own file (`troth envoy patch` and
            `troth envoy bootstrap --static` make such files): the agent serves secrets alone, and
            decisions by [gate] or [ext_authz].
    """

    xds_socket: str
    admin_socket: str = ""
    bootstrap: str = ""
    access_log: str = ""
    access_log_interval_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0
    binary: str = ""
    static: bool = False


class ExtAuthzSection(_Section, frozen=True, kw_only=True):
    """`[ext_authz]`: decisions about callers for an Envoy that cannot load the gate's module.

    Served on `xds_socket`. Weaker than the gate: by the result in the caller's certificate alone.

    Attributes:
        permissive: let callers without any result in, marked as such. For migration only.
    """

    permissive: bool = False


class GateSection(_Section, frozen=True, kw_only=True):
    """`[gate]`: fresh proofs on every connection, by the module in Envoy. Absent: no gate.

    Attributes:
        socket: Unix socket that the gate reaches the agent on.
        module: the compiled module; empty for the one in this package.
        permissive: let peers without a gate in, marked as such. For migration only.
    """

    socket: str
    module: str = ""
    permissive: bool = False


class WorkloadApiSection(_Section, frozen=True, kw_only=True):
    """`[workload_api]`: identities for processes of this machine, by SPIFFE's Workload API and SDS.

    Attributes:
        socket: Unix socket for processes of every user (at most 107 octets); tell them
            `SPIFFE_ENDPOINT_SOCKET=unix:///…`. Its directory must let them in.
        calls_per_user: calls and connections that one user may have open.
        calls_together: calls that may be open of all users.
        sds: serve Envoy's Secret Discovery Service on the socket too.
        default_svid_name: name in SDS for the first identity of an Envoy.
        default_bundle_name: name in SDS for validation of our own trust domain.
        default_all_bundles_name: name in SDS for validation of all trust domains.
        disable_spiffe_cert_validation: give Envoys plain CA certificates in the place of
            configuration for their SPIFFE validator.
    """

    socket: str
    calls_per_user: Annotated[int, msgspec.Meta(ge=1)] = 2500
    calls_together: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    sds: bool = True
    default_svid_name: str = "default"
    default_bundle_name: str = "ROOTCA"
    default_all_bundles_name: str = "ALL"
    disable_spiffe_cert_validation: bool = False

    @property
    def path(self) -> Path:
        """Where the socket is."""
        return Path(self.socket)


class BrokerSection(_Section, frozen=True, kw_only=True):
    """`[broker]`: SPIFFE's Broker API, for a proxy that acts on behalf of this node's processes.

    Whoever is listed may be any workload of the node.

    Attributes:
        socket: Unix socket, mutual TLS; tell the proxy `SPIFFE_BROKER_SOCKET=unix:///…`.
        callers: SPIFFE IDs of this trust domain that may ask.
    """

    socket: str
    callers: list[SpiffeIdText]

    @property
    def path(self) -> Path:
        """Where the socket is."""
        return Path(self.socket)


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


class RuleSection(_Section, frozen=True, kw_only=True):
    """`[[clients]]` and `[[servers]]`: one way for a peer to be acceptable.

    A peer that calls this node has to meet one of `clients`; one that this node calls has to meet
    one of `servers`. The two are independent, and without a rule nobody is admitted.

    Attributes:
        peers: SPIFFE IDs, or "spiffe://TRUST-DOMAIN/*" for all of a trust domain.
        services: names of the services that the rule is about; none for all. Needs the gate.
        model: "passport" wants an Attestation Result; "svid_only" wants identity alone;
            "background_check" wants fresh Evidence, appraised by the server's Verifier, and "any"
            a passport or, where that is not enough, a background check. Those two need the gate.
        min_tier: lowest assurance tier.
        max_age_seconds: oldest acceptable result; 0 for as long as the result itself lasts.
        verifiers: names of the Verifiers that are believed; `[[verifiers]]` gives their keys.
        allow_warning: also accept results of status "warning".
        allow_degraded: also accept nodes that the server calls degraded.
        allow_insecure: also accept simulators and published test keys. For trials only.
        max_connection_seconds: longest life of a connection; 0 for the tier's default.
    """

    peers: list[str]
    services: list[Name] = []
    model: Literal["passport", "background_check", "any", "svid_only"] = "passport"
    min_tier: Literal["registered", "identified", "measured", "confidential"] = "measured"
    max_age_seconds: Annotated[int, msgspec.Meta(ge=0)] = 0
    verifiers: list[str] = []
    allow_warning: bool = False
    allow_degraded: bool = False
    allow_insecure: bool = False
    max_connection_seconds: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def needs_gate(self) -> bool:
        """Whether only the gate can ask for what this rule wants."""
        return bool(self.services) or self.model in ("background_check", "any")

    def chain_rule(self) -> PeerRule:
        """Return who gets a filter chain where the gate then decides on every connection."""
        return PeerRule(
            peers=tuple(self.peers),
            model=ResultModel.SVID_ONLY,
            allow_degraded=self.allow_degraded,
        )

    def rule(self) -> PeerRule:
        """Return the rule that the mesh decides by."""
        return PeerRule(
            peers=tuple(self.peers),
            model=ResultModel(self.model),
            min_tier=Tier(self.min_tier),
            max_age=timedelta(seconds=self.max_age_seconds) if self.max_age_seconds else None,
            verifiers=frozenset(self.verifiers),
            require_affirming=not self.allow_warning,
            allow_degraded=self.allow_degraded,
            allow_insecure=self.allow_insecure,
            max_connection_age=(
                timedelta(seconds=self.max_connection_seconds)
                if self.max_connection_seconds
                else None
            ),
        )


class VerifierSection(_Section, frozen=True, kw_only=True):
    """`[[verifiers]]`: a Verifier whose results this node can check.

    Attributes:
        name: what rules call it.
        keys: file with its result keys (JWKS, JWK or PEM); empty to take those that the server
            of `[server]` publishes.
        delegation: file that says what the Verifier may judge, made by `troth delegation create`;
            `keys` are then those of who signed it. It is read again at each renewal.
        elsewhere: believe it although its delegation is for another site than `node.site`.
    """

    name: str
    keys: str = ""
    delegation: str = ""
    elsewhere: bool = False


class MetricsSection(_Section, frozen=True, kw_only=True):
    """`[metrics]`: what the agent counts, for Prometheus, over plain HTTP. Absent: not served.

    Attributes:
        listen: "host:port"; 127.0.0.1 keeps it on the machine. Port 0 takes a free one, which the
            line that says the agent is ready names.
    """

    listen: str = "127.0.0.1:9464"


class AgentConfig(_Section, frozen=True, kw_only=True):
    """The whole file."""

    node: NodeSection
    server: ServerSection
    attester: AttesterSection
    onboarding: OnboardingSection = OnboardingSection()
    envoy: EnvoySection | None = None
    gate: GateSection | None = None
    ext_authz: ExtAuthzSection | None = None
    workload_api: WorkloadApiSection | None = None
    broker: BrokerSection | None = None
    metrics: MetricsSection | None = None
    inbound: list[InboundSection] = []
    outbound: list[OutboundSection] = []
    clients: list[RuleSection] = []
    servers: list[RuleSection] = []
    verifiers: list[VerifierSection] = []
