# SPDX-License-Identifier: Apache-2.0
"""The schemes by name, and how to tell which one some octets belong to.

A scheme's modules are imported when it is first asked for, so that `troth --help` and a node with
one kind of hardware pay for none or one. A new scheme is one line in SCHEMES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from troth.errors import ConfigurationError, DecodeError, UnsupportedError
from troth.evidence.evidence import Scheme
from troth.formats.eat import normalise_media_type
from troth.formats.quoting import shown

__all__ = ["SCHEMES", "Loader", "by_media_type", "detect", "scheme"]

Loader = Callable[[], Scheme[Any]]
"""Imports and returns a scheme."""


def _module(path: str) -> Loader:
    def load() -> Scheme[Any]:
        loaded: Scheme[Any] = import_module(path).SCHEME
        return loaded

    return load


SCHEMES: Mapping[str, Loader] = MappingProxyType(
    {
        "cca": _module("troth.evidence.cca"),
        "nitro": _module("troth.evidence.nitro"),
        "psa": _module("troth.evidence.psa"),
        "sgx": _module("troth.evidence.sgx"),
        "tdx": _module("troth.evidence.tdx"),
        "sev_snp": _module("troth.evidence.sev_snp"),
        "tpm2": _module("troth.evidence.tpm2"),
    }
)
"""Name to loader. `detect()` asks in this order: the sharper `recognises()` first."""


def scheme(name: str, *, schemes: Mapping[str, Loader] = SCHEMES) -> Scheme[Any]:
    """Return the scheme of this name.

    Raises:
        ConfigurationError: there is none.
    """
    loader = schemes.get(name)
    if loader is None:
        raise ConfigurationError(
            source="scheme", value=name, accepted=f"one of {', '.join(sorted(schemes))}"
        )
    return loader()


def detect(data: bytes, *, schemes: Mapping[str, Loader] = SCHEMES) -> str:
    """Return the name of the scheme that `data` looks like, from its first octets.

    A guess for people and tools; a protocol that carries a media type goes by that.

    Raises:
        DecodeError: it looks like none of them.
    """
    for name, loader in schemes.items():
        if loader().recognises(data):
            return name
    start = f"starts with {data[:8].hex()}" if data else "is empty"
    raise DecodeError(
        f"{start}, which no known scheme's does; known are {', '.join(sorted(schemes))}",
        format="Evidence",
        remedy="Name the scheme or the media type.",
    )


def by_media_type(media_type: str, *, schemes: Mapping[str, Loader] = SCHEMES) -> str:
    """Return the name of the scheme whose Evidence travels under `media_type`.

    Raises:
        UnsupportedError: no scheme's does.
        DecodeError: not a media type.
    """
    wanted = normalise_media_type(media_type)
    known: list[str] = []
    for name, loader in schemes.items():
        own = [normalise_media_type(each) for each in loader().media_types]
        if wanted in own:
            return name
        known += own
    raise UnsupportedError(
        f"{shown(wanted)} is none that a scheme travels under; known are {', '.join(known)}",
        format="media type",
    )
