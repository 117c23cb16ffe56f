# SPDX-License-Identifier: Apache-2.0
"""The port of what issues SVIDs for this trust domain, as the join uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from troth.control_plane.server.csr import NodeKey
from troth.mesh.join_messages import BundleMessage

__all__ = ["IssuedCertificate", "SvidIssuer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A new X.509-SVID.

    Attributes:
        chain: PEM, leaf first.
        serial: certificate serial number in hex.
        key_digest: SHA-256 (hex) of its SubjectPublicKeyInfo.
        not_after: end of its validity.
    """

    chain: str = field(repr=False)
    serial: str
    key_digest: str
    not_after: datetime


class SvidIssuer(Protocol):
    """Issues for whoever it is told to: the caller has checked that the node may have it."""

    def issue(
        self,
        *,
        spiffe_id: str,
        node_id: str,
        generation: int,
        key: NodeKey,
        ear: str,
        not_after: datetime,
        now: datetime,
    ) -> IssuedCertificate:
        """Return an SVID that ends at `not_after` at the latest and carries `ear`."""
        ...

    def bundle(self) -> BundleMessage:
        """Return the trust bundle."""
        ...
