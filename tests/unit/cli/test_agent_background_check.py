# SPDX-License-Identifier: Apache-2.0
"""Which Verifier an agent asks about its peers' fresh Evidence: its server's, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from troth.adapters.server_check import ServerCheck
from troth.cli.agent import _background_check
from troth.control_plane.agent.config import AgentConfig
from troth.errors import ConfigurationError

PATH = Path("agent.toml")


def config(verifiers: Sequence[dict[str, str]], **rules: str) -> AgentConfig:
    server = {
        "url": "https://server.example",
        "trust_bundle": "bundle.pem",
        "spiffe_id": "spiffe://mesh.example/troth/server",
    }
    tree: dict[str, Any] = {
        "node": {"name": "edge"},
        "server": server,
        "attester": {},
        "gate": {"socket": "gate.sock"},
        "verifiers": list(verifiers),
    }
    for table, model in rules.items():
        tree[table] = [{"peers": ["spiffe://mesh.example/*"], "model": model}]
    return msgspec.convert(tree, AgentConfig)


def check(made: AgentConfig, keys: Sequence[str] = ("key",)) -> Any:
    gate: Any = SimpleNamespace(result_keys=lambda name: [f"{each} of {name}" for each in keys])
    server: Any = object()
    return _background_check(made, PATH, server, gate)


def test_the_servers_verifier_is_the_first_without_keys_of_its_own() -> None:
    made = check(config([{"name": "other", "keys": "other.jwks"}, {"name": "home"}]))
    assert isinstance(made, ServerCheck)
    assert made.name == "home"
    assert made._keys() == ["key of home"]


@pytest.mark.parametrize("table", ["clients", "servers"])
def test_a_rule_that_needs_a_verifier_to_ask_says_so_where_there_is_none(table: str) -> None:
    others = [{"name": "other", "keys": "other.jwks"}, {"name": "site", "delegation": "site.jwt"}]
    with pytest.raises(ConfigurationError) as refusal:
        check(config(others, **{table: "background_check"}))
    assert refusal.value.key == f"{table}[0].model"
    assert check(config(others, **{table: "any"})) is None
    assert check(config([*others, {"name": "home"}], **{table: "background_check"})) is not None
