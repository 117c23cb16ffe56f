# SPDX-License-Identifier: Apache-2.0
"""`troth ltee`: Logical TEEs, who is in them, and the result that a stranger can verify."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click
import msgspec

from troth.cli.inputs import Rfc3339, read_input, read_keys
from troth.cli.listing import columns, details, format_option, show
from troth.cli.operators import Operator, server_option, usual_admin_socket
from troth.clock import SystemClock
from troth.errors import DecodeError, UnavailableError
from troth.formats.ar4si import TrustTier
from troth.mesh.aggregated_result import (
    AGGREGATE_LIFETIME,
    AggregatedResult,
    verify_aggregated_result,
)
from troth.mesh.logical_tee_messages import ResultReply
from troth.mesh.tier import Tier

if TYPE_CHECKING:
    from troth.adapters.operator_client import OperatorClient

__all__ = ["ltee"]

EXIT_NOT_AFFIRMING: Final = 1

_RESULT_BYTES: Final = 64 * 1024 * 1024
# However fast events come: one look in this time.
_LOOK_SECONDS: Final = 0.2
_AFFIRMING: Final = TrustTier.AFFIRMING.word
_LIST: Final = {
    "name": "name",
    "owner": "owner",
    "class_names": "classes",
    "epoch_ids": "epochs",
    "public": "public",
}
_STATUS: Final = {
    "name": "Logical TEE",
    "trust_domain": "trust domain",
    "owner": "owner",
    "status": "status",
    "tier": "tier (floor)",
    "epochs": "epochs accepted",
    "membership": "membership",
    "definition": "definition",
    "ends": "a result ends",
}
_CLASSES: Final = {
    "name": "class",
    "status": "status",
    "tier": "tier",
    "admitted": "admitted",
    "degraded": "degraded",
    "outside": "outside",
}
_OTHERS: Final = {"node_id": "not a member", "member_class": "of class", "detail": "because"}
_VERIFIED: Final = {
    "name": "Logical TEE",
    "trust_domain": "trust domain",
    "owner": "owner",
    "status": "status",
    "tier": "tier (floor)",
    "epochs": "epochs accepted",
    "membership": "membership",
    "size": "members",
    "definition": "definition",
    "issued_at": "issued",
    "expires_at": "ends",
    "insecure": "insecure",
    "checked": "also verified",
}
_VERIFIED_CLASSES: Final = {
    name: _CLASSES.get(name, heading)
    for name, heading in {
        **_CLASSES,
        "min_tier": "asks for",
        "schemes": "schemes",
        "proxy_placement": "proxy",
    }.items()
    if name != "outside"
}


@click.group()
def ltee() -> None:
    """Logical TEEs: attested nodes of cloud and edge that count as one.

    They are defined by `troth apply`; docs/reference/ltee.md has the fields.
    """


@ltee.command("list")
@format_option()
@server_option()
def list_tees(*, output: str | None, admin_socket: str | None) -> None:
    """List Logical TEEs."""
    found = Operator(admin_socket).get("/v1/ltees")
    rows = [
        each
        | {
            "class_names": [one["name"] for one in each["classes"]],
            "epoch_ids": [one["id"] for one in each["epochs"]],
        }
        for each in found
    ]
    show(found, lambda: columns(rows, _LIST, none="no Logical TEEs"), output)


@ltee.command("delete")
@click.argument("name", metavar="LTEE")
@server_option()
def delete(name: str, *, admin_socket: str | None) -> None:
    """Delete a definition; nothing happens to the nodes."""
    Operator(admin_socket).delete(_path(name))


@ltee.command("status")
@click.argument("name", metavar="LTEE")
@format_option()
@server_option()
@click.pass_context
def status(ctx: click.Context, name: str, *, output: str | None, admin_socket: str | None) -> None:
    """Show who is a member now, and who is not and why.

    Exit status 1: it is not affirming: a class is empty, or a member is degraded.
    """
    found = Operator(admin_socket).get(_path(name, "/status"))
    show(found, lambda: _status_text(found), output)
    if found["status"] != _AFFIRMING:
        ctx.exit(EXIT_NOT_AFFIRMING)


@ltee.command("watch")
@click.argument("name", metavar="LTEE")
@click.option("--until-affirming", is_flag=True, help="End when it is affirming.")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End after so many seconds.",
)
@format_option()
@server_option()
@click.pass_context
def watch(
    ctx: click.Context,
    name: str,
    *,
    until_affirming: bool,
    seconds: float | None,
    output: str | None,
    admin_socket: str | None,
) -> None:
    """Follow the server's feed, and say each time that the membership changes.

    JSON comes as one line for each change. Exit status 0: it became affirming (with
    --until-affirming), or the time was over and it is; 1: the time was over and it is not.
    """
    text = output == "text" or (output is None and sys.stdout.isatty())
    last = asyncio.run(
        _follow(
            Path(admin_socket or usual_admin_socket()),
            name,
            until_affirming=until_affirming,
            seconds=seconds,
            text=text,
        )
    )
    if last != _AFFIRMING:
        ctx.exit(EXIT_NOT_AFFIRMING)


@ltee.command("result")
@click.argument("name", metavar="LTEE")
@click.option("--with-members", is_flag=True, help="JSON with all members, not the token alone.")
@server_option()
def result(name: str, *, with_members: bool, admin_socket: str | None) -> None:
    """Print the Aggregated Attestation Result as it is signed now."""
    found = Operator(admin_socket).get(_path(name, "/result"))
    click.echo(json.dumps(found, indent=1) if with_members else found["result"])


@ltee.command("verify")
@click.argument("file", metavar="RESULT")
@click.option(
    "--key",
    "key_files",
    multiple=True,
    required=True,
    metavar="FILE",
    help="Public result keys (JWK Set, PEM). May be repeated.",
)
@click.option("--name", default="", help="The Logical TEE that it has to be about.")
@click.option("--trust-domain", default="", help="And of which trust domain.")
@click.option("--min-tier", type=click.Choice([tier.value for tier in Tier]), help="Weakest floor.")
@click.option(
    "--max-age",
    type=click.IntRange(1),
    default=int(AGGREGATE_LIFETIME.total_seconds()),
    show_default=True,
    help="Seconds ago that it may have been issued.",
)
@click.option("--at", type=Rfc3339(), help="Verify as of this time. Default: now.")
@click.option("--allow-insecure", is_flag=True, help="Accept simulated platforms and test keys.")
@format_option()
@click.pass_context
def verify(
    ctx: click.Context,
    file: str,
    *,
    key_files: tuple[str, ...],
    min_tier: str | None,
    allow_insecure: bool,
    output: str | None,
    at: datetime | None,
    max_age: int,
    name: str,
    trust_domain: str,
) -> None:
    r"""Verify an Aggregated Attestation Result with the public result keys alone.

    RESULT is a token, or the JSON of `troth ltee result --with-members` or of a member's proofs:
    these are verified as well. No server is asked.

    \b
    Exit status:
      0  authentic, in force, affirming, and the floor is at least --min-tier
      1  authentic and in force, but not good enough
      2  refused
      3  wrong usage
    """
    now = at or SystemClock().now()
    reply = _reply(read_input(file, what="Aggregated Attestation Result", limit=_RESULT_BYTES))
    keys = [key for path in key_files for key in read_keys(path)]
    found = verify_aggregated_result(
        reply.result,
        keys,
        now=now,
        name=name,
        trust_domain=trust_domain,
        max_age=timedelta(seconds=max_age),
    )
    checked = []
    if reply.members:
        found.verify_members(reply.members)
        checked.append(f"all {found.size} members")
    for proof in reply.proofs:
        member = found.verify_inclusion(proof, now=now)
        checked.append(f"node {member.node_id} is a member of class {member.member_class}")
    told = _told(found) | {"checked": checked}
    show(told, lambda: _verified_text(told), output)
    enough = found.status is TrustTier.AFFIRMING and (allow_insecure or not found.insecure)
    if not enough or (min_tier and (found.tier is None or found.tier < Tier(min_tier))):
        ctx.exit(EXIT_NOT_AFFIRMING)


def _path(name: str, rest: str = "") -> str:
    return f"/v1/ltees/{quote(name, safe='')}{rest}"


def _status_text(found: dict[str, Any]) -> str:
    parts = [details(found, _STATUS), columns(found["classes"], _CLASSES, none="")]
    if found["others"]:
        parts.append(columns(found["others"], _OTHERS, none=""))
    return "\n\n".join(parts)


async def _follow(
    socket: Path, name: str, *, until_affirming: bool, seconds: float | None, text: bool
) -> str:
    """Print each change, and return the last status."""
    from troth.adapters import operator_client  # noqa: PLC0415 - start-up time

    last: dict[str, Any] = {}
    news = asyncio.Event()

    async def listen(client: OperatorClient) -> None:
        # Heartbeats count as well: a result may end, or an epoch, without any event.
        async for _ in client.lines("/v1/feed"):
            news.set()
        raise UnavailableError("the server ended the feed")

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), operator_client.OperatorClient(socket) as client:
            listening = asyncio.create_task(listen(client))
            try:
                while True:
                    found = await client.get(_path(name, "/status"))
                    if _meaning(found) != _meaning(last):
                        click.echo(_status_text(found) + "\n" if text else json.dumps(found))
                        sys.stdout.flush()
                        last = found
                    if until_affirming and found["status"] == _AFFIRMING:
                        break
                    await _news_or_end(news, listening)
            finally:
                listening.cancel()
                await asyncio.wait([listening])
    return str(last.get("status", ""))


async def _news_or_end(news: asyncio.Event, listening: asyncio.Task[None]) -> None:
    """Wait for news; raises what ended the feed if that comes first."""
    waiting = asyncio.create_task(news.wait())
    try:
        await asyncio.wait([waiting, listening], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if listening.done():
        listening.result()
    news.clear()
    await asyncio.sleep(_LOOK_SECONDS)


def _meaning(found: dict[str, Any]) -> list[object]:
    """Return what counts as a change; that a result was renewed does not."""
    return [
        found.get("definition"),
        found.get("epochs"),
        found.get("status"),
        found.get("tier"),
        [_lasting(member) for member in found.get("members", ())],
        found.get("others"),
    ]


def _lasting(member: dict[str, Any]) -> dict[str, Any]:
    passing = ("generation", "result_digest", "key_digest", "ends")
    return {name: value for name, value in member.items() if name not in passing}


def _reply(data: bytes) -> ResultReply:
    text = data.strip()
    if not text.startswith(b"{"):
        return ResultReply(result=text.decode("ascii", errors="replace"))
    try:
        return msgspec.json.decode(text, type=ResultReply)
    except msgspec.DecodeError as exc:
        raise DecodeError(str(exc), format="Aggregated Attestation Result") from exc


def _told(found: AggregatedResult) -> dict[str, Any]:
    return {
        "name": found.name,
        "trust_domain": found.trust_domain,
        "owner": found.owner,
        "status": found.status.word,
        "tier": found.tier.value if found.tier else None,
        "epochs": list(found.epochs),
        "membership": found.membership_digest,
        "size": found.size,
        "definition": found.definition_digest,
        "issued_at": found.issued_at.isoformat(),
        "expires_at": found.expires_at.isoformat(),
        "insecure": list(found.insecure),
        "classes": [
            {
                "name": each.name,
                "status": each.status.word,
                "tier": each.tier.value if each.tier else None,
                "admitted": each.admitted,
                "degraded": each.degraded,
                "min_tier": each.min_tier.value,
                "schemes": list(each.schemes),
                "proxy_placement": each.proxy_placement,
                "policy_ids": list(each.policy_ids),
                "insecure": list(each.insecure),
            }
            for each in found.classes
        ],
    }


def _verified_text(told: dict[str, Any]) -> str:
    return f"{details(told, _VERIFIED)}\n\n{columns(told['classes'], _VERIFIED_CLASSES, none='')}"
