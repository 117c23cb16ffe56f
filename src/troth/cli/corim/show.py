# SPDX-License-Identifier: Apache-2.0
"""`troth corim show`."""

from __future__ import annotations

import json

import click

from troth.cli.corim.rendering import describe, render
from troth.cli.inputs import read_operator_file
from troth.formats.corim import decode_any

__all__ = ["show"]


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--scheme", default="", metavar="NAME", help="What a CoRIM without a profile is about.")  # fmt: skip
def show(*, file: str, as_json: bool, scheme: str) -> None:
    """Show what the CoRIM in FILE says, and whether it could be provisioned.

    Any profile is shown, also one that a Verifier would reject. A signature is not verified:
    see `troth corim verify`.
    """
    data = read_operator_file(file)
    described = describe(decode_any(data), source=file, scheme=scheme)
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(render(described)))
