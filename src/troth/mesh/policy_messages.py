# SPDX-License-Identifier: Apache-2.0
"""What operators' tools and the server say to each other about Appraisal Policies."""

from __future__ import annotations

from typing import Literal

import msgspec

from troth.verifier.policy import AppraisalPolicy
from troth.verifier.recorded import RecordedAppraisal
from troth.verifier.replay import Difference

__all__ = ["DifferencePage", "PolicyName", "PolicyOverview", "RecordPage"]


class PolicyName(msgspec.Struct, frozen=True, kw_only=True):
    """A policy in short.

    Attributes:
        id: what results call it.
        digest: SHA-256 of its text, hex.
        source: file that it came from, "" for the built-in one.
    """

    id: str
    digest: str
    source: str = ""

    @classmethod
    def of(cls, policy: AppraisalPolicy, *, source: str = "") -> PolicyName:
        """Return what a policy is called."""
        return cls(id=policy.id, digest=policy.digest, source=source)


class PolicyOverview(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force.

    Attributes:
        mode: whether the configured policy is enforced or only audited.
        enforced: the policy that decides.
        candidate: the one that is evaluated beside it.
        recording: whether appraisals are put on record.
    """

    mode: Literal["audit", "enforce"]
    enforced: PolicyName
    candidate: PolicyName | None
    recording: bool


class RecordPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records, and where the next page begins ("" where there is none)."""

    records: list[RecordedAppraisal]
    next: str


class DifferencePage(msgspec.Struct, frozen=True, kw_only=True):
    """Differences, and where the next page begins.

    Attributes:
        policy: that was compared with what was enforced.
        differences: of each record of this page, those without any difference too.
        skipped: records of this page that have no conclusion of that policy.
        next: "" where there is no next page.
    """

    policy: PolicyName
    differences: list[Difference]
    skipped: int = 0
    next: str
