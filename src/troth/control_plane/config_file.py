# SPDX-License-Identifier: Apache-2.0
"""TOML configuration files read into typed structs, with errors that a person can act on."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from troth.errors import ConfigurationError

__all__ = [
    "Address",
    "HttpsUrl",
    "Name",
    "OptionalAddress",
    "SpiffeIdText",
    "convert_config",
    "load_config",
    "parse_config",
]

T = TypeVar("T", bound=msgspec.Struct)

_NAME = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_ADDRESS = "^[^:\\s]+:[0-9]{1,5}$"
_OPTIONAL_ADDRESS = "^([^:\\s]+:[0-9]{1,5})?$"
_SPIFFE_ID = "^spiffe://[a-z0-9._-]+/.+$"
_HTTPS = "^https://[^\\s]+$"

# What a pattern means, for people.
_WORDS = {
    _NAME: "a name of lower-case letters, digits and hyphens, at most 63 characters",
    _ADDRESS: "an address, HOST:PORT",
    _OPTIONAL_ADDRESS: "an address, HOST:PORT, or nothing",
    _SPIFFE_ID: "a SPIFFE ID, spiffe://TRUST-DOMAIN/PATH",
    _HTTPS: "an https:// address",
}

Name = Annotated[str, msgspec.Meta(pattern=_NAME)]
Address = Annotated[str, msgspec.Meta(pattern=_ADDRESS)]
OptionalAddress = Annotated[str, msgspec.Meta(pattern=_OPTIONAL_ADDRESS)]
SpiffeIdText = Annotated[str, msgspec.Meta(pattern=_SPIFFE_ID)]
HttpsUrl = Annotated[str, msgspec.Meta(pattern=_HTTPS)]


def load_config(path: Path, kind: type[T]) -> T:
    """Read the TOML file `path` into `kind`.

    Raises:
        ConfigurationError: naming file, key, value and the accepted form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a readable TOML file ({exc.strerror or exc})"
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(source=str(path), accepted="UTF-8 text") from exc
    return parse_config(text, kind, source=str(path))


def parse_config(text: str, kind: type[T], *, source: str) -> T:
    """Read TOML text into `kind`; `source` names it in errors.

    Raises:
        ConfigurationError: as `load_config`.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(source=source, accepted=f"TOML ({exc})") from exc
    return convert_config(tree, kind, source=source)


def convert_config(tree: object, kind: type[T], *, source: str) -> T:
    """Read what a parser of some other notation returned into `kind`.

    Raises:
        ConfigurationError: naming source, key, value and the accepted form.
    """
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as exc:
        raise _in_words(exc, tree, kind, source) from exc


def _in_words(
    exc: msgspec.ValidationError, tree: object, kind: type[msgspec.Struct], source: str
) -> ConfigurationError:
    """Translate msgspec's message; its wording is the library's, the key and value are ours."""
    message, _, place = str(exc).partition(" - at `$")
    key = place.rstrip("`").lstrip(".")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        full = f"{key}.{unknown[1]}" if key else unknown[1]
        known = ", ".join(_fields_at(kind, key))
        return ConfigurationError(source=source, key=full, accepted=f"one of the keys {known}")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", message):
        full = f"{key}.{missing[1]}" if key else missing[1]
        return ConfigurationError(source=source, key=full, accepted="a value: the key is required")
    accepted = message.removeprefix("Expected ")
    for pattern, words in _WORDS.items():
        if message == f"Expected `str` matching regex {pattern!r}":
            accepted = words
    return ConfigurationError(source=source, key=key, value=_value_at(tree, key), accepted=accepted)


def _fields_at(kind: type[msgspec.Struct], key: str) -> list[str]:
    """Return the keys that the table at `key` may have."""
    current: type[msgspec.Struct] = kind
    for part in re.sub(r"\[[^\]]*\]", "", key).split("."):
        if part:
            attributes = dict(
                zip(current.__struct_encode_fields__, current.__struct_fields__, strict=True)
            )
            hint = typing.get_type_hints(current)[attributes[part]]
            current = next(t for t in _flatten(hint) if issubclass(t, msgspec.Struct))
    return list(current.__struct_encode_fields__)


def _flatten(hint: object) -> list[type]:
    if isinstance(hint, type) and not typing.get_args(hint):
        return [hint]
    return [kind for inner in typing.get_args(hint) for kind in _flatten(inner)]


def _value_at(tree: object, key: str) -> str:
    """Return the text of the value at a msgspec path such as `inbound[0].listen`."""
    node = tree
    for part in key.replace("[", ".[").split("."):
        if not part:
            continue
        try:
            node = node[int(part[1:-1])] if part.startswith("[") else node[part]  # type: ignore[index]  # walks an untyped tree
        except (KeyError, IndexError, TypeError, ValueError):
            return ""
    return "" if node is tree or isinstance(node, dict | list) else str(node)
