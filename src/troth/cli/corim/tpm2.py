# SPDX-License-Identifier: Apache-2.0
"""Reference Values from the quote of a machine that is known to be good."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from troth.endorsement.build import AttestKey, NamedDigest, measured_corim
from troth.errors import ConfigurationError
from troth.evidence.tpm2 import Tpm2Evidence
from troth.evidence.tpm2.measurements import (
    RUN_TIME_PCRS,
    Measurements,
    measurements_of,
    pcr_values,
)
from troth.formats.corim import Corim, Validity
from troth.formats.tpm.algorithms import HASH_BY_NAME, STRONG_HASHES
from troth.formats.tpm.event_text import name_event
from troth.formats.tpm.ima_log import BOOT_AGGREGATE
from troth.verifier.appraisers.tpm2_events import EVENT_KEY
from troth.verifier.appraisers.tpm2_files import FILE_KEY

__all__ = ["tpm2_corim"]

_DIGEST_SIZES = (32, 48, 64)


def tpm2_corim(
    evidence: Tpm2Evidence,
    *,
    corim_id: str,
    class_id: bytes,
    registers: Collection[int] | None,
    leave_out: Collection[str],
    keys: Sequence[AttestKey],
    vendor: str,
    model: str,
    validity: Validity | None,
) -> Corim:
    """Return a CoRIM with the quoted registers, the events behind them, and measured files.

    Args:
        evidence: of the good machine.
        corim_id: identifier of the CoRIM.
        class_id: what machines of this kind are registered under.
        registers: which to describe; None for all but those that change while the machine runs.
        leave_out: "events" or "files", or both.
        keys: the machine's attestation key, if it is to be in the CoRIM.
        vendor: name of the maker, for people.
        model: name of the product, for people.
        validity: when the CoRIM may be used.

    Raises:
        ConfigurationError: no class id, or a register that was not quoted.
        BindingError: the logs do not belong to the quote.
    """
    if not class_id:
        raise ConfigurationError(
            source="--class-id",
            accepted="the octets, in hexadecimal, that machines of this kind are registered "
            "under: TPM Evidence does not name its class",
        )
    measured = measurements_of(evidence, pcr_values(evidence))
    described = _registers(measured, registers)
    if not described:
        raise ConfigurationError(
            source="quote", accepted="registers of a bank of SHA-256 or stronger, with values"
        )
    listed = [] if "events" in leave_out else list(_events(measured, described))
    listed += [] if "files" in leave_out else _files(measured)
    return measured_corim(
        corim_id=corim_id,
        scheme="tpm2",
        class_id=class_id,
        registers=described,
        listed=listed,
        keys=keys,
        vendor=vendor,
        model=model,
        validity=validity,
    )


def _registers(
    measured: Measurements, wanted: Collection[int] | None
) -> dict[int | str, Sequence[bytes]]:
    found: dict[int | str, list[bytes]] = {}
    for bank, values in measured.values.items():
        hash_ = HASH_BY_NAME[bank]
        # SHA-2 banks only: the algorithm goes by the length.
        if hash_.id not in STRONG_HASHES or bank.startswith("sha3"):
            continue
        for register, value in values.items():
            if register in wanted if wanted is not None else register not in RUN_TIME_PCRS:
                found.setdefault(register, []).append(value)
    missing = sorted(set(wanted or ()) - found.keys())
    if missing:
        raise ConfigurationError(
            source="--pcr-selection",
            value=",".join(map(str, missing)),
            accepted="registers that were quoted",
        )
    return dict(found)


def _events(
    measured: Measurements, described: dict[int | str, Sequence[bytes]]
) -> Iterator[NamedDigest]:
    bank = measured.bank
    if bank is None or bank.id not in STRONG_HASHES:
        return
    for register, events in sorted(measured.events.items()):
        if register in described:
            for event in events:
                digest = event.digests.get(bank.id, b"")
                yield NamedDigest(
                    key=f"{EVENT_KEY}{register}", digest=digest, name=name_event(event)
                )


def _files(measured: Measurements) -> list[NamedDigest]:
    found = {
        (entry.path, entry.digest): None
        for entry in measured.files or ()
        if entry.path != BOOT_AGGREGATE
        and not entry.is_violation
        and len(entry.digest) in _DIGEST_SIZES
    }
    return [NamedDigest(key=FILE_KEY, digest=digest, name=path) for path, digest in found]
