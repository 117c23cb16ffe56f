# SPDX-License-Identifier: Apache-2.0
"""The demo's files: what an operator would write before the first start."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from troth.cli.demo.platforms import CHANGED, CLOUD, EDGE, REPLICAS, Platforms
from troth.cli.demo.ports import PortReservation
from troth.control_plane.gate import MODULE_PATH
from troth.errors import ConfigurationError

__all__ = ["PASSPORT_SECONDS", "TRUST_DOMAIN", "VERIFIER", "NodeSetting", "Setting"]

TRUST_DOMAIN = "demo.example"
VERIFIER = "demo-verifier"
# How old a result the cloud node takes at the ticker before it asks for fresh Evidence.
PASSPORT_SECONDS = 8
ROLES = {CLOUD: "cloud node", EDGE: "edge node", CHANGED: "edge node"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSetting:
    """One node's files and ports."""

    name: str
    role: str
    config: Path
    bootstrap: Path
    access_log: Path
    http_port: int
    tcp_port: int


class Setting:
    """A directory with everything the demo's processes are told.

    Raises:
        ConfigurationError: `gated`, and the gate's module is not built.
    """

    def __init__(
        self,
        directory: Path,
        ports: PortReservation,
        *,
        gated: bool,
        platforms: Platforms | None = None,
    ) -> None:
        if gated and not MODULE_PATH.is_file():
            raise ConfigurationError(
                source="the gate's module",
                value=str(MODULE_PATH),
                accepted="a file: build it with `make gate`; `troth demo --no-gate` goes without it",
            )
        self.directory = directory
        self.gated = gated
        # The mixed pair needs rules of its own, which the replicas do without.
        self._mixed = gated and platforms is None
        self.platforms = platforms or Platforms.create(os.urandom)
        self.devices = self.platforms.write_devices(directory)
        self.corims = self.platforms.write_corims(directory)
        self._ports = ports
        self._inbound = {
            (name, kind): ports.take()
            for name in self.platforms.by_name
            for kind in ("http", "tcp")
        }

    def write_server(self) -> Path:
        """Write the server's configuration."""
        entries = "".join(
            f"""
[[entries]]
spiffe_id = {_text(_spiffe_id(name))}
selectors = [{_text("instance:" + platform.instance_id.hex())}]
hint = {_text(f"{name}, a simulated platform")}
"""
            for name, platform in self.platforms.by_name.items()
        )
        path = self.directory / "server.toml"
        path.write_text(
            f"""\
trust_domain = {_text(TRUST_DOMAIN)}
listen = "127.0.0.1:0"
data_dir = {_text(str(self.directory / "server"))}
# Insecure: the demo's platforms are simulated. Without this line they would be refused.
allow_simulator = true

[verifier]
name = {_text(VERIFIER)}
corims = [{", ".join(_text(str(corim)) for corim in self.corims)}]
{entries}"""
        )
        return path

    def write_node(
        self, name: str, *, server: dict[str, object], service: dict[str, object]
    ) -> NodeSetting:
        """Write one agent's configuration; `server` and `service` are their ready lines."""
        peer = EDGE if name == CLOUD else CLOUD
        http_port, tcp_port = self._ports.take(), self._ports.take()
        setting = NodeSetting(
            name=name,
            role=ROLES[CLOUD if name == CLOUD else EDGE],
            config=self.directory / f"{name}.toml",
            bootstrap=self.directory / f"{name}-envoy.json",
            access_log=self.directory / f"{name}-access.log",
            http_port=http_port,
            tcp_port=tcp_port,
        )
        setting.config.write_text(
            f"""\
[node]
name = {_text(name)}

[server]
url = {_text(str(server["url"]))}
trust_bundle = {_text(str(server["trust_bundle"]))}
spiffe_id = {_text(str(server["spiffe_id"]))}

[attester]
kind = "simulator"
device = {_text(str(self.devices[name]))}

[envoy]
xds_socket = {_text(str(self.directory / f"{name}.xds"))}
admin_socket = {_text(str(self.directory / f"{name}.adm"))}
bootstrap = {_text(str(setting.bootstrap))}
access_log = {_text(str(setting.access_log))}
access_log_interval_seconds = 0.5

{self._gate(name)}
[[inbound]]
name = "web"
protocol = "http"
listen = "127.0.0.1:{self._inbound[name, "http"]}"
upstream = "127.0.0.1:{service["http"]}"

[[inbound]]
name = "ticker"
protocol = "tcp"
listen = "127.0.0.1:{self._inbound[name, "tcp"]}"
upstream = "127.0.0.1:{service["tcp"]}"

[[outbound]]
name = "web"
peer = {_text(_spiffe_id(peer))}
protocol = "http"
listen = "127.0.0.1:{http_port}"

[[outbound]]
name = "ticker"
peer = {_text(_spiffe_id(peer))}
protocol = "tcp"
listen = "127.0.0.1:{tcp_port}"

{self._rules(name)}
[[verifiers]]
name = {_text(VERIFIER)}
"""
        )
        return setting

    def _rules(self, name: str) -> str:
        rules = [_rule("clients", model="passport"), _rule("servers", model="passport")]
        if self._mixed:
            # The mixed pair: at the edge node's ticker, its caller's SVID is enough for the edge
            # node, while the cloud node wants a result, and fresh Evidence where that is too old.
            if name == EDGE:
                rules.insert(0, _rule("clients", model="svid_only", service="ticker"))
            if name == CLOUD:
                rules.insert(
                    0, _rule("servers", model="any", service="ticker", max_age=PASSPORT_SECONDS)
                )
        return "\n".join(rules)

    def _gate(self, name: str) -> str:
        if not self.gated:
            return ""
        return f"""[gate]
socket = {_text(str(self.directory / f"{name}.gate"))}
"""


def _rule(table: str, *, model: str, service: str = "", max_age: int = 0) -> str:
    services = f"services = [{_text(service)}]\n" if service else ""
    return f"""\
[[{table}]]
peers = [{_text(f"spiffe://{TRUST_DOMAIN}/*")}]
{services}model = {_text(model)}
min_tier = "measured"
max_age_seconds = {max_age}
verifiers = [{_text(VERIFIER)}]
# Insecure: the peers are simulated.
allow_insecure = true
"""


def _spiffe_id(name: str) -> str:
    role = EDGE if name in REPLICAS else name
    return f"spiffe://{TRUST_DOMAIN}/node/{role}"


def _text(value: str) -> str:
    """Return a TOML basic string; JSON's escapes are a subset of its."""
    return json.dumps(value)
