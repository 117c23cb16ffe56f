# SPDX-License-Identifier: Apache-2.0
"""`troth apply`: bring a server to what files say, or say what would change.

A kind of thing that can be in a file has a struct in `troth.mesh.resources` and a class here or in
`resource_kinds` that finds what the server has in its place and says how to bring it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import click
import msgspec

from troth.cli.apply_kind import Kind, Step, Wanted, differences, read
from troth.cli.inputs import read_input
from troth.cli.listing import format_option, show
from troth.cli.operators import Operator, server_option
from troth.cli.resource_kinds import Devices, LogicalTees, TrustDomains
from troth.cli.yaml_documents import read_documents
from troth.errors import ConfigurationError, TrothError
from troth.mesh.entry_message import EntryMessage

__all__ = ["EXIT_WOULD_CHANGE", "KINDS", "apply"]

EXIT_WOULD_CHANGE: Final = 1


class _Entries:
    """`kind: Entry`: a registration entry, with the fields of `troth entry create`."""

    def plan(self, wanted: Wanted, operator: Operator) -> list[Step]:
        """Compare with what is registered under the id, or means the same."""
        present = [msgspec.convert(each, EntryMessage) for each in operator.get("/v1/entries")]
        by_id = {each.id: each for each in present}
        by_meaning = {_meaning(each): each for each in present}
        steps = []
        for each in wanted["Entry"]:
            known = by_id.get(each.id) if each.id else by_meaning.get(_meaning(each))
            steps.append(_entry_step(each, known))
        return steps


KINDS: Final[Mapping[str, Kind]] = {
    "TrustDomain": TrustDomains(),
    "Device": Devices(),
    "Entry": _Entries(),
    "LogicalTEE": LogicalTees(),
}
"""In the order in which they are applied: one may refer to those before it."""


@click.command()
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    required=True,
    help="YAML file, - for standard input. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@format_option()
@server_option()
@click.pass_context
def apply(
    ctx: click.Context,
    *,
    files: Sequence[str],
    dry_run: bool,
    output: str | None,
    admin_socket: str | None,
) -> None:
    r"""Bring a server to what YAML files say; what they do not name stays as it is.

    All files are read and checked before anything is changed. Each document has a `kind`:

    \b
      kind: Entry
      id: web
      spiffe_id: spiffe://example.org/web
      parent_id: spiffe://example.org/edge
      selectors: [unix:user:www-data, troth:tier:measured]
      x509_svid_ttl: 3600

    An entry without an id is the one with the same parent, SPIFFE ID and selectors.
    docs/reference/resources.md has the other kinds: TrustDomain, Device, LogicalTEE.

    \b
    Exit status:
      0  done; with --dry-run: nothing would change
      1  with --dry-run: something would change
      2  the server cannot be asked or refused something; what was done before it is done
      3  a file is wrong; nothing was done
    """
    wanted = _read(files)
    operator = Operator(admin_socket)
    steps = [
        step
        for name, kind in KINDS.items()
        if name in wanted
        for step in kind.plan(wanted, operator)
    ]
    if not dry_run:
        _do(steps, operator)
    show([_json(step) for step in steps], lambda: _text(steps, dry_run=dry_run), output)
    if dry_run and any(step.action != "keep" for step in steps):
        ctx.exit(EXIT_WOULD_CHANGE)


def _read(files: Sequence[str]) -> dict[str, list[Any]]:
    wanted: dict[str, list[Any]] = {}
    for file in files:
        for number, document in enumerate(read_documents(read_input(file), source=file)):
            source = f"{file}, document {number + 1}"
            name = document.pop("kind", None)
            if not isinstance(name, str) or name not in KINDS:
                raise ConfigurationError(
                    source=source, key="kind", value=str(name or ""), accepted=", ".join(KINDS)
                )
            wanted.setdefault(name, []).append(read(name, document, source=source))
    return wanted


def _do(steps: Sequence[Step], operator: Operator) -> None:
    for number, step in enumerate(steps):
        if step.action == "keep":
            continue
        try:
            for method, path, message in ((step.method, step.path, step.message), *step.then):
                if method == "POST":
                    operator.post(path, message)
                else:
                    operator.put(path, message)
        except TrothError:
            done = sum(each.action != "keep" for each in steps[:number])
            click.echo(f"{step.kind} {step.name} was refused; {done} before it are done", err=True)
            raise


def _meaning(message: EntryMessage) -> tuple[str, str, frozenset[str]]:
    return message.parent_id, message.spiffe_id, frozenset(message.selectors)


def _entry_step(wanted: EntryMessage, known: EntryMessage | None) -> Step:
    name = wanted.id or (known.id if known else "") or wanted.spiffe_id
    if known is None:
        changes = {
            field: (None, value) for field, value in _fields(wanted).items() if field != "id"
        }
        return Step(
            kind="Entry",
            name=name,
            action="create",
            changes=changes,
            method="POST",
            path="/v1/entries",
            message=wanted,
        )
    normal = _as_kept(wanted, known)
    before, after = _fields(known), _fields(normal)
    differing = differences(before, after)
    if not differing:
        return Step(kind="Entry", name=known.id, action="keep")
    return Step(
        kind="Entry",
        name=known.id,
        action="change",
        changes=differing,
        method="PUT",
        path=f"/v1/entries/{quote(known.id, safe='')}",
        message=normal,
    )


def _as_kept(wanted: EntryMessage, known: EntryMessage) -> EntryMessage:
    """Return what is wanted in the form that the server keeps: defaults filled in, names normal."""
    tier = wanted.min_tier or (known.min_tier if not wanted.parent_id else None)
    federates = tuple(name.removeprefix("spiffe://") for name in wanted.federates_with)
    return msgspec.structs.replace(wanted, id=known.id, min_tier=tier, federates_with=federates)


def _fields(message: EntryMessage) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(message)
    return {
        name: value for name, value in plain.items() if value not in (None, "", (), [], 0, False)
    }


def _json(step: Step) -> dict[str, object]:
    changes = {name: {"from": old, "to": new} for name, (old, new) in step.changes.items()}
    return {"kind": step.kind, "name": step.name, "action": step.action, "changes": changes}


def _text(steps: Sequence[Step], *, dry_run: bool) -> str:
    lines = []
    for step in steps:
        mark = {"create": "+", "change": "~", "keep": "="}[step.action]
        lines.append(f"{mark} {step.kind} {step.name}")
        for name, (old, new) in step.changes.items():
            if old is not None:
                lines.append(f"    - {name}: {_shown(old)}")
            if new is not None:
                lines.append(f"    + {name}: {_shown(new)}")
    changed = sum(step.action != "keep" for step in steps)
    said = "would change" if dry_run else "changed"
    lines.append(f"{changed} of {len(steps)} {said}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
