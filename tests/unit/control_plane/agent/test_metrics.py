# SPDX-License-Identifier: Apache-2.0
import socket

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from troth.control_plane.agent.metrics import AgentMetrics, serving
from troth.errors import ConfigurationError, UnavailableError


def test_metrics_are_served_while_wanted_and_no_longer() -> None:
    metrics = AgentMetrics()
    metrics.failed(UnavailableError("a peer's words: spiffe://evil.example/x"))
    with serving(metrics.registry, "127.0.0.1:0") as address:
        text = httpx.get(f"http://{address}/metrics", trust_env=False).text
        assert 'troth_agent_renewals_total{outcome="unavailable"} 1.0' in text
        assert "troth_agent_member 0.0" in text
        assert "evil" not in text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/metrics", trust_env=False)


def test_other_parts_count_beside_them() -> None:
    registry = CollectorRegistry()
    Counter("troth_gate_exchanges", "x", registry=registry).inc()
    AgentMetrics(registry).lost()
    with serving(registry, "127.0.0.1:0") as address:
        text = httpx.get(f"http://{address}/metrics", trust_env=False).text
    assert "troth_gate_exchanges_total 1.0" in text
    assert "troth_agent_member 0.0" in text


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:http", "127.0.0.1:70000", ""])
def test_a_wrong_address_stops_the_start(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"), serving(CollectorRegistry(), listen):
        pass


def test_a_taken_address_stops_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ConfigurationError, match=r"metrics\.listen"),
            serving(CollectorRegistry(), address),
        ):
            pass
