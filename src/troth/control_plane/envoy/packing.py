# SPDX-License-Identifier: Apache-2.0
"""Packs resources into protobuf messages, and remembers what it packed.

Reading a filter chain from its JSON form takes about half a millisecond, and a listener of a
hundred peers has a hundred of them, all but one unchanged when a peer is withdrawn. A withdrawal
must not wait for the other ninety-nine.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from troth.control_plane.envoy.descriptors import TYPE_URL_PREFIX
from troth.control_plane.envoy.resources import LISTENER
from troth.errors import ApiMisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.any_pb2 import Any as AnyMessage

    from troth.control_plane.envoy.descriptors import EnvoyDescriptors

__all__ = ["ResourcePacker"]

_CHAINS = "filter_chains"
_LISTENER_MESSAGE = LISTENER.removeprefix(TYPE_URL_PREFIX)
_CHAIN = "envoy.config.listener.v3.FilterChain"


class ResourcePacker:
    """Packs the resources of one Envoy; gives what `EnvoyDescriptors.resource` would.

    Remembers what it packed last, by the JSON text that it was packed from: values may be changed
    and packed again.
    """

    def __init__(self, descriptors: EnvoyDescriptors) -> None:
        self._descriptors = descriptors
        self._packed: dict[tuple[str, str], tuple[str, AnyMessage]] = {}
        self._chains: dict[str, dict[str, bytes]] = {}

    def pack(
        self, type_url: str, values: Mapping[str, Mapping[str, object]]
    ) -> dict[str, AnyMessage]:
        """Return all resources of a type, by name; others of that type are forgotten.

        Raises:
            ApiMisuseError: as `EnvoyDescriptors.resource`.
        """
        packed = {name: self._pack(type_url, name, value) for name, value in values.items()}
        for key in [key for key in self._packed if key[0] == type_url and key[1] not in packed]:
            del self._packed[key]
        if type_url == LISTENER:
            self._chains = {name: self._chains[name] for name in packed}
        return packed

    def _pack(self, type_url: str, name: str, value: Mapping[str, object]) -> AnyMessage:
        text = _text(value)
        remembered = self._packed.get((type_url, name))
        if remembered is not None and remembered[0] == text:
            return remembered[1]
        if type_url == LISTENER:
            packed = self._pack_listener(name, value)
        else:
            packed = self._descriptors.resource(type_url, value)
        self._packed[type_url, name] = text, packed
        return packed

    def _pack_listener(self, name: str, value: Mapping[str, object]) -> AnyMessage:
        """Put the listener together from its chains, each packed on its own."""
        rest = {key: item for key, item in value.items() if key != _CHAINS}
        message = cast("Any", self._descriptors.parse(_LISTENER_MESSAGE, rest))
        known, now = self._chains.get(name, {}), {}
        for chain in cast("list[Mapping[str, object]]", value.get(_CHAINS, [])):
            text = _text(chain)
            data = known.get(text)
            if data is None:
                data = self._descriptors.parse(_CHAIN, chain).SerializeToString(deterministic=True)
            now[text] = data
            message.filter_chains.add().ParseFromString(data)
        self._chains[name] = now
        packed = cast("AnyMessage", self._descriptors.message("google.protobuf.Any")())
        packed.type_url, packed.value = LISTENER, message.SerializeToString(deterministic=True)
        return packed


def _text(value: Mapping[str, object]) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError) as exc:
        raise ApiMisuseError(f"a resource that is no JSON ({exc})") from exc
