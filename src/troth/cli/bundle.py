# SPDX-License-Identifier: Apache-2.0
"""`troth bundle`: trust bundles, federation, and the rollover of our own authorities."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import click

from troth.cli.inputs import read_input
from troth.cli.listing import columns, details, format_option, show
from troth.cli.operators import Operator, server_option
from troth.errors import ConfigurationError, ConflictError
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle

__all__ = ["bundle"]

_COLUMNS: Final = {
    "trust_domain": "trust domain",
    "own": "own",
    "sequence": "sequence",
    "x509_authorities": "X.509",
    "jwt_authorities": "JWT",
    "profile": "profile",
    "refreshed_at": "refreshed",
    "problem": "problem",
}
_DETAILS: Final = {
    **_COLUMNS,
    "refresh_hint": "refresh hint (s)",
    "endpoint_url": "endpoint",
    "endpoint_spiffe_id": "endpoint's SPIFFE ID",
    "next_refresh": "next refresh",
}
_AUTHORITIES: Final = {"kind": "for", "stage": "stage", "id": "id"}


@click.group()
def bundle() -> None:
    """Look at trust bundles, federate with other trust domains, roll our authorities over."""


@bundle.command("list")
@format_option()
@server_option()
def list_bundles(*, output: str | None, admin_socket: str | None) -> None:
    """List our own bundle and those of others."""
    found = Operator(admin_socket).get("/v1/bundles")
    show(found, lambda: columns(found, _COLUMNS, none="no bundles"), output)


@bundle.command("show")
@click.argument("trust_domain", required=False)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json", "spiffe", "pem"]),
    default="spiffe",
    show_default=True,
    help="spiffe and pem print the bundle itself, to be set elsewhere.",
)
@server_option()
def show_bundle(trust_domain: str | None, *, output: str, admin_socket: str | None) -> None:
    """Print a bundle: ours, or that of TRUST_DOMAIN."""
    operator = Operator(admin_socket)
    if trust_domain is None:
        own = next(each for each in operator.get("/v1/bundles") if each["own"])
        trust_domain = str(own["trust_domain"])
    found = operator.get(f"/v1/bundles/{quote(trust_domain, safe='')}")
    document = found.pop("bundle")
    if output in ("text", "json"):
        show(found, lambda: details(found, _DETAILS), output)
        return
    if document is None:
        raise ConflictError(
            f"the bundle of {trust_domain} was not fetched yet", remedy="`troth bundle refresh`"
        )
    click.echo(_pem(document, trust_domain) if output == "pem" else json.dumps(document, indent=1))


@bundle.command("set")
@click.argument("trust_domain")
@click.argument("file", required=False)
@click.option("--url", default="", help="Where its bundle is fetched again and again.")
@click.option(
    "--profile",
    type=click.Choice(["https_web", "https_spiffe"]),
    help="How that endpoint shows who it is.",
)
@click.option("--endpoint-spiffe-id", default="", help="Whom https_spiffe expects there.")
@format_option()
@server_option()
def set_bundle(
    trust_domain: str,
    file: str | None,
    *,
    url: str,
    profile: str | None,
    endpoint_spiffe_id: str,
    output: str | None,
    admin_socket: str | None,
) -> None:
    """Believe TRUST_DOMAIN: its bundle in FILE (- for standard input), SPIFFE's JSON or PEM.

    With --url the bundle is fetched from there from now on; FILE is then needed only where the
    endpoint shows an SVID of that very trust domain (https_spiffe). Whoever can change FILE or
    answer at the URL can be anybody of TRUST_DOMAIN: get both by a way that you trust.
    """
    text = ""
    if file is not None:
        data = read_input(file)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise ConfigurationError(source=file, accepted="a bundle as JSON or PEM") from exc
    message: dict[str, object] = {
        "bundle": text,
        "endpoint_url": url,
        "endpoint_spiffe_id": endpoint_spiffe_id,
    }
    if profile is not None:
        message["profile"] = profile
    made = Operator(admin_socket).put(f"/v1/bundles/{quote(trust_domain, safe='')}", message)
    show(made, lambda: details(made, _DETAILS), output)


@bundle.command("refresh")
@click.argument("trust_domain")
@format_option()
@server_option()
def refresh(trust_domain: str, *, output: str | None, admin_socket: str | None) -> None:
    """Fetch the bundle of TRUST_DOMAIN from its endpoint now."""
    path = f"/v1/bundles/{quote(trust_domain, safe='')}/refresh"
    found = Operator(admin_socket).post(path)
    show(found, lambda: details(found, _DETAILS), output)


@bundle.command("delete")
@click.argument("trust_domain")
@server_option()
def delete(trust_domain: str, *, admin_socket: str | None) -> None:
    """Believe TRUST_DOMAIN no longer. Entries that federate with it have to be changed first."""
    Operator(admin_socket).delete(f"/v1/bundles/{quote(trust_domain, safe='')}")


@bundle.command("authorities")
@format_option()
@server_option()
def authorities(*, output: str | None, admin_socket: str | None) -> None:
    """List our own authorities: prepared, active, old."""
    _show_authorities(Operator(admin_socket).get("/v1/authorities"), output)


@bundle.command("rotate")
@click.argument("kind", type=click.Choice(["x509", "jwt"]))
@click.option(
    "--now",
    is_flag=True,
    help="Let the prepared authority issue at once, though not everybody may know it yet.",
)
@format_option()
@server_option()
def rotate(kind: str, *, now: bool, output: str | None, admin_socket: str | None) -> None:
    """Prepare the next authority; it issues when its announcement is over.

    Without --now nobody loses anything: agents have the new bundle within moments, federated trust
    domains when they next fetch it, and what the last authority signed is believed until it ends.
    """
    verb = "activate" if now else "prepare"
    _show_authorities(Operator(admin_socket).post(f"/v1/authorities/{kind}/{verb}"), output)


def _show_authorities(found: list[Mapping[str, Any]], output: str | None) -> None:
    show(found, lambda: columns(found, _AUTHORITIES, none="no authorities"), output)


def _pem(document: object, trust_domain: str) -> str:
    decoded = TrustBundle.decode(
        json.dumps(document).encode(), trust_domain=TrustDomain(trust_domain)
    )
    return decoded.encode_pem().decode("ascii").rstrip("\n")
