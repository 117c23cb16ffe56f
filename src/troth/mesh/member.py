# SPDX-License-Identifier: Apache-2.0
"""A node as its peers see it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from troth.mesh.node import NodeState, Reason
from troth.mesh.tier import Tier

__all__ = ["MAX_SERVICES", "Member", "Service"]

# A node that advertises more than this is refused: every peer keeps the list in memory.
MAX_SERVICES = 64


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A service that peers can reach through the node's proxy.

    Attributes:
        name: unique on its node.
        protocol: "http" or "tcp".
        address: "host:port" where the node's proxy listens. The node says so; whoever answers
            there still has to show the node's SVID.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
    protocol: Annotated[str, msgspec.Meta(pattern=r"\A(http|tcp)\Z")]
    address: Annotated[
        str, msgspec.Meta(pattern=r"\A(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}\Z")
    ]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What the server tells peers about one node.

    Attributes:
        node_id: the node's name in the mesh, also in the OU of its SVID's subject.
        name: what its operator calls it; a label, not an identity.
        spiffe_id: SPIFFE ID that it is registered for.
        state, reason: where it stands and why.
        generation: raised by every transition; of two messages the higher one is newer.
        tier: assurance tier of its last result, or None before the first.
        key_digest: SHA-256 (hex) of the SubjectPublicKeyInfo in its last SVID, or "".
        deadline: when connections with it have to be gone unless it renews; None without SVID.
        ear: its last minimised Attestation Result as a signed JWT, or "".
        services: what it offers.
        insecure: why its Evidence must not count in production.
    """

    node_id: str
    spiffe_id: str
    state: NodeState
    reason: Reason | None
    generation: int
    name: str = ""
    tier: Tier | None = None
    key_digest: str = ""
    deadline: datetime | None = None
    ear: str = ""
    services: tuple[Service, ...] = ()
    insecure: tuple[str, ...] = ()
