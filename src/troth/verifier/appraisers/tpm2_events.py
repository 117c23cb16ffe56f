# SPDX-License-Identifier: Apache-2.0
"""Which event of the boot log made a register differ.

Reference Values about events have the measurement key "tpm2.event.<PCR>"; those of one state and
register, in their order, are the events that lead to the register's value. Their names are the
descriptions that the log of a good boot had, for people: only digests are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from troth.endorsement.matching import compare_digests
from troth.endorsement.reference_value import ReferenceValue
from troth.evidence.tpm2.measurements import Measurements
from troth.formats.tpm.algorithms import HASHES, STRONG_HASHES, TpmHash
from troth.formats.tpm.event_log import Event
from troth.formats.tpm.event_text import describe_event
from troth.formats.tpm.pcr_selection import PCRS
from troth.verifier.finding import Finding

__all__ = ["EVENT_KEY", "MAX_EVENT_FINDINGS", "RegisterEvents", "event_register", "events_of"]

EVENT_KEY: Final = "tpm2.event."

MAX_EVENT_FINDINGS: Final = 16
"""Differing events of one register that are told one by one."""

_MOST_LEFT_OUT: Final = 64
_MOST_LISTED: Final = 6
_RECORD: Final = "Reference Values made with the log (troth corim create --event-log) tell which."


def events_of(values: Sequence[ReferenceValue], measured: Measurements) -> list[RegisterEvents]:
    """Return what is described of each register's events, beside what was measured."""
    described: dict[int, list[ReferenceValue]] = {}
    for value in values:
        register = event_register(value.key)
        if register is not None:
            described.setdefault(register, []).append(value)
    return [RegisterEvents(register, own, measured) for register, own in described.items()]


def event_register(key: str) -> int | None:
    """Return the register whose events a value with this measurement key is about, or None."""
    register = key.removeprefix(EVENT_KEY)
    if register == key or not register.isascii() or not register.isdecimal():
        return None
    return int(register) if int(register) in PCRS else None


@dataclass(frozen=True, slots=True)
class _Difference:
    """A place where the two sequences differ; None for nothing there."""

    expected: ReferenceValue | None
    actual: Event | None


