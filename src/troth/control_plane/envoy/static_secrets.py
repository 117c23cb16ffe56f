# SPDX-License-Identifier: Apache-2.0
"""The secrets of an Envoy whose listeners and clusters stand in a file of its own.

Such a file is written once, so the names in it are fixed: it says "this node", "those who may
call" and "whoever serves PAYMENTS", and the agent fills in who that is at the moment.

======================  ==========================================================================
secret                  content
======================  ==========================================================================
`troth/node`            certificate and key of this node
`troth/clients`         validation of callers: each trust domain by its own bundle, nothing else.
                        Which of them may call is the gate's or ext_authz's decision
`troth/servers/NAME`    validation of the peers of the outbound service NAME: their trust domain's
                        bundle, their SPIFFE ID exactly, and the keys of the nodes that are admitted
======================  ==========================================================================
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from troth.control_plane.envoy.bootstrap import AGENT_CLUSTER
from troth.control_plane.envoy.description import ProxyIdentity, trust_domain_id

__all__ = [
    "CLIENTS_SECRET",
    "NODE_SECRET",
    "StaticServer",
    "sds_secret",
    "servers_secret",
    "static_secrets",
]

NODE_SECRET: Final = "troth/node"  # noqa: S105 - a name
CLIENTS_SECRET: Final = "troth/clients"  # noqa: S105 - a name
# No key has this digest, so a context that pins it lets nobody in. Envoy takes an empty list of
# pins for no pins at all.
_NOBODY: Final = bytes(32)
_FETCH_TIMEOUT: Final = "5s"
_SPIFFE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticServer:
    """One outbound service, as far as TLS has to know it.

    Attributes:
        name: the outbound service's.
        spiffe_id: the only one that its servers may have.
        key_pins: SHA-256 of the SubjectPublicKeyInfo of each admitted server; none admits nobody.
    """

    name: str
    spiffe_id: str
    key_pins: Sequence[bytes]


def servers_secret(service: str) -> str:
    """Return the name of the secret that validates the peers of an outbound service."""
    return f"troth/servers/{service}"


def static_secrets(
    identity: ProxyIdentity,
    trust_bundles: Mapping[str, bytes],
    servers: Sequence[StaticServer],
) -> tuple[dict[str, object], ...]:
    """Return every secret.

    A server whose trust domain has no bundle is left out: Envoy then refuses it.

    Args:
        identity: this node's.
        trust_bundles: trust domain ID to its CA certificates, PEM.
        servers: the outbound services.
    """
    node: dict[str, object] = {
        "name": NODE_SECRET,
        "tls_certificate": {
            "certificate_chain": _inline(identity.certificate_chain),
            "private_key": _inline(identity.private_key),
        },
    }
    clients: dict[str, object] = {
        "name": CLIENTS_SECRET,
        "validation_context": _clients(trust_bundles),
    }
    found: list[dict[str, object]] = [node, clients]
    for server in servers:
        bundle = trust_bundles.get(trust_domain_id(server.spiffe_id))
        if bundle:
            context = _server(server, bundle)
            found.append({"name": servers_secret(server.name), "validation_context": context})
    return tuple(found)


def sds_secret(name: str) -> dict[str, object]:
    """Return where Envoy gets the secret `name`: from the agent, on a stream of its own."""
    return {
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": _FETCH_TIMEOUT,
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": AGENT_CLUSTER,
                            "retry_policy": {
                                "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}
                            },
                        }
                    }
                ],
            },
        },
    }


def _clients(trust_bundles: Mapping[str, bytes]) -> dict[str, object]:
    # One list of authorities would let each trust domain vouch for the others' peers; Envoy's
    # SPIFFE validator takes each certificate by the bundle of its own trust domain.
    return {
        "custom_validator_config": {
            "name": "envoy.tls.cert_validator.spiffe",
            "typed_config": {
                "@type": _SPIFFE,
                "trust_domains": [
                    {"name": domain.removeprefix("spiffe://"), "trust_bundle": _inline(pem)}
                    for domain, pem in sorted(trust_bundles.items())
                ],
            },
        }
    }


def _server(server: StaticServer, bundle: bytes) -> dict[str, object]:
    return {
        "trusted_ca": _inline(bundle),
        "match_typed_subject_alt_names": [
            {"san_type": "URI", "matcher": {"exact": server.spiffe_id}}
        ],
        "verify_certificate_spki": sorted(
            base64.b64encode(pin).decode() for pin in server.key_pins or (_NOBODY,)
        ),
    }


def _inline(data: bytes) -> dict[str, object]:
    return {"inline_bytes": base64.b64encode(data).decode()}
