# SPDX-License-Identifier: Apache-2.0
"""`troth node`: the nodes of a trust domain, and what operators do to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import click

from troth.cli.listing import columns, details, format_option, show
from troth.cli.operators import Operator, server_option
from troth.errors import ConflictError

__all__ = ["node"]

EXIT_NOT_DELIVERED: Final = 1

_COLUMNS: Final = {
    "node_id": "id",
    "name": "name",
    "spiffe_id": "SPIFFE ID",
    "state": "state",
    "reason": "reason",
    "tier": "tier",
    "deadline": "connections end",
}
_DETAILS: Final = {
    **_COLUMNS,
    "scheme": "scheme",
    "device": "device",
    "entry_id": "joined by entry",
    "generation": "generation",
    "registered_at": "registered",
    "changed_at": "changed",
    "boot_session": "boot session",
    "result_status": "result",
    "result_expires": "result expires",
    "policy_id": "policy",
    "reference_values": "reference values",
    "svid_serial": "SVID serial",
    "svid_not_after": "SVID ends",
    "insecure": "insecure",
}
_LONGEST_WAIT: Final = 60


@click.group()
def node() -> None:
    """Look at nodes, expel them, let them attest again."""


@node.command("list")
@click.option("--state", help="Only nodes in this state.")
@format_option()
@server_option()
def list_nodes(*, state: str | None, output: str | None, admin_socket: str | None) -> None:
    """List nodes."""
    found = Operator(admin_socket).get("/v1/nodes")
    nodes = [each for each in found if state in (None, each["state"])]
    show(nodes, lambda: columns(nodes, _COLUMNS, none="no nodes"), output)


@node.command("show")
@click.argument("name", metavar="NODE")
@format_option()
@server_option()
def show_node(name: str, *, output: str | None, admin_socket: str | None) -> None:
    """Show one node, by its id or by its name where only one has it."""
    found = _find(Operator(admin_socket), name)
    show(found, lambda: details(_flat(found), _DETAILS), output)


def _verb(verb: str, help_text: str) -> click.Command:
    @click.command(verb, help=help_text)
    @click.argument("name", metavar="NODE")
    @click.option(
        "--wait",
        type=click.IntRange(0, _LONGEST_WAIT),
        default=10,
        show_default=True,
        help="Seconds to wait until every agent has acted on it.",
    )
    @format_option()
    @server_option()
    @click.pass_context
    def command(
        ctx: click.Context, name: str, *, wait: int, output: str | None, admin_socket: str | None
    ) -> None:
        operator = Operator(admin_socket)
        node_id = _find(operator, name)["node_id"]
        moved = operator.post(f"/v1/nodes/{quote(node_id, safe='')}/{verb}")
        delivery = operator.get(f"/v1/delivery/{moved['sequence']}", wait=wait)
        outcome = {"node_id": node_id, "state": moved["state"], "delivery": delivery}
        show(outcome, lambda: _told(moved, delivery), output)
        if not delivery["done"]:
            ctx.exit(EXIT_NOT_DELIVERED)

    return command


node.add_command(
    _verb(
        "expel",
        "Expel a node for good: it gets no SVID any more and its connections end.\n\nDone when "
        "every agent has acted on it or its lease has ended. Exit status 1: not yet.",
    )
)
node.add_command(
    _verb(
        "reattest",
        "Take a node's membership until it has attested anew; also lets a quarantined one try.",
    )
)
node.add_command(_verb("retire", "Retire a node: like expel, for a machine that is taken away."))


def _find(operator: Operator, name: str) -> dict[str, Any]:
    nodes = operator.get("/v1/nodes")
    found = [each for each in nodes if each["node_id"] == name]
    found = found or [each for each in nodes if each["name"] == name]
    if len(found) != 1:
        raise ConflictError(
            f"{len(found) or 'no'} nodes are called {name!r}",
            remedy="name it by its id; `troth node list` has it",
        )
    node_id = quote(found[0]["node_id"], safe="")
    shown: dict[str, Any] = operator.get(f"/v1/nodes/{node_id}")
    return shown


def _flat(found: Mapping[str, Any]) -> dict[str, object]:
    result, svid = found.get("result") or {}, found.get("svid") or {}
    return {
        **found,
        "result_status": result.get("status"),
        "result_expires": result.get("expires"),
        "policy_id": result.get("policy_id"),
        "reference_values": list(result.get("reference_values") or ()),
        "svid_serial": svid.get("serial"),
        "svid_not_after": svid.get("not_after"),
        "insecure": list(found.get("insecure") or ()),
    }


def _told(moved: Mapping[str, Any], delivery: Mapping[str, Any]) -> str:
    lines = [f"{moved['node_id']} is {moved['state']}"]
    acted = len(delivery["acknowledged"])
    if delivery["done"]:
        lapsed = len(delivery["lapsed"])
        extra = f"; the leases of {lapsed} have ended" if lapsed else ""
        lines.append(f"done: {acted} agents have acted on it{extra}")
    else:
        lines.append(f"not done: {acted} agents have acted on it, these have not yet:")
        lines += [f"  {each}" for each in delivery["waiting"]]
    return "\n".join(lines)
