# SPDX-License-Identifier: Apache-2.0
"""Remembering what was packed changes how long it takes and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.envoy_mesh import envoy_binary
from troth.control_plane.envoy.descriptors import EnvoyDescriptors
from troth.control_plane.envoy.packing import ResourcePacker
from troth.control_plane.envoy.resources import CLUSTER, LISTENER
from troth.errors import ApiMisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Counting(EnvoyDescriptors):
    """Counts what is parsed."""

    def __init__(self, real: EnvoyDescriptors) -> None:
        self._pool, self._source = real._pool, real._source
        self.parsed: list[str] = []

    def parse(self, full_name: str, value: Mapping[str, object]) -> Any:
        self.parsed.append(full_name.rpartition(".")[2])
        return super().parse(full_name, value)


@pytest.fixture
def descriptors() -> Counting:
    return Counting(EnvoyDescriptors.load(envoy_binary()))


def _listener(*chains: str, port: int = 1) -> dict[str, Any]:
    return {
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"name": name, "filter_chain_match": {"server_names": [name]}} for name in chains
        ],
    }


def test_a_listener_is_packed_as_if_in_one_piece(descriptors: Counting) -> None:
    packer = ResourcePacker(descriptors)
    for value in (_listener("a", "b"), _listener(), {"name": "l"}, _listener("b", "a", "a")):
        assert packer.pack(LISTENER, {"l": value})["l"] == descriptors.resource(LISTENER, value)


def test_only_what_changed_is_parsed_again(descriptors: Counting) -> None:
    packer = ResourcePacker(descriptors)
    packer.pack(LISTENER, {"l": _listener("a", "b", "c")})
    assert descriptors.parsed == ["Listener", "FilterChain", "FilterChain", "FilterChain"]
    descriptors.parsed.clear()
    packer.pack(LISTENER, {"l": _listener("a", "b", "c")})
    assert descriptors.parsed == []
    packer.pack(LISTENER, {"l": _listener("a", "c")})
    assert descriptors.parsed == ["Listener"]
    packer.pack(LISTENER, {"l": _listener("a", "c", "d", port=2)})
    assert descriptors.parsed == ["Listener", "Listener", "FilterChain"]


def test_a_value_that_was_changed_in_place_is_packed_anew(descriptors: Counting) -> None:
    packer = ResourcePacker(descriptors)
    value = _listener("a", "b")
    before = packer.pack(LISTENER, {"l": value})["l"].value
    value["filter_chains"][0]["name"] = "z"
    assert packer.pack(LISTENER, {"l": value})["l"].value != before


def test_one_type_does_not_disturb_another_of_the_same_name(descriptors: Counting) -> None:
    packer = ResourcePacker(descriptors)
    packer.pack(LISTENER, {"l": _listener("a")})
    packer.pack(CLUSTER, {"l": {"name": "l"}})
    packer.pack(CLUSTER, {})
    descriptors.parsed.clear()
    packer.pack(LISTENER, {"l": _listener("a")})
    assert descriptors.parsed == []


def test_what_is_gone_is_forgotten(descriptors: Counting) -> None:
    packer = ResourcePacker(descriptors)
    packer.pack(LISTENER, {"l": _listener("a")})
    packer.pack(LISTENER, {})
    assert (packer._packed, packer._chains) == ({}, {})


def test_a_value_that_is_no_json_is_refused(descriptors: Counting) -> None:
    with pytest.raises(ApiMisuseError, match="no JSON"):
        ResourcePacker(descriptors).pack(CLUSTER, {"l": {"name": b"l"}})
