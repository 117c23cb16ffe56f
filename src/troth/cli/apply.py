# SPDX-License-Identifier: Apache-2.0
"""`troth apply`: bring a server to what files say, or say what would change.

A kind of thing that can be in a file is one class here: it reads a document, finds what the server
has in its place, and says how to bring the one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

import click
import msgspec

from troth.cli.inputs import read_input
from troth.cli.listing import format_option, show
from troth.cli.operators import Operator, server_option
from troth.cli.yaml_documents import read_documents
from troth.errors import ConfigurationError, DecodeError, TrothError
from troth.mesh.entry_message import EntryMessage, entry_from

__all__ = ["EXIT_WOULD_CHANGE", "KINDS", "Step", "apply"]

EXIT_WOULD_CHANGE: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one document does.

    Attributes:
        kind, name: what it is about.
        action: "create", "change" or "keep".
        changes: field to what is there and what comes; None for what is not there.
        method, path, message: the request, where there is one.
    """

    kind: str
    name: str
    action: str
    changes: Mapping[str, tuple[object, object]]
    method: str = ""
    path: str = ""
    message: object = None


class Kind(Protocol):
    """Documents of one kind."""

    def read(self, document: Mapping[str, Any], *, source: str) -> object:
        """Return what a document says.

        Raises:
            ConfigurationError: naming the field and the accepted form.
        """
        ...

    def plan(self, wanted: Sequence[object], operator: Operator) -> list[Step]:
        """Return what has to be done, in order."""
        ...


class _Entries:
    """`kind: Entry`: a registration entry, with the fields of `troth entry create`."""

    def read(self, document: Mapping[str, Any], *, source: str) -> EntryMessage:
        try:
            # All values are texts: numbers are read where a number belongs.
            message = msgspec.convert(dict(document), EntryMessage, strict=False)
            entry_from(message, entry_id=message.id or "new")
        except (msgspec.ValidationError, DecodeError) as exc:
            remedy = getattr(exc, "remedy", "")
            accepted = f"an entry: {exc}" + (f" ({remedy})" if remedy else "")
            raise ConfigurationError(source=source, accepted=accepted) from exc
        return message

    def plan(self, wanted: Sequence[object], operator: Operator) -> list[Step]:
        present = [msgspec.convert(each, EntryMessage) for each in operator.get("/v1/entries")]
        by_id = {each.id: each for each in present}
        by_meaning = {_meaning(each): each for each in present}
        steps = []
        for each in wanted:
            if isinstance(each, EntryMessage):
                known = by_id.get(each.id) if each.id else by_meaning.get(_meaning(each))
                steps.append(_entry_step(each, known))
        return steps


KINDS: Final[Mapping[str, Kind]] = {"Entry": _Entries()}
"""Further kinds are added here."""


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

    \b
    Exit status:
      0  done; with --dry-run: nothing would change
      1  with --dry-run: something would change
      2  the server cannot be asked or refused something; what was done before it is done
      3  a file is wrong; nothing was done
    """
    wanted = _read(files)
    operator = Operator(admin_socket)
    steps = [step for kind, items in wanted.items() for step in KINDS[kind].plan(items, operator)]
    if not dry_run:
        _do(steps, operator)
    show([_json(step) for step in steps], lambda: _text(steps, dry_run=dry_run), output)
    if dry_run and any(step.action != "keep" for step in steps):
        ctx.exit(EXIT_WOULD_CHANGE)


def _read(files: Sequence[str]) -> dict[str, list[object]]:
    wanted: dict[str, list[object]] = {}
    for file in files:
        for number, document in enumerate(read_documents(read_input(file), source=file)):
            source = f"{file}, document {number + 1}"
            name = document.pop("kind", None)
            kind = KINDS.get(name) if isinstance(name, str) else None
            if kind is None:
                raise ConfigurationError(
                    source=source, key="kind", value=str(name or ""), accepted=", ".join(KINDS)
                )
            wanted.setdefault(str(name), []).append(kind.read(document, source=source))
    return wanted


def _do(steps: Sequence[Step], operator: Operator) -> None:
    for number, step in enumerate(steps):
        if step.action == "keep":
            continue
        try:
            if step.method == "POST":
                operator.post(step.path, step.message)
            else:
                operator.put(step.path, step.message)
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
    differing = {
        field: (before.get(field), after.get(field))
        for field in (*before, *(each for each in after if each not in before))
        if _value(before.get(field)) != _value(after.get(field))
    }
    if not differing:
        return Step(kind="Entry", name=known.id, action="keep", changes={})
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


def _value(value: object) -> object:
    # Selectors and names have no order.
    return sorted(map(str, value)) if isinstance(value, list | tuple) else value


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
