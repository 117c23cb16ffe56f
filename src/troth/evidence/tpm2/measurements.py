# SPDX-License-Identifier: Apache-2.0
"""The registers that a quote vouches for, and the parts of the logs that they vouch for in turn.

Source: TPM 2.0 Library, Part 3, section 18.4; TCG PC Client Platform Firmware Profile, revision
1.06, section 3.3.4 (PCR usage); Linux TPM PCR Registry (who extends which register).
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from troth.errors import BindingError
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.tpm2.evidence import Tpm2Evidence
from troth.formats.tpm.algorithms import HASHES, STRONG_HASHES, TpmHash
from troth.formats.tpm.event_log import Event, EventLog
from troth.formats.tpm.event_text import is_debugger_allowed, secure_boot
from troth.formats.tpm.ima_log import BOOT_AGGREGATE, IMA_PCR, ImaEntry, ImaLog
from troth.formats.tpm.pcr_selection import PcrSelection, PcrValues

__all__ = [
    "FIRMWARE_PCRS",
    "RUN_TIME_PCRS",
    "Measurements",
    "VerifiedQuote",
    "measurements_of",
    "pcr_values",
    "require_registers",
]

FIRMWARE_PCRS: Final = frozenset(range(8))
"""Registers that firmware alone extends: its log has everything that is in them."""

RUN_TIME_PCRS: Final = frozenset({10, 11, 12, 13, 15})
"""Registers that the kernel or systemd goes on extending, without writing to the firmware's log."""

