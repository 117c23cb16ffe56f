# SPDX-License-Identifier: Apache-2.0
"""Envoy configuration in files: YAML or JSON, read as Envoy reads it, written for people.

YAML has more surprises than Envoy's reader: dates stay texts here and 1:30 is no number. Anchors are
taken, for they are common, and written out in full. Comments are not kept.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import click
import yaml

from troth.errors import ConfigurationError

__all__ = ["MAX_FILE_BYTES", "dump", "read_envoy_file", "read_tree", "write"]

MAX_FILE_BYTES = 4 * 1024 * 1024
# What a file may grow to when its anchors are written out.
_MAX_EXPANDED = 8 * 1024 * 1024


class _Loader(yaml.SafeLoader):
    """Scalars as Envoy takes them; a key may occur once."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as PyYAML declares it
    ) -> dict[Hashable, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key, _ in node.value:
            if own.count(key.value) > 1 and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return SafeLoader's rules without dates and without numbers of base 60."""
    decimal = re.compile(r"^[-+]?(?:0|[1-9][0-9]*|0[0-7]+|0x[0-9a-fA-F]+)$")
    floating = re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$")
    replaced = {"tag:yaml.org,2002:int": decimal, "tag:yaml.org,2002:float": floating}
    return {
        first: [
            (tag, replaced.get(tag, pattern))
            for tag, pattern in rules
            if tag != "tag:yaml.org,2002:timestamp"
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.yaml_implicit_resolvers = _resolvers()


class _Dumper(yaml.SafeDumper):
    """Indents lists, and writes what is shared in full."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - as PyYAML declares it
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - as PyYAML declares it
        super().increase_indent(flow, indentless=False)


def read_envoy_file(path: Path) -> dict[str, Any]:
    """Return an Envoy configuration file.

    Raises:
        ConfigurationError: it cannot be read, or is no object in YAML or JSON.
    """
    return read_tree(_read(path), source=str(path))


def read_tree(data: bytes, *, source: str) -> dict[str, Any]:
    """Return one YAML or JSON document that is an object, nothing in it shared.

    Raises:
        ConfigurationError: it is not.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(source=source, accepted=f"at most {MAX_FILE_BYTES} octets")
    try:
        found = yaml.load(data, _Loader)  # noqa: S506 - a SafeLoader
        text = _bounded_json(found, source)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as exc:
        raise ConfigurationError(source=source, accepted=f"YAML or JSON ({exc})") from exc
    tree = json.loads(text)
    if not isinstance(tree, dict):
        raise ConfigurationError(source=source, accepted="an object, as Envoy's bootstrap is")
    return tree


def _bounded_json(found: object, source: str) -> str:
    pieces: list[str] = []
    size = 0
    for piece in json.JSONEncoder(allow_nan=False).iterencode(found):
        size += len(piece)
        if size > _MAX_EXPANDED:
            raise ConfigurationError(
                source=source, accepted=f"at most {_MAX_EXPANDED} octets with its anchors expanded"
            )
        pieces.append(piece)
    return "".join(pieces)


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a readable file ({exc.strerror or exc})"
        ) from exc


def dump(tree: dict[str, Any], form: str) -> str:
    """Return `tree` as "yaml" or "json", with a line end."""
    if form == "json":
        return json.dumps(tree, indent=2) + "\n"
    text: str = yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=100
    )
    return text


def write(text: str, output: Path | None) -> None:
    """Write to `output`, in one step, or to standard output.

    Raises:
        ConfigurationError: it cannot be written.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    beside = output.with_name(f".{output.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(output)
    except OSError as exc:
        raise ConfigurationError(
            source="--output", value=str(output), accepted=f"a file to write ({exc.strerror})"
        ) from exc
