# SPDX-License-Identifier: Apache-2.0
"""Draw docs/explanation/node-states.md from the transition table.

`python -m troth.mesh.node_diagram > docs/explanation/node-states.md` writes it anew; a test
compares the file with what this module draws.
"""

from __future__ import annotations

import sys

from troth.mesh.node import PERMISSIONS, TRANSITIONS, NodeState, Permissions

__all__ = ["render"]

_HEAD = """\
# Node states

<!-- Drawn by `python -m troth.mesh.node_diagram` from `src/troth/mesh/node.py`. Do not edit. -->

A node is one device in one role. What it may do hangs on its state alone, and its state changes
only along the rows below. Each applied row is one guarded database statement, one row in the
hash-chained state log and one event in the feed, all in one transaction; each raises the node's
generation by one. `Expelled` and `Retired` never lead back: a machine that is to return is
registered as a new node with a new key.
"""


def render() -> str:
    """Return the page as Markdown."""
    return (
        "\n".join([_HEAD, *_diagram(), "", *_transition_table(), "", *_permission_table()]) + "\n"
    )


def _diagram() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {_name(NodeState.REGISTERED)}"]
    for row in TRANSITIONS:
        lines += [
            f"    {_name(source)} --> {_name(row.target)}: {row.trigger}" for source in row.sources
        ]
    lines += [f"    {_name(NodeState.RETIRED)} --> [*]", "```"]
    return lines


def _transition_table() -> list[str]:
    lines = [
        "## Transitions",
        "",
        "| trigger | from | to | pulled by | needs established | reasons |",
        "|---|---|---|---|---|---|",
    ]
    for row in TRANSITIONS:
        cells = (
            f"`{row.trigger}`",
            ", ".join(_name(source) for source in row.sources),
            _name(row.target),
            ", ".join(row.actors),
            ", ".join(f"`{fact}`" for fact in row.requires) or "-",
            ", ".join(f"`{reason}`" for reason in row.reasons),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _permission_table() -> list[str]:
    names = Permissions.__dataclass_fields__
    lines = [
        "## What a state allows",
        "",
        f"| state | {' | '.join(name.replace('_', ' ') for name in names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for state, allowed in PERMISSIONS.items():
        cells = " | ".join(_word(getattr(allowed, name)) for name in names)
        lines.append(f"| {_name(state)} | {cells} |")
    return lines


def _name(state: NodeState) -> str:
    return state.value.capitalize()


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).replace("_", " ")


if __name__ == "__main__":
    sys.stdout.write(render())
