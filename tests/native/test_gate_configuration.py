# SPDX-License-Identifier: Apache-2.0
"""What the gate accepts as its configuration, as `envoy --mode validate` says it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from native.stock_envoy import StockEnvoy, cluster, gate_filter, listener, server_config, tcp_proxy

pytestmark = pytest.mark.envoy

AGENT = Path("/run/troth/gate.sock")


def validate(module: Path, binary: Path, words: str, tmp_path: Path) -> str:
    """Give "" where Envoy accepts the gate with these words, else what it printed."""
    gate = gate_filter(module, AGENT, "server")
    gate["typed_config"]["filter_config"]["value"] = words
    filters = [gate, tcp_proxy("echo")]
    config = server_config([listener("tcp", 1, filters, tmp_path / "log")], [cluster("echo", 1)])
    envoy = StockEnvoy(binary, config)
    try:
        outcome = envoy.validate()
    finally:
        shutil.rmtree(envoy.directory)
    return "" if outcome.returncode == 0 else outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    "words",
    [
        "agent=/run/troth/gate.sock role=server",
        "role=client;agent=/run/troth/gate.sock;label=out\nexchange_ms=100 max_exchanges=1",
        "agent=/a role=server mode=permissive silence_ms=1 agent_uid=1000",
    ],
)
def test_a_valid_configuration_is_accepted(
    gate_module: Path, envoy_binary: Path, words: str, tmp_path: Path
) -> None:
    assert validate(gate_module, envoy_binary, words, tmp_path) == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", "agent=/path/of/the/agent's/socket is missing"),
        ("agent=/a", "role=client or role=server is missing"),
        ("agent=relative role=server", "a value is not valid"),
        (f"agent=/{'a' * 107} role=server", "a value is not valid"),
        ("agent=/a role=proxy", "a value is not valid"),
        ("agent=/a role=server mode=lenient", "a value is not valid"),
        ("agent=/a role=client mode=permissive", "mode=permissive is for servers only"),
        ("agent=/a role=server exchange_ms=99", "a value is not valid"),
        ("agent=/a role=server exchange_ms=10s", "a value is not valid"),
        ("agent=/a role=server max_exchanges=0", "a value is not valid"),
        (f"agent=/a role=server label={'a' * 129}", "a value is not valid"),
        ("agent=/a role=server strict", "a word is not key=value"),
        ("agent=/a role=server tier=high", "unknown key"),
    ],
)
def test_a_wrong_configuration_is_rejected_with_a_reason(
    gate_module: Path, envoy_binary: Path, words: str, problem: str, tmp_path: Path
) -> None:
    assert f"filter_config: {problem}" in validate(gate_module, envoy_binary, words, tmp_path)
