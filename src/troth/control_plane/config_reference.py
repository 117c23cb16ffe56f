# SPDX-License-Identifier: Apache-2.0
"""The reference of a configuration file, made from the struct that reads it."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

__all__ = ["render_reference", "rewrite_reference"]

_TABLE: Final = re.compile(r"\| key \| form \| default \| meaning \|\n(?:\|.*\n)+")


def rewrite_reference(page: str, kind: type[msgspec.Struct]) -> str:
    """Return a page of documentation with its table of settings made anew from `kind`."""
    table = render_reference(kind)
    return _TABLE.sub(lambda _: table, page, count=1)


def render_reference(kind: type[msgspec.Struct]) -> str:
    """Return a Markdown table of every key of `kind`, with its form, default and meaning."""
    schema = msgspec.json.schema(kind)
    definitions: dict[str, Any] = schema["$defs"]
    root = definitions[schema["$ref"].rpartition("/")[2]]
    lines = ["| key | form | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *_rows(root, definitions, "")]) + "\n"


def _rows(struct: dict[str, Any], definitions: dict[str, Any], prefix: str) -> list[str]:
    rows: list[str] = []
    for name, field in struct["properties"].items():
        nested, place = _nested(field, definitions, f"{prefix}{name}")
        if nested is not None:
            rows += _rows(nested, definitions, f"{place}.")
            continue
        required = name in struct.get("required", [])
        default = "required" if required else f"`{_toml(field.get('default'))}`"
        meaning = field.get("description", "").replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {_form(field)} | {default} | {meaning} |")
    return rows


def _nested(
    field: dict[str, Any], definitions: dict[str, Any], place: str
) -> tuple[dict[str, Any] | None, str]:
    """Return the struct inside a field, and how its keys are written."""
    candidates = [
        (field.get("$ref"), place),
        (next((each.get("$ref") for each in field.get("anyOf", [])), None), place),
        (field.get("items", {}).get("$ref"), f"{place}[]"),
        (_values(field).get("$ref"), f"{place}.NAME"),
    ]
    for reference, where in candidates:
        if reference is not None:
            return definitions[reference.rpartition("/")[2]], where
    return None, place


def _values(field: dict[str, Any]) -> dict[str, Any]:
    values = field.get("additionalProperties", {})
    return values if isinstance(values, dict) else {}


def _form(field: dict[str, Any]) -> str:
    options = field.get("anyOf", [field])
    return " or ".join(_one_form(option) for option in options if option.get("type") != "null")


def _one_form(option: dict[str, Any]) -> str:
    if "enum" in option:
        return ", ".join(f"`{choice}`" if choice else '`""`' for choice in option["enum"])
    kind = option.get("type", "")
    words = {"integer": "whole number", "number": "number", "boolean": "true or false"}
    text = words.get(kind, str(kind))
    if kind == "array":
        return f"list of {_one_form(option['items'])}s"
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maxLength", "length ≤")):
        if key in option:
            text += f" {sign} {option[key]}"
    return text


def _toml(value: object) -> str:
    if value is None:
        return "built-in"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)
