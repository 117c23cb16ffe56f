# SPDX-License-Identifier: Apache-2.0
"""Placements: workloads and secrets for members of one class of a Logical TEE, and for nobody else.

What a node is to do follows from its standing alone: an admitted member runs the workload and is
given its secrets; a degraded one keeps what it has and is given nothing; everybody else drains,
which is to stop the workload and delete what was given.

A node's word that it has drained is worth what the node is: secrets that a node has had have to be
regarded as known to it. That is why they go to admitted members alone.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from troth.errors import DecodeError
from troth.formats.strict_json import encode_json
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.membership import Membership

__all__ = [
    "MAX_PLACEMENTS",
    "MAX_SECRETS",
    "MAX_SECRET_BYTES",
    "MAX_UNITS",
    "MAX_UNIT_CHARACTERS",
    "Action",
    "Assignment",
    "Placement",
    "Unit",
    "decide",
]

MAX_PLACEMENTS: Final = 256
"""Placements on one server."""

MAX_UNITS: Final = 8
"""Unit files of one placement."""

MAX_UNIT_CHARACTERS: Final = 16_384
"""Characters of one unit file."""

MAX_SECRETS: Final = 16
"""Secrets of one placement."""

MAX_SECRET_BYTES: Final = 16_384
"""Octets of one secret."""

_FORMAT: Final = "placement"
_Name = Annotated[str, Meta(pattern=r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]


class Action(StrEnum):
    """What a node does with a placement."""

    RUN = "run"
    KEEP = "keep"
    DRAIN = "drain"


class Unit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file for systemd, or for its Quadlet generator.

    Attributes:
        name: `x.service`, or `x.container`, `x.network`, `x.volume` for Quadlet.
        text: what is in it. Units see their secrets in `%d` if they load them by
            `LoadCredential=NAME:/path`; where the files are is the host's setting.
    """

    name: Annotated[
        str, Meta(pattern=r"\A[a-z0-9][a-z0-9_.-]{0,62}\.(service|container|network|volume)\Z")
    ]
    text: Annotated[str, Meta(min_length=1, max_length=MAX_UNIT_CHARACTERS)]


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A workload for the members of one class.

    Attributes:
        name: unique on its server.
        ltee: name of the Logical TEE.
        member_class: whose members run it.
        units: its unit files, at least one.
        secrets: names of the secrets that it is given; their values are set apart.

    Raises:
        DecodeError: two units or secrets of one name.
    """

    name: _Name
    ltee: _Name
    member_class: _Name
    units: Annotated[tuple[Unit, ...], Meta(min_length=1, max_length=MAX_UNITS)]
    secrets: Annotated[tuple[_Name, ...], Meta(max_length=MAX_SECRETS)] = ()

    def __post_init__(self) -> None:
        for what, names in (("units", [u.name for u in self.units]), ("secrets", self.secrets)):
            if len(set(names)) < len(names):
                raise DecodeError(f"two {what} of one name", format=_FORMAT)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over its canonical JSON."""
        return hashlib.sha256(encode_json(msgspec.to_builtins(self))).hexdigest()


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What one node is told about one placement.

    Attributes:
        name: of the placement.
        action: what to do.
        units: only with `run`.
        secrets: values by name, base64 on the wire; only with `run`.
    """

    name: str
    action: Action
    units: tuple[Unit, ...] = ()
    secrets: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Assignment({self.name!r}, {self.action.value}, {len(self.secrets)} secrets)"


def decide(placement: Placement, membership: Membership, node_id: str) -> Action:
    """Return what a node does with a placement, as of this membership."""
    tee: LogicalTee = membership.tee
    member = membership.find(node_id, placement.member_class)
    if tee.name != placement.ltee or member is None:
        return Action.DRAIN
    return Action.RUN if member.standing == "admitted" else Action.KEEP
