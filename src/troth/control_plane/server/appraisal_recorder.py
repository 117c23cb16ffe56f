# SPDX-License-Identifier: Apache-2.0
"""Puts appraisals on record, and says where the candidate policy concludes otherwise.

A join does not wait for it: appraisals are noted in memory and written once a second, together.
A server that dies takes the last second's records along. That is less than an audit log promises,
and this is none: the state log has every join. What cannot be written is kept for the next time,
up to a number.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final

import msgspec

from troth.errors import LimitExceededError, UnavailableError
from troth.mesh.registry import Registry
from troth.verifier.conclusion import Judgement
from troth.verifier.recorded import RecordedAppraisal, encode_body
from troth.verifier.replay import Change, Difference, difference

__all__ = ["MAX_UNWRITTEN", "AppraisalRecorder"]

MAX_UNWRITTEN: Final = 4096
"""Appraisals noted and not yet written, and records that wait; more of them are not recorded."""

_MAX_TOLD: Final = 4096
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Noted:
    judgement: Judgement
    device: str
    spiffe_id: str
    at: datetime


class AppraisalRecorder:
    """Notes appraisals and writes them. `note` may be called from any thread.

    Args:
        registry: where records are kept.
        keep: whether to keep any; without it, only the candidate's differences are told.
        on_difference: is told how each appraisal differs under the candidate.
        on_lost: is told how many appraisals were not recorded.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        keep: bool,
        on_difference: Callable[[Change], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self._registry, self._keep = registry, keep
        self._on_difference, self._on_lost = on_difference, on_lost
        self._lock = Lock()
        self._noted: list[_Noted] = []
        self._unwritten: dict[str, RecordedAppraisal] = {}
        self._told: OrderedDict[str, None] = OrderedDict()

    def note(self, judgement: Judgement, *, device: str, spiffe_id: str = "", at: datetime) -> None:
        """Note one appraisal, to be written by the next `write`."""
        if not self._keep and judgement.candidate is None:
            return
        with self._lock:
            if len(self._noted) < MAX_UNWRITTEN:
                self._noted.append(_Noted(judgement, device, spiffe_id, at))
                return
        self._on_lost(1)

    def write(self) -> None:
        """Write what was noted. Blocks; not to be called twice at a time.

        Raises:
            UnavailableError: the registry cannot be written; it is tried again the next time.
        """
        with self._lock:
            noted, self._noted = self._noted, []
        for each in noted:
            record = RecordedAppraisal.of(
                each.judgement, device=each.device, spiffe_id=each.spiffe_id, now=each.at
            )
            if record.candidate is not None:
                self._tell(difference(record, record.candidate))
            if self._keep:
                self._collect(record)
        if not self._unwritten:
            return
        try:
            self._registry.record_appraisals(list(self._unwritten.values()))
        except UnavailableError:
            surplus = list(self._unwritten)[MAX_UNWRITTEN:]
            for record_id in surplus:
                self._on_lost(self._unwritten.pop(record_id).count)
            raise
        self._unwritten.clear()

    def _collect(self, record: RecordedAppraisal) -> None:
        known = self._unwritten.get(record.id)
        if known is not None:
            record = msgspec.structs.replace(
                record, first=known.first, count=known.count + record.count
            )
        else:
            try:
                encode_body(record)
            except LimitExceededError as exc:
                _LOG.warning("an appraisal of %s is not recorded: %s", record.device, exc)
                self._on_lost(1)
                return
        self._unwritten[record.id] = record

    def _tell(self, found: Difference) -> None:
        self._on_difference(found.change)
        if found.change is Change.SAME or found.id in self._told:
            return
        # Once for each record: a device attests again and again, and nothing is new about it.
        self._told[found.id] = None
        if len(self._told) > _MAX_TOLD:
            self._told.popitem(last=False)
        _LOG.log(
            logging.WARNING if found.change is not Change.FINDINGS else logging.INFO,
            "policy %s, not enforced, is %s about %s: %s, tier %s, where %s has %s, tier %s "
            "(record %s)",
            found.after.policy_id,
            "otherwise" if found.change is Change.FINDINGS else found.change,
            found.device or f"a {found.scheme} device",
            found.after.status,
            found.after.tier,
            found.before.policy_id,
            found.before.status,
            found.before.tier,
            found.id[:16],
        )
