# SPDX-License-Identifier: Apache-2.0
"""`troth envoy patch`: attestation in a configuration that somebody else wrote."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from troth.cli.envoy.files import dump, read_envoy_file, write
from troth.cli.envoy.options import (
    announce_option,
    config_option,
    envoy_option,
    format_option,
    output_option,
    profile_option,
    services_option,
)
from troth.cli.inputs import printable
from troth.errors import ConfigurationError

if TYPE_CHECKING:
    from troth.control_plane.envoy.patch.remarks import Remark

__all__ = ["patch"]

_COLOURS = {"patched": "green", "left": "yellow", "insecure": "red", "note": "cyan"}
_WORDS = {
    "patched": "patched",
    "note": "note",
    "not_mesh": "not mesh",
    "left": "NOT PATCHED",
    "insecure": "REFUSED",
}


@click.command()
@click.argument("existing", metavar="EXISTING.yaml", type=click.Path(path_type=Path))
@config_option
@services_option
@profile_option
@click.option(
    "--server",
    "servers",
    metavar="CLUSTER=SERVICE",
    multiple=True,
    help="A cluster leads to this outbound service of the agent; default: the one of its name.",
)
@click.option(
    "--leave",
    metavar="NAME",
    multiple=True,
    help="A listener or cluster that is not of the mesh.",
)
@announce_option
@click.option("--diff", is_flag=True, help="Show what changes and write nothing.")
@click.option("--validate", is_flag=True, help="Have Envoy itself check the result first.")
@envoy_option
@format_option
@output_option
@click.pass_context
def patch(  # noqa: PLR0917 - click passes options by name
    ctx: click.Context,
    existing: Path,
    config: Path | None,
    services: Path | None,
    profile: str | None,
    servers: Sequence[str],
    leave: Sequence[str],
    announce: str,
    diff: bool,  # noqa: FBT001 - click passes flags so
    validate: bool,  # noqa: FBT001 - click passes flags so
    binary: Path | None,
    form: str,
    output: Path | None,
) -> None:
    r"""Put attestation into an existing Envoy bootstrap with static listeners and clusters.

    Listeners that demand client certificates get the gate as their first filter (without code:
    ext_authz); clusters with TLS that lead to an outbound service of the agent get the gate
    between balancing and TLS. Certificates and trust come from the agent. What it did, and what
    it could not do and why, goes to standard error. Patching its own output changes nothing.

    \b
    Exit status:
      0  every place with mutual TLS attests
      1  written, but some places could not be patched
      2  refused: something would undo attestation, or Envoy does not accept the result
      3  wrong usage
    """
    from troth.cli.envoy.services import load_plan  # noqa: PLC0415 - start-up time
    from troth.control_plane.envoy.patch.patching import patch as patched_of  # noqa: PLC0415
    from troth.control_plane.envoy.patch.remarks import Kind  # noqa: PLC0415
    from troth.control_plane.envoy.patch.wish import Profile  # noqa: PLC0415

    plan = load_plan(config, services, profile=Profile(profile) if profile else None)
    wish = plan.wish(clusters=dict(_pairs(servers)), leave=frozenset(leave), announce=announce)
    before = read_envoy_file(existing)
    patched = patched_of(before, wish, source=str(existing))
    _say(patched.remarks)
    for line in plan.agent_lacks():
        click.echo(f"the agent's configuration needs: {line}", err=True)
    if patched.config is None:
        click.echo("nothing was written", err=True)
        ctx.exit(2)
    text = dump(patched.config, form)
    if validate:
        _validate(patched.config, binary)
    if diff:
        _show(dump(before, form), text, str(existing))
    else:
        write(text, output)
    ctx.exit(1 if patched.of_kind(Kind.LEFT) else 0)


def _pairs(servers: Sequence[str]) -> Iterable[tuple[str, str]]:
    for text in servers:
        cluster, equals, service = text.rpartition("=")
        if not equals or not cluster or not service:
            raise ConfigurationError(source="--server", value=text, accepted="CLUSTER=SERVICE")
        yield cluster, service


def _say(remarks: Sequence[Remark]) -> None:
    for remark in remarks:
        kind = remark.kind.value
        word = click.style(_WORDS[kind], fg=_COLOURS.get(kind))
        click.echo(f"{word}: {printable(remark.place)}: {printable(remark.what)}", err=True)
        if remark.remedy:
            click.echo(f"  what to do: {printable(remark.remedy)}", err=True)


def _validate(tree: dict[str, object], binary: Path | None) -> None:
    from troth.adapters.envoy_process import find_envoy  # noqa: PLC0415 - start-up time
    from troth.adapters.envoy_trial import validate_configuration  # noqa: PLC0415
    from troth.errors import ProxyError  # noqa: PLC0415

    trial = validate_configuration(find_envoy(binary), tree)
    if not trial.accepted:
        raise ProxyError(
            f"Envoy does not accept the result: {trial.reason}",
            remedy="if it does not accept the original either, correct that first",
        )


def _show(before: str, after: str, name: str) -> None:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        fromfile=name,
        tofile=f"{name} (patched)",
    )
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        plain = not sys.stdout.isatty() or line.startswith(("+++", "---"))
        click.echo(click.style(line, fg=None if plain else colours.get(line[0])), nl=False)
