# SPDX-License-Identifier: Apache-2.0
"""Which Platform Configuration Registers (PCRs) are meant, and what their values hash to.

Source: TPM 2.0 Library, Part 2, sections 10.6.2 (TPMS_PCR_SELECTION) and 10.9.7
(TPML_PCR_SELECTION); Part 3, section 18.4 (TPM2_Quote).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from troth.errors import UnsupportedError
from troth.formats.tpm.algorithms import HASHES, TpmHash, algorithm_name
from troth.formats.tpm.reader import TpmReader

__all__ = [
    "MAX_BANKS",
    "PCRS",
    "BankSelection",
    "PcrSelection",
    "PcrValues",
    "read_selection",
    "selected",
]

MAX_BANKS = 16
"""Banks that one selection may name (HASH_COUNT of the reference code)."""

PCRS = range(24)
"""Registers of a PC Client TPM."""

PcrValues = Mapping[str, Mapping[int, bytes]]
"""Hash name ("sha-256") to register to value."""


@dataclass(frozen=True, slots=True)
class BankSelection:
    """Registers of one bank.

    Attributes:
        hash: the bank.
        registers: ascending; empty where the TPM has none of those asked for.
    """

    hash: TpmHash
    registers: tuple[int, ...]


@dataclass(frozen=True)
class PcrSelection:
    """A TPML_PCR_SELECTION.

    Attributes:
        banks: in the order of the wire, which is the order of hashing; no register twice.
    """

    banks: tuple[BankSelection, ...]

    def __iter__(self) -> Iterator[tuple[TpmHash, int]]:
        """Yield each bank and register in the order of hashing."""
        for bank in self.banks:
            for register in bank.registers:
                yield bank.hash, register

    @cached_property
    def octets(self) -> int:
        """Octets of all selected values."""
        return sum(bank.hash.size * len(bank.registers) for bank in self.banks)

    def registers(self, bank: str) -> tuple[int, ...]:
        """Return the registers of one bank, by the name of its hash."""
        return tuple(register for hash_, register in self if hash_.name == bank)

    def split(self, values: bytes) -> dict[str, dict[int, bytes]]:
        """Return the values that stand one after the other in `values`, by bank and register.

        The caller has checked that there are `octets` of them.
        """
        found: dict[str, dict[int, bytes]] = {}
        at = 0
        for bank in self.banks:
            size = bank.hash.size
            own = found.setdefault(bank.hash.name, {})
            for register in bank.registers:
                own[register] = values[at : at + size]
                at += size
        return found

    def join(self, values: PcrValues) -> bytes | None:
        """Return the selected values one after the other; None where one is missing."""
        parts: list[bytes] = []
        for hash_, register in self:
            value = values.get(hash_.name, {}).get(register)
            if value is None:
                return None
            parts.append(value)
        return b"".join(parts)

    def to_json(self) -> dict[str, list[int]]:
        """Return hash name to registers."""
        found: dict[str, list[int]] = {}
        for bank in self.banks:
            found.setdefault(bank.hash.name, []).extend(bank.registers)
        return found

    def encode(self) -> bytes:
        """Return the TPML_PCR_SELECTION, with bitmaps of three octets."""
        return len(self.banks).to_bytes(4) + b"".join(
            bank.hash.id.to_bytes(2) + b"\x03" + _bitmap(bank.registers) for bank in self.banks
        )


def read_selection(reader: TpmReader) -> PcrSelection:
    """Read a TPML_PCR_SELECTION.

    Raises:
        DecodeError: too many banks, an impossible bitmap, or a register selected twice.
        UnsupportedError: a bank whose hash Troth does not compute.
    """
    count = reader.integer(4, "number of PCR banks")
    if count > MAX_BANKS:
        raise reader.error(f"{count} PCR banks; at most {MAX_BANKS}")
    entries: list[tuple[int, bytes]] = []
    for _ in range(count):
        bank = reader.integer(2, "PCR bank")
        size = reader.integer(1, "size of a PCR bitmap")
        if not 1 <= size <= 4:
            raise reader.error(f"a PCR bitmap of {size} octets; expected 1 to 4")
        entries.append((bank, reader.take(size, "PCR bitmap")))
    try:
        return _selection(tuple(entries))
    except ValueError as exc:
        raise reader.error(str(exc)) from exc


def selected(bitmap: bytes) -> tuple[int, ...]:
    """Return the registers whose bits are set; the lowest bit of the first octet is register 0."""
    return tuple(at for at in range(8 * len(bitmap)) if bitmap[at // 8] >> at % 8 & 1)


@lru_cache(maxsize=256)
def _selection(entries: tuple[tuple[int, bytes], ...]) -> PcrSelection:
    # A fleet asks for the same few selections all the time.
    banks: list[BankSelection] = []
    seen: set[tuple[int, int]] = set()
    for number, bitmap in entries:
        registers = selected(bitmap)
        if number not in HASHES:
            raise UnsupportedError(
                f"a PCR bank of {algorithm_name(number)}", format="TPML_PCR_SELECTION"
            )
        if any(register not in PCRS for register in registers):
            raise ValueError(f"PCR {registers[-1]} is selected; there are 0 to {PCRS[-1]}")
        for register in registers:
            if (number, register) in seen:
                raise ValueError(f"PCR {register} of {algorithm_name(number)} is selected twice")
            seen.add((number, register))
        banks.append(BankSelection(HASHES[number], registers))
    return PcrSelection(tuple(banks))


def _bitmap(registers: Sequence[int]) -> bytes:
    return sum(1 << register for register in registers).to_bytes(3, "little")
