# SPDX-License-Identifier: Apache-2.0
"""The log of files that the Linux kernel's Integrity Measurement Architecture (IMA) measured.

As with the boot log, nothing is believed before replaying it has given the quoted register.

Source: Linux kernel documentation, security/IMA-templates.rst and ABI/testing/ima_policy;
admin-guide, "ima_template" (the measurement list in securityfs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final, NamedTuple

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.quoting import shown
from troth.formats.tpm.algorithms import HASH_BY_NAME, TpmHash

__all__ = [
    "BOOT_AGGREGATE",
    "IMA_PCR",
    "MAX_IMA_ENTRIES",
    "MAX_IMA_LOG_BYTES",
    "ImaEntry",
    "ImaLog",
    "decode_ima_log",
]

MAX_IMA_LOG_BYTES: Final = 2_097_152
"""Octets of one log: in binary about 100 for a file."""

MAX_IMA_ENTRIES: Final = 10_000
"""Files in one log. A policy that measures what is executed gives 1,000 to 5,000."""

IMA_PCR: Final = 10
"""The register that the kernel extends unless its policy says otherwise; the one we take."""

BOOT_AGGREGATE: Final = "boot_aggregate"
"""Name of the first entry: a hash over the boot's registers."""

_OLD: Final = "ima"
_TEMPLATES: Final = ("ima", "ima-ng", "ima-sig")
_OLD_NAME_SIZE: Final = 256
_SHA1_SIZE: Final = 20
_MAX_NAME: Final = 4_096
_VIOLATION: Final = bytes(_SHA1_SIZE)
_LENGTH: Final = struct.Struct("<I")
_FORMAT: Final = "IMA log"


class ImaEntry(NamedTuple):
    """One measurement. A tuple, since a log has thousands.

    Attributes:
        number: position in the log, from 0.
        template: name of the form.
        hash: hash of the file's digest, such as "sha-256"; "" for one that Troth does not know.
        digest: of the file.
        path: name of the file as the kernel saw it; what is not UTF-8 stands as an escape.
        signature: of the file, b"" for none. Not verified.
        template_data: what is hashed and extended.
        is_violation: the file was open for writing while it was measured, so that the kernel
            extended ones and the digest says nothing.
    """

    number: int
    template: str
    hash: str
    digest: bytes
    path: str
    signature: bytes
    template_data: bytes
    is_violation: bool


@dataclass(frozen=True)
class ImaLog:
    """One log.

    Attributes:
        raw: the octets.
        entries: in order.
    """

    raw: bytes = field(repr=False)
    entries: Sequence[ImaEntry] = field(repr=False)

    def attested(self, hash_: TpmHash, quoted: bytes) -> Sequence[ImaEntry] | None:
        """Return the entries that make the quoted value of PCR 10, or None where none do.

        The kernel goes on measuring between the quote and the reading of the log, so entries may
        follow; nothing vouches for them, and they are left out.
        """
        digest_of = hash_.digest
        value = bytes(hash_.size)
        if quoted == value:
            return ()
        violation = b"\xff" * hash_.size
        for entry in self.entries:
            extended = violation if entry.is_violation else digest_of(entry.template_data)
            value = digest_of(value + extended)
            if value == quoted:
                return self.entries[: entry.number + 1]
        return None

    def is_padded(self, hash_: TpmHash, quoted: bytes) -> bool:
        """Say whether a kernel before 5.8 explains the quoted value: SHA-1 digests, zero-padded."""
        value = bytes(hash_.size)
        for entry in self.entries:
            digest = (
                b"\xff" * _SHA1_SIZE
                if entry.is_violation
                else sha1(entry.template_data, usedforsecurity=False).digest()
            )
            value = hash_.digest(value + digest.ljust(hash_.size, b"\0"))
            if value == quoted:
                return True
        return False


def decode_ima_log(data: bytes) -> ImaLog:
    """Decode ascii_runtime_measurements or binary_runtime_measurements, whole.

    Raises:
        DecodeError: neither.
        UnsupportedError: another template than ima, ima-ng and ima-sig, or another register.
        LimitExceededError: too long, or too many entries.
    """
    if len(data) > MAX_IMA_LOG_BYTES:
        raise LimitExceededError(format=_FORMAT, limit="MAX_IMA_LOG_BYTES", value=MAX_IMA_LOG_BYTES)
    if not data:
        return ImaLog(data, ())
    # A binary log begins with a register in four octets, little-endian.
    read = _binary if data[1:4] == bytes(3) else _ascii
    return ImaLog(data, tuple(read(data)))


