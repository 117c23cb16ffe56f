# SPDX-License-Identifier: Apache-2.0
"""`troth envoy`: configuration for Envoys, generated and patched, and what an Envoy can do."""

from __future__ import annotations

import click

from troth.cli.envoy.bootstrap import bootstrap
from troth.cli.envoy.patch import patch
from troth.cli.envoy.preflight import preflight

__all__ = ["envoy"]


@click.group()
def envoy() -> None:
    """Make the configuration of an Envoy that attests, or put attestation into yours.

    docs/howto/put-the-gate-into-an-existing-envoy.md goes through all of it.
    """


for _command in (bootstrap, patch, preflight):
    envoy.add_command(_command)
