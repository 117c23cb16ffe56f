# SPDX-License-Identifier: Apache-2.0
"""`troth delegation`: write down, signed, what another Verifier may judge."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from troth.cli.corim.files import write_file
from troth.cli.inputs import read_keys, read_operator_file
from troth.errors import UnsupportedError
from troth.formats.jwk import thumbprint
from troth.formats.signer import LocalSigner, load_private_key
from troth.identity.spiffe_id import TrustDomain
from troth.mesh.tier import Tier
from troth.mesh.verifier_delegation import MAX_DELEGATION, VerifierDelegation, verify_delegation

__all__ = ["delegation"]

_TIERS = [tier.value for tier in Tier]


@click.group()
def delegation() -> None:
    """Let a Verifier near its nodes judge for a site, within bounds.

    Agents believe it by `[[verifiers]]` with `delegation` and `keys`, the keys of who delegates.
    """


@delegation.command()
@click.argument("verifier")
@click.option("--key", "key_file", required=True, metavar="FILE", help="Private key that signs: PEM or DER, unencrypted.")  # fmt: skip
@click.option("--to", "to_file", required=True, metavar="FILE", help="The Verifier's public result key: PEM or JWK.")  # fmt: skip
@click.option("--site", required=True, metavar="NAME", help="Where its results count.")
@click.option("--scheme", "schemes", required=True, multiple=True, metavar="NAME", help="A scheme that it may judge; may be repeated.")  # fmt: skip
@click.option("--tier-ceiling", type=click.Choice(_TIERS), default="measured", show_default=True, help="The best tier that it may name.")  # fmt: skip
@click.option("--days", type=click.FloatRange(0, MAX_DELEGATION.days, min_open=True), default=7, show_default=True, help="How long from now.")  # fmt: skip
@click.option("--trust-domain", required=True, metavar="NAME", help="Who delegates.")
@click.option("--key-id", default="", help="Name of the signing key (kid), a hint for who verifies.")  # fmt: skip
@click.option("--out", required=True, metavar="FILE", help="Where to write.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def create(
    *,
    verifier: str,
    key_file: str,
    to_file: str,
    site: str,
    schemes: tuple[str, ...],
    tier_ceiling: str,
    days: float,
    trust_domain: str,
    key_id: str,
    out: str,
    force: bool,
) -> None:
    """Delegate to VERIFIER, the name that agents and their rules call it by."""
    keys = read_keys(to_file)
    if len(keys) != 1:
        raise UnsupportedError(
            f"has {len(keys)} keys; a delegation is to one",
            format=to_file,
            remedy="give one file for each key, and one delegation for each",
        )
    signer = LocalSigner(load_private_key(read_operator_file(key_file), source=key_file), key_id)
    start = datetime.now(UTC).replace(microsecond=0)
    given = VerifierDelegation(
        verifier=verifier,
        key=keys[0],
        site=site,
        schemes=schemes,
        tier_ceiling=Tier(tier_ceiling),
        not_before=start,
        not_after=start + timedelta(seconds=int(days * 86_400)),
    )
    token = given.sign(signer, trust_domain=TrustDomain(trust_domain).name)
    write_file(Path(out), token.encode() + b"\n", force=force)
    click.echo(f"{out}: {verifier} judges {', '.join(schemes)} for {site}, {_until(given)}")


@delegation.command()
@click.argument("file")
@click.option("--key", "key_files", required=True, multiple=True, metavar="FILE", help="A key that is believed for delegations; may be repeated.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)  # fmt: skip
def show(*, file: str, key_files: tuple[str, ...], form: str) -> None:
    """Verify the delegation in FILE and say what it allows."""
    keys = [key for name in key_files for key in read_keys(name)]
    token = read_operator_file(file).strip()
    found = verify_delegation(token, keys, now=datetime.now(UTC))
    facts = {
        "verifier": found.verifier,
        "key": thumbprint(found.key),
        "site": found.site,
        "schemes": list(found.schemes),
        "tier_ceiling": found.tier_ceiling.value,
        "not_before": found.not_before.isoformat(),
        "not_after": found.not_after.isoformat(),
    }
    if form == "json":
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        click.echo(f"{name:<13} {', '.join(value) if isinstance(value, list) else value}")


def _until(given: VerifierDelegation) -> str:
    return f"at best {given.tier_ceiling.value}, until {given.not_after.isoformat()}"
