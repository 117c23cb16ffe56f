# SPDX-License-Identifier: Apache-2.0
"""`troth corim create`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from troth.cli.corim.description import corim_from_description
from troth.cli.corim.evidence import LEAVE_OUT, read_evidence
from troth.cli.corim.files import parse_validity, write_file
from troth.cli.corim.vendor import VendorFiles, vendor_options
from troth.cli.inputs import HexBytes, read_keys, read_operator_file
from troth.cli.tpm2_files import Tpm2Files, tpm2_options
from troth.errors import ConfigurationError
from troth.formats.corim import Corim

__all__ = ["create"]


@click.command()
@click.option("--from", "description", metavar="FILE", help="Describe the values in a file: TOML, YAML or JSON.")  # fmt: skip
@click.option("--evidence", metavar="FILE", help="Take them from this Evidence of a good node.")
@click.option("--scheme", type=click.Choice(["psa", "cca", "tpm2", "sev_snp", "sgx", "tdx", "nitro"]), help="Of the Evidence; else recognised.")  # fmt: skip
@click.option("--key", "key_file", metavar="FILE", help="The node's attestation key, or the root of its certificates: verify the Evidence.")  # fmt: skip
@click.option("--unverified", is_flag=True, help="Believe the Evidence without verifying it.")
@click.option("--with-key", is_flag=True, help="Also put the attestation key into the CoRIM.")
@click.option("--leave-out", type=click.Choice(LEAVE_OUT), multiple=True, help="Say nothing about this; may be repeated.")  # fmt: skip
@click.option("--id", "corim_id", default="", metavar="ID", help="Identifier of the CoRIM; what is withdrawn later.")  # fmt: skip
@click.option("--class-id", type=HexBytes(), metavar="HEX", help="tpm2: class of machines that the values are about.")  # fmt: skip
@click.option("--vendor", default="", help="Name of the maker, for people.")
@click.option("--model", default="", help="Name of the product, for people.")
@click.option("--not-before", default="", metavar="TIME", help="The CoRIM is not valid before.")
@click.option("--not-after", default="", metavar="TIME", help="The CoRIM is not valid after.")
@click.option("--allow-test-keys", is_flag=True, help="Take Evidence under a published test key.")
@click.option("--allow-simulator", is_flag=True, help="Take Evidence of the platform simulator.")
@click.option("--out-dir", default=".", metavar="DIR", help="Where to write ID.cbor.", show_default=True)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files that exist.")
@vendor_options
@tpm2_options
def create(
    *,
    description: str | None,
    evidence: str | None,
    corim_id: str,
    out_dir: str,
    force: bool,
    **options: object,
) -> None:
    r"""Make a CoRIM from a description or from the Evidence of a good node.

    \b
    From a description:       troth corim create --from board.yaml
    From a node's Evidence:   troth corim create --evidence token.cbor --key iak.pem \
                                  --with-key --id acme-board-1
    From a TPM's quote:       troth corim create --scheme tpm2 --evidence quote.bin \
                                  --signature quote.sig --pcrs pcrs.json --event-log boot.log \
                                  --key ak.pub --with-key --class-id 01 --id acme-host-1
    From an SNP guest's:      troth corim create --evidence report.bin --trust-vendor amd \
                                  --collateral amd/ --id acme-image-1

    The Evidence of a CCA node makes two CoRIMs, ID-platform and ID-realm. What is written is
    unsigned: see `troth corim sign`.
    """
    if (description is None) == (evidence is None):
        raise click.UsageError("Give either --from or --evidence.")
    if description is not None:
        given = [name for name, value in options.items() if value]
        if given or corim_id:
            name = (given[0] if given else "id").replace("_", "-").replace("key-file", "key")
            name = name.replace("trust-vendors", "trust-vendor")
            raise click.UsageError(f"--{name} goes with --evidence; with --from it is in the file.")
        corims = [corim_from_description(description)]
    else:
        corims = _from_evidence(str(evidence), corim_id=corim_id, **options)  # type: ignore[arg-type]  # click has checked their types
    for corim in corims:
        path = Path(out_dir) / f"{_file_name(corim)}.cbor"
        write_file(path, corim.encode(), force=force)
        click.echo(f"{path}: {corim.id} ({corim.profile_name})")


def _from_evidence(
    path: str,
    *,
    corim_id: str,
    scheme: str | None,
    key_file: str | None,
    unverified: bool,
    with_key: bool,
    leave_out: Sequence[str],
    vendor: str,
    model: str,
    not_before: str,
    not_after: str,
    allow_test_keys: bool,
    allow_simulator: bool,
    class_id: bytes | None,
    trust_vendors: Sequence[str],
    collateral: str | None,
    at: datetime | None,
    **tpm2: object,
) -> list[Corim]:
    if not corim_id:
        raise click.UsageError("Give --id, the identifier of the CoRIM.")
    if (key_file is None and not trust_vendors) != unverified:
        raise click.UsageError(
            "Give either --key or --trust-vendor, to verify the Evidence, or --unverified."
        )
    if with_key and unverified:
        raise click.UsageError("--with-key needs a --key that the Evidence was verified with.")
    files = Tpm2Files.of(scheme or "", () if key_file is None else (key_file,), tpm2)
    node = read_evidence(
        files.evidence(read_operator_file(path)),
        scheme_name=scheme or "",
        keys=None if unverified else read_keys(key_file) if key_file is not None else (),
        allow_test_keys=allow_test_keys,
        allow_simulator=allow_simulator,
        vendor_files=VendorFiles.of(
            key_file, trust_vendors=trust_vendors, collateral=collateral, at=at
        ),
    )
    for reason in node.insecure:
        click.echo(f"warning: {path}: {reason}", err=True)
    return node.corims(
        corim_id=corim_id,
        with_key=with_key,
        leave_out=leave_out,
        vendor=vendor,
        model=model,
        validity=parse_validity(not_before, not_after, source="command line"),
        class_id=class_id or b"",
        registers=files.pcr_selection,
    )


def _file_name(corim: Corim) -> str:
    # An identifier is free text; a file name must not leave the directory or look like an option.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", corim.id).lstrip(".-")
    if not name:
        raise ConfigurationError(
            source="id", value=corim.id, accepted="an identifier with a letter or a digit in it"
        )
    return name[:200]
