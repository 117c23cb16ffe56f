# SPDX-License-Identifier: Apache-2.0
"""Responses of Workload API and Broker API, which carry the same in messages of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from troth.control_plane.protobuf_schema import ProtobufSchema
from troth.control_plane.workload_api.identities import WorkloadView
from troth.identity.trust_bundle import TrustBundle

__all__ = ["jwt_bundles", "x509_bundles", "x509_svids"]


def x509_svids(
    view: WorkloadView, schema: ProtobufSchema, *, response: str = "X509SVIDResponse"
) -> Any:  # noqa: ANN401 - classes made at run time
    """Return every SVID that is there, with keys and bundles."""
    bundle = _der(view.own)
    kind = schema["X509SVID"]
    svids = [
        kind(
            spiffe_id=held.entry.spiffe_id,
            x509_svid=held.chain,
            x509_svid_key=held.key,
            bundle=bundle,
            hint=held.entry.hint,
        )
        for held in view.identities
        if held.svid is not None
    ]
    return schema[response](svids=svids, federated_bundles=_foreign(view))


def x509_bundles(view: WorkloadView, response: Any) -> Any:  # noqa: ANN401 - classes made at run time
    """Return the X.509 authorities by trust domain."""
    return response(bundles={str(view.own.trust_domain.id): _der(view.own), **_foreign(view)})


def jwt_bundles(view: WorkloadView, response: Any) -> Any:  # noqa: ANN401 - classes made at run time
    """Return the JWT authorities by trust domain, as JWK Sets without keys of other uses."""
    bundles = [view.own, *view.federated.values()]
    return response(bundles={str(each.trust_domain.id): _jwks(each) for each in bundles})


def _foreign(view: WorkloadView) -> dict[str, bytes]:
    return {str(domain.id): _der(bundle) for domain, bundle in view.federated.items()}


def _der(bundle: TrustBundle) -> bytes:
    return b"".join(each.public_bytes(Encoding.DER) for each in bundle.x509_authorities)


def _jwks(bundle: TrustBundle) -> bytes:
    # A JWK Set by RFC 7517 alone: what SPIFFE puts beside the keys belongs to its bundles.
    return replace(bundle, x509_authorities=(), sequence=None, refresh_hint_seconds=None).encode()
