# SPDX-License-Identifier: Apache-2.0
"""A registration entry as people and programs write it: one form for nodes, workloads and aliases.

Without a `parent_id` it is for nodes, with the server as parent it is an alias of nodes, and with
any other parent it is for workloads. The names are SPIRE's where SPIRE has one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from troth.errors import DecodeError
from troth.identity.selector import Selector
from troth.identity.spiffe_id import TrustDomain
from troth.mesh.registration_entry import RegistrationEntry, node_selector
from troth.mesh.tier import Tier
from troth.mesh.workload_entry import WorkloadEntry, parse_trust_domain, refused_field

__all__ = ["EntryMessage", "entry_from", "message_of"]

_Seconds = Annotated[int, Meta(ge=0)]


class EntryMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A registration entry on the wire and in files.

    Attributes:
        id: name; empty for one that the server makes.
        spiffe_id: who is meant.
        parent_id: below which nodes; empty for an entry of nodes.
        selectors: "type:value"; all have to hold.
        min_tier: for nodes: the weakest tier that is admitted.
        x509_svid_ttl: for workloads: seconds; 0 for the server's default.
        jwt_svid_ttl: the same for JWT-SVIDs.
        dns_names: for workloads: go into the X.509-SVID.
        federates_with: for workloads: trust domains whose bundles they get.
        hint: for nodes the operator's own words; a workload is told it.
        admin: SPIRE's; refused, as operators reach the server by its socket alone.
        downstream: SPIRE's; refused, as servers are not nested.
    """

    spiffe_id: str
    selectors: tuple[str, ...]
    id: Annotated[str, Meta(pattern=r"\A([a-z0-9][a-z0-9._-]{0,62})?\Z")] = ""
    parent_id: str = ""
    min_tier: Tier | None = None
    x509_svid_ttl: _Seconds = 0
    jwt_svid_ttl: _Seconds = 0
    dns_names: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()
    hint: Annotated[str, Meta(max_length=256)] = ""
    admin: bool = False
    downstream: bool = False


def message_of(entry: RegistrationEntry | WorkloadEntry) -> EntryMessage:
    """Return an entry as it is written."""
    selectors = tuple(map(str, entry.selectors))
    if isinstance(entry, RegistrationEntry):
        return EntryMessage(
            id=entry.id,
            spiffe_id=entry.spiffe_id,
            selectors=selectors,
            min_tier=entry.min_tier,
            hint=entry.hint,
        )
    return EntryMessage(
        id=entry.id,
        spiffe_id=entry.spiffe_id,
        parent_id=entry.parent_id,
        selectors=selectors,
        x509_svid_ttl=_seconds(entry.x509_svid_ttl),
        jwt_svid_ttl=_seconds(entry.jwt_svid_ttl),
        dns_names=entry.dns_names,
        federates_with=entry.federates_with,
        hint=entry.hint,
    )


def entry_from(message: EntryMessage, *, entry_id: str) -> RegistrationEntry | WorkloadEntry:
    """Return the entry that a message means, under `entry_id`.

    Says nothing about trust domain and whom it federates with: the server knows these.

    Raises:
        DecodeError: naming the field and the reason.
    """
    for field, why in _NOT_HERE.items():
        if getattr(message, field):
            raise refused_field(field, why)
    if not message.parent_id:
        return _node_entry(message, entry_id)
    if message.min_tier is not None:
        raise refused_field(
            "min_tier",
            "is for nodes",
            remedy=f"a workload has a selector instead, troth:tier:{message.min_tier}",
        )
    return WorkloadEntry(
        id=entry_id,
        spiffe_id=message.spiffe_id,
        parent_id=message.parent_id,
        selectors=tuple(map(_selector, message.selectors)),
        x509_svid_ttl=timedelta(seconds=message.x509_svid_ttl) or None,
        jwt_svid_ttl=timedelta(seconds=message.jwt_svid_ttl) or None,
        dns_names=message.dns_names,
        federates_with=tuple(_trust_domain(name).name for name in message.federates_with),
        hint=message.hint,
    )


_NOT_HERE = {
    "admin": "operators reach the server by its Unix socket, nobody by an SVID",
    "downstream": "a Troth server issues for its own trust domain alone; servers are not nested",
}
_OF_WORKLOADS = ("x509_svid_ttl", "jwt_svid_ttl", "dns_names", "federates_with")


def _node_entry(message: EntryMessage, entry_id: str) -> RegistrationEntry:
    for field in _OF_WORKLOADS:
        if getattr(message, field):
            raise refused_field(field, "is for workloads", remedy="give the entry a parent_id")
    try:
        return RegistrationEntry(
            id=entry_id,
            spiffe_id=message.spiffe_id,
            selectors=tuple(node_selector(text) for text in message.selectors),
            min_tier=message.min_tier or Tier.MEASURED,
            hint=message.hint,
        )
    except DecodeError as exc:
        remedy = exc.remedy or "for a workload, give the entry a parent_id"
        raise refused_field("selectors", str(exc), remedy=remedy) from exc


def _selector(text: str) -> Selector:
    try:
        return Selector.decode(text)
    except DecodeError as exc:
        raise refused_field("selectors", str(exc)) from exc


def _trust_domain(text: str) -> TrustDomain:
    try:
        return parse_trust_domain(text)
    except DecodeError as exc:
        raise refused_field("federates_with", str(exc)) from exc


def _seconds(ttl: timedelta | None) -> int:
    return 0 if ttl is None else int(ttl.total_seconds())
