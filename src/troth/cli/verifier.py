# SPDX-License-Identifier: Apache-2.0
"""`troth verifier`: the composition root of a Verifier alone."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.adapters.verifier_share import VerifierShare
    from troth.control_plane.verification.config import VerifierConfig
    from troth.verifier.rego import RegoEvaluator

__all__ = ["verifier"]

_METRICS = "PROMETHEUS_MULTIPROC_DIR"


@click.command()
@click.option(
    "--config",
    "-c",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="TOML file; docs/reference/verifier.md lists every key.",
)
@click.option(
    "--workers",
    "-w",
    type=click.IntRange(1, 64),
    help="Processes, instead of the file's `workers`; one for each core that it may have.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least important lines to log, to standard error.",
)
@click.option("--stop-with-stdin", is_flag=True, hidden=True)
@click.option("--worker", type=(int, int), hidden=True, help="Its number, and the shared port.")
def verifier(
    config_path: Path,
    workers: int | None,
    log_level: str,
    stop_with_stdin: bool,  # noqa: FBT001 - click passes flags so
    worker: tuple[int, int] | None,
) -> None:
    """Run a Verifier alone: Evidence in, signed Attestation Results out.

    It speaks Veraison's challenge-response and provisioning interfaces and CoSERV. Operators reach
    it by a Unix socket in `data_dir`. Keys are made at the first start and kept there. Prints one
    line of JSON with the addresses when it serves.

    It affirms nothing until trust anchors and Reference Values are provisioned.
    """
    from troth.cli.logs import configure_logs  # noqa: PLC0415 - start-up time
    from troth.cli.running import run_until_stopped  # noqa: PLC0415
    from troth.control_plane.verification.config import load_verifier_config  # noqa: PLC0415

    config = load_verifier_config(config_path)
    if workers is not None:
        config = msgspec.structs.replace(config, workers=workers)
    configure_logs(log_level)
    if worker is None and config.workers > 1:
        work = _supervise(config, config_path, log_level)
        run_until_stopped(work, with_stdin=stop_with_stdin)
        return
    number, port = worker or (None, 0)
    run_until_stopped(_serve(config, number, port), with_stdin=stop_with_stdin, fast=True)


async def _serve(config: VerifierConfig, worker: int | None, port: int) -> None:
    """Serve in this process: the only one, or one of several."""
    from troth.adapters.registry.sql_registry import SqlRegistry  # noqa: PLC0415
    from troth.adapters.rego_worker import WorkerEvaluator  # noqa: PLC0415
    from troth.control_plane.verification.serve import (  # noqa: PLC0415
        database_url,
        serve_verifier,
    )

    with ExitStack() as stack:
        share = stack.enter_context(closing(_share(config, worker)))
        evaluator = stack.enter_context(WorkerEvaluator())
        await serve_verifier(
            config,
            _ports(stack, config, share, evaluator, lambda: SqlRegistry(database_url(config))),
            ready=lambda line: _ready(config, json.loads(line), alone=worker is None),
            first=worker in {None, 0},
            port=port,
        )


def _share(config: VerifierConfig, worker: int | None) -> VerifierShare:
    from troth.adapters.verifier_share import VerifierShare  # noqa: PLC0415

    if worker is None:
        return VerifierShare.create(config.directory)
    return VerifierShare.join(config.directory / "run")


def _ports(
    stack: ExitStack,
    config: VerifierConfig,
    share: VerifierShare,
    evaluator: RegoEvaluator,
    registry: Callable[[], Any],
) -> Any:  # noqa: ANN401 - imported late
    from troth.cli.other_services import (  # noqa: PLC0415
        coserv_upstream,
        fetching,
        vendor_services,
    )
    from troth.control_plane.verification.serve import VerifierPorts  # noqa: PLC0415

    upstream = coserv_upstream(stack, config.coserv, config.directory)
    return VerifierPorts(
        registry=registry,
        book=share.book,
        session_key=share.session_key,
        board=share.board,
        evaluator=evaluator,
        background=fetching(upstream, collateral=vendor_services(config, config.directory)),
        upstream=upstream,
    )


async def _supervise(config: VerifierConfig, config_path: Path, log_level: str) -> None:
    """Run the workers."""
    from troth.cli.worker_processes import run_workers  # noqa: PLC0415
    from troth.control_plane.server.http_server import bind_tcp  # noqa: PLC0415

    host, port = config.address
    with closing(_share(config, None)) as share, bind_tcp(host, port, shared=True) as reserved:
        # Never listens: it holds the port, so that workers can come and go.
        port = reserved.getsockname()[1]
        command = ["verifier", "--config", str(config_path), "--log-level", log_level]
        command += ["--stop-with-stdin", "--workers", str(config.workers), "--worker"]
        await run_workers(
            [[*command, str(number), str(port)] for number in range(config.workers)],
            environment={**os.environ, _METRICS: str(share.metrics)},
            ready=lambda line: _ready(config, line, alone=True),
        )


def _ready(config: VerifierConfig, line: dict[str, Any], *, alone: bool) -> None:
    """Say that it serves: to whoever started it and, once all do, in the ready file."""
    text = json.dumps({**line, "workers": config.workers})
    if alone and config.ready_file:
        path = Path(config.ready_file)
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(path)
    click.echo(text)
