# SPDX-License-Identifier: Apache-2.0
"""The TLS part of the generated configuration, and the secrets it names.

- TLS 1.3 only; both sides send a certificate.
- No resumption in either role: a resumed session would carry an earlier handshake's decision.
- The peer's chain must end at the CA certificates of *its* trust domain and its certificate must
  hold exactly the expected SPIFFE ID. Each peer has a context of its own, so a trust domain can
  vouch only for its own peers although the validation is Envoy's ordinary one (`trusted_ca`), not
  its SPIFFE validator. The ordinary one is chosen because it alone also honours key pins and CRLs,
  and because its refusals name the rule that failed.
- Certificate, key and CA certificates come by SDS: a rotation touches no listener and no
  connection.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from troth.control_plane.envoy.description import trust_domain_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from troth.control_plane.envoy.description import AdmittedPeer, ProxyIdentity

__all__ = ["ADS", "downstream_tls", "secrets", "server_name", "upstream_tls"]

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
# How long a listener or cluster waits for a secret that does not come. After it, the listener
# takes part without that secret, which means: its handshakes fail.
_FETCH_TIMEOUT = "5s"

ADS: Mapping[str, object] = {"ads": {}, "resource_api_version": "V3"}


def secrets(
    identity: ProxyIdentity, trust_bundles: Mapping[str, bytes]
) -> tuple[dict[str, object], ...]:
    """Return the SDS secrets: our certificate, named by our SPIFFE ID, and one per trust domain."""
    own: dict[str, object] = {
        "name": identity.spiffe_id,
        "tls_certificate": {
            "certificate_chain": {"inline_bytes": _base64(identity.certificate_chain)},
            "private_key": {"inline_bytes": _base64(identity.private_key)},
        },
    }
    return (own, *(_bundle(domain, pem) for domain, pem in sorted(trust_bundles.items())))


def downstream_tls(own_id: str, peer: AdmittedPeer, *, alpn: tuple[str, ...]) -> dict[str, object]:
    """Return the transport socket of the inbound filter chain of `peer`."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}DownstreamTlsContext",
            "require_client_certificate": True,
            "disable_stateless_session_resumption": True,
            "disable_stateful_session_resumption": True,
            "common_tls_context": _common(own_id, peer, alpn),
        },
    }


def upstream_tls(
    own_id: str, own_node_id: str, peer: AdmittedPeer, *, alpn: tuple[str, ...]
) -> dict[str, object]:
    """Return the transport socket of the cluster of `peer`; it announces `own_node_id`."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}UpstreamTlsContext",
            "sni": server_name(own_node_id),
            "max_session_keys": 0,
            "common_tls_context": _common(own_id, peer, alpn),
        },
    }


def server_name(node_id: str) -> str:
    """Return the server name (SNI) by which the node `node_id` announces itself.

    The name selects the filter chain; it proves nothing. The chain then demands the certificate
    of that node, so a false name ends in a failed handshake. It goes over the wire in clear text,
    hence the digest; `.internal` is reserved for private use and cannot be registered.
    """
    digest = hashlib.sha256(b"troth node " + node_id.encode()).digest()[:20]
    return f"{base64.b32encode(digest).decode().lower()}.node.troth.internal"


def _common(own_id: str, peer: AdmittedPeer, alpn: tuple[str, ...]) -> dict[str, object]:
    validation: dict[str, object] = {
        "match_typed_subject_alt_names": [
            {"san_type": "URI", "matcher": {"exact": peer.spiffe_id}}
        ],
        # The list of acceptable CAs would tell strangers which trust domains we deal with.
        "suppress_client_ca_list": True,
    }
    if peer.key_pins:
        validation["verify_certificate_spki"] = sorted(_base64(pin) for pin in peer.key_pins)
    common: dict[str, object] = {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificate_sds_secret_configs": [_secret(own_id)],
        "combined_validation_context": {
            "default_validation_context": validation,
            "validation_context_sds_secret_config": _secret(trust_domain_id(peer.spiffe_id)),
        },
    }
    if alpn:
        common["alpn_protocols"] = list(alpn)
    return common


def _bundle(domain: str, pem: bytes) -> dict[str, object]:
    return {"name": domain, "validation_context": {"trusted_ca": {"inline_bytes": _base64(pem)}}}


def _secret(name: str) -> dict[str, object]:
    return {"name": name, "sds_config": {**ADS, "initial_fetch_timeout": _FETCH_TIMEOUT}}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
