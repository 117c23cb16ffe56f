# SPDX-License-Identifier: Apache-2.0
"""`troth explain ID`: a refused join, or a node, from the records of its server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from troth.cli.inputs import printable
from troth.cli.operators import ask_server
from troth.cli.verdict_text import finding_lines, status_word
from troth.errors import ConflictError
from troth.mesh.node import NodeState, Reason
from troth.mesh.node_record import ResultSummary
from troth.mesh.registry import JoinRefusal

__all__ = ["is_record_id", "record_report", "record_text"]

_REFUSAL: Final = re.compile(r"r[0-9a-f]{16}", re.ASCII)
_NODE: Final = re.compile(r"n[0-9a-f]{20}", re.ASCII)
_NEWEST_REFUSALS: Final = 1000

_STAGES: Final = {
    "decode": "the request or the Evidence could not be read",
    "verify": "whether the Evidence is authentic, fresh and about this key",
    "activate": "before any Evidence was looked at: this is about the proof of which device it is",
    "appraise": "the Evidence is authentic; this is about what it says",
    "entry": "the Evidence is authentic; this is about the device's place in the registry",
    "admit": "the Evidence is good; this is about the SVID",
    "reappraise": "recorded Evidence, appraised again after something was withdrawn",
}
UNDECIDED: Final = "unavailable"
"""Code of a refusal that says nothing about the Attester."""


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of a node, as far as it is shown here."""

    node_id: str
    name: str
    spiffe_id: str
    state: NodeState
    generation: int
    device: str
    entry_id: str
    reason: Reason | None = None
    scheme: str | None = None
    changed_at: datetime
    result: ResultSummary | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal, or a node with its last refusal."""

    refusal: JoinRefusal | None = None
    node: _Node | None = None


def is_record_id(text: str) -> bool:
    """Say whether `text` has the form of a refusal's or a node's id."""
    return bool(_REFUSAL.fullmatch(text) or _NODE.fullmatch(text))


def record_report(record_id: str, socket: str) -> dict[str, Any]:
    """Return everything that a server has on record about a refusal or a node, as JSON.

    Raises:
        ConflictError: it has nothing of that id (any more).
        UnavailableError: it does not answer.
    """
    record = _fetch(record_id, socket)
    report: dict[str, Any] = {"kind": "node" if record.node is not None else "refused join"}
    if record.node is not None:
        report["node"] = msgspec.to_builtins(record.node)
    refusal = record.refusal
    if refusal is None:
        return report
    tree: dict[str, Any] = msgspec.to_builtins(refusal)
    tree["findings"] = [finding.to_json() for finding in refusal.findings]
    tree["decision"] = "undecided" if refusal.code == UNDECIDED else "refused"
    tree["about"] = _STAGES.get(refusal.stage, "")
    return {**report, **tree} if record.node is None else {**report, "last_refusal": tree}


def record_text(record_id: str, socket: str) -> Iterator[str]:
    """Yield the same in words."""
    record = _fetch(record_id, socket)
    if record.node is not None:
        yield from _node_lines(record.node)
        yield ""
    if record.refusal is not None:
        yield from _refusal_lines(record.refusal)
    else:
        yield "No refusal of this node is on record."


def _fetch(record_id: str, socket: str) -> _Record:
    try:
        if _REFUSAL.fullmatch(record_id):
            refusal = ask_server(socket, f"/v1/refusals/{record_id}", kind=JoinRefusal)
            return _Record(refusal=refusal)
        node = ask_server(socket, f"/v1/nodes/{record_id}", kind=_Node)
    except ConflictError as exc:
        raise ConflictError(
            f"the server at {socket} has nothing on record under {record_id}",
            remedy="Is it the server that the node joined? It keeps the newest "
            "limits.kept_refusals refusals.",
        ) from exc
    refusals = ask_server(
        socket, "/v1/refusals", kind=tuple[JoinRefusal, ...], limit=_NEWEST_REFUSALS
    )
    own = (refusal for refusal in refusals if refusal.node_id == record_id)
    return _Record(node=node, refusal=next(own, None))


def _node_lines(node: _Node) -> Iterator[str]:
    because = f", because of {node.reason.value.replace('_', ' ')}" if node.reason else ""
    state = click.style(node.state.value, bold=True)
    yield f"Node {node.node_id}: {state}{because}, since {node.changed_at:%Y-%m-%dT%H:%M:%SZ}"
    yield f"name {printable(node.name) or 'none'}, {printable(node.spiffe_id)}"
    yield f"device {printable(node.device)}, registration entry {printable(node.entry_id)}"
    result = node.result
    if result is None:
        return
    yield (
        f"last result {status_word(result.status)}, tier {result.tier}, policy "
        f"{printable(result.policy_id)}, until {result.expires:%Y-%m-%dT%H:%M:%SZ}"
    )
    for reason in result.insecure:
        yield click.style(f"INSECURE: {printable(reason)}", fg="red")


def _refusal_lines(refusal: JoinRefusal) -> Iterator[str]:
    if refusal.code == UNDECIDED:
        word = click.style("UNDECIDED", fg="magenta", bold=True)
        yield f"Join {refusal.id}: {word}: nothing follows about the Attester"
    else:
        yield f"Join {refusal.id}: {click.style('REFUSED', fg='red', bold=True)} ({refusal.code})"
    yield f"{_STAGES.get(refusal.stage, refusal.stage)}"
    yield printable(refusal.message)
    if refusal.remedy:
        yield f"what to do: {printable(refusal.remedy)}"
    facts = {
        "node": refusal.node_id,
        "name": refusal.node_name,
        "address": refusal.address,
        "scheme": refusal.scheme,
        "Evidence": f"sha-256 {refusal.evidence_digest}" if refusal.evidence_digest else "",
    }
    known = ", ".join(f"{name} {printable(text)}" for name, text in facts.items() if text)
    yield f"at {refusal.at:%Y-%m-%dT%H:%M:%SZ}{', ' if known else ''}{known}"
    against = [finding for finding in refusal.findings if finding.severity != "note"]
    notes = [finding for finding in refusal.findings if finding.severity == "note"]
    for title, findings in (("Findings", against), ("Notes", notes)):
        if findings:
            yield ""
            yield click.style(title, bold=True)
            yield from finding_lines(findings)
