# SPDX-License-Identifier: Apache-2.0
"""What one proxy should do, in the mesh's words and not yet in Envoy's.

A `MeshDescription` is the whole wish at one moment. `resources.MeshResources` turns it into
Envoy's resources. Withdrawing a peer means: the same description without that `AdmittedPeer`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from troth.errors import ConfigurationError, DecodeError
from troth.identity.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Address",
    "AdmittedPeer",
    "GateSetting",
    "InboundService",
    "MeshDescription",
    "OutboundService",
    "Protocol",
    "ProxyIdentity",
    "trust_domain_id",
]

# Names go into Envoy's statistics, log lines and file names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MAX_NODE_ID_BYTES = 256
_SHOWN = 300
# sockaddr_un.sun_path is 108 bytes with its final NUL (unix(7)).
MAX_UNIX_PATH_BYTES = 107


class Protocol(Enum):
    """What the application speaks."""

    HTTP = "http"
    """HTTP/1.1 and WebSocket, and gRPC over clear-text HTTP/2. Clients may use either version."""
    HTTP2 = "http2"
    """Clear-text HTTP/2 with prior knowledge for everything, gRPC or not."""
    TCP = "tcp"
    """Any byte stream."""


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen on or to connect to.

    Attributes:
        host: an IP address or, to connect to, a DNS name; the path where `port` is None.
        port: TCP port; 0 to listen on a port that the system picks; None for a Unix socket.
    """

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str, *, source: str = "address") -> Address:
        """Read `host:port`, `[ipv6]:port` or `unix:/path`.

        Raises:
            ConfigurationError: `text` is none of these, or the path is too long for a socket.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            size = len(path.encode())
            if path.startswith("/") and size <= MAX_UNIX_PATH_BYTES and "\0" not in path:
                return cls(path)
            raise ConfigurationError(
                source=source,
                value=text,
                accepted=f"unix: and an absolute path of at most {MAX_UNIX_PATH_BYTES} bytes",
            )
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if (
            colon
            and (bracketed or ":" not in host)
            and re.fullmatch(r"[A-Za-z0-9._:%-]+", host)
            and re.fullmatch(r"[0-9]{1,5}", port)
            and int(port) <= 0xFFFF
        ):
            return cls(host, int(port))
        raise ConfigurationError(
            source=source, value=text, accepted="host:port, [IPv6 address]:port or unix:/path"
        )

    @property
    def is_numeric(self) -> bool:
        """Whether no name has to be resolved to use it."""
        if self.port is None:
            return True
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ProxyIdentity:
    """Who this proxy is.

    Attributes:
        node_id: the registry's name of the node.
        spiffe_id: the URI SAN of its X.509-SVID.
        certificate_chain: the SVID and its intermediates, PEM.
        private_key: PKCS #8, PEM. Kept out of `repr`.
    """

    node_id: str
    spiffe_id: str
    certificate_chain: bytes
    private_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_node_id(self.node_id)
        trust_domain_id(self.spiffe_id)


@dataclass(frozen=True, slots=True)
class AdmittedPeer:
    """A node that may connect to us, and that we may connect to.

    Attributes:
        node_id: the registry's name of the node. Its own proxy announces it (as a digest, in the
            server name of the TLS handshake), so that each node has a filter chain to itself.
        spiffe_id: the only URI SAN that is accepted from it.
        key_pins: SHA-256 digests of the SubjectPublicKeyInfo that its certificate may have; empty
            to accept any key that its trust domain certified for `spiffe_id`. Two nodes that share
            a SPIFFE ID are told apart by nothing else here.
        generation: any change of it ends the peer's connections once and keeps it admitted: how a
            connection that reached its deadline is ended.
        inbound: whether it may connect to us; without it, only we may connect to it.
    """

    node_id: str
    spiffe_id: str
    key_pins: tuple[bytes, ...] = ()
    generation: int = 0
    inbound: bool = True

    def __post_init__(self) -> None:
        _check_node_id(self.node_id)
        trust_domain_id(self.spiffe_id)
        if any(len(pin) != 32 for pin in self.key_pins):
            raise ConfigurationError(
                source=f"peer {self.node_id}", key="key_pins", accepted="SHA-256 digests, 32 bytes"
            )


@dataclass(frozen=True, slots=True)
class InboundService:
    """A local application that admitted peers may reach.

    Attributes:
        name: its name, the same in the whole mesh.
        protocol: what it speaks.
        listen: where peers connect to.
        upstream: where the application listens.
        forward_certificate: also hand the peer's certificate to an HTTP application, in the
            header `x-forwarded-client-cert` (2 to 4 KB in each request).
        request_timeout_seconds: how long an HTTP request may take as a whole; 0 for no limit,
            which streaming responses need.
    """

    name: str
    protocol: Protocol
    listen: Address
    upstream: Address
    forward_certificate: bool = False
    request_timeout_seconds: float = 0

    def __post_init__(self) -> None:
        _check_service(self.name, self.request_timeout_seconds)
        _check_listen(self.name, self.listen)


@dataclass(frozen=True, slots=True)
class OutboundService:
    """A peer's application that local ones may reach, through a listener of ours.

    Attributes:
        name: a name of its own among our outbound services.
        protocol: what the local client speaks.
        listen: where local clients connect to. Anyone who can connect there speaks as this node:
            give it a loopback address or a Unix socket.
        node_id: the peer. Nothing is set up while that peer is not admitted.
        address: where the peer's proxy listens.
        request_timeout_seconds: as for `InboundService`.
    """

    name: str
    protocol: Protocol
    listen: Address
    node_id: str
    address: Address
    request_timeout_seconds: float = 0

    def __post_init__(self) -> None:
        _check_service(self.name, self.request_timeout_seconds)
        _check_listen(self.name, self.listen)
        _check_node_id(self.node_id)


@dataclass(frozen=True, slots=True)
class GateSetting:
    """Where the gate's module and its agent are.

    Attributes:
        module: path of the compiled module, absolute.
        agent_socket: Unix socket of the agent's gate service.
        exchange_ms: how long a connection may take from accept to opened.
        permissive: let peers without a gate in, marked `troth.status=none`. For migration only.
    """

    module: str
    agent_socket: str
    exchange_ms: int = 10_000
    permissive: bool = False

    def __post_init__(self) -> None:
        if not self.module.startswith("/"):
            raise ConfigurationError(
                source="gate", key="module", value=self.module, accepted="an absolute path"
            )
        socket = self.agent_socket
        # It stands in the filter's configuration, which is words.
        if not socket.startswith("/") or any(c.isspace() or c == ";" for c in socket):
            raise ConfigurationError(
                source="gate",
                key="socket",
                value=socket,
                accepted="an absolute path without white space or semicolons",
            )


@dataclass(frozen=True, slots=True)
class MeshDescription:
    """Everything one proxy should do at this moment.

    Attributes:
        identity: who it is.
        trust_bundles: trust domain ID (`spiffe://example.org`) to its CA certificates, PEM.
        peers: who may talk with it. Nobody listed means nobody.
        inbound: local applications for peers.
        outbound: peers' applications for local clients.
        access_log: file that Envoy appends access log lines to; "" for none.
        log_certificates: whether the lines carry the peer's whole certificate (about 2 KB each).
        log_interval_seconds: also write a line about each open TCP connection, and each attested
            connection to a peer, this often; 0 for one line at its end.
        gate: the gate, or None for a mesh whose binding is `credential`.

    Raises:
        ConfigurationError: two entries have one name, or a peer's trust domain has no bundle.
    """

    identity: ProxyIdentity
    trust_bundles: Mapping[str, bytes]
    peers: tuple[AdmittedPeer, ...] = ()
    inbound: tuple[InboundService, ...] = ()
    outbound: tuple[OutboundService, ...] = ()
    access_log: str = ""
    log_certificates: bool = True
    log_interval_seconds: float = 0
    gate: GateSetting | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "trust_bundles", MappingProxyType(dict(self.trust_bundles)))
        for key, names in (
            ("peers", [peer.node_id for peer in self.peers]),
            ("inbound", [service.name for service in self.inbound]),
            ("outbound", [service.name for service in self.outbound]),
        ):
            repeated = {name for name in names if names.count(name) > 1}
            if repeated:
                raise ConfigurationError(
                    source="mesh description",
                    key=key,
                    value=", ".join(sorted(repeated)),
                    accepted="each name once",
                )
        for peer in self.peers:
            domain = trust_domain_id(peer.spiffe_id)
            if not self.trust_bundles.get(domain):
                raise ConfigurationError(
                    source="mesh description",
                    key=f"peers.{peer.node_id}",
                    value=peer.spiffe_id,
                    accepted=f"a peer whose trust domain has a bundle; {domain} has none",
                )


def trust_domain_id(spiffe_id: str) -> str:
    """Return the ID of the trust domain of `spiffe_id`, such as `spiffe://example.org`.

    Raises:
        ConfigurationError: `spiffe_id` is not a SPIFFE ID (SPIFFE-ID §2).
    """
    try:
        decoded = SpiffeId.decode(spiffe_id)
    except DecodeError as exc:
        raise ConfigurationError(
            source="SPIFFE ID",
            value=spiffe_id[:_SHOWN],
            accepted=f"spiffe://trust-domain/path ({exc})",
        ) from exc
    return str(decoded.trust_domain.id)


def _check_node_id(node_id: str) -> None:
    size = len(node_id.encode())
    if not 0 < size <= _MAX_NODE_ID_BYTES or not node_id.isprintable():
        raise ConfigurationError(
            source="node id",
            value=node_id[:_SHOWN],
            accepted=f"1 to {_MAX_NODE_ID_BYTES} bytes of printable text",
        )


def _check_service(name: str, timeout_seconds: float) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            source="service name",
            value=name[:_SHOWN],
            accepted="1 to 63 letters, digits, dots, underscores and hyphens",
        )
    if not 0 <= timeout_seconds < 1e9:
        raise ConfigurationError(
            source=f"service {name}",
            key="request_timeout_seconds",
            value=str(timeout_seconds),
            accepted="seconds, or 0 for no limit",
        )


def _check_listen(name: str, listen: Address) -> None:
    if not listen.is_numeric:
        raise ConfigurationError(
            source=f"service {name}",
            key="listen",
            value=str(listen),
            accepted="an IP address and port, or unix:/path",
        )
