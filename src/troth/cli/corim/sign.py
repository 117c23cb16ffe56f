# SPDX-License-Identifier: Apache-2.0
"""`troth corim sign` and `troth corim verify`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from troth.cli.corim.files import parse_moment, parse_validity, write_file
from troth.cli.inputs import read_keys, read_operator_file
from troth.endorsement.endorsements import endorsements_of
from troth.errors import UnsupportedError
from troth.evidence.published_keys import PUBLISHED_KEYS
from troth.formats.corim import Corim, SignedCorim, decode_any, sign_corim
from troth.formats.keys import VerificationKey, thumbprint
from troth.formats.signer import LocalSigner, load_private_key

__all__ = ["sign", "verify"]


@click.command()
@click.argument("file")
@click.option("--key", "key_file", required=True, metavar="FILE", help="Private key: PEM or DER, unencrypted.")  # fmt: skip
@click.option("--signer", "signer_name", required=True, metavar="NAME", help="Name of the organization that signs.")  # fmt: skip
@click.option("--signer-uri", metavar="URI", help="A URI of it.")
@click.option("--key-id", default="", help="Name of the key (kid), a hint for who verifies.")
@click.option("--not-before", default="", metavar="TIME", help="The signature is not valid before.")
@click.option("--not-after", default="", metavar="TIME", help="The signature is not valid after.")
@click.option("--out", metavar="FILE", help="Where to write; else FILE with .cose for .cbor.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option("--scheme", default="", metavar="NAME", help="What a CoRIM without a profile is about.")  # fmt: skip
def sign(
    *,
    file: str,
    key_file: str,
    signer_name: str,
    signer_uri: str | None,
    key_id: str,
    not_before: str,
    not_after: str,
    out: str | None,
    force: bool,
    scheme: str,
) -> None:
    """Sign the CoRIM in FILE.

    It is read by the rules of its profile first: what could not be provisioned is not signed.
    """
    corim = decode_any(read_operator_file(file))
    if isinstance(corim, SignedCorim):
        raise UnsupportedError(
            f"signed already, by {corim.signer_name!r}",
            format=file,
            remedy="Sign the CoRIM that is inside, if that is meant.",
        )
    endorsements_of(corim, source=file, scheme=scheme)
    key = load_private_key(read_operator_file(key_file), source=key_file)
    signer = LocalSigner(key, key_id=key_id)
    _warn_of_published(VerificationKey(signer.public_key, source=key_file))
    signed = sign_corim(
        corim,
        signer,
        signer_name=signer_name,
        signer_uri=signer_uri,
        validity=parse_validity(not_before, not_after, source="command line"),
    )
    path = Path(out) if out else Path("signed.cose" if file == "-" else file).with_suffix(".cose")
    write_file(path, signed, force=force)
    click.echo(f"{path}: {corim.id}, signed by {signer_name!r} with {signer.algorithm}")


@click.command()
@click.argument("file")
@click.option("--key", "key_files", required=True, multiple=True, metavar="FILE", help="A key that is trusted for CoRIMs; may be repeated.")  # fmt: skip
@click.option("--at", default="", metavar="TIME", help="The time to judge by; else now.")
@click.option("--scheme", default="", metavar="NAME", help="What a CoRIM without a profile is about.")  # fmt: skip
def verify(*, file: str, key_files: tuple[str, ...], at: str, scheme: str) -> None:
    """Verify the signed CoRIM in FILE and check it against its profile."""
    corim = decode_any(read_operator_file(file))
    if isinstance(corim, Corim):
        raise UnsupportedError(
            "not signed, so there is nothing to verify",
            format=file,
            remedy="Ask its author for a signed one, or look at it with `troth corim show`.",
        )
    keys = [key for path in key_files for key in read_keys(path)]
    now = parse_moment(at, source="command line", key="--at") if at else datetime.now(UTC)
    verified = corim.verify(keys, now=now)
    found = endorsements_of(verified.corim, source=file, scheme=scheme)
    for key in keys:
        if thumbprint(key) == verified.signer:
            _warn_of_published(key)
    click.echo(
        f"{file}: {verified.corim.id}, signed by {verified.signer_name!r} "
        f"(key {verified.signer}); {len(found.reference_values)} reference values and "
        f"{len(found.trust_anchors)} trust anchors for {found.scheme}"
    )


def _warn_of_published(key: VerificationKey) -> None:
    origin = PUBLISHED_KEYS.get(thumbprint(key))
    if origin:
        click.echo(
            f"warning: {key.source} is a published test key ({origin}): anybody can sign with it",
            err=True,
        )
