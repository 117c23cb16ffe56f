# SPDX-License-Identifier: Apache-2.0
"""What Workload API and Broker API refuse alike."""

from __future__ import annotations

from collections.abc import Iterable

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from troth.control_plane.workload_api.identities import (
    HeldIdentity,
    WorkloadIdentities,
    WorkloadView,
)
from troth.errors import AuthorizationError, DecodeError, TrothError
from troth.identity.jwt_svid import check_audience
from troth.identity.spiffe_id import SpiffeId

__all__ = ["jwt_svids", "requested_audience", "require_identity"]


def require_identity(view: WorkloadView, *, with_svid: bool = False) -> None:
    """Refuse who has no identity; with `with_svid` also who has none with an X.509-SVID.

    Raises:
        GRPCError: PERMISSION_DENIED.
    """
    if not any(held.svid is not None or not with_svid for held in view.identities):
        raise GRPCError(Status.PERMISSION_DENIED, "no identity issued")


def requested_audience(audience: Iterable[str]) -> tuple[str, ...]:
    """Return the audience of a request, checked.

    Raises:
        GRPCError: INVALID_ARGUMENT.
    """
    try:
        return check_audience(list(audience))
    except DecodeError as exc:
        raise GRPCError(Status.INVALID_ARGUMENT, f"audience: {exc}") from exc


async def jwt_svids(
    identities: WorkloadIdentities, view: WorkloadView, spiffe_id: str, audience: tuple[str, ...]
) -> list[tuple[HeldIdentity, str]]:
    """Return tokens for the identity that is asked for, or for all.

    Raises:
        GRPCError: PERMISSION_DENIED, INVALID_ARGUMENT or UNAVAILABLE.
    """
    require_identity(view)
    chosen = view.identities
    if spiffe_id:
        try:
            wanted = SpiffeId.decode(spiffe_id)
        except DecodeError as exc:
            raise GRPCError(Status.INVALID_ARGUMENT, f"spiffe_id: {exc}") from exc
        chosen = tuple(held for held in chosen if held.spiffe_id == wanted)
        if not chosen:
            raise GRPCError(Status.PERMISSION_DENIED, f"not entitled to {wanted}")
    tokens = []
    for held in chosen:
        try:
            svid = await identities.jwt_svid(held, audience)
        except AuthorizationError as exc:
            raise GRPCError(Status.PERMISSION_DENIED, "no identity issued") from exc
        except TrothError as exc:
            raise GRPCError(Status.UNAVAILABLE, "no JWT-SVID can be had now") from exc
        tokens.append((held, svid.token))
    return tokens
