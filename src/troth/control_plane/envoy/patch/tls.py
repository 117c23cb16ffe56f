# SPDX-License-Identifier: Apache-2.0
"""The TLS contexts of an existing configuration: the agent's secrets, and nothing that outlives them.

- Certificate and key are the node's SVID: a proof is bound to the certificate that TLS showed, so
  no other can be used.
- Whom to trust comes from the agent as well. On servers, SAN matchers about SPIFFE IDs stay, since
  they only narrow; anything that this would widen is left as it is and named.
- No tickets, no session cache: a resumed session would carry an earlier handshake's decision.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from troth.control_plane.envoy.patch.remarks import Remarks, Tree
from troth.control_plane.envoy.static_secrets import (
    CLIENTS_SECRET,
    NODE_SECRET,
    sds_secret,
    servers_secret,
)
from troth.control_plane.envoy.tls_contexts import server_name

__all__ = ["downstream", "upstream"]

_CERTIFICATES: Final = (
    "tls_certificates",
    "tls_certificate_sds_secret_configs",
    "tls_certificate_provider_instance",
    "tls_certificate_certificate_provider",
    "tls_certificate_certificate_provider_instance",
    "custom_tls_certificate_selector",
)
_VALIDATIONS: Final = (
    "validation_context",
    "validation_context_sds_secret_config",
    "combined_validation_context",
    "validation_context_certificate_provider",
    "validation_context_certificate_provider_instance",
)
_TICKETS: Final = ("session_ticket_keys", "session_ticket_keys_sds_secret_config")
# What the agent's secret says in its place; to drop it widens nothing.
_REPLACED: Final = frozenset(
    {
        "trusted_ca",
        "watched_directory",
        "ca_certificate_provider_instance",
        "system_root_certs",
        "max_verify_depth",
        "suppress_client_ca_list",
        "match_typed_subject_alt_names",
    }
)


def downstream(context: Tree, place: str, remarks: Remarks, *, permissive: bool) -> Tree | None:
    """Return the context of a server, or None where it is left or refused; `remarks` says why.

    Args:
        context: a DownstreamTlsContext that requires client certificates. It is not changed.
        place: for the remarks.
        remarks: takes what is found.
        permissive: leave the lowest TLS version as it is, for peers that are not migrated.
    """
    context = copy.deepcopy(context)
    common: Tree = context.setdefault("common_tls_context", {})
    default = _default_validation(common)
    if _insecure(context, common, default, place, remarks):
        return None
    matchers = default.get("match_typed_subject_alt_names") or []
    if not all(_about_spiffe_id(matcher) for matcher in matchers):
        remarks.left(
            place,
            "its SAN matchers name what no SVID has, and without them it would admit more peers",
            "write matchers of san_type URI about SPIFFE IDs, or remove them: the agent's"
            " [[clients]] then decides alone",
        )
        return None
    spiffe = "cert_validator.spiffe" in str(default.get("custom_validator_config", {}).get("name"))
    kept = default.keys() - _REPLACED - ({"custom_validator_config"} if spiffe else set())
    if kept:
        remarks.left(
            place,
            f"its validation uses {', '.join(sorted(kept))}, which Envoy's SPIFFE validator ignores",
            "remove that: the agent's secret validates peers",
        )
        return None
    for key in _TICKETS:
        if context.pop(key, None) is not None:
            remarks.note(place, f"{key} is gone: no session is resumed")
    context["disable_stateless_session_resumption"] = True
    context["disable_stateful_session_resumption"] = True
    _versions(common, minimum=not permissive)
    _own_certificate(common)
    common["combined_validation_context"] = {
        "default_validation_context": (
            {"match_typed_subject_alt_names": matchers} if matchers else {}
        ),
        "validation_context_sds_secret_config": sds_secret(CLIENTS_SECRET),
    }
    return context


def upstream(
    context: Tree, place: str, remarks: Remarks, *, service: str, spiffe_id: str, announce: str = ""
) -> Tree | None:
    """Return the context of a client of the outbound `service`, or None as `downstream`.

    Args:
        context: an UpstreamTlsContext. It is not changed.
        place: for the remarks.
        remarks: takes what is found.
        service: the outbound service.
        spiffe_id: of its servers.
        announce: the node that the server name is to tell of, or "".
    """
    context = copy.deepcopy(context)
    common: Tree = context.setdefault("common_tls_context", {})
    default = _default_validation(common)
    if context.get("allow_renegotiation"):
        remarks.insecure(
            place,
            "allow_renegotiation lets the peer's certificate change after it was attested",
            "remove allow_renegotiation",
        )
        return None
    if _insecure(context, common, default, place, remarks):
        return None
    demanded = {
        matcher["matcher"]["exact"]
        for matcher in default.get("match_typed_subject_alt_names") or []
        if _about_spiffe_id(matcher) and "exact" in matcher["matcher"]
    }
    if demanded and demanded != {spiffe_id}:
        remarks.left(
            place,
            f"it demands {', '.join(sorted(demanded))} and the agent's outbound {service} is"
            f" {spiffe_id}",
            "correct one of them",
        )
        return None
    context["max_session_keys"] = 0
    if announce:
        context["sni"] = server_name(announce)
        context.pop("auto_host_sni", None)
    if context.pop("auto_sni_san_validation", None):
        remarks.note(place, "auto_sni_san_validation is gone: the SPIFFE ID is demanded instead")
    _versions(common, minimum=True)
    _own_certificate(common)
    common["validation_context_sds_secret_config"] = sds_secret(servers_secret(service))
    return context


def _insecure(context: Tree, common: Tree, default: Tree, place: str, remarks: Remarks) -> bool:
    before = len(remarks.found)
    if default.get("trust_chain_verification") == "ACCEPT_UNTRUSTED":
        remarks.insecure(
            place, "it accepts certificates of anybody", "remove trust_chain_verification"
        )
    if default.get("allow_expired_certificate"):
        remarks.insecure(
            place,
            "it accepts expired certificates, and with them results that have ended",
            "remove allow_expired_certificate",
        )
    if common.get("key_log"):
        remarks.insecure(place, "it writes the sessions' secrets to a file", "remove key_log")
    if common.get("custom_handshaker"):
        remarks.insecure(
            place,
            "another handshaker decides what the peer's certificate is",
            "remove custom_handshaker",
        )
    del context
    return len(remarks.found) > before


def _default_validation(common: Tree) -> Tree:
    """Return what the file itself says about validation; a secret's content is not in it."""
    found: Any = common.get("validation_context")
    if not found:
        found = common.get("combined_validation_context", {}).get("default_validation_context")
    return found if isinstance(found, dict) else {}


def _about_spiffe_id(matcher: Any) -> bool:  # noqa: ANN401 - whatever stands in the file
    if not isinstance(matcher, dict) or matcher.get("san_type") != "URI":
        return False
    words = matcher.get("matcher")
    if not isinstance(words, dict):
        return False
    text = words.get("exact", words.get("prefix", ""))
    return isinstance(text, str) and text.startswith("spiffe://")


def _own_certificate(common: Tree) -> None:
    for key in (*_CERTIFICATES, *_VALIDATIONS):
        common.pop(key, None)
    common["tls_certificate_sds_secret_configs"] = [sds_secret(NODE_SECRET)]


def _versions(common: Tree, *, minimum: bool) -> None:
    parameters: Tree = common.setdefault("tls_params", {})
    parameters["tls_maximum_protocol_version"] = "TLSv1_3"
    if minimum:
        parameters["tls_minimum_protocol_version"] = "TLSv1_3"
