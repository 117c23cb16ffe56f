# SPDX-License-Identifier: Apache-2.0
"""What is to be put into a configuration, and for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from troth.control_plane.envoy.description import GateSetting

__all__ = ["PatchWish", "Profile"]


class Profile(Enum):
    """How an Envoy comes to attest."""

    GATE = "gate"
    """The module: a fresh proof on each connection, in both directions (binding `key`)."""
    NO_CODE = "no-code"
    """ext_authz and secrets alone: results in certificates (binding `credential`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchWish:
    """What the agent of this Envoy serves and calls.

    Attributes:
        node_id: how Envoy names itself where its configuration does not say.
        xds_socket: where the agent serves secrets, and ext_authz.
        gate: the gate; None makes it the no-code profile.
        inbound: `host:port` that Envoy listens on, to the name of the service there.
        outbound: cluster name to the outbound service's name and its peers' SPIFFE ID.
        leave: names of listeners and clusters that are not of the mesh.
        announce: this node's id in the mesh, for servers that their agents configure; "" leaves
            the server name (SNI) of each cluster as it is.
        access_log: file for Troth's own lines about each patched place; "" for none.
    """

    node_id: str
    xds_socket: Path
    gate: GateSetting | None = None
    inbound: Mapping[str, str] = field(default_factory=dict)
    outbound: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    leave: frozenset[str] = frozenset()
    announce: str = ""
    access_log: str = ""

    @property
    def profile(self) -> Profile:
        """Which profile this is."""
        return Profile.NO_CODE if self.gate is None else Profile.GATE
