# SPDX-License-Identifier: Apache-2.0
"""A CoRIM as JSON, and that JSON as lines of text.

Texts inside a CoRIM are an Endorser's; characters that do not print are escaped before they
reach a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from uuid import UUID

from troth.cli.inputs import printable
from troth.endorsement.endorsements import endorsements_of
from troth.errors import TrothError
from troth.formats.cbor import Tag
from troth.formats.corim import (
    Comid,
    Corim,
    CorimEntity,
    Digest,
    EnvironmentMap,
    KeyTriple,
    Measurement,
    MeasurementTriple,
    MeasurementValues,
    OpaqueTag,
    RawValue,
    SignedCorim,
    Svn,
    Validity,
    Version,
)
from troth.formats.corim import tags as numbers
from troth.formats.corim.common import tag_id_text
from troth.formats.corim.measurement import FLAG_NAMES

__all__ = ["describe", "render"]


def describe(corim: Corim | SignedCorim, *, source: str, scheme: str = "") -> dict[str, object]:
    """Return everything that a CoRIM says, fit for JSON, and whether it could be provisioned."""
    content = corim.unverified_corim() if isinstance(corim, SignedCorim) else corim
    described: dict[str, object] = {"id": content.id, "profile": content.profile_name or None}
    if isinstance(corim, SignedCorim):
        described["signature"] = {
            "signer": corim.signer_name,
            "uri": corim.signer_uri,
            "algorithm": corim.message.algorithm,
            "validity": _plain(corim.signature_validity),
            "verified": False,
        }
    described["validity"] = _plain(content.validity)
    described["entities"] = _plain(content.entities)
    described["dependent-rims"] = _plain(content.dependent_rims)
    described["extensions"] = _plain(content.extensions)
    described["tags"] = [_tag(tag) for tag in content.tags]
    described["provisioning"] = _provisioning(content, source, scheme)
    return {key: value for key, value in described.items() if value not in ([], {}, None)} | {
        "profile": described["profile"]
    }


def render(described: Mapping[str, object]) -> Iterator[str]:
    """Yield the lines of the text form."""
    for key, value in described.items():
        yield from _lines(key, value, 0)


def _provisioning(corim: Corim, source: str, scheme: str) -> dict[str, object]:
    try:
        found = endorsements_of(corim, source=source, scheme=scheme)
    except TrothError as exc:
        return {"possible": False, "reason": str(exc), "remedy": exc.remedy or None}
    described: dict[str, object] = {
        "reference-values": [value.id for value in found.reference_values],
        "trust-anchors": [anchor.id for anchor in found.trust_anchors],
        "unused": list(found.unused),
    }
    listed = {key: value for key, value in described.items() if value}
    return {"possible": True, "scheme": found.scheme, **listed}


def _tag(tag: Comid | OpaqueTag) -> dict[str, object]:
    if isinstance(tag, OpaqueTag):
        content = tag.content
        shown = f"{len(content)} octets" if isinstance(content, bytes) else _plain(content)
        return {"kind": tag.kind, "content": shown}
    described: dict[str, object] = {"kind": "CoMID", "id": tag.id, "version": tag.tag_version}
    for name in ("language", "entities", "extensions"):
        described[name] = _plain(getattr(tag, name))
    described["linked-tags"] = [
        {"id": tag_id_text(link.tag_id), "relation": _relation(link.relation)}
        for link in tag.linked_tags
    ]
    for each in fields(tag.triples):
        described[each.name.replace("_", "-")] = _plain(getattr(tag.triples, each.name))
    return {key: value for key, value in described.items() if value not in ([], {}, None)}


def _relation(number: int) -> str | int:
    return {0: "supplements", 1: "replaces"}.get(number, number)


def _plain(value: object) -> object:
    """Return any part of a CoRIM as texts, numbers, lists and maps."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Tag):
        return _identifier(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, Mapping):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, Sequence):
        return [_plain(member) for member in value]
    return _noun(value)


def _noun(value: object) -> object:
    if isinstance(value, Digest):
        return f"{value.name}:{value.value.hex()}"
    if isinstance(value, Svn):
        return f"at least {value.value}" if value.is_minimum else value.value
    if isinstance(value, Version):
        return value.text if value.scheme is None else f"{value.text} (scheme {value.scheme})"
    if isinstance(value, RawValue):
        return value.value.hex() + (f" under mask {value.mask.hex()}" if value.mask else "")
    if isinstance(value, Measurement):
        described = {"key": _plain(value.key), **_values(value.values)}
        if value.authorized_by:
            described["authorized-by"] = _plain(value.authorized_by)
        return {key: member for key, member in described.items() if member is not None}
    if isinstance(value, MeasurementTriple | KeyTriple | EnvironmentMap | Validity | CorimEntity):
        return _members(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _members(value)
    return str(value)


def _members(value: object) -> dict[str, object]:
    if not is_dataclass(value):
        return {}
    described = {
        each.name.removeprefix("environment_").replace("_", "-"): _plain(getattr(value, each.name))
        for each in fields(value)
    }
    return {key: member for key, member in described.items() if member not in ([], {}, None)}


def _values(values: MeasurementValues) -> dict[str, object]:
    described = _members(values)
    if values.flags:
        described["flags"] = {
            FLAG_NAMES[key] if isinstance(key, int) and 0 <= key < len(FLAG_NAMES) else str(key): (
                _plain(state)
            )
            for key, state in values.flags.items()
        }
    return described


def _identifier(tag: Tag) -> object:
    name = numbers.TAG_NAMES.get(tag.number)
    if name is None:
        return {"tag": tag.number, "value": _plain(tag.value)}
    if tag.number == numbers.UUID and isinstance(tag.value, bytes):
        return f"UUID {UUID(bytes=tag.value)}"
    if isinstance(tag.value, str):
        # One line, without the PEM armour.
        body = [line for line in tag.value.splitlines() if not line.startswith("-----")]
        return f"{name} {''.join(body)}"
    return f"{name} {_plain(tag.value)}"


def _lines(key: str, value: object, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, Mapping):
        yield f"{indent}{printable(key)}"
        for name, member in value.items():
            yield from _lines(str(name), member, depth + 1)
    elif isinstance(value, list) and any(isinstance(member, Mapping | list) for member in value):
        for number, member in enumerate(value):
            yield from _lines(f"{key}[{number}]", member, depth)
    elif isinstance(value, list):
        yield f"{indent}{printable(key)}"
        yield from (f"{indent}  {printable(str(member))}" for member in value)
    else:
        shown = "none" if value is None else value
        if isinstance(value, bool):
            shown = "yes" if value else "no"
        yield f"{indent}{printable(key)}: {printable(str(shown))}"
