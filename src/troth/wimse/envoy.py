# SPDX-License-Identifier: Apache-2.0
"""The configuration by which Envoy has WITs and their proofs checked, behind hops that end TLS.

Envoy's own `jwt_authn` could verify the WIT's signature, but knows no proof of its key: it would
make a bearer token of it. So the whole check is asked of `ext_authz_app`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from troth.identity.request_signature import SIGNATURE_HEADER, SIGNATURE_INPUT_HEADER
from troth.identity.workload_identity_token import WIT_HEADER
from troth.identity.workload_proof_token import WPT_HEADER
from troth.wimse.check import RESULT_HEADER

__all__ = ["PROOF_HEADER", "SUBJECT_HEADER", "TIER_HEADER", "ext_authz_filter"]

SUBJECT_HEADER: Final = "x-wimse-subject"
PROOF_HEADER: Final = "x-wimse-proof"
TIER_HEADER: Final = "x-wimse-tier"

_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
_ASKED: Final = (
    WIT_HEADER,
    WPT_HEADER,
    RESULT_HEADER,
    SIGNATURE_HEADER,
    SIGNATURE_INPUT_HEADER,
    "content-digest",
    "content-type",
    "authorization",
    "txn-token",
)


def ext_authz_filter(
    cluster: str,
    *,
    bound: Sequence[str] = (),
    max_body_bytes: int = 0,
    timeout: timedelta = timedelta(seconds=1),
) -> dict[str, Any]:
    """Return the HTTP filter that asks `cluster` about each request; put it before the router.

    No answer is a refusal. The service behind Envoy reads `x-wimse-subject`, `x-wimse-proof` and
    `x-wimse-tier`, and must be reachable through this Envoy only.

    Args:
        cluster: of Envoy, where `ext_authz_app` listens.
        bound: the `bound` of its check.
        max_body_bytes: how much of a body to hold back and send along; 0 takes no signed bodies.
        timeout: for the answer.
    """
    told = {"patterns": [{"exact": name} for name in (SUBJECT_HEADER, PROOF_HEADER, TIER_HEADER)]}
    config: dict[str, Any] = {
        "@type": _TYPE,
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "allowed_headers": {
            "patterns": [{"exact": n, "ignore_case": True} for n in (*_ASKED, *bound)]
        },
        "http_service": {
            "server_uri": {
                "uri": f"http://{cluster}",
                "cluster": cluster,
                "timeout": f"{timeout.total_seconds():.3f}s",
            },
            "authorization_response": {"allowed_upstream_headers": told},
        },
    }
    if max_body_bytes:
        config["with_request_body"] = {
            "max_request_bytes": max_body_bytes,
            "allow_partial_message": False,
            "pack_as_bytes": True,
        }
    return {"name": "envoy.filters.http.ext_authz", "typed_config": config}
