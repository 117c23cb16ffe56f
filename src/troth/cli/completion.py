# SPDX-License-Identifier: Apache-2.0
"""`troth completion SHELL`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print the completion script of SHELL.

    \b
    bash:  eval "$(troth completion bash)"
    zsh:   eval "$(troth completion zsh)"
    fish:  troth completion fish | source
    """
    from troth.cli.main import main  # noqa: PLC0415 - main names this module; it loads us late

    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click ships all three
        raise click.ClickException(f"no completion for {shell}")
    click.echo(kind(main, {}, "troth", "_TROTH_COMPLETE").source())
