# SPDX-License-Identifier: Apache-2.0
"""`troth policy lint`: what keeps a policy from giving any verdict."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

from troth.cli.inputs import printable
from troth.cli.policy_files import evaluator_for, read_policy

__all__ = ["lint"]


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    help="Default: text on a terminal, json elsewhere.",
)
@click.pass_context
def lint(ctx: click.Context, files: Sequence[str], output: str | None) -> None:
    r"""Check that policies parse, compile, and name nothing that does not exist.

    \b
    Exit status:
      0  nothing is wrong
      1  one of them would contraindicate everything; each reason is named with its line
      3  wrong usage
    """
    found = {}
    with evaluator_for() as evaluator:
        for path in files:
            found[path] = read_policy(path).check(evaluator)
    if output == "json" or (output is None and not sys.stdout.isatty()):
        report = {path: [each.to_json() for each in findings] for path, findings in found.items()}
        click.echo(json.dumps(report, indent=2))
    else:
        for path, findings in found.items():
            if not findings:
                click.echo(f"{printable(path)}: nothing is wrong")
            for finding in findings:
                click.echo(f"{printable(path)}: {printable(finding.actual)}")
                click.echo(f"  {printable(finding.rule)}")
    ctx.exit(1 if any(found.values()) else 0)
