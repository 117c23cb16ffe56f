# SPDX-License-Identifier: Apache-2.0
"""`troth server`: the composition root of the server."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from troth.control_plane.server.config import ServerConfig

__all__ = ["server"]


@click.command()
@click.option(
    "--config",
    "-c",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="TOML file; docs/reference/server.md lists every key.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least important lines to log, to standard error.",
)
@click.option(
    "--restored",
    is_flag=True,
    help="Say that the database was restored from a backup, and exit: no number is used twice.",
)
@click.option("--stop-with-stdin", is_flag=True, hidden=True)
def server(config_path: Path, log_level: str, restored: bool, stop_with_stdin: bool) -> None:  # noqa: FBT001 - click passes flags so
    """Run the server: registry, Verifier, SVID issuing, feed.

    Agents reach it by HTTPS at `listen`, operators by a Unix socket in `data_dir`. Keys are made at
    the first start and kept there. Prints one line of JSON with the addresses when it serves.

    Nobody is admitted until trust anchors and Reference Values are provisioned (`verifier.corims`)
    and registration entries exist (`entries`).
    """
    from troth.cli.logs import configure_logs  # noqa: PLC0415 - start-up time
    from troth.cli.running import run_until_stopped  # noqa: PLC0415
    from troth.control_plane.server.config import load_server_config  # noqa: PLC0415

    config = load_server_config(config_path)
    configure_logs(log_level)
    if restored:
        _mark_restored(config)
        return
    run_until_stopped(_serve(config), with_stdin=stop_with_stdin)


def _mark_restored(config: ServerConfig) -> None:
    from troth.adapters.registry.sql_registry import SqlRegistry  # noqa: PLC0415
    from troth.clock import SystemClock  # noqa: PLC0415
    from troth.control_plane.server.serve import database_url  # noqa: PLC0415

    registry = SqlRegistry(database_url(config))
    try:
        registry.mark_restored(actor="troth server --restored", at=SystemClock().now())
        sequence = registry.snapshot().sequence
    finally:
        registry.close()
    click.echo(f"The next event has number {sequence + 1}; every agent begins with a snapshot.")


async def _serve(config: ServerConfig) -> None:
    from troth.adapters.bundle_endpoint import HttpsBundleFetcher  # noqa: PLC0415
    from troth.adapters.registry.sql_registry import SqlRegistry  # noqa: PLC0415
    from troth.adapters.rego_worker import WorkerEvaluator  # noqa: PLC0415
    from troth.cli.other_services import (  # noqa: PLC0415
        coserv_upstream,
        fetching,
        remote_verifier,
        vendor_services,
    )
    from troth.control_plane.server.serve import database_url, serve  # noqa: PLC0415

    roots = config.federation.web_roots
    with ExitStack() as stack:
        upstream = coserv_upstream(stack, config.coserv, config.directory)
        background = remote_verifier(stack, config.verifier.remote) or fetching(
            upstream, collateral=vendor_services(config.verifier, config.directory)
        )
        evaluator = stack.enter_context(WorkerEvaluator())
        await asyncio.to_thread(evaluator.warm_up)
        await serve(
            config,
            registry=lambda: SqlRegistry(
                database_url(config), mark=config.directory / "registry.mark"
            ),
            ready=click.echo,
            stop=asyncio.Event(),
            evaluator=evaluator,
            background=background,
            upstream=upstream,
            fetcher=HttpsBundleFetcher(Path(roots) if roots else None),
        )
