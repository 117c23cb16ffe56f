# SPDX-License-Identifier: Apache-2.0
"""`troth envoy bootstrap`: the file that an Envoy starts with."""

from __future__ import annotations

from pathlib import Path

import click

from troth.cli.envoy.files import dump, write
from troth.cli.envoy.options import (
    announce_option,
    config_option,
    format_option,
    output_option,
    profile_option,
    services_option,
)

__all__ = ["bootstrap"]


@click.command()
@config_option
@services_option
@click.option(
    "--static",
    is_flag=True,
    help="Put listeners and clusters into the file; only secrets and decisions come from the agent."
    " The agent needs `static = true` in its [envoy].",
)
@profile_option
@announce_option
@format_option
@output_option
def bootstrap(  # noqa: PLR0917 - click passes options by name
    config: Path | None,
    services: Path | None,
    static: bool,  # noqa: FBT001 - click passes flags so
    profile: str | None,
    announce: str,
    form: str,
    output: Path | None,
) -> None:
    r"""Write the configuration that an Envoy starts with, from the agent's or a list of services.

    By default it names the agent's socket and nothing else: the agent then says what listeners
    and clusters there are, and changes them as peers come and go. With --static they stand in the
    file; the services then have to say where their peers are (--services).

    \b
    Start Envoy with it so:
      envoy --config-path FILE --drain-time-s 0 --drain-strategy immediate
    """
    from troth.cli.envoy.services import load_plan  # noqa: PLC0415 - start-up time
    from troth.control_plane.envoy import bootstrap as dynamic  # noqa: PLC0415
    from troth.control_plane.envoy.patch.wish import Profile  # noqa: PLC0415
    from troth.control_plane.envoy.static import static_configuration  # noqa: PLC0415

    plan = load_plan(config, services, profile=Profile(profile) if profile else None)
    if not static:
        tree = dynamic.bootstrap(
            node_id=plan.node, xds_socket=plan.xds_socket, admin_socket=plan.admin_socket
        )
        write(dump(tree, form), output)
        return
    tree = static_configuration(plan.mesh(), plan.wish(announce=announce))
    write(dump(tree, form), output)
    listed = {each.name for each in plan.outbound}
    for name in sorted(plan.peers.keys() - listed):
        click.echo(f"outbound {name}: left out, no --services says where its peers are", err=True)
    for line in plan.agent_lacks():
        click.echo(f"the agent's configuration needs: {line}", err=True)