class RegisterEvents:
    """The events of one register: described ones, perhaps none, and those of the log.

    Attributes:
        register: the PCR.
        expected: the described events, in order.
    """

    def __init__(
        self, register: int, expected: Sequence[ReferenceValue], measured: Measurements
    ) -> None:
        self.register, self.expected = register, expected
        self._measured = measured
        self._actual = measured.events.get(register)
        self._differences = list(self._compare()) if expected else []

    @property
    def problems(self) -> int:
        """Described events that were not measured so, and measured ones that are not described."""
        if not self.expected:
            return 0
        return len(self.expected) if self._actual is None else len(self._differences)

    def findings(self, submod: str) -> Iterator[Finding]:
        """Yield a finding for each event that differs, and one for those beyond the limit."""
        if self.expected and self._actual is None:
            yield self._missing_log(submod)
        for difference in self._differences[:MAX_EVENT_FINDINGS]:
            yield self._finding(difference, submod)
        more = len(self._differences) - MAX_EVENT_FINDINGS
        if more > 0:
            yield Finding(
                claim=f"PCR {self.register} events",
                expected="the described events",
                actual=f"{more} more differ",
                rule=f"at most {MAX_EVENT_FINDINGS} events of a register are told one by one",
                remedy="Correct the ones above first.",
                submod=submod,
                severity="warning",
            )

    def explain(self, wanted: bytes) -> tuple[str, str]:
        """Return which event made the register differ, and a hint; "" where nothing is known.

        Args:
            wanted: the described final value in the log's bank, or b"".
        """
        if self._actual is None:
            return ("the event log does not lead to it", "") if self._measured.events else ("", "")
        if self._differences:
            first = self._differences[0]
            return self._told(first), ""
        if not wanted or not self._actual:
            return "", ""
        return self._guess(wanted)

    def _guess(self, wanted: bytes) -> tuple[str, str]:
        """Find the event without which the register would be as described, if there is one."""
        bank, events = self._bank(), self._actual or ()
        values = _values(self._start(), events, bank)
        if wanted in values[:-1]:
            at = values.index(wanted)
            later = len(events) - at - 1
            then = f", and {later} after it" if later else ""
            return f"{describe_event(events[at], bank)} came on top of it{then}", ""
        if len(events) <= _MOST_LEFT_OUT:
            for at in range(len(events)):
                others = [*events[:at], *events[at + 1 :]]
                if _values(self._start(), others, bank)[-1] == wanted:
                    return f"{describe_event(events[at], bank)} was added", ""
        listed = "; ".join(describe_event(each, bank) for each in events[-_MOST_LISTED:])
        earlier = len(events) - _MOST_LISTED
        before = f"{earlier} earlier events; " if earlier > 0 else ""
        return f"its events are: {before}{listed}", _RECORD

    def _start(self) -> bytes:
        log_value = self._measured.initial_values.get(self.register)
        return log_value if log_value is not None else bytes(self._bank().size)

    def _bank(self) -> TpmHash:
        return self._measured.bank or next(HASHES[each] for each in sorted(STRONG_HASHES))

    def _compare(self) -> Iterator[_Difference]:
        actual = self._actual
        if actual is None:
            return
        expected = self.expected
        begin = 0
        while begin < min(len(expected), len(actual)) and self._is_equal(
            expected[begin], actual[begin]
        ):
            begin += 1
        end = 0
        while end < min(len(expected), len(actual)) - begin and self._is_equal(
            expected[-1 - end], actual[-1 - end]
        ):
            end += 1
        ours = expected[begin : len(expected) - end]
        theirs = actual[begin : len(actual) - end]
        for value, event in zip_longest(ours, theirs):
            if value is None or event is None or not self._is_equal(value, event):
                yield _Difference(value, event)

    def _is_equal(self, value: ReferenceValue, event: Event) -> bool:
        # Only what the quoted register vouches for: a log may have digests by other hashes.
        bank = self._bank()
        digest = event.digests.get(bank.id)
        if digest is None or value.uncomparable:
            return False
        return compare_digests(value.digests, {bank.name: digest}) is None

    def _told(self, difference: _Difference) -> str:
        if difference.actual is None:
            name = difference.expected.name if difference.expected else ""
            return f"an event is missing: {name or 'without a description'}"
        told = describe_event(difference.actual, self._bank())
        return f"{told} {'differs' if difference.expected else 'was added'}"

    def _finding(self, difference: _Difference, submod: str) -> Finding:
        value, event, bank = difference.expected, difference.actual, self._bank()
        claim = f"PCR {self.register}: event {event.number}" if event else f"PCR {self.register}"
        source = value or self.expected[-1]
        return Finding(
            claim=claim,
            expected=_described(value) if value else "no further event",
            actual=f"{describe_event(event, bank)}, {bank.name}:{_digest(event, bank)}"
            if event
            else "no such event",
            rule=f"Reference Value {source.id}" + (f" ({source.source})" if source.source else ""),
            remedy="If this is meant to be measured, provision Reference Values of a boot with "
            "it; if not, find out what put it there.",
            submod=submod,
            severity="warning",
        )

    def _missing_log(self, submod: str) -> Finding:
        source = self.expected[0]
        return Finding(
            claim=f"PCR {self.register} events",
            expected=f"the {len(self.expected)} events of {source.state}",
            actual="no event log that leads to a quoted value of this register",
            rule=f"Reference Value {source.id}" + (f" ({source.source})" if source.source else ""),
            remedy="Have the node send its boot log and quote this register.",
            submod=submod,
            severity="warning",
        )


def _values(start: bytes, events: Sequence[Event], bank: TpmHash) -> list[bytes]:
    values = [start]
    for event in events:
        digest = event.digests.get(bank.id)
        values.append(bank.digest(values[-1] + digest) if digest is not None else values[-1])
    return values


def _described(value: ReferenceValue) -> str:
    digests = ", ".join(f"{name}:{octets.hex()}" for name, octets in value.digests.items())
    return f"{value.name}, {digests}" if value.name else digests


def _digest(event: Event, bank: TpmHash) -> str:
    return event.digests.get(bank.id, b"").hex() or "no digest"
