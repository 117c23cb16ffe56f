# SPDX-License-Identifier: Apache-2.0
"""What would have been otherwise: recorded appraisals concluded again under another policy.

Everything but the policy stays as it was at the time: claims, Reference Values, what the appraiser
found. Evidence that was refused before its appraisal is not on record; no policy changes that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from troth.formats.ar4si import TrustTier
from troth.verifier.case_document import FindingDocument
from troth.verifier.conclusion import conclude
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.recorded import RecordedAppraisal, RecordedConclusion, RecordedNode
from troth.verifier.rego import RegoEvaluator
from troth.verifier.result import AssuranceTier

__all__ = [
    "Change",
    "Difference",
    "NodeEffect",
    "Summary",
    "Verdict",
    "difference",
    "replay",
    "summarise",
]


class Change(StrEnum):
    """How one conclusion differs from another."""

    SAME = "same"
    FINDINGS = "findings"
    """Status and tier are the same; claims, findings or added claims are not."""
    LOOSER = "looser"
    """A better status or a higher tier, and neither is worse."""
    STRICTER = "stricter"
    """A worse status or a lower tier."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A conclusion in short."""

    policy_id: str
    policy_digest: str
    status: str
    tier: AssuranceTier
    failed: bool

    @classmethod
    def of(cls, conclusion: RecordedConclusion) -> Verdict:
        """Return what a conclusion comes to."""
        return cls(
            policy_id=conclusion.policy_id,
            policy_digest=conclusion.policy_digest,
            status=conclusion.status,
            tier=conclusion.tier,
            failed=conclusion.failed,
        )

    def lets_in(self, node: RecordedNode) -> bool:
        """Say whether a node gets in by it: affirming, and its entry's tier reached."""
        return self.status == TrustTier.AFFIRMING.word and self.tier >= node.min_tier


class NodeEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What a difference means for one node.

    Attributes:
        node: which.
        before, after: whether the node gets in by the old and by the new verdict.
    """

    node: RecordedNode
    before: bool
    after: bool


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One record, concluded by two policies.

    Attributes:
        id, device, scheme, first, last, count: of the record.
        before, after: the verdicts.
        change: how they differ.
        findings_added, findings_gone: findings that only one of them reports.
        claims: "submod/claim" to values before and after, where they differ; None for no claim.
        nodes: what it means for the nodes that the device is.
    """

    id: str
    device: str
    scheme: str
    first: datetime
    last: datetime
    count: int
    before: Verdict
    after: Verdict
    change: Change
    findings_added: list[FindingDocument]
    findings_gone: list[FindingDocument]
    claims: dict[str, tuple[int | None, int | None]]
    nodes: list[NodeEffect]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What many differences come to.

    Attributes:
        records, appraisals: how many records there were, and how many appraisals they stand for.
        changes: records by how they changed.
        statuses: records by status before and after.
        shut_out, let_in: nodes that would be refused, or admitted, unlike before. A node counts by
            its last record.
    """

    records: int
    appraisals: int
    changes: Mapping[Change, int]
    statuses: Mapping[tuple[str, str], int]
    shut_out: Sequence[RecordedNode]
    let_in: Sequence[RecordedNode]


def replay(
    record: RecordedAppraisal, policy: AppraisalPolicy, evaluator: RegoEvaluator
) -> Difference:
    """Return how `policy` would have concluded, beside what was concluded.

    Raises:
        DecodeError: the record was damaged.
    """
    after = conclude(record.appraisal_cases(), policy, evaluator, best=record.best)
    return difference(record, RecordedConclusion.of(after))


def difference(record: RecordedAppraisal, conclusion: RecordedConclusion) -> Difference:
    """Return how `conclusion` differs from what the record's enforced policy concluded."""
    before, after = Verdict.of(record.outcome), Verdict.of(conclusion)
    old, new = _findings(record.outcome), _findings(conclusion)
    claims = _claims(record.outcome, conclusion)
    added = [finding for key, finding in new.items() if key not in old]
    gone = [finding for key, finding in old.items() if key not in new]
    words = claims or added or gone or _added_claims(record.outcome) != _added_claims(conclusion)
    return Difference(
        id=record.id,
        device=record.device,
        scheme=record.scheme,
        first=record.first,
        last=record.last,
        count=record.count,
        before=before,
        after=after,
        change=_change(before, after, otherwise=Change.FINDINGS if words else Change.SAME),
        findings_added=added,
        findings_gone=gone,
        claims=claims,
        nodes=[
            NodeEffect(node=node, before=before.lets_in(node), after=after.lets_in(node))
            for node in record.nodes
        ],
    )


def summarise(differences: Iterable[Difference]) -> Summary:
    """Return what these differences come to."""
    changes: Counter[Change] = Counter()
    statuses: Counter[tuple[str, str]] = Counter()
    records = appraisals = 0
    newest: dict[str, tuple[datetime, NodeEffect]] = {}
    for each in differences:
        records += 1
        appraisals += each.count
        changes[each.change] += 1
        statuses[each.before.status, each.after.status] += 1
        for effect in each.nodes:
            known = newest.get(effect.node.node_id)
            if known is None or known[0] < each.last:
                newest[effect.node.node_id] = (each.last, effect)
    effects = [newest[node_id][1] for node_id in sorted(newest)]
    return Summary(
        records=records,
        appraisals=appraisals,
        changes=dict(changes),
        statuses=dict(statuses),
        shut_out=[effect.node for effect in effects if effect.before and not effect.after],
        let_in=[effect.node for effect in effects if effect.after and not effect.before],
    )


def _change(before: Verdict, after: Verdict, *, otherwise: Change) -> Change:
    old, new = TrustTier.from_word(before.status), TrustTier.from_word(after.status)
    if old.is_better_than(new) or after.tier < before.tier:
        return Change.STRICTER
    if new.is_better_than(old) or after.tier > before.tier:
        return Change.LOOSER
    return otherwise


def _findings(conclusion: RecordedConclusion) -> dict[tuple[str, ...], FindingDocument]:
    # The rule names the policy and its line, and the remedy its file: both differ by nature.
    return {
        (label, each.claim, each.expected, each.actual, each.severity): each
        for label, submod in conclusion.submods.items()
        for each in submod.findings
    }


def _claims(
    before: RecordedConclusion, after: RecordedConclusion
) -> dict[str, tuple[int | None, int | None]]:
    old, new = _values(before), _values(after)
    return {
        name: (old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def _values(conclusion: RecordedConclusion) -> dict[str, int]:
    return {
        f"{label}/{name}": value
        for label, submod in conclusion.submods.items()
        for name, value in submod.vector.items()
    }


def _added_claims(conclusion: RecordedConclusion) -> dict[str, dict[str, object]]:
    return {label: submod.added_claims for label, submod in conclusion.submods.items()}
