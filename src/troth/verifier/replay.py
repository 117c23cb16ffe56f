# SPDX-License-Identifier: Apache-2.0
"""What would have been otherwise: recorded appraisals concluded again under another policy.

Everything but the policy stays as it was at the time: claims, Reference Values, what the appraiser
found. Evidence that was refused before its appraisal is not on record; no policy changes that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from troth.formats.ar4si import TrustTier
from troth.verifier.case_document import FindingDocument
from troth.verifier.conclusion import conclude
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.recorded import (
    RecordedAppraisal,
    RecordedConclusion,
    RecordedNode,
)
from troth.verifier.rego import RegoEvaluator
from troth.verifier.result import AssuranceTier

__all__ = ["Change", "Difference", "NodeEffect", "Summary", "difference", "replay", "summarise"]


class Change(StrEnum):
    """How one conclusion differs from another."""

    SAME = "same"
    FINDINGS = "findings"
    """Status and tier are the same; claims, findings or added claims are not."""
    LOOSER = "looser"
    """A better status or a higher tier, and neither is worse."""
    STRICTER = "stricter"
    """A worse status or a lower tier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEffect:
    """What a difference means for one node.

    Attributes:
        node: which.
        before, after: whether this conclusion lets it in: affirming, and its entry's tier reached.
    """

    node: RecordedNode
    before: bool
    after: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One record, concluded by two policies.

    Attributes:
        record: the record.
        before, after: the conclusions.
        change: how they differ.
        findings_added, findings_gone: findings that only one of them reports, with their submod.
        claims: "submod/claim" to values before and after, where they differ; None for no claim.
        nodes: what it means for the nodes that the device is.
    """

    record: RecordedAppraisal
    before: RecordedConclusion
    after: RecordedConclusion
    change: Change
    findings_added: Sequence[FindingDocument] = ()
    findings_gone: Sequence[FindingDocument] = ()
    claims: Mapping[str, tuple[int | None, int | None]]
    nodes: Sequence[NodeEffect] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What many differences come to.

    Attributes:
        records, appraisals: how many records there were, and how many appraisals they stand for.
        changes: records by how they changed.
        statuses: records by status before and after.
        shut_out, let_in: ids of nodes that would be refused, or admitted, unlike before. A node
            counts by its last record.
    """

    records: int
    appraisals: int
    changes: Mapping[Change, int]
    statuses: Mapping[tuple[str, str], int]
    shut_out: Sequence[str]
    let_in: Sequence[str]


def replay(
    record: RecordedAppraisal, policy: AppraisalPolicy, evaluator: RegoEvaluator
) -> Difference:
    """Return how `policy` would have concluded, beside what was concluded.

    Raises:
        DecodeError: the record was damaged.
    """
    after = conclude(record.appraisal_cases(), policy, evaluator, best=record.best)
    return difference(record, RecordedConclusion.of(after))


def difference(record: RecordedAppraisal, after: RecordedConclusion) -> Difference:
    """Return how `after` differs from what the record's enforced policy concluded."""
    before = record.outcome
    old, new = _findings(before), _findings(after)
    claims = _claims(before, after)
    added = [finding for key, finding in new.items() if key not in old]
    gone = [finding for key, finding in old.items() if key not in new]
    return Difference(
        record=record,
        before=before,
        after=after,
        change=_change(before, after, otherwise=bool(claims or added or gone)),
        findings_added=added,
        findings_gone=gone,
        claims=claims,
        nodes=[
            NodeEffect(node=node, before=_lets_in(before, node), after=_lets_in(after, node))
            for node in record.nodes
        ],
    )


def summarise(differences: Iterable[Difference]) -> Summary:
    """Return what these differences come to."""
    changes: Counter[Change] = Counter()
    statuses: Counter[tuple[str, str]] = Counter()
    records = appraisals = 0
    last: dict[str, tuple[RecordedAppraisal, NodeEffect]] = {}
    for each in differences:
        records += 1
        appraisals += each.record.count
        changes[each.change] += 1
        statuses[each.before.status, each.after.status] += 1
        for effect in each.nodes:
            known = last.get(effect.node.node_id)
            if known is None or known[0].last < each.record.last:
                last[effect.node.node_id] = (each.record, effect)
    effects = [effect for _, effect in last.values()]
    return Summary(
        records=records,
        appraisals=appraisals,
        changes=dict(changes),
        statuses=dict(statuses),
        shut_out=sorted(e.node.node_id for e in effects if e.before and not e.after),
        let_in=sorted(e.node.node_id for e in effects if e.after and not e.before),
    )


def _change(before: RecordedConclusion, after: RecordedConclusion, *, otherwise: bool) -> Change:
    old, new = TrustTier.from_word(before.status), TrustTier.from_word(after.status)
    if old.is_better_than(new) or after.tier < before.tier:
        return Change.STRICTER
    if new.is_better_than(old) or after.tier > before.tier:
        return Change.LOOSER
    added = {label: submod.added_claims for label, submod in before.submods.items()} != {
        label: submod.added_claims for label, submod in after.submods.items()
    }
    return Change.FINDINGS if otherwise or added else Change.SAME


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


def _lets_in(conclusion: RecordedConclusion, node: RecordedNode) -> bool:
    return conclusion.status == TrustTier.AFFIRMING.word and _reaches(conclusion.tier, node)


def _reaches(tier: AssuranceTier, node: RecordedNode) -> bool:
    return tier >= node.min_tier
