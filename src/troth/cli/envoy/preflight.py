# SPDX-License-Identifier: Apache-2.0
"""`troth envoy preflight`: what this Envoy can do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from troth.cli.envoy.options import envoy_option
from troth.cli.inputs import printable

__all__ = ["preflight"]


@click.command()
@envoy_option
@click.option(
    "--module",
    type=click.Path(path_type=Path),
    help="The gate's module; default: the one in this package.",
)
@click.option(
    "--need",
    type=click.Choice(["gate", "no-code"]),
    default="gate",
    show_default=True,
    help="The profile that decides on the exit status.",
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    help="Default: text on a terminal, json elsewhere.",
)
@click.pass_context
def preflight(
    ctx: click.Context, binary: Path | None, module: Path | None, need: str, output: str | None
) -> None:
    r"""Say what an Envoy program can do: its version, the gate's module, and the profiles it takes.

    Runs it with --version and --mode validate; it serves nothing.

    \b
    Exit status:
      0  it can take the needed profile
      1  it cannot; the reasons are named
      2  it does not run, or is no Envoy
      3  wrong usage
    """
    from troth.adapters.envoy_process import find_envoy  # noqa: PLC0415 - start-up time
    from troth.adapters.envoy_trial import envoy_version, validate_configuration  # noqa: PLC0415
    from troth.control_plane.envoy.abilities import examine  # noqa: PLC0415
    from troth.control_plane.envoy.descriptors import EnvoyDescriptors  # noqa: PLC0415
    from troth.control_plane.gate import MODULE_PATH  # noqa: PLC0415
    from troth.errors import ConfigurationError  # noqa: PLC0415

    program = find_envoy(binary)
    version = envoy_version(program)
    try:
        EnvoyDescriptors.load(program)
    except ConfigurationError as exc:
        unreadable = str(exc)
    else:
        unreadable = ""
    found = examine(
        version,
        module=module or MODULE_PATH,
        attempt=lambda config: validate_configuration(program, config),
        descriptors=unreadable,
    )
    if output == "json" or (output is None and not sys.stdout.isatty()):
        click.echo(json.dumps({"envoy": str(program), **found.to_json()}, indent=2))
    else:
        click.echo(f"Envoy {found.version}  ({printable(str(program))})")
        for ability in found.abilities:
            mark = (
                click.style("yes", fg="green") if ability.present else click.style("no ", fg="red")
            )
            click.echo(f"  {mark}  {ability.what}")
            if ability.why:
                click.echo(f"       {printable(ability.why)}")
        for warning in found.warnings:
            click.echo(f"  note: {printable(warning)}")
        click.echo(f"profile: {found.profile_words}")
    ctx.exit(0 if found.can(need) else 1)