def _ascii(data: bytes) -> Iterator[ImaEntry]:
    lines = data.split(b"\n", MAX_IMA_ENTRIES + 1)
    if lines[-1] == b"":
        lines.pop()
    if len(lines) > MAX_IMA_ENTRIES:
        raise _too_many()
    for number, line in enumerate(lines):
        parts = line.split(b" ", 4)
        if len(parts) != 5:
            raise _wrong(number, "not five fields: register, hash, template, digest, name")
        register, template_digest, template, digest, rest = parts
        _check_register(number, register)
        name = _template(number, template)
        path, signature = rest, b""
        if name == "ima-sig":
            path, space, text = rest.rpartition(b" ")
            if not space:
                raise _wrong(number, "an ima-sig entry without a signature field")
            signature = _hex(text, number, "signature")
        algorithm, colon, value = digest.rpartition(b":")
        if (name == _OLD) == bool(colon):
            raise _wrong(number, f"digest {shown(digest)} does not fit template {name}")
        yield _entry(
            number,
            name,
            algorithm,
            _hex(value, number, "digest"),
            path,
            signature,
            is_violation=_hex(template_digest, number, "template hash") == _VIOLATION,
        )


def _binary(data: bytes) -> Iterator[ImaEntry]:
    position, number = 0, 0
    while position < len(data):
        if number >= MAX_IMA_ENTRIES:
            raise _too_many()
        fixed = data[position : position + 4 + _SHA1_SIZE]
        position += len(fixed)
        if len(fixed) < 4 + _SHA1_SIZE:
            raise _wrong(number, "the log ends inside it")
        (register,) = _LENGTH.unpack_from(fixed)
        _check_register(number, b"%d" % register)
        template, position = _field(data, position, number, most=_MAX_NAME)
        name = _template(number, template)
        if name == _OLD:
            digest, position = data[position : position + _SHA1_SIZE], position + _SHA1_SIZE
            path, position = _field(data, position, number, most=_MAX_NAME)
            algorithm, signature, body = b"", b"", b""
        else:
            body, position = _field(data, position, number, most=len(data))
            algorithm, digest, path, signature = _fields(body, name, number)
        yield _entry(
            number,
            name,
            algorithm,
            digest,
            path,
            signature,
            is_violation=fixed[4:] == _VIOLATION,
            template_data=body,
        )
        number += 1


def _fields(body: bytes, template: str, number: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Return algorithm, digest, path and signature of template data in the newer form."""
    d_ng, at = _field(body, 0, number, most=_MAX_NAME)
    n_ng, at = _field(body, at, number, most=_MAX_NAME)
    signature = b""
    if template == "ima-sig":
        signature, at = _field(body, at, number, most=len(body))
    algorithm, separator, digest = d_ng.partition(b":\0")
    if at != len(body) or not separator or n_ng[-1:] != b"\0":
        raise _wrong(number, f"malformed {template} template data")
    return algorithm, digest, n_ng[:-1], signature


def _field(data: bytes, position: int, number: int, *, most: int) -> tuple[bytes, int]:
    """Return the octets behind a length of four, and where they end."""
    begin = position + 4
    if begin > len(data):
        raise _wrong(number, "the log ends inside it")
    (size,) = _LENGTH.unpack_from(data, position)
    if size > most or begin + size > len(data):
        raise _wrong(number, f"a field of {size} octets")
    return data[begin : begin + size], begin + size


def _entry(  # noqa: PLR0917 - the order of the log
    number: int,
    template: str,
    algorithm: bytes,
    digest: bytes,
    path: bytes,
    signature: bytes,
    *,
    is_violation: bool,
    template_data: bytes = b"",
) -> ImaEntry:
    if template == _OLD:
        if len(digest) != _SHA1_SIZE or len(path) >= _OLD_NAME_SIZE:
            raise _wrong(number, "malformed ima template data")
        hash_name = "sha-1"
        template_data = digest + path.ljust(_OLD_NAME_SIZE, b"\0")
    else:
        known = HASH_BY_NAME.get(algorithm.decode("ascii", "replace"))
        if known is not None and len(digest) != known.size:
            raise _wrong(number, f"a {known.name} digest of {len(digest)} octets")
        hash_name = known.name if known else ""
        if not template_data:
            parts = [algorithm + b":\0" + digest, path + b"\0"]
            if template == "ima-sig":
                parts.append(signature)
            template_data = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return ImaEntry(
        number,
        template,
        hash_name,
        digest,
        path.decode("utf-8", "backslashreplace"),
        signature,
        template_data,
        is_violation,
    )


def _check_register(number: int, register: bytes) -> None:
    if register != b"10":
        if not register.isdigit():
            raise _wrong(number, f"register {shown(register)} is no number")
        raise UnsupportedError(
            f"entry {number}: measured into PCR {shown(register.decode())}; taken is PCR 10",
            format=_FORMAT,
        )


def _template(number: int, name: bytes) -> str:
    text = name.decode("ascii", "replace")
    if text not in _TEMPLATES:
        raise UnsupportedError(
            f"entry {number}: template {shown(text)}; accepted are {', '.join(_TEMPLATES)}",
            format=_FORMAT,
            remedy="Boot with ima_template=ima-ng or ima-sig.",
        )
    return text


def _hex(text: bytes, number: int, what: str) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError as exc:
        raise _wrong(number, f"{what} {shown(text)} is not hexadecimal") from exc


def _too_many() -> LimitExceededError:
    return LimitExceededError(format=_FORMAT, limit="MAX_IMA_ENTRIES", value=MAX_IMA_ENTRIES)


def _wrong(number: int, problem: str) -> DecodeError:
    return DecodeError(f"entry {number}: {problem}", format=_FORMAT)