_AGGREGATED_BY_SHA1: Final = range(8)
_AGGREGATED: Final = range(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What verified Evidence says was measured.

    Attributes:
        values: of the quoted registers, by bank; empty in forms that carry only the digest.
        bank: the strongest quoted bank that the event log has digests by, or None without log.
        events: register to the events that explain it; only registers that the log explains.
        initial_values: what those registers began with.
        secure_boot: what firmware measured, where the log explains PCR 7; else None.
        is_debugger_allowed: firmware measured that a debugger may be attached.
        files: the IMA entries that PCR 10 vouches for; None without log.
        is_boot_aggregate_right: the first of them repeats the boot's registers; None where not
            all of those were quoted.
    """

    values: PcrValues
    bank: TpmHash | None = None
    events: Mapping[int, Sequence[Event]] = field(default_factory=dict)
    initial_values: Mapping[int, bytes] = field(default_factory=dict)
    secure_boot: bool | None = None
    is_debugger_allowed: bool = False
    files: Sequence[ImaEntry] | None = None
    is_boot_aggregate_right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote(VerifiedEvidence[Tpm2Evidence]):
    """Authentic Evidence of a TPM. Only `Tpm2Scheme.verify()` makes one.

    Attributes:
        measured: what the quote vouches for.
    """

    measured: Measurements


def pcr_values(evidence: Tpm2Evidence) -> PcrValues:
    """Return the quoted registers, once it is sure that the quote was made over these values.

    Raises:
        BindingError: nothing is quoted, or the values are not the ones that were quoted.
    """
    quoted, values = evidence.quoted, evidence.pcr_values
    selection = quoted.selection
    if not selection.octets:
        raise BindingError(
            "the quote selects no register: it says nothing about the machine",
            remedy="Ask for a quote of at least the registers that Reference Values describe.",
        )
    if values is None:
        return {}
    if len(values) != selection.octets:
        raise BindingError(
            f"the quote is over {selection.octets} octets of registers, the Evidence brings "
            f"{len(values)}",
            remedy="Send the values of exactly the selected registers.",
        )
    digest = evidence.signature.hash.digest(values)
    if not hmac.compare_digest(digest, quoted.digest):
        raise BindingError(
            f"the register values are not the quoted ones: they hash to {digest.hex()}, the "
            f"quote is over {quoted.digest.hex()}",
            remedy="Registers may have changed between the quote and their reading: attest again.",
        )
    return selection.split(values)


def require_registers(selection: PcrSelection, required: Collection[int]) -> None:
    """Refuse a quote of fewer registers than were asked for.

    Registers of a SHA-1 bank do not count.

    Raises:
        BindingError: some are missing; all of them are named.
    """
    quoted = {register for hash_, register in selection if hash_.id in STRONG_HASHES}
    missing = sorted(set(required) - quoted)
    if missing:
        names = ", ".join(map(str, missing))
        raise BindingError(
            f"PCR {names} {'was' if len(missing) == 1 else 'were'} asked for and not quoted (in a "
            "bank of SHA-256 or stronger)",
            remedy="Attest again over every register that is asked for.",
        )


def measurements_of(evidence: Tpm2Evidence, values: PcrValues) -> Measurements:
    """Replay the logs and return what they are good for.

    Raises:
        BindingError: a log does not lead to the quoted registers; the first one is named.
    """
    log, ima = evidence.event_log, evidence.ima_log
    bank, events = _explained(log, values) if log is not None else (None, {})
    knows_policy = log is not None and bank is not None and 7 in events
    files = _attested_files(ima, values) if ima is not None else None
    return Measurements(
        values=values,
        bank=bank,
        events=events,
        initial_values=_initial_values(log, bank, events) if log and bank else {},
        secure_boot=secure_boot(log, bank) if knows_policy and log and bank else None,
        is_debugger_allowed=bool(knows_policy and log and bank and is_debugger_allowed(log, bank)),
        files=files,
        is_boot_aggregate_right=_check_aggregate(files, values) if files else None,
    )


def _explained(
    log: EventLog, values: PcrValues
) -> tuple[TpmHash | None, Mapping[int, Sequence[Event]]]:
    banks = [HASHES[number] for number in log.banks if HASHES[number].name in values]
    if not banks:
        known = ", ".join(HASHES[number].name for number in log.banks) or "no known hash"
        raise BindingError(
            f"the event log has digests by {known}, the quote is of {', '.join(values) or 'none'}",
            remedy="Quote a bank that the firmware's log is kept in.",
        )
    for bank in banks:
        _replay(log, bank, values[bank.name])
    bank = max(banks, key=lambda each: (each.id in STRONG_HASHES, each.size))
    replayed = log.replay(bank)
    events = {
        pcr: log.by_register[pcr]
        for pcr, value in values[bank.name].items()
        if replayed.get(pcr) == value
    }
    return bank, events


def _initial_values(
    log: EventLog, bank: TpmHash, events: Mapping[int, Sequence[Event]]
) -> Mapping[int, bytes]:
    return {pcr: log.values_of((), bank, pcr)[0] for pcr in events}


def _replay(log: EventLog, bank: TpmHash, values: Mapping[int, bytes]) -> None:
    replayed = log.replay(bank)
    for pcr, value in values.items():
        found = replayed.get(pcr)
        if found is None:
            if pcr not in FIRMWARE_PCRS:
                continue
            found = log.values_of((), bank, pcr)[-1]
        if pcr in RUN_TIME_PCRS or hmac.compare_digest(found, value):
            continue
        raise BindingError(
            f"the event log does not lead to the quoted PCR {pcr} ({bank.name}): replayed "
            f"{found.hex()}, quoted {value.hex()}",
            remedy="Send the log of this boot, whole. If it is, something extended the register "
            "behind the firmware's back.",
        )


def _attested_files(ima: ImaLog, values: PcrValues) -> Sequence[ImaEntry]:
    quoted = [
        (bank, own[IMA_PCR])
        for bank, own in ((HASHES_BY_CLAIM[name], own) for name, own in values.items())
        if IMA_PCR in own
    ]
    if not quoted:
        raise BindingError(
            f"an IMA log without a quote of PCR {IMA_PCR}, which alone could vouch for it",
            remedy=f"Quote PCR {IMA_PCR} as well, or leave the log out.",
        )
    shortest: Sequence[ImaEntry] | None = None
    for bank, value in quoted:
        files = ima.attested(bank, value)
        if files is None:
            raise _unexplained(ima, bank, value)
        if shortest is None or len(files) < len(shortest):
            shortest = files
    return shortest or ()


def _unexplained(ima: ImaLog, bank: TpmHash, value: bytes) -> BindingError:
    if bank.id in STRONG_HASHES and ima.is_padded(bank, value):
        return BindingError(
            f"the kernel extended SHA-1 digests into PCR {IMA_PCR} ({bank.name}), so that bank "
            "is no stronger than SHA-1",
            remedy="Boot Linux 5.8 or later, which extends each bank by its own hash.",
        )
    return BindingError(
        f"no part of the IMA log leads to the quoted PCR {IMA_PCR} ({bank.name}), {value.hex()}",
        remedy="Read the log after the quote, whole, and of the same boot.",
    )


def _check_aggregate(files: Sequence[ImaEntry], values: PcrValues) -> bool | None:
    first = files[0]
    if first.path != BOOT_AGGREGATE:
        return False
    bank = HASHES_BY_CLAIM.get(first.hash)
    registers = values.get(first.hash, {})
    if bank is None:
        return None
    # Linux 5.8 added PCR 8 and 9, for every hash but the old one.
    wanted = _AGGREGATED_BY_SHA1 if bank.id not in STRONG_HASHES else _AGGREGATED
    if any(register not in registers for register in wanted):
        return None
    both = [b"".join(registers[register] for register in range(end)) for end in (8, wanted.stop)]
    return any(hmac.compare_digest(bank.digest(each), first.digest) for each in both)


HASHES_BY_CLAIM: Final = {each.name: each for each in HASHES.values()}
"""Hash algorithms by the name that claims and values carry."""
