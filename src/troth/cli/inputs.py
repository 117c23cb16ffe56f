# SPDX-License-Identifier: Apache-2.0
"""What commands read: files of bounded size, keys, times, hexadecimal; and safe printing.

A wrong argument or an unusable file of the operator's is wrong usage (exit status 3), told apart
from Evidence that is refused.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from cryptography import x509

from troth.errors import ConfigurationError, DecodeError, LimitExceededError, TrothError
from troth.evidence.context import MAX_COLLATERAL_BYTES, MAX_COLLATERAL_DOCUMENTS, Collateral
from troth.formats.keys import VerificationKey, load_keys
from troth.formats.limits import RIM_LIMITS
from troth.identity.certificates import decode_chain

__all__ = [
    "MAX_EVIDENCE_BYTES",
    "HexBytes",
    "Rfc3339",
    "printable",
    "read_certificates",
    "read_collateral",
    "read_input",
    "read_keys",
    "read_operator_file",
]

MAX_EVIDENCE_BYTES: Final = 4_194_304
"""Octets that a command reads of one piece of Evidence. Each scheme has its own, lower limit."""

_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


class HexBytes(click.ParamType[bytes]):
    """Octets in hexadecimal."""

    name = "hex"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Return the octets; an even number of hexadecimal digits and nothing else."""
        if isinstance(value, bytes):
            return value
        text = str(value)
        if not re.fullmatch(r"([0-9A-Fa-f]{2})+", text, re.ASCII):
            self.fail(f"{text!r}: expected an even number of hexadecimal digits", param, ctx)
        return bytes.fromhex(text)


class Rfc3339(click.ParamType[datetime]):
    """A time with its zone."""

    name = "rfc3339"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the time in UTC."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        if not _RFC3339.fullmatch(text):
            self.fail(f"{text!r}: expected a time such as 2026-11-25T12:00:00Z", param, ctx)
        try:
            # Python takes six digits of a second.
            shortened = re.sub(r"(\.\d{6})\d+", r"\1", text.upper())
            return datetime.fromisoformat(shortened).astimezone(UTC)
        except (ValueError, OverflowError) as exc:
            self.fail(f"{text!r}: {exc}", param, ctx)


def read_input(path: str, *, what: str = "Evidence", limit: int = MAX_EVIDENCE_BYTES) -> bytes:
    """Return what stands in the file `path`, or on standard input for "-".

    Raises:
        ConfigurationError: the file cannot be read.
        LimitExceededError: it is longer than `limit`.
    """
    try:
        if path == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(limit + 1)
    except OSError as exc:
        raise ConfigurationError(
            source=path, accepted=f"a readable file ({exc.strerror or exc})"
        ) from exc
    if len(data) > limit:
        raise LimitExceededError(format=what, limit="MAX_EVIDENCE_BYTES", value=limit)
    return data


def read_operator_file(path: str) -> bytes:
    """Return what stands in a file that the operator answers for.

    Raises:
        ConfigurationError: it cannot be read, or is far too long.
    """
    try:
        return read_input(path, what=path, limit=RIM_LIMITS.max_bytes)
    except LimitExceededError as exc:
        raise ConfigurationError(
            source=path, accepted=f"a file of at most {RIM_LIMITS.max_bytes} octets"
        ) from exc


def read_keys(path: str) -> list[VerificationKey]:
    """Return the verification keys in a file.

    Raises:
        ConfigurationError: it cannot be read, or holds no key that Troth takes.
    """
    try:
        return load_keys(read_operator_file(path), source=path)
    except ConfigurationError:
        raise
    except TrothError as exc:
        remedy = f" {exc.remedy}" if exc.remedy else ""
        raise ConfigurationError(source=path, accepted=f"keys: {exc}.{remedy}") from exc


def read_certificates(path: str) -> list[x509.Certificate]:
    """Return the certificates in a file of trust anchors; none where it holds keys.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return list(decode_chain(read_operator_file(path)))
    except DecodeError:
        return []


def read_collateral(path: str) -> Collateral:
    """Return the files of one directory, by name; what begins with a dot is left out.

    Raises:
        ConfigurationError: it is no directory, cannot be read, or holds far too much.
    """
    documents: dict[str, bytes] = {}
    room = MAX_COLLATERAL_BYTES
    try:
        for file in sorted(Path(path).iterdir()):
            if file.name.startswith(".") or not file.is_file():
                continue
            with file.open("rb") as opened:
                documents[file.name] = opened.read(room + 1)
            room -= len(documents[file.name])
            if room < 0 or len(documents) > MAX_COLLATERAL_DOCUMENTS:
                raise ConfigurationError(
                    source=path,
                    accepted=f"at most {MAX_COLLATERAL_DOCUMENTS} files with "
                    f"{MAX_COLLATERAL_BYTES} octets together",
                )
    except OSError as exc:
        raise ConfigurationError(
            source=path, accepted=f"a readable directory ({exc.strerror or exc})"
        ) from exc
    return Collateral(documents)


def printable(text: str) -> str:
    """Return `text` on one line, with what could steer a terminal shown as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
