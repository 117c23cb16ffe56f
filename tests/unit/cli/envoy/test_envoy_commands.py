# SPDX-License-Identifier: Apache-2.0
"""`troth envoy` as a person runs it, without an Envoy; with one in tests/interop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from support.cli import run_cli
from troth.cli.envoy.files import MAX_FILE_BYTES, dump, read_tree
from troth.errors import ConfigurationError

AGENT = """
[node]
name = "edge"
[server]
url = "https://127.0.0.1:1"
trust_bundle = "unused"
spiffe_id = "spiffe://example.org/troth/server"
[attester]
[envoy]
xds_socket = "/run/troth/xds"
static = true
[gate]
socket = "/run/troth/gate"
module = "/lib/gate.so"
[[inbound]]
name = "web"
listen = "127.0.0.1:8443"
upstream = "127.0.0.1:8080"
[[outbound]]
name = "orders"
peer = "spiffe://example.org/orders"
listen = "127.0.0.1:9001"
"""
SERVICES = """
outbound:
- {name: orders, listen: "127.0.0.1:9001", endpoints: ["10.0.0.1:8443"]}
"""
EXISTING = """
# our service
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 8443}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
      filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          cluster: app
          stat_prefix: t
"""
FOREIGN = """
  clusters:
  - name: elsewhere
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
"""


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(AGENT)
    return path


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    path = tmp_path / "envoy.yaml"
    path.write_text(EXISTING)
    return path


def test_bootstrap_names_the_agent_and_nothing_else(
    agent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_cli(capsys, "envoy", "bootstrap", "-c", agent)
    assert ran.status == 0
    tree = yaml.safe_load(ran.out)
    assert tree["node"]["id"] == "edge"
    assert tree["dynamic_resources"]["lds_config"]
    assert "listeners" not in tree["static_resources"]


def test_a_static_bootstrap_has_every_service_with_its_gate(
    agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    services = tmp_path / "services.yaml"
    services.write_text(SERVICES)
    output = tmp_path / "envoy.json"
    arguments = ["--static", "--services", services, "--format", "json", "-o", output]
    ran = run_cli(capsys, "envoy", "bootstrap", "-c", agent, *arguments)
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    tree = json.loads(output.read_text())
    listeners = {each["name"]: each for each in tree["static_resources"]["listeners"]}
    assert listeners.keys() == {"inbound/web", "outbound/orders", "gate/outbound/orders"}
    first = listeners["inbound/web"]["filter_chains"][0]["filters"][0]
    assert "label=web" in first["typed_config"]["filter_config"]["value"]
    assert "dynamic_resources" not in tree


def test_a_service_without_endpoints_is_left_out_and_named(
    agent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_cli(capsys, "envoy", "bootstrap", "-c", agent, "--static")
    assert ran.status == 0
    assert "outbound orders: left out" in ran.err


def test_what_the_agent_does_not_know_yet_is_said(
    agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.write_text(AGENT.replace("static = true\n", ""))
    services = tmp_path / "services.yaml"
    peer = 'peer: "spiffe://example.org/ledger", '
    services.write_text(SERVICES.replace("orders", "ledger").replace("listen:", peer + "listen:"))
    ran = run_cli(capsys, "envoy", "bootstrap", "-c", agent, "--static", "--services", services)
    assert ran.status == 0
    assert "needs: [envoy] static = true" in ran.err
    assert '[[outbound]] name = "ledger", peer = "spiffe://example.org/ledger"' in ran.err


def test_a_list_of_services_alone_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    services = tmp_path / "services.yaml"
    peer = 'peer: "spiffe://example.org/orders", '
    whole = "node: edge\nxds_socket: /run/xds\ngate_socket: /run/gate\n"
    services.write_text(whole + SERVICES.replace("listen:", peer + "listen:"))
    ran = run_cli(capsys, "envoy", "bootstrap", "--static", "--services", services)
    assert ran.status == 0
    assert "role=client" in ran.out
    services.write_text(whole + SERVICES)
    ran = run_cli(capsys, "envoy", "bootstrap", "--static", "--services", services)
    assert ran.status == 3
    assert "SPIFFE ID" in ran.err
    assert run_cli(capsys, "envoy", "bootstrap").status == 3


def test_patch_writes_the_gate_and_says_what_it_did(
    agent: Path, existing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_cli(capsys, "envoy", "patch", existing, "-c", agent)
    assert ran.status == 0
    assert "patched: listener in, filter chain 0: the gate, strict" in ran.err
    tree = yaml.safe_load(ran.out)
    first = tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    assert first["name"] == "troth.gate"
    assert "label=web" in first["typed_config"]["filter_config"]["value"]
    existing.write_text(ran.out)
    assert run_cli(capsys, "envoy", "patch", existing, "-c", agent).out == ran.out


def test_a_diff_writes_nothing(
    agent: Path, existing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.yaml"
    ran = run_cli(capsys, "envoy", "patch", existing, "-c", agent, "--diff", "-o", output)
    assert ran.status == 0
    assert not output.exists()
    added = [line for line in ran.out.splitlines() if line.startswith("+")]
    assert any("troth.gate" in line for line in added)
    assert not any("our service" in line for line in ran.out.splitlines())


def test_what_could_not_be_patched_is_status_1_unless_it_is_left(
    agent: Path, existing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    existing.write_text(EXISTING + FOREIGN)
    ran = run_cli(capsys, "envoy", "patch", existing, "-c", agent)
    assert ran.status == 1
    assert "NOT PATCHED: cluster elsewhere" in ran.err
    assert "what to do: add [[outbound]]" in ran.err
    ran = run_cli(capsys, "envoy", "patch", existing, "-c", agent, "--leave", "elsewhere")
    assert ran.status == 0
    named = ["--server", "elsewhere=orders"]
    ran = run_cli(capsys, "envoy", "patch", existing, "-c", agent, *named)
    assert ran.status == 0
    assert "gate/elsewhere" in ran.out


def test_what_is_insecure_is_status_2_and_nothing_is_written(
    agent: Path, existing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    existing.write_text(EXISTING + FOREIGN + "        allow_renegotiation: true\n")
    output = tmp_path / "out.yaml"
    arguments = ["--server", "elsewhere=orders", "-o", output]
    ran = run_cli(capsys, "envoy", "patch", existing, "-c", agent, *arguments)
    assert ran.status == 2
    assert "REFUSED: cluster elsewhere" in ran.err
    assert "remove allow_renegotiation" in ran.err
    assert not output.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--server", "elsewhere"],
        ["--server", "elsewhere=nothing"],
        ["--profile", "magic"],
        ["-c", "/nonexistent.toml"],
    ],
)
def test_wrong_usage_is_status_3(
    agent: Path, existing: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run_cli(capsys, "envoy", "patch", existing, "-c", agent, *arguments).status == 3


def test_preflight_of_what_is_no_envoy_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(capsys, "envoy", "preflight", "--envoy", tmp_path / "absent").status == 3
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o755)
    ran = run_cli(capsys, "envoy", "preflight", "--envoy", script)
    assert ran.status == 2
    assert "which version" in ran.err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-11-25", "2026-11-25"),
        ("a: 12:30:45", "12:30:45"),
        ("a: yes", True),
        ("a: 0.5", 0.5),
        ("a: 10s", "10s"),
        ("a: 0600", 0o600),
        ('a: "1"', "1"),
        ("a: 8443", 8443),
    ],
)
def test_scalars_are_what_envoy_takes_them_for_and_survive_being_written(
    text: str, value: object
) -> None:
    tree = read_tree(text.encode(), source="t")
    assert tree == {"a": value}
    assert read_tree(dump(tree, "yaml").encode(), source="t") == tree
    assert read_tree(dump(tree, "json").encode(), source="t") == tree


def test_anchors_are_written_out_so_that_one_place_can_change_alone() -> None:
    tree = read_tree(b"a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", source="t")
    tree["a"]["b"] = 3
    assert tree == {"a": {"b": 3}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}
    assert "&" not in dump(tree, "yaml")


@pytest.mark.parametrize(
    "data",
    [
        b"a: 1\na: 2",
        b"- a",
        b"",
        b"a: [",
        b"a: !!python/object:os.system {}",
        b"\xff\xfe\x00",
        b"x" * (MAX_FILE_BYTES + 1),
        b"\n".join(
            [b"a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
            + [b"a%d: &a%d [%s]" % (n, n, b",".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)]
        ),
    ],
)
def test_what_is_no_configuration_is_an_error(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read_tree(data, source="t")
