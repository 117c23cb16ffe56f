# SPDX-License-Identifier: Apache-2.0
"""`troth agent`: the composition root of one node's agent."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from troth.control_plane.gate import MODULE_PATH
from troth.errors import ConfigurationError

if TYPE_CHECKING:
    from troth.adapters.server_client import ServerClient
    from troth.control_plane.agent.agent_gate import AgentGate
    from troth.control_plane.agent.config import AgentConfig
    from troth.control_plane.agent.delegations import DelegationFiles
    from troth.control_plane.agent.metrics import AgentMetrics
    from troth.control_plane.agent.ports import Membership, MeshProxy
    from troth.control_plane.agent.static_side import StaticSide
    from troth.control_plane.agent.trust import AgentTrust
    from troth.control_plane.agent.workload_side import WorkloadSide
    from troth.evidence.attester import Attester
    from troth.formats.keys import VerificationKey
    from troth.tls.judge import BackgroundCheck

__all__ = ["agent"]


@click.command()
@click.option(
    "--config",
    "-c",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="TOML file; docs/reference/agent.md lists every key.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least important lines to log, to standard error.",
)
@click.option(
    "--write-bootstrap",
    is_flag=True,
    help="Write Envoy's bootstrap to the configured file and exit.",
)
@click.option("--stop-with-stdin", is_flag=True, hidden=True)
def agent(config_path: Path, log_level: str, write_bootstrap: bool, stop_with_stdin: bool) -> None:  # noqa: FBT001 - click passes flags so
    """Run the agent of one node, beside its Envoy.

    It joins the mesh by attesting this machine, keeps the node's X.509-SVID fresh, follows the
    server's feed, and configures the Envoy beside it through a Unix socket: which peers exist, and
    that nobody else does. Start Envoy with the bootstrap that it writes:

      envoy --config-path BOOTSTRAP --drain-time-s 0 --drain-strategy immediate

    Prints one line of JSON when the node has joined. Ends with status 2 when the server refuses
    the node, and says why.
    """
    from troth.cli.running import (  # noqa: PLC0415 - start-up time
        run_until_stopped,
        without_decorations,
    )

    without_decorations()
    from troth.adapters.server_errors import RefusedByServerError  # noqa: PLC0415
    from troth.cli.logs import configure_logs  # noqa: PLC0415
    from troth.control_plane.agent.config import AgentConfig  # noqa: PLC0415
    from troth.control_plane.config_file import load_config  # noqa: PLC0415

    config = load_config(config_path, AgentConfig)
    configure_logs(log_level)
    _write_bootstrap(config)
    if write_bootstrap:
        return
    try:
        run_until_stopped(_serve(config, config_path), with_stdin=stop_with_stdin)
    except RefusedByServerError as exc:
        for finding in exc.findings:
            click.echo(json.dumps({"finding": finding.to_json()}), err=True)
        raise


async def _serve(config: AgentConfig, path: Path) -> None:
    from troth.adapters.server_client import ServerClient  # noqa: PLC0415
    from troth.cli.onboarding_files import onboarding_of  # noqa: PLC0415
    from troth.cli.running import print_ready  # noqa: PLC0415
    from troth.control_plane.agent.node_agent import NodeAgent  # noqa: PLC0415
    from troth.control_plane.agent.trust import AgentTrust  # noqa: PLC0415

    more: dict[str, str] = {}

    def joined(membership: Membership) -> None:
        print_ready(
            node_id=membership.node_id,
            spiffe_id=str(membership.spiffe_id),
            expires=membership.expires.isoformat(),
            **more,
        )

    if config.envoy is None and config.workload_api is None:
        raise ConfigurationError(
            source=str(path), key="envoy", accepted="an [envoy] or a [workload_api] to serve"
        )
    server = ServerClient(
        [config.server.url, *config.server.other_urls],
        trust_bundle=_trust_bundle(config, path),
        server_id=config.server.spiffe_id,
        onboarding=onboarding_of(config.onboarding, path.parent),
    )
    attester = _attester(config, path)
    trust = AgentTrust()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        metrics = None
        if config.metrics is not None:
            from troth.control_plane.agent.metrics import AgentMetrics, serving  # noqa: PLC0415

            metrics = AgentMetrics()
            served = serving(metrics.registry, config.metrics.listen)
            more["metrics"] = f"http://{stack.enter_context(served)}/metrics"
        gate = _gate(config, path, attester=attester, trust=trust, server=server, metrics=metrics)
        if gate is not None:
            await stack.enter_async_context(gate.service)
        static = _static(config, path, trust)
        proxy = _proxy(config, static)
        if isinstance(proxy, AbstractAsyncContextManager):
            await stack.enter_async_context(proxy)
        workloads = _workloads(config, path, server)
        if workloads is not None:
            await stack.enter_async_context(workloads)
        await NodeAgent(
            config,
            server=server,
            proxy=proxy,
            attester=attester,
            verifier_keys=_verifier_keys(config, path),
            delegations=_delegations(config, path),
            gate=gate,
            static=static,
            trust=trust,
            workloads=workloads,
            metrics=metrics,
            on_bundle=lambda bundle: _keep_bundle(config, path, bundle.encode_pem()),
            on_joined=joined,
        ).run()


def _trust_bundle(config: AgentConfig, path: Path) -> str:
    """Return the bundle to know the server by: the file, or what was kept of it since."""
    section = config.server
    configured = _read(section.trust_bundle, path, "server.trust_bundle")
    if section.bundle_cache:
        cache, given = path.parent / section.bundle_cache, path.parent / section.trust_bundle
        with contextlib.suppress(FileNotFoundError):
            if cache.stat().st_mtime >= given.stat().st_mtime:
                configured = _read(section.bundle_cache, path, "server.bundle_cache")
    return configured.decode("ascii", "replace")


def _keep_bundle(config: AgentConfig, path: Path, pem: bytes) -> None:
    if not config.server.bundle_cache:
        return
    from troth.control_plane.key_files import write_private  # noqa: PLC0415

    # Not secret, but whoever may write it chooses our server.
    write_private(path.parent / config.server.bundle_cache, pem)


def _static(config: AgentConfig, path: Path, trust: AgentTrust) -> StaticSide | None:
    """Return what an Envoy gets whose listeners and clusters stand in its own file."""
    from troth.control_plane.agent.static_side import StaticSide  # noqa: PLC0415

    if config.envoy is None or not config.envoy.static:
        if config.ext_authz is not None:
            raise ConfigurationError(
                source=str(path), key="ext_authz", accepted="an [envoy] with static = true"
            )
        return None
    if config.gate is None and config.ext_authz is None:
        raise ConfigurationError(
            source=str(path),
            key="envoy.static",
            accepted="a [gate] or an [ext_authz] beside it: else nobody decides about callers",
        )
    return StaticSide(config, trust=trust)


def _proxy(config: AgentConfig, static: StaticSide | None) -> MeshProxy:
    from troth.adapters.envoy_process import find_envoy  # noqa: PLC0415
    from troth.control_plane.agent.no_proxy import NoProxy  # noqa: PLC0415
    from troth.control_plane.envoy.descriptors import EnvoyDescriptors  # noqa: PLC0415
    from troth.control_plane.envoy.xds import XdsServer  # noqa: PLC0415

    if config.envoy is None:
        return NoProxy()
    binary = find_envoy(Path(config.envoy.binary) if config.envoy.binary else None)
    descriptors = EnvoyDescriptors.load(binary)
    if static is not None:
        from troth.control_plane.envoy.resources import SECRET  # noqa: PLC0415
        from troth.control_plane.ext_authz.service import ExtAuthzService  # noqa: PLC0415

        return XdsServer(
            socket=Path(config.envoy.xds_socket),
            descriptors=descriptors,
            types=(SECRET,),
            services=[ExtAuthzService(descriptors, static.judge)] if config.ext_authz else (),
        )
    return XdsServer(socket=Path(config.envoy.xds_socket), descriptors=descriptors)


def _workloads(config: AgentConfig, path: Path, server: ServerClient) -> WorkloadSide | None:
    if config.workload_api is None:
        if config.broker is not None:
            raise ConfigurationError(
                source=str(path), key="broker", accepted="a [workload_api] beside it"
            )
        return None
    from troth.adapters.process_attestor import ProcessAttestor  # noqa: PLC0415
    from troth.control_plane.agent.workload_side import WorkloadSide  # noqa: PLC0415

    return WorkloadSide(
        server=server,
        attestor=ProcessAttestor(),
        api=config.workload_api,
        broker=config.broker,
    )


def _gate(
    config: AgentConfig,
    path: Path,
    *,
    attester: Attester,
    trust: AgentTrust,
    server: ServerClient,
    metrics: AgentMetrics | None,
) -> AgentGate | None:
    if config.gate is None:
        for name, rules in (("clients", config.clients), ("servers", config.servers)):
            for number, rule in enumerate(rules):
                if rule.needs_gate:
                    raise ConfigurationError(
                        source=str(path),
                        key=f"{name}[{number}].model",
                        value=rule.model,
                        accepted="passport or svid_only; the others need a [gate]",
                    )
        return None
    module = Path(config.gate.module) if config.gate.module else MODULE_PATH
    if not module.is_file():
        raise ConfigurationError(
            source=str(path),
            key="gate.module",
            value=str(module),
            accepted="the compiled module; from a checkout, `make gate` builds it",
        )
    from troth.control_plane.agent.agent_gate import AgentGate  # noqa: PLC0415

    gate = AgentGate(
        config,
        config.gate,
        attester=attester,
        trust=trust,
        registry=metrics.registry if metrics is not None else None,
    )
    gate.check = _background_check(config, path, server, gate)
    return gate


def _background_check(
    config: AgentConfig, path: Path, server: ServerClient, gate: AgentGate
) -> BackgroundCheck | None:
    """Return the server's Verifier for fresh Evidence, which it is asked for as a member."""
    from troth.adapters.server_check import ServerCheck  # noqa: PLC0415

    names = [each.name for each in config.verifiers if not (each.keys or each.delegation)]
    if names:
        return ServerCheck(names[0], server, keys=lambda: gate.result_keys(names[0]))
    for table, rules in (("clients", config.clients), ("servers", config.servers)):
        for number, rule in enumerate(rules):
            if rule.model == "background_check":
                raise ConfigurationError(
                    source=str(path),
                    key=f"{table}[{number}].model",
                    value=rule.model,
                    accepted="one that needs no Verifier to ask, or a [[verifiers]] with neither"
                    " keys nor a delegation, which is the server's",
                )
    return None


