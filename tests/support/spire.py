# SPDX-License-Identifier: Apache-2.0
"""The real SPIRE: built from its Go module, its server and agents run in a directory."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.ports import reserved_ports
from support.waiting import until
from troth.cli.demo.platforms import Platforms
from troth.clock import system_random

SPIRE_VERSION = "v1.15.3"
DOMAIN = "spire.example"
ROOT = Path(__file__).parents[2]
BINARIES = ROOT / ".interop" / "bin"
PLUGINS = Path(sys.executable).parent
WITHOUT_EJBCA = "without-ejbca"
_EJBCA_MODULE = "ejbca-go-client-sdk"
_GO_CLIENT = ROOT / "tests" / "interop" / "spire" / "go"


def build_spire() -> None:
    """Build what is not there yet: minutes the first time, then nothing.

    The module's own go.sum pins everything, as `go install` would with its version.
    """
    BINARIES.mkdir(parents=True, exist_ok=True)
    for name in ("spire-server", "spire-agent"):
        if not _is_built(BINARIES / name):
            _build(name)
    client = BINARIES / "client"
    if not client.exists() or client.stat().st_mtime < (_GO_CLIENT / "main.go").stat().st_mtime:
        _go("build", "-trimpath", "-o", str(client), ".", cwd=_GO_CLIENT)


def versions() -> str:
    """Say what runs here, for people."""
    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    pins = (_GO_CLIENT / "go.mod").read_text().split()
    go_spiffe = pins[pins.index("github.com/spiffe/go-spiffe/v2") + 1]
    less = " (server without the upstream authority EJBCA, whose module was not to be had)"
    remark = less if (BINARIES / WITHOUT_EJBCA).exists() else ""
    return f"SPIRE {SPIRE_VERSION}{remark}, go-spiffe {go_spiffe}, {go.split()[2]}"


def _is_built(path: Path) -> bool:
    if not path.exists():
        return False
    said = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False)
    return SPIRE_VERSION.removeprefix("v") in said.stdout + said.stderr


def _build(name: str) -> None:
    target = str(BINARIES / name)
    module = _module()
    try:
        _go("build", "-trimpath", "-o", target, f"./cmd/{name}", cwd=module)
    except RuntimeError as exc:
        if _EJBCA_MODULE not in str(exc):
            raise
        # Not every module proxy has what this one plugin needs. It plays no part here, and the
        # rest of the server is built as it is.
        source = BINARIES.parent / "spire-without-ejbca"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(module, source)
        for folder in (source, *(each for each in source.rglob("*") if each.is_dir())):
            folder.chmod(0o755)
        listed = source / "pkg" / "server" / "catalog" / "upstreamauthority.go"
        lines = [each for each in listed.read_text().splitlines() if "ejbca" not in each]
        listed.chmod(0o644)
        listed.write_text("\n".join(lines) + "\n")
        _go("build", "-trimpath", "-o", target, f"./cmd/{name}", cwd=source)
        (BINARIES / WITHOUT_EJBCA).touch()


def _module() -> Path:
    found = _go(
        "mod", "download", "-json", f"github.com/spiffe/spire@{SPIRE_VERSION}", cwd=BINARIES
    )
    return Path(json.loads(found)["Dir"])


def _go(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false"}
    ran = subprocess.run(
        ["go", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise RuntimeError(f"go {' '.join(arguments)}: {ran.stdout}{ran.stderr}")
    return ran.stdout


@dataclass
class Started:
    """One process of SPIRE's, and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Spire:
    """A SPIRE server of one trust domain, and agents of it."""

    directory: Path
    domain: str
    port: int
    server_plugins: str
    more: str = ""
    agent_ttl: str = "1h"
    started: list[Started] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.directory / "server.sock"

    def start_server(self) -> Started:
        config = self.directory / "server.conf"
        config.write_text(f"""
server {{
  bind_address = "127.0.0.1"
  bind_port = "{self.port}"
  socket_path = "{self.socket}"
  trust_domain = "{self.domain}"
  data_dir = "{self.directory}"
  log_level = "DEBUG"
  agent_ttl = "{self.agent_ttl}"
  {self.more}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{self.directory}/server.sqlite"
    }}
  }}
  KeyManager "memory" {{ plugin_data {{}} }}
  {self.server_plugins}
}}
""")
        return self._start("server", "spire-server", config)

    async def serving(self) -> None:
        await until(lambda: self.ask("healthcheck").returncode == 0, seconds=60, interval=0.2)

    def start_agent(self, name: str, plugins: str) -> Started:
        directory = self.agent_directory(name)
        directory.mkdir(exist_ok=True)
        bundle = directory / "bundle.pem"
        bundle.write_text(self.ask("bundle", "show").stdout)
        config = directory / "agent.conf"
        config.write_text(f"""
agent {{
  data_dir = "{directory}"
  log_level = "DEBUG"
  server_address = "127.0.0.1"
  server_port = "{self.port}"
  socket_path = "{self.agent_socket(name)}"
  trust_bundle_path = "{bundle}"
  trust_domain = "{self.domain}"
}}
plugins {{
  KeyManager "disk" {{ plugin_data {{ directory = "{directory}" }} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
  {plugins}
}}
""")
        return self._start(name, "spire-agent", config)

    def agent_directory(self, name: str) -> Path:
        return self.directory / name

    def agent_socket(self, name: str) -> Path:
        return self.agent_directory(name) / "api.sock"

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of spire-server against this server."""
        return subprocess.run(
            [
                str(BINARIES / "spire-server"),
                *arguments,
                "-socketPath",
                str(self.socket),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def agents(self) -> list[dict[str, Any]]:
        listed = json.loads(self.ask("agent", "list", "-output", "json").stdout)
        return list(listed.get("agents", []))

    def _start(self, name: str, program: str, config: Path) -> Started:
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(BINARIES / program), "run", "-config", str(config)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started = Started(process, log)
        self.started.append(started)
        return started

    def stop(self) -> None:
        for each in reversed(self.started):
            if each.process.poll() is None:
                each.process.terminate()
        for each in reversed(self.started):
            try:
                each.process.wait(10)
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait(10)
        self.started.clear()


@contextmanager
def running(spire: Spire) -> Iterator[Spire]:
    """Stop it at the end, and take its directory away."""
    try:
        yield spire
    finally:
        spire.stop()
        shutil.rmtree(spire.directory, ignore_errors=True)


class AttestedSpire:
    """A SPIRE server with our plugins, and simulated devices that its agents run on."""

    def __init__(self, spire: Spire) -> None:
        self.spire = spire
        self.platforms = Platforms.create(system_random)
        self.devices = self.platforms.write_devices(spire.directory)
        corims = [str(each) for each in self.platforms.write_corims(spire.directory)]
        self.state = spire.directory / "state"
        (spire.directory / "attestor.toml").write_text(
            f'state_dir = "{self.state}"\nallow_simulator = true\ncorims = {corims}\n'
        )
        (spire.directory / "composer.toml").write_text(f'state_dir = "{self.state}"\n')

    def start_agent(self, name: str, *, device: str = "", keys_of: str = "") -> Started:
        """Start an agent.

        Args:
            name: of its directory.
            device: what it runs on; the one of its name by default.
            keys_of: the agent whose keys its Evidence covers; its own by default.
        """
        config = self.spire.directory / f"{name}.toml"
        keys = self.spire.agent_directory(keys_of or name) / "keys.json"
        config.write_text(
            f'kind = "simulator"\ndevice = "{self.devices[device or name]}"\n'
            f'agent_keys = "{keys}"\n'
        )
        return self.spire.start_agent(
            name,
            f"""NodeAttestor "troth" {{
    plugin_cmd = "{PLUGINS}/troth-nodeattestor"
    plugin_args = ["agent"]
    plugin_data {{ config = "{config}" }}
  }}""",
        )

    def log(self, name: str) -> str:
        return (self.spire.directory / f"{name}.log").read_text(errors="replace")

    async def attested(self, count: int) -> list[dict[str, Any]]:
        """Wait for that many agents, and return what the server lists of them."""
        try:
            await until(lambda: len(self.spire.agents()) == count, seconds=40, interval=0.3)
        except TimeoutError as exc:
            raise AssertionError(self.log("server")[-3000:]) from exc
        return self.spire.agents()


@asynccontextmanager
async def attested_spire(*, agent_ttl: str = "1h", more: str = "") -> AsyncIterator[AttestedSpire]:
    """Give a server that serves."""
    directory = Path(tempfile.mkdtemp(prefix="ts", dir="/tmp"))
    plugins = f"""NodeAttestor "troth" {{
    plugin_cmd = "{PLUGINS}/troth-nodeattestor"
    plugin_args = ["server"]
    plugin_data {{ config = "{directory}/attestor.toml" }}
  }}
  CredentialComposer "troth" {{
    plugin_cmd = "{PLUGINS}/troth-credentialcomposer"
    plugin_data {{ config = "{directory}/composer.toml" }}
  }}"""
    with reserved_ports(1) as (port,):
        spire = Spire(directory, DOMAIN, port, plugins, agent_ttl=agent_ttl, more=more)
    with running(spire):
        made = AttestedSpire(spire)
        spire.start_server()
        try:
            await spire.serving()
        except TimeoutError as exc:
            raise AssertionError(made.log("server")[-3000:]) from exc
        yield made


async def go_client(socket: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start the client in go-spiffe against a Workload API."""
    return await asyncio.create_subprocess_exec(
        str(BINARIES / "client"),
        *arguments,
        env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix://{socket}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
