# SPDX-License-Identifier: Apache-2.0
"""`troth entry`: registration entries of nodes and of workloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import click

from troth.cli.listing import columns, details, format_option, show
from troth.cli.operators import Operator, server_option

__all__ = ["ENTRY_FIELDS", "entry"]

ENTRY_FIELDS: Final = {
    "id": "id",
    "spiffe_id": "SPIFFE ID",
    "parent_id": "parent",
    "selectors": "selectors",
    "min_tier": "weakest tier",
    "x509_svid_ttl": "X.509-SVID seconds",
    "jwt_svid_ttl": "JWT-SVID seconds",
    "dns_names": "DNS names",
    "federates_with": "federates with",
    "hint": "hint",
}
_COLUMNS: Final = {
    name: ENTRY_FIELDS[name] for name in ("id", "spiffe_id", "parent_id", "selectors")
}


@click.group()
def entry() -> None:
    """Register who is who: nodes by their Evidence, workloads by what the kernel says of them.

    An entry without a parent is for nodes. With a node's SPIFFE ID as parent it is for the
    processes of that node that have all of its selectors. docs/reference/workload-api.md lists
    selectors and parents.
    """


@entry.command("create")
@click.option("--spiffe-id", "--spiffeID", required=True, help="Who they are.")
@click.option("--parent-id", "--parentID", default="", help="Below which nodes; none for nodes.")
@click.option(
    "--selector", "selectors", multiple=True, required=True, help="type:value. May be repeated."
)
@click.option("--id", "--entryID", "entry_id", default="", help="Name; the server makes one.")
@click.option("--min-tier", help="For nodes: the weakest tier that is admitted.")
@click.option(
    "--x509-svid-ttl", "--x509SVIDTTL", type=click.IntRange(0), default=0, help="Seconds."
)
@click.option("--jwt-svid-ttl", "--jwtSVIDTTL", type=click.IntRange(0), default=0, help="Seconds.")
@click.option("--dns", "dns_names", multiple=True, help="DNS name in the SVID. May be repeated.")
@click.option(
    "--federates-with",
    "--federatesWith",
    multiple=True,
    help="Trust domain whose bundle the workload gets. May be repeated.",
)
@click.option("--hint", default="", help="Tells the workload what this identity is for.")
@format_option()
@server_option()
def create(
    *,
    entry_id: str,
    min_tier: str | None,
    output: str | None,
    admin_socket: str | None,
    **fields: Any,  # noqa: ANN401 - the options above
) -> None:
    r"""Add an entry.

    \b
    A workload:  troth entry create --spiffe-id spiffe://example.org/web \
                   --parent-id spiffe://example.org/edge --selector unix:user:www-data
    A device:    troth entry create --spiffe-id spiffe://example.org/edge \
                   --selector instance:01a2…
    """
    message: dict[str, object] = {**fields, "id": entry_id}
    if min_tier is not None:
        message["min_tier"] = min_tier
    made = Operator(admin_socket).post("/v1/entries", message)
    show(made, lambda: details(made, ENTRY_FIELDS), output)


@entry.command("list")
@click.option("--spiffe-id", "--spiffeID", help="Only entries for this SPIFFE ID.")
@click.option("--parent-id", "--parentID", help="Only entries below this parent.")
@click.option("--selector", "selectors", multiple=True, help="Only entries that have it.")
@format_option()
@server_option()
def list_entries(
    *,
    spiffe_id: str | None,
    parent_id: str | None,
    selectors: Sequence[str],
    output: str | None,
    admin_socket: str | None,
) -> None:
    """List entries."""
    query: dict[str, str] = {}
    if spiffe_id is not None:
        query["spiffe_id"] = spiffe_id
    if parent_id is not None:
        query["parent_id"] = parent_id
    found = [
        each
        for each in Operator(admin_socket).get("/v1/entries", **query)
        if set(selectors) <= set(each["selectors"])
    ]
    show(found, lambda: columns(found, _COLUMNS, none="no entries"), output)


@entry.command("show")
@click.argument("entry_id", metavar="ID")
@format_option()
@server_option()
def show_entry(entry_id: str, *, output: str | None, admin_socket: str | None) -> None:
    """Show one entry."""
    found = Operator(admin_socket).get(f"/v1/entries/{quote(entry_id, safe='')}")
    show(found, lambda: details(found, ENTRY_FIELDS), output)


@entry.command("delete")
@click.argument("entry_ids", metavar="ID…", nargs=-1, required=True)
@format_option()
@server_option()
def delete(entry_ids: Sequence[str], *, output: str | None, admin_socket: str | None) -> None:
    """Delete entries.

    Nodes that joined by one are quarantined at once. Agents forget a workload's SVIDs at once;
    what its process already holds ends by itself.
    """
    operator = Operator(admin_socket)
    done = []
    for entry_id in entry_ids:
        outcome = operator.delete(f"/v1/entries/{quote(entry_id, safe='')}")
        done.append({"id": entry_id, **outcome})
    names = {"id": "deleted", "quarantined": "nodes quarantined"}
    show(done, lambda: columns(done, names, none=""), output)
