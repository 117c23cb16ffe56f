# SPDX-License-Identifier: Apache-2.0
"""The `troth` command: subcommands are found by name and imported only when used.

Exit status: 0 done; 1 done, and the answer is no; 2 refused or failed; 3 wrong usage.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from troth import __version__
from troth.errors import ConfigurationError, TrothError

__all__ = ["EXIT_FAILED", "EXIT_USAGE", "main", "run"]

EXIT_FAILED = 2
EXIT_USAGE = 3

# name: (module:attribute, one line for `troth --help`), so that help needs no import.
_COMMANDS: dict[str, tuple[str, str]] = {
    "server": ("troth.cli.server:server", "Run the server: registry, Verifier, SVID issuing, feed"),
    "agent": ("troth.cli.agent:agent", "Run the agent of one node, beside its Envoy"),
    "verifier": ("troth.cli.verifier:verifier", "Run a Verifier alone"),
    "demo": ("troth.cli.demo.command:demo", "Show the main job with real parts on this machine"),
    "entry": ("troth.cli.entry:entry", "Register nodes and workloads"),
    "device": ("troth.cli.device:device", "Keep the inventory of machines that may be here"),
    "node": ("troth.cli.node:node", "Look at nodes, expel them, let them attest again"),
    "ltee": (
        "troth.cli.ltee:ltee",
        "Look at Logical TEEs, follow them, verify their results",
    ),
    "bundle": ("troth.cli.bundle:bundle", "Look at trust bundles, federate, roll authorities over"),
    "apply": (
        "troth.cli.apply:apply",
        "Bring a server to what files say, or say what would change",
    ),
    "attest": ("troth.cli.attest:attest", "Make Evidence of this machine, or say with what"),
    "verify": ("troth.cli.verify:verify", "Verify and appraise one piece of Evidence"),
    "explain": ("troth.cli.explain:explain", "Say in words what a result or refusal means"),
    "policy": ("troth.cli.policy:policy", "Check, test and try out Appraisal Policies"),
    "corim": ("troth.cli.corim:corim", "Make, show and sign Reference Values"),
    "envoy": (
        "troth.cli.envoy:envoy",
        "Make Envoy's configuration, patch yours, say what an Envoy can do",
    ),
    "delegation": (
        "troth.cli.delegation:delegation",
        "Let another Verifier judge for a site, within bounds",
    ),
    "completion": ("troth.cli.completion:completion", "Print the completion script of a shell"),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry[0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return _with_lines_kept(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


def _with_lines_kept(command: click.Command) -> click.Command:
    r"""Have click keep the lines of paragraphs that are marked so.

    The mark is one character, and docstrings are raw: there it is two, a backslash and a b.
    """
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _with_lines_kept(each)
    return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="troth")
def main() -> None:
    """Attested TLS for the service mesh.

    Every connection proves who the peer is and what state the machine under it is in.
    `troth COMMAND --help` tells all about one command; `troth demo` shows the main job.
    """


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; no error of ours ends in a traceback."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        result: Any = main(
            args=list(arguments) if arguments is not None else None,
            prog_name="troth",
            standalone_mode=False,
        )
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.Abort:
        click.echo("troth: interrupted", err=True)
        return 130
    except click.UsageError as exc:
        exc.show()
        return EXIT_USAGE
    except click.ClickException as exc:
        exc.show()
        return EXIT_USAGE if isinstance(exc, click.FileError) else exc.exit_code
    except ConfigurationError as exc:
        _complain(exc)
        return EXIT_USAGE
    except TrothError as exc:
        _complain(exc)
        return EXIT_FAILED
    except BrokenPipeError:
        # The reader went away; the interpreter would complain once more at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


def _complain(exc: TrothError) -> None:
    click.echo(f"troth: {exc}", err=True)
    if exc.remedy:
        click.echo(f"  what to do: {exc.remedy}", err=True)
