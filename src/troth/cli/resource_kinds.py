# SPDX-License-Identifier: Apache-2.0
"""How `troth apply` brings a server to trust domains, devices and Logical TEEs."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from troth.cli.apply_kind import Step, Wanted, differences
from troth.cli.operators import Operator
from troth.errors import ConfigurationError
from troth.mesh.device import DeviceState
from troth.mesh.device_message import DeviceMessage
from troth.mesh.entry_message import EntryMessage
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.resources import DeviceResource, TrustDomainResource

__all__ = ["Devices", "LogicalTees", "TrustDomains"]

_ENDPOINT = ("endpoint_url", "profile", "endpoint_spiffe_id")
_ENTERED = ("identities", "owner", "class_id", "hint")


class TrustDomains:
    """`kind: TrustDomain`: a foreign trust domain, as `troth bundle` federates with it."""

    def plan(self, wanted: Wanted, operator: Operator) -> list[Step]:
        """Compare the endpoints; a bundle in the file is only for a domain that is new."""
        present = {each["trust_domain"]: each for each in operator.get("/v1/bundles")}
        return [self._step(each, present) for each in wanted["TrustDomain"]]

    def _step(self, wanted: TrustDomainResource, present: dict[str, dict[str, object]]) -> Step:
        name = wanted.name.removeprefix("spiffe://")
        known = present.get(name)
        if known is not None and known["own"]:
            raise ConfigurationError(
                source=f"TrustDomain {name}",
                key="name",
                value=name,
                accepted="a foreign trust domain; this is the server's own",
            )
        after = {field: getattr(wanted, field) for field in _ENDPOINT}
        changes = differences({field: (known or {}).get(field) for field in _ENDPOINT}, after)
        if known is not None and not changes:
            return Step(kind="TrustDomain", name=name, action="keep")
        # Where we know a bundle already, it is newer than the one that an old file has.
        bundle = "" if known is not None else wanted.bundle
        if bundle:
            changes |= {"bundle": (None, f"{len(bundle)} octets")}
        return Step(
            kind="TrustDomain",
            name=name,
            action="change" if known is not None else "create",
            changes=changes,
            method="PUT",
            path=f"/v1/bundles/{quote(name, safe='')}",
            message=after | {"bundle": bundle},
        )


class Devices:
    """`kind: Device`: a machine in the inventory, and its owner's approval."""

    def plan(self, wanted: Wanted, operator: Operator) -> list[Step]:
        """Enter what is new, and approve what is to be approved; nothing else can change."""
        present = {
            each["id"]: msgspec.convert(each, DeviceMessage) for each in operator.get("/v1/devices")
        }
        return [self._step(each, present.get(each.id)) for each in wanted["Device"]]

    def _step(self, wanted: DeviceResource, known: DeviceMessage | None) -> Step:
        approve = f"/v1/devices/{quote(wanted.id, safe='')}/approve"
        fields = {field: getattr(wanted, field) for field in _ENTERED}
        if known is None:
            then: tuple[tuple[str, str, object], ...] = ()
            if wanted.approved:
                fields["approved"] = True
                then = (("POST", approve, None),)
            return Step(
                kind="Device",
                name=wanted.id,
                action="create",
                changes=differences({}, fields),
                method="POST",
                path="/v1/devices",
                message=wanted.message,
                then=then,
            )
        other = differences({field: getattr(known, field) for field in _ENTERED}, fields)
        for field, (there, _) in other.items():
            raise ConfigurationError(
                source=f"Device {wanted.id}",
                key=field,
                value=str(fields[field]),
                accepted=f"{there!r}, as it was entered; what a device is does not change by a file",
            )
        if not wanted.approved or known.state == DeviceState.APPROVED.value:
            return Step(kind="Device", name=wanted.id, action="keep")
        if known.state != DeviceState.PENDING.value:
            raise ConfigurationError(
                source=f"Device {wanted.id}",
                key="approved",
                value="true",
                accepted=f"nothing: the device is {known.state}, which no file takes back",
            )
        return Step(
            kind="Device",
            name=wanted.id,
            action="change",
            changes={"state": (known.state, DeviceState.APPROVED.value)},
            method="POST",
            path=approve,
        )


class LogicalTees:
    """`kind: LogicalTEE`: member classes and epochs, with the fields of `LogicalTee`."""

    def plan(self, wanted: Wanted, operator: Operator) -> list[Step]:
        """Compare definitions; refuse those that name a trust domain or entries that are not there."""
        own = next(each["trust_domain"] for each in operator.get("/v1/bundles") if each["own"])
        entries = [msgspec.convert(each, EntryMessage) for each in operator.get("/v1/entries")]
        entries += wanted.get("Entry", ())
        nodes = {each.id for each in entries if each.id and not each.parent_id}
        present = {
            each["name"]: msgspec.convert(each, LogicalTee) for each in operator.get("/v1/ltees")
        }
        for tee in wanted["LogicalTEE"]:
            self._check(tee, own, nodes)
        return [self._step(each, present.get(each.name)) for each in wanted["LogicalTEE"]]

    def _check(self, tee: LogicalTee, own: str, nodes: set[str]) -> None:
        source = f"LogicalTEE {tee.name}"
        if tee.trust_domain != own:
            raise ConfigurationError(
                source=source, key="trust_domain", value=tee.trust_domain, accepted=own
            )
        for each in tee.classes:
            for entry in each.entries:
                if entry not in nodes:
                    raise ConfigurationError(
                        source=source,
                        key=f"classes.{each.name}.entries",
                        value=entry,
                        accepted="the id of a registration entry of nodes; there is none of this id",
                    )

    def _step(self, wanted: LogicalTee, known: LogicalTee | None) -> Step:
        if wanted == known:
            return Step(kind="LogicalTEE", name=wanted.name, action="keep")
        before = msgspec.to_builtins(known) if known is not None else {}
        return Step(
            kind="LogicalTEE",
            name=wanted.name,
            action="change" if known is not None else "create",
            changes=differences(before, msgspec.to_builtins(wanted)),
            method="PUT",
            path=f"/v1/ltees/{quote(wanted.name, safe='')}",
            message=wanted,
        )
