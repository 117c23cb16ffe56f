# SPDX-License-Identifier: Apache-2.0
"""`troth attest`: say what this machine can attest with, and make Evidence."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from troth.adapters.attesters import (
    AUTO,
    KINDS,
    AttesterSettings,
    FoundAttester,
    find_attesters,
    open_attester,
)
from troth.adapters.tpm_device import DEFAULT_REGISTERS
from troth.cli.inputs import HexBytes, printable
from troth.errors import ConfigurationError, TrothError, UnavailableError
from troth.evidence.attester import Attester
from troth.evidence.registry import SCHEMES

__all__ = ["attest"]

EXIT_NOTHING_FOUND: Final = 1


class _Registers(click.ParamType[tuple[int, ...]]):
    """Numbers of platform configuration registers."""

    name = "registers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers in a text such as 0,1,4,7."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.isascii() and part.isdigit() and int(part) < 24 for part in parts):
            self.fail(f"{value!r}: expected numbers from 0 to 23, such as 0,1,4,7", param, ctx)
        return tuple(int(part) for part in parts)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--explain", is_flag=True, help="Say which Attesters there are, and make nothing.")
@click.option(
    "--attester",
    "kind",
    type=click.Choice([AUTO, *KINDS]),
    default=AUTO,
    show_default=True,
    help="Kind of Attester: tsm is a confidential VM's, nsm a Nitro Enclave's. auto takes the first "
    "that hardware provides, never the simulator.",
)
@click.option(
    "--scheme",
    type=click.Choice(sorted(SCHEMES)),
    help="Refuse unless the Evidence is of this scheme.",
)
@click.option(
    "--nonce",
    type=HexBytes(),
    metavar="HEX",
    help="Challenge that the Evidence has to carry, of the size that the scheme signs.",
)
@click.option(
    "--output",
    "-o",
    "path",
    metavar="FILE",
    help="New file for the Evidence; - is standard output.",
)
@click.option("--device", metavar="FILE", help="The simulator's device file. INSECURE.")
@click.option(
    "--state", metavar="FILE", help="File that keeps a TPM's attestation key; made if absent."
)
@click.option(
    "--tcti",
    default="device:/dev/tpmrm0",
    show_default=True,
    help="How the TPM is reached.",
)
@click.option(
    "--registers",
    type=_Registers(),
    default=DEFAULT_REGISTERS,
    metavar="N,N,…",
    help="Registers that the TPM quotes; the firmware's and boot loader's by default.",
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    help="Of --explain. Default: text on a terminal, json elsewhere.",
)
@click.pass_context
def attest(
    ctx: click.Context,
    *,
    explain: bool,
    kind: str,
    scheme: str | None,
    nonce: bytes | None,
    path: str | None,
    device: str | None,
    state: str | None,
    tcti: str,
    registers: tuple[int, ...],
    output: str | None,
) -> None:
    r"""Make Evidence of this machine, or say what it could be made with.

    \b
    Exit status:
      0  the Evidence is written; or something was found that makes some
      1  --explain: nothing was found that makes Evidence
      2  the Attester is not there or does not answer
      3  wrong usage

    \b
    Examples:
      troth attest --explain
      troth attest --nonce 9f2c…e1 -o evidence.bin
    """
    settings = AttesterSettings(
        device=Path(device) if device is not None else None,
        state=Path(state) if state is not None else None,
        tcti=tcti,
        registers=registers,
    )
    if explain:
        if nonce is not None or path is not None:
            raise click.UsageError(
                "--explain makes no Evidence: it goes with neither --nonce nor -o"
            )
        ctx.exit(_explain(settings, as_json=output == "json" or _not_a_terminal(output)))
    if nonce is None or path is None:
        raise click.UsageError("--nonce and -o are needed to make Evidence; or --explain")
    _make(open_attester(kind, settings), scheme=scheme, nonce=nonce, path=path)


def _not_a_terminal(output: str | None) -> bool:
    return output is None and not sys.stdout.isatty()


def _make(attester: Attester, *, scheme: str | None, nonce: bytes, path: str) -> None:
    if scheme is not None and attester.scheme != scheme:
        raise UnavailableError(
            f"this machine's Attester makes {attester.scheme} Evidence, not {scheme}",
            remedy="troth attest --explain lists what there is",
        )
    if len(nonce) != attester.challenge_size:
        raise ConfigurationError(
            source="--nonce",
            value=f"{len(nonce)} octets",
            accepted=f"{attester.challenge_size} octets for {attester.scheme}",
        )
    evidence = attester.attest(nonce)
    if path == "-":
        sys.stdout.buffer.write(evidence)
    else:
        _write_new(Path(path), evidence)
    description = attester.describe()
    click.echo(
        f"{len(evidence)} octets of {attester.scheme} Evidence, media type {attester.media_type}, "
        f"from {printable(description.source)}",
        err=True,
    )
    for reason in description.insecure:
        click.echo(f"INSECURE: {printable(reason)}", err=True)


def _write_new(path: Path, data: bytes) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(data)
    except OSError as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a new file that can be written ({exc.strerror or exc})"
        ) from exc


def _explain(settings: AttesterSettings, *, as_json: bool) -> int:
    found = [_described(each) for each in find_attesters(settings)]
    chosen = next((each["kind"] for each in found if _is_auto(each)), None)
    if as_json:
        click.echo(json.dumps({"auto": chosen, "attesters": found}, indent=2))
    else:
        click.echo("\n".join(_text(found, chosen)))
    return 0 if any(each["usable"] for each in found) else EXIT_NOTHING_FOUND


def _is_auto(found: dict[str, Any]) -> bool:
    return bool(found["usable"]) and found["kind"] in KINDS[:-1]


def _described(found: FoundAttester) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kind": found.kind,
        "source": found.source,
        "scheme": found.scheme or None,
        "usable": found.usable,
        "detail": found.detail,
        "remedy": found.remedy,
        "shows": found.proof.shows if found.proof is not None else None,
        "does_not_show": found.proof.does_not_show if found.proof is not None else None,
    }
    # A TPM's Attester makes its key when it is opened for the first time: not to be done here.
    if found.kind == "tpm":
        return told
    try:
        description = found.describe()
    except TrothError as exc:
        return {**told, "usable": False, "detail": str(exc), "remedy": exc.remedy}
    if description is not None:
        told |= {
            "media_type": description.media_type,
            "challenge_octets": description.challenge_size,
            "identity": description.identity,
            "details": dict(description.details),
            "insecure": list(description.insecure),
        }
    return told


def _text(found: Sequence[dict[str, Any]], chosen: str | None) -> Iterator[str]:
    for each in found:
        word = click.style("usable", fg="green") if each["usable"] else "not usable"
        scheme = f", {each['scheme']}" if each["scheme"] else ""
        source = f"  {printable(each['source'])}" if each["source"] else ""
        yield f"{click.style(each['kind'], bold=True)}: {word}{scheme}{source}"
        yield f"  {printable(each['detail'])}"
        if each["remedy"]:
            yield f"  what to do: {printable(each['remedy'])}"
        if each["shows"]:
            yield f"  shows {each['shows']}"
            yield f"  does not show {each['does_not_show']}"
        if each.get("identity"):
            yield f"  identity {printable(each['identity'])}"
        for name, text in each.get("details", {}).items():
            yield f"  {printable(name)} {printable(text)}"
        if each.get("challenge_octets"):
            yield f"  takes a nonce of {each['challenge_octets']} octets; {each['media_type']}"
        for reason in each.get("insecure", []):
            yield click.style(f"  INSECURE: {printable(reason)}", fg="red")
    yield f"auto takes {chosen}" if chosen else "auto finds nothing"
