# SPDX-License-Identifier: Apache-2.0
"""A TPM quote in the files that tpm2-tools write, put together to one piece of Evidence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from troth.cli.inputs import read_input, read_operator_file
from troth.errors import BindingError, ConfigurationError, SignatureError
from troth.evidence.registry import SCHEMES, Loader
from troth.evidence.tpm2 import Tpm2Scheme, encode
from troth.formats.tpm.attest import TPM_GENERATED, Quoted, decode_attest
from troth.formats.tpm.event_log import MAX_EVENT_LOG_BYTES
from troth.formats.tpm.ima_log import MAX_IMA_LOG_BYTES
from troth.formats.tpm.pcr_file import decode_pcr_file
from troth.formats.tpm.pcr_selection import PCRS
from troth.formats.tpm.public import TpmPublic, decode_public, looks_like_public
from troth.formats.tpm.signature import decode_signature
from troth.formats.verification_key import VerificationKey

__all__ = ["PcrList", "Tpm2Files", "tpm2_options"]

F = TypeVar("F", bound=Callable[..., Any])

_SCHEME: Final = "tpm2"
_OPTIONS: Final = {
    "signature": "--signature",
    "pcrs": "--pcrs",
    "event_log": "--event-log",
    "ima_log": "--ima-log",
    "pcr_selection": "--pcr-selection",
}


class PcrList(click.ParamType[tuple[int, ...]]):
    """Registers, separated by commas."""

    name = "registers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the registers; 0 to 23, each once."""
        if isinstance(value, tuple):
            return value
        text = str(value)
        if not re.fullmatch(r"\d{1,2}(,\d{1,2})*", text, re.ASCII):
            self.fail(f"{text!r}: expected registers such as 0,1,4,7,9", param, ctx)
        registers = tuple(map(int, text.split(",")))
        if len(set(registers)) != len(registers) or any(each not in PCRS for each in registers):
            self.fail(f"{text!r}: expected registers from 0 to {PCRS[-1]}, each once", param, ctx)
        return registers


def tpm2_options(command: F) -> F:
    """Add the options by which a command takes a quote in files."""
    for option in reversed(
        (
            click.option(
                "--signature",
                metavar="FILE",
                help="tpm2: signature over the quote (TPMT_SIGNATURE).",
            ),
            click.option(
                "--pcrs",
                metavar="FILE",
                help='tpm2: register values: JSON {"sha256": {"0": "hex"}}, what tpm2_pcrread '
                "prints, or what tpm2_quote -o writes.",
            ),
            click.option(
                "--event-log", metavar="FILE", help="tpm2: boot log (binary_bios_measurements)."
            ),
            click.option(
                "--ima-log", metavar="FILE", help="tpm2: IMA log, ascii or binary (needs PCR 10)."
            ),
            click.option(
                "--pcr-selection",
                type=PcrList(),
                metavar="N,N…",
                help="tpm2: registers that were asked for; a quote of fewer is refused.",
            ),
        )
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpm2Files:
    """What the options of `tpm2_options` say.

    Attributes:
        signature, pcrs, event_log, ima_log: paths, or None.
        pcr_selection: registers asked for, or None.
        trust_anchors: paths of files that may hold the attestation key's public area.
    """

    signature: str | None = None
    pcrs: str | None = None
    event_log: str | None = None
    ima_log: str | None = None
    pcr_selection: tuple[int, ...] | None = None
    trust_anchors: Sequence[str] = ()

    @classmethod
    def of(cls, scheme: str, trust_anchors: Sequence[str], options: Mapping[str, Any]) -> Tpm2Files:
        """Return what the options say.

        Raises:
            ConfigurationError: they go with another scheme, or one of a pair is missing.
        """
        files = cls(trust_anchors=trust_anchors, **options)
        given = [name for key, name in _OPTIONS.items() if options.get(key)]
        if given and scheme != _SCHEME:
            raise ConfigurationError(source=given[0], accepted=f"--scheme {_SCHEME} beside it")
        in_files = [name for name in given if name != "--pcr-selection"]
        if in_files and not (files.signature and files.pcrs):
            missing = "--pcrs" if files.signature else "--signature"
            raise ConfigurationError(source=in_files[0], accepted=f"{missing} FILE beside it")
        return files

    def evidence(self, data: bytes) -> bytes:
        """Return Evidence: `data` itself, or `data` as a quote with the files beside it.

        Raises:
            DecodeError, BindingError: the files are not what they should be, or not of one quote.
            ConfigurationError: a file cannot be read.
        """
        if self.signature is None or self.pcrs is None:
            return data
        quote = _without_size(data)
        signature = read_input(self.signature)
        return encode(
            quote=quote,
            signature=signature,
            pcr_values=_values(quote, read_input(self.pcrs)),
            attestation_key=self._public_area(quote, signature),
            event_log=_log(self.event_log, MAX_EVENT_LOG_BYTES),
            ima_log=_log(self.ima_log, MAX_IMA_LOG_BYTES),
        )

    def schemes(self) -> Mapping[str, Loader]:
        """Return the schemes to verify with: one that asks for the registers, and the others."""
        required = self.pcr_selection
        if not required:
            return SCHEMES
        return {**SCHEMES, _SCHEME: lambda: Tpm2Scheme(required_pcrs=required)}

    def _public_area(self, quote: bytes, signature: bytes) -> bytes:
        """Return the public area of the key that signed, b"" where only the key itself is given."""
        for path in self.trust_anchors:
            data = read_operator_file(path)
            if looks_like_public(data):
                public = decode_public(data)
                if _has_signed(public, quote, signature):
                    return public.raw
        return b""


def _has_signed(public: TpmPublic, quote: bytes, signature: bytes) -> bool:
    try:
        key = VerificationKey(public.public_key())
        decode_signature(signature).verify(key, quote, format="quote")
    except SignatureError:
        return False
    return True


def _without_size(data: bytes) -> bytes:
    """Return the TPMS_ATTEST of a TPM2B_ATTEST; tpm2-tools write the former."""
    is_sized = data[2:6] == TPM_GENERATED and int.from_bytes(data[:2]) == len(data) - 2
    return data[2:] if is_sized else data


def _values(quote: bytes, pcrs: bytes) -> bytes:
    attested = decode_attest(quote).attested
    values = decode_pcr_file(pcrs)
    if not isinstance(attested, Quoted):
        return b""  # decoding refuses it
    missing = [
        f"{register} ({hash_.name})"
        for hash_, register in attested.selection
        if register not in values.get(hash_.name, {})
    ]
    if missing:
        raise BindingError(
            f"the quote is over PCR {', '.join(missing)}, of which --pcrs has no value",
            remedy="Give the values that were quoted, as tpm2_quote -o writes them.",
        )
    return attested.selection.join(values) or b""


def _log(path: str | None, limit: int) -> bytes | None:
    return None if path is None else read_input(path, what=path, limit=limit)
