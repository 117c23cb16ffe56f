# SPDX-License-Identifier: Apache-2.0
"""`troth corim`: make, show, sign and verify Reference Values."""

from __future__ import annotations

import click

from troth.cli.corim.create import create
from troth.cli.corim.show import show
from troth.cli.corim.sign import sign, verify

__all__ = ["corim"]


@click.group()
def corim() -> None:
    """Make, show, sign and verify Reference Values (CoRIM).

    A CoRIM says what good nodes measure and which keys they attest with. A Verifier affirms a
    node only against CoRIMs that were provisioned to it.
    """


corim.add_command(create)
corim.add_command(show)
corim.add_command(sign)
corim.add_command(verify)
