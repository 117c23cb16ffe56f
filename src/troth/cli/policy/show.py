# SPDX-License-Identifier: Apache-2.0
"""`troth policy show`: what a policy is called, sets and reads; or what a server enforces."""

from __future__ import annotations

import json
import sys

import click

from troth.cli.inputs import printable
from troth.cli.operators import admin_socket_option, ask_server
from troth.cli.policy_files import read_policy
from troth.mesh.policy_messages import PolicyName, PolicyOverview
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.policy_document import TIME_MEMBERS

__all__ = ["show"]


@click.command()
@click.argument("file", required=False)
@click.option("--text", is_flag=True, help="Print the policy's text and nothing else.")
@admin_socket_option("Say what this server enforces and audits.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    help="Default: text on a terminal, json elsewhere.",
)
def show(file: str | None, *, text: bool, admin_socket: str | None, output: str | None) -> None:
    """Say what a policy is called, which rules it defines, and what it reads.

    Without FILE it is the built-in policy: `troth policy show --text > site.rego` begins your own.
    """
    as_json = output == "json" or (output is None and not sys.stdout.isatty())
    if admin_socket is not None:
        if file is not None or text:
            raise click.UsageError("--admin-socket goes with neither FILE nor --text")
        overview = ask_server(admin_socket, "/v1/policy", kind=PolicyOverview)
        _print({"mode": overview.mode, **_overview(overview)}, as_json=as_json)
        return
    policy = AppraisalPolicy.default() if file is None else read_policy(file)
    if text:
        click.echo(policy.source.text, nl=False)
        return
    _print(_facts(policy), as_json=as_json)


def _facts(policy: AppraisalPolicy) -> dict[str, object]:
    vocabulary = policy.vocabulary
    hooks = [] if vocabulary is None else vocabulary.hooks
    return {
        "id": policy.id,
        "sha-256": policy.digest,
        "package": policy.source.package,
        "vocabulary": vocabulary.name if vocabulary is not None else "unknown",
        "defines": [hook for hook in hooks if hook in policy.source.rules],
        "reads": sorted(policy.members),
        "reads nonces": policy.mentions_nonce,
        "reads the time": bool(policy.members & TIME_MEMBERS),
        "verdicts may be kept": policy.repeatable,
    }


def _overview(overview: PolicyOverview) -> dict[str, object]:
    return {
        "enforced": _name(overview.enforced),
        "audited": _name(overview.candidate) if overview.candidate is not None else "none",
        "appraisals on record": overview.recording,
    }


def _name(policy: PolicyName) -> str:
    return f"{policy.id} ({policy.source or 'built-in'}), sha-256 {policy.digest}"


def _print(facts: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if isinstance(value, bool):
            shown = "yes" if value else "no"
        elif isinstance(value, list):
            shown = ", ".join(str(each) for each in value) or "nothing"
        else:
            shown = str(value)
        click.echo(f"{name} {printable(shown)}")