def _attester(config: AgentConfig, path: Path) -> Attester:
    from troth.adapters.attesters import AttesterSettings, open_attester  # noqa: PLC0415
    from troth.adapters.tpm_device import DEFAULT_REGISTERS  # noqa: PLC0415

    section = config.attester
    if (section.kind == "simulator") is not bool(section.device):
        raise ConfigurationError(
            source=str(path),
            key="attester.device",
            value=section.device,
            accepted='the simulator\'s device file, with kind = "simulator" and only with it',
        )
    return open_attester(
        section.kind,
        AttesterSettings(
            device=path.parent / section.device if section.device else None,
            state=path.parent / section.state if section.state else None,
            tcti=section.tcti,
            registers=tuple(section.registers) or DEFAULT_REGISTERS,
        ),
    )


def _verifier_keys(config: AgentConfig, path: Path) -> dict[str, Sequence[VerificationKey]]:
    from troth.formats.keys import load_keys  # noqa: PLC0415

    return {
        section.name: load_keys(
            _read(section.keys, path, f"verifiers.{section.name}.keys"), source=section.keys
        )
        for section in config.verifiers
        if section.keys and not section.delegation
    }


def _delegations(config: AgentConfig, path: Path) -> DelegationFiles:
    from troth.clock import SystemClock  # noqa: PLC0415
    from troth.control_plane.agent.delegations import DelegationFiles  # noqa: PLC0415

    files = DelegationFiles(config, path.parent)
    files.check(now=SystemClock().now())
    return files


def _write_bootstrap(config: AgentConfig) -> None:
    from troth.control_plane.envoy.bootstrap import bootstrap  # noqa: PLC0415

    section = config.envoy
    if section is None or not section.bootstrap or section.static:
        return
    admin = section.admin_socket or f"{section.xds_socket}.admin"
    tree = bootstrap(
        node_id=config.node.name, xds_socket=Path(section.xds_socket), admin_socket=Path(admin)
    )
    Path(section.bootstrap).write_text(json.dumps(tree, indent=1), encoding="utf-8")


def _read(name: str, config_path: Path, key: str) -> bytes:
    """Read a file named in the configuration; relative names start at the configuration file."""
    path = config_path.parent / name
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(
            source=str(config_path),
            key=key,
            value=name,
            accepted=f"a readable file ({exc.strerror or exc})",
        ) from exc
