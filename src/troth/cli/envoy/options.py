# SPDX-License-Identifier: Apache-2.0
"""Options that the commands of `troth envoy` share."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = [
    "announce_option",
    "config_option",
    "envoy_option",
    "format_option",
    "output_option",
    "profile_option",
    "services_option",
]

config_option = click.option(
    "--config",
    "-c",
    "config",
    type=click.Path(path_type=Path),
    help="The agent's configuration (TOML).",
)
services_option = click.option(
    "--services",
    type=click.Path(path_type=Path),
    help="List of services (YAML); docs/reference/envoy.md has its keys.",
)
profile_option = click.option(
    "--profile",
    type=click.Choice(["gate", "no-code"]),
    help="Default: gate, if the configuration has one.",
)
announce_option = click.option(
    "--announce",
    metavar="NODE_ID",
    default="",
    help="This node's id in the mesh, as the server name of outbound TLS. Servers that their agents"
    " configure want it; `troth node list` and the agent's first line have it.",
)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="What to write.",
)
output_option = click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="File to write; default: standard output.",
)
envoy_option = click.option(
    "--envoy",
    "binary",
    type=click.Path(path_type=Path),
    help="Envoy program; default: the installed one, or the one on $PATH.",
)
