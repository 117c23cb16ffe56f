# SPDX-License-Identifier: Apache-2.0
"""Register values as files hold them: JSON, the listing of tpm2_pcrread, the file of tpm2_quote.

Source: tpm2-tools 5, tpm2_pcrread(1) and tpm2_quote(1). The file that `tpm2_quote -o` writes has
no specification: it is a memory image of TPML_PCR_SELECTION and TPML_DIGEST on a little-endian
machine, known from what the tool writes.
"""

from __future__ import annotations

import re
from typing import Final

from troth.errors import DecodeError
from troth.formats.quoting import shown
from troth.formats.strict_json import decode_json_object
from troth.formats.tpm.algorithms import HASH_BY_NAME, HASHES
from troth.formats.tpm.pcr_selection import MAX_BANKS, PCRS, selected
from troth.formats.tpm.reader import TpmReader

__all__ = ["decode_pcr_file"]

_BANK: Final = re.compile(r"\s*(\w[\w-]*)\s*:\s*", re.ASCII)
_VALUE: Final = re.compile(r"\s+(\d{1,2})\s*:\s*(?:0x)?([0-9A-Fa-f]+)\s*", re.ASCII)
_MAX_BYTES: Final = 65_536
_IMAGE_LISTS: Final = 48
_IMAGE_DIGESTS: Final = 8
_IMAGE_DIGEST: Final = 64
_FORMAT: Final = "PCR values"


def decode_pcr_file(data: bytes) -> dict[str, dict[int, bytes]]:
    """Return hash name ("sha-256") to register to value.

    Taken are JSON (`{"sha256": {"0": "hex"}}`), what tpm2_pcrread prints, and what `tpm2_quote -o`
    writes by default.

    Raises:
        DecodeError: none of these, an unknown bank, or a value of another length than its bank's.
        LimitExceededError: far too long.
    """
    if len(data) > _MAX_BYTES:
        raise DecodeError(f"{len(data)} octets; at most {_MAX_BYTES}", format=_FORMAT)
    if data.lstrip()[:1] == b"{":
        return _from_json(data)
    if data[1:4] == bytes(3):
        return _from_image(data)
    return _from_listing(data)


def _from_json(data: bytes) -> dict[str, dict[int, bytes]]:
    found: dict[str, dict[int, bytes]] = {}
    for bank, registers in decode_json_object(data, format=_FORMAT).items():
        if not isinstance(registers, dict):
            raise DecodeError(f"bank {shown(bank)} is not an object", format=_FORMAT)
        for register, value in registers.items():
            if not isinstance(value, str):
                raise DecodeError(f"{shown(bank)} {shown(register)} is not a text", format=_FORMAT)
            _add(found, str(bank), str(register), value.removeprefix("0x"))
    return found


def _from_listing(data: bytes) -> dict[str, dict[int, bytes]]:
    found: dict[str, dict[int, bytes]] = {}
    bank = ""
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        if value := _VALUE.fullmatch(line):
            if not bank:
                raise DecodeError(f"line {number}: a value before its bank", format=_FORMAT)
            _add(found, bank, value[1], value[2])
        elif heading := _BANK.fullmatch(line):
            bank = heading[1]
        elif line.strip():
            raise DecodeError(
                f"line {number}: neither JSON, nor the listing of tpm2_pcrread, nor the file of "
                "tpm2_quote -o",
                format=_FORMAT,
                remedy='Write {"sha256": {"0": "hex", ...}}.',
            )
    return found


def _from_image(data: bytes) -> dict[str, dict[int, bytes]]:
    reader = TpmReader(data, format=_FORMAT, order="little")
    wanted = _image_selection(reader)
    values = _image_digests(reader)
    reader.finish()
    if len(values) != len(wanted):
        raise reader.error(f"{len(values)} values for {len(wanted)} registers")
    found: dict[str, dict[int, bytes]] = {}
    for (name, register), value in zip(wanted, values, strict=True):
        _add(found, name, str(register), value.hex())
    return found


def _image_selection(reader: TpmReader) -> list[tuple[str, int]]:
    count = reader.integer(4, "number of banks")
    wanted: list[tuple[str, int]] = []
    for index in range(MAX_BANKS):
        bank = reader.integer(2, "bank")
        size, bitmap = reader.integer(1, "size of a bitmap"), reader.take(4, "bitmap")
        reader.take(1, "padding")
        if index >= count:
            continue
        if bank not in HASHES or size > len(bitmap):
            raise reader.error(f"bank {bank:#06x}")
        wanted += ((HASHES[bank].name, register) for register in selected(bitmap[:size]))
    return wanted


def _image_digests(reader: TpmReader) -> list[bytes]:
    values: list[bytes] = []
    lists = reader.integer(4, "number of digest lists")
    if lists > _IMAGE_LISTS:
        raise reader.error(f"{lists} digest lists")
    for _ in range(lists):
        used = reader.integer(4, "number of digests")
        for index in range(_IMAGE_DIGESTS):
            size = reader.integer(2, "size of a digest")
            value = reader.take(_IMAGE_DIGEST, "digest")
            if index < used:
                values.append(value[:size])
    return values


def _add(found: dict[str, dict[int, bytes]], bank: str, register: str, value: str) -> None:
    hash_ = HASH_BY_NAME.get(bank.lower())
    if hash_ is None:
        raise DecodeError(f"bank {shown(bank)} is not known", format=_FORMAT)
    if not re.fullmatch(r"\d{1,2}", register, re.ASCII) or int(register) not in PCRS:
        raise DecodeError(f"register {shown(register)}; there are 0 to {PCRS[-1]}", format=_FORMAT)
    number = int(register)
    if not re.fullmatch(r"[0-9A-Fa-f]*", value, re.ASCII) or len(value) != 2 * hash_.size:
        raise DecodeError(
            f"PCR {number} of {hash_.name} is {shown(value)}; expected {hash_.size} octets in "
            "hexadecimal",
            format=_FORMAT,
        )
    own = found.setdefault(hash_.name, {})
    if number in own:
        raise DecodeError(f"PCR {number} of {hash_.name} stands there twice", format=_FORMAT)
    own[number] = bytes.fromhex(value)
