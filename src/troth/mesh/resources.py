# SPDX-License-Identifier: Apache-2.0
"""The resources that files describe, and the JSON Schema of them all.

One struct for each kind is what a file is read into, what the schema is made from, and what goes
over REST. A file has the kind's fields beside `kind`; what it leaves out has the default.

`python -m troth.mesh.resources > docs/reference/resources.schema.json` writes the schema anew; a
test compares the file with what this module makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from troth.errors import DecodeError, TrothError
from troth.mesh.device import MAX_IDENTITIES
from troth.mesh.device_message import DeviceMessage, device_from
from troth.mesh.entry_message import EntryMessage, entry_from
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.workload_entry import parse_trust_domain

__all__ = [
    "RESOURCES",
    "DeviceResource",
    "TrustDomainResource",
    "read_resource",
    "render_schema",
    "resources_schema",
]

_Text = Annotated[str, Meta(max_length=256)]


class TrustDomainResource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A foreign trust domain whose SVIDs are believed.

    Attributes:
        name: its name, such as "partner.example".
        endpoint_url: where its bundle is fetched.
        profile: how the endpoint shows who it is.
        endpoint_spiffe_id: whom `https_spiffe` expects there.
        bundle: its bundle as text, SPIFFE's JSON or PEM; needed where the endpoint shows an SVID of
            the very trust domain. Later ones come from the endpoint.
    """

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    endpoint_url: Annotated[str, Meta(min_length=1, max_length=2048)]
    profile: Literal["https_web", "https_spiffe"]
    endpoint_spiffe_id: Annotated[str, Meta(max_length=2048)] = ""
    bundle: str = ""


class DeviceResource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A machine in the inventory.

    Attributes:
        id: the owner's name for it.
        identities: such as "ek:SHA256".
        owner, hint: in words.
        class_id: environment class (hex) of its Reference Values, where no CoRIM names its key.
        approved: the owner's half of the double opt-in. False leaves it as it is: a file does not
            take an approval back, `troth device revoke` does.
    """

    id: Annotated[str, Meta(max_length=63)]
    identities: Annotated[
        tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=MAX_IDENTITIES)
    ] = ()
    owner: _Text = ""
    class_id: _Text = ""
    hint: _Text = ""
    approved: bool = False

    @property
    def message(self) -> DeviceMessage:
        """What is posted to enter it."""
        return DeviceMessage(
            id=self.id,
            identities=self.identities,
            owner=self.owner,
            class_id=self.class_id,
            hint=self.hint,
        )


RESOURCES: Final[Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {
        "TrustDomain": TrustDomainResource,
        "Device": DeviceResource,
        "Entry": EntryMessage,
        "LogicalTEE": LogicalTee,
    }
)
"""Kinds, in the order in which one may refer to those before it."""


def read_resource(kind: str, document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of RESOURCES
    """Return what a document without its `kind` says; values may be texts.

    Checks the document by itself. Whether what it refers to exists is the server's to know.

    Raises:
        DecodeError: naming the field and the reason.
    """
    try:
        # Texts are what files have: numbers and times are read where they belong.
        resource = msgspec.convert(dict(document), RESOURCES[kind], strict=False)
        if isinstance(resource, EntryMessage):
            entry_from(resource, entry_id=resource.id or "new")
        if isinstance(resource, DeviceResource):
            device_from(resource.message)
        if isinstance(resource, TrustDomainResource):
            parse_trust_domain(resource.name)
    except msgspec.ValidationError as exc:
        raise DecodeError(str(exc), format=kind) from exc
    except TrothError as exc:
        raise DecodeError(str(exc), format=kind, remedy=exc.remedy) from exc
    return resource


def resources_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a resource of any kind."""
    kinds, components = msgspec.json.schema_components(
        RESOURCES.values(), ref_template="#/$defs/{name}"
    )
    for name, reference in zip(RESOURCES, kinds, strict=True):
        described = components[str(reference["$ref"]).rpartition("/")[2]]
        described["properties"] = {"kind": {"const": name}, **described["properties"]}
        described["required"] = ["kind", *described["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A resource of Troth",
        "oneOf": list(kinds),
        "$defs": {name: _portable(each) for name, each in sorted(components.items())},
    }


def _portable(value: Any) -> Any:  # noqa: ANN401 - a JSON tree
    """Say patterns as ECMA-262 does, and take the first sentence of a description alone."""
    if isinstance(value, list):
        return [_portable(each) for each in value]
    if not isinstance(value, dict):
        return value
    said = {key: _portable(each) for key, each in value.items()}
    if isinstance(said.get("pattern"), str):
        said["pattern"] = said["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
    if isinstance(said.get("description"), str):
        said["description"] = " ".join(said["description"].partition("\n\n")[0].split())
    return said


def render_schema() -> str:
    """Return the schema as it is published."""
    return json.dumps(resources_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_schema())
