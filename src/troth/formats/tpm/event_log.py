# SPDX-License-Identifier: Apache-2.0
"""The log that firmware and boot loaders keep of what they extended into the registers.

The log itself is not signed. It is believed as far as replaying it gives the values that a TPM
quoted; even then only an event's digests are, and its data where they hash to a digest.

Source: TCG PC Client Platform Firmware Profile, revision 1.06, section 10 (event logging).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.tpm.algorithms import HASHES, SHA1, TpmHash
from troth.formats.tpm.pcr_selection import PCRS
from troth.formats.tpm.reader import TpmReader

__all__ = [
    "EV_NO_ACTION",
    "MAX_EVENTS",
    "MAX_EVENT_LOG_BYTES",
    "Event",
    "EventLog",
    "decode_event_log",
    "initial_value",
]

MAX_EVENT_LOG_BYTES: Final = 1_048_576
"""Octets of one log; firmware reserves 64 KB to 256 KB for it."""

MAX_EVENTS: Final = 2_048
"""Events in one log; 100 to 400 are usual."""

EV_NO_ACTION: Final = 0x03

_SPEC_ID: Final = b"Spec ID Event03\0"
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_SHA1_VERSIONS: Final = (b"Spec ID Event00", b"Spec ID Event02")
_SHA1_HEAD: Final = struct.Struct("<II20sI")
_HEAD: Final = struct.Struct("<III")
_LENGTH: Final = struct.Struct("<I")
_ALGORITHM: Final = struct.Struct("<H")
_MAX_ALGORITHMS: Final = 16
_MAX_SPEC_ID: Final = 512
_FORMAT: Final = "event log"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry.

    Attributes:
        number: position in the log, from 0, as tpm2_eventlog counts.
        pcr: register that it was extended into.
        type: EV_… number.
        digests: TPM_ALG_ID to what was extended.
        data: what the writer says about it.
    """

    number: int
    pcr: int
    type: int
    digests: Mapping[int, bytes]
    data: bytes = field(repr=False)

    @property
    def is_extended(self) -> bool:
        """Whether it changed its register; EV_NO_ACTION is a remark."""
        return self.type != EV_NO_ACTION

    def is_data_measured(self, hash_: TpmHash, data: bytes | None = None) -> bool:
        """Say whether the data (or this part of it) is what was extended.

        Only then does anything vouch for it: whoever hands the log over may have changed it.
        """
        return self.digests.get(hash_.id) == hash_.digest(self.data if data is None else data)


@dataclass(frozen=True)
class EventLog:
    """One log.

    Attributes:
        raw: the octets.
        events: in order; the header of a crypto-agile log is the first.
        banks: hash algorithms that it has digests by.
        startup_locality: locality of the TPM2_Startup, which PCR 0 begins with.
    """

    raw: bytes = field(repr=False)
    events: Sequence[Event] = field(repr=False)
    banks: tuple[int, ...]
    startup_locality: int = 0

    @cached_property
    def by_register(self) -> Mapping[int, Sequence[Event]]:
        """The events that were extended, by register."""
        found: dict[int, list[Event]] = {}
        for event in self.events:
            if event.type != EV_NO_ACTION:
                found.setdefault(event.pcr, []).append(event)
        return found

    def replay(self, hash_: TpmHash) -> Mapping[int, bytes]:
        """Return what each register of the bank would hold; registers without events are absent."""
        return {
            pcr: self.values_of(events, hash_, pcr)[-1] for pcr, events in self.by_register.items()
        }

    def values_of(self, events: Sequence[Event], hash_: TpmHash, pcr: int) -> Sequence[bytes]:
        """Return the value before the first of these events, and after each of them."""
        value = initial_value(pcr, hash_, locality=self.startup_locality)
        values = [value]
        digest_of, number = hash_.digest, hash_.id
        for event in events:
            digest = event.digests.get(number)
            if digest is not None:  # what was not extended into this bank did not change it
                value = digest_of(value + digest)
            values.append(value)
        return values


def initial_value(pcr: int, hash_: TpmHash, *, locality: int = 0) -> bytes:
    """Return what a register holds after TPM2_Startup and before the first event.

    Source: PC Client Platform TPM Profile, section 4.6 (PCR initial and reset values).
    """
    if 17 <= pcr <= 22:
        return b"\xff" * hash_.size
    return (locality if pcr == 0 else 0).to_bytes(hash_.size)


def decode_event_log(data: bytes) -> EventLog:
    """Decode a log as /sys/kernel/security/tpm0/binary_bios_measurements has it, whole.

    Both forms are taken: crypto-agile, and the older one that has SHA-1 digests only.

    Raises:
        DecodeError: not a log, or octets after its last event.
        UnsupportedError: another version of the crypto-agile form.
        LimitExceededError: too long, or too many events.
    """
    if len(data) > MAX_EVENT_LOG_BYTES:
        raise LimitExceededError(
            format=_FORMAT, limit="MAX_EVENT_LOG_BYTES", value=MAX_EVENT_LOG_BYTES
        )
    first, position = _sha1_event(data, 0, 0)
    if first.type == EV_NO_ACTION and first.data.startswith(_SPEC_ID):
        sizes = _spec_id(first.data)
        events = [Event(0, first.pcr, first.type, {}, first.data)]
        events += _agile_events(data, position, sizes)
        banks = tuple(number for number in sizes if number in HASHES)
    else:
        if first.type == EV_NO_ACTION and first.data.startswith(b"Spec ID Event"):
            version = first.data[:15]
            if version not in _SHA1_VERSIONS:
                raise UnsupportedError(f"version {version!r}", format=_FORMAT)
        events = [first, *_sha1_events(data, position)]
        banks = (SHA1,)
    return EventLog(data, tuple(events), banks, _locality(events))


