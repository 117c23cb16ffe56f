# SPDX-License-Identifier: Apache-2.0
"""`troth policy`: look at an Appraisal Policy, test it, and foretell what it would change."""

from __future__ import annotations

import click

from troth.cli.policy.foretell import diff, export, replay
from troth.cli.policy.lint import lint
from troth.cli.policy.run import test
from troth.cli.policy.show import show

__all__ = ["policy"]


@click.group()
def policy() -> None:
    """Check, test and try out Appraisal Policies (Rego) before they decide anything.

    docs/howto/change-a-policy-safely.md goes through all of it.
    """


for _command in (lint, show, test, replay, diff, export):
    policy.add_command(_command)