def _sha1_events(data: bytes, position: int) -> Iterator[Event]:
    number = 1
    while position < len(data):
        if number >= MAX_EVENTS:
            raise LimitExceededError(
                format=_FORMAT, limit="MAX_EVENTS", value=MAX_EVENTS, offset=position
            )
        event, position = _sha1_event(data, position, number)
        yield event
        number += 1


def _sha1_event(data: bytes, position: int, number: int) -> tuple[Event, int]:
    begin = position + _SHA1_HEAD.size
    if begin > len(data):
        raise _cut(number, position)
    pcr, kind, digest, size = _SHA1_HEAD.unpack_from(data, position)
    end = begin + size
    _check(pcr, end, data, number, position)
    return Event(number, pcr, kind, {SHA1: digest}, data[begin:end]), end


def _agile_events(data: bytes, position: int, sizes: Mapping[int, int]) -> Iterator[Event]:
    length, number = len(data), 1
    while position < length:
        if number >= MAX_EVENTS:
            raise LimitExceededError(
                format=_FORMAT, limit="MAX_EVENTS", value=MAX_EVENTS, offset=position
            )
        start = position
        position += _HEAD.size
        if position > length:
            raise _cut(number, start)
        pcr, kind, count = _HEAD.unpack_from(data, start)
        if count > len(sizes):
            raise _wrong(number, start, f"{count} digests, the header knows {len(sizes)}")
        digests: dict[int, bytes] = {}
        for _ in range(count):
            if position + 2 > length:
                raise _cut(number, start)
            (algorithm,) = _ALGORITHM.unpack_from(data, position)
            position += 2
            size = sizes.get(algorithm)
            if size is None or algorithm in digests:
                why = "that the header does not know" if size is None else "for the second time"
                raise _wrong(number, start, f"a digest by {algorithm:#06x} {why}")
            digests[algorithm] = data[position : position + size]
            position += size
        if position + 4 > length:
            raise _cut(number, start)
        (size,) = _LENGTH.unpack_from(data, position)
        position += 4
        end = position + size
        _check(pcr, end, data, number, start)
        yield Event(number, pcr, kind, digests, data[position:end])
        position, number = end, number + 1


def _check(pcr: int, end: int, data: bytes, number: int, offset: int) -> None:
    if pcr not in PCRS:
        raise _wrong(number, offset, f"PCR {pcr}; there are 0 to {PCRS[-1]}")
    if end > len(data):
        raise _cut(number, offset)


def _spec_id(data: bytes) -> dict[int, int]:
    """Return the digest sizes of a TCG_EfiSpecIDEvent, in its order."""
    if len(data) > _MAX_SPEC_ID:
        raise LimitExceededError(format=_FORMAT, limit="octets of its header", value=_MAX_SPEC_ID)
    reader = TpmReader(data, format=f"{_FORMAT} header", order="little")
    reader.take(len(_SPEC_ID), "signature")
    reader.take(4, "platformClass")
    reader.take(4, "version")
    count = reader.integer(4, "numberOfAlgorithms")
    if not 1 <= count <= _MAX_ALGORITHMS:
        raise reader.error(f"{count} hash algorithms; expected 1 to {_MAX_ALGORITHMS}")
    sizes: dict[int, int] = {}
    for _ in range(count):
        number, size = reader.integer(2, "algorithmId"), reader.integer(2, "digestSize")
        known = HASHES.get(number)
        if number in sizes or (known is not None and known.size != size) or not 1 <= size <= 64:
            raise reader.error(f"hash algorithm {number:#06x} with digests of {size} octets")
        sizes[number] = size
    reader.sized("vendorInfo", most=255, prefix=1)
    reader.finish()
    return sizes


def _locality(events: Sequence[Event]) -> int:
    for event in events:
        if event.type == EV_NO_ACTION and event.data.startswith(_STARTUP_LOCALITY):
            if event.pcr != 0 or len(event.data) != len(_STARTUP_LOCALITY) + 1:
                raise _wrong(event.number, None, "a malformed StartupLocality")
            return event.data[-1]
        if event.pcr == 0 and event.type != EV_NO_ACTION:
            break
    return 0


def _cut(number: int, offset: int) -> DecodeError:
    return _wrong(number, offset, "the log ends inside it")


def _wrong(number: int, offset: int | None, problem: str) -> DecodeError:
    return DecodeError(f"event {number}: {problem}", format=_FORMAT, offset=offset)
