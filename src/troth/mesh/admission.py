# SPDX-License-Identifier: Apache-2.0
"""Which transitions an appraisal leads to.

A node that joins and a node whose last Evidence is appraised again (because a reference value was
withdrawn) are judged by the same few rules. The functions here only choose rows of the transition
table; `node.follow` still checks each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from troth.mesh.node import Actor, Facts, NodeState, Reason, Trigger, remediable

__all__ = [
    "JoinPlan",
    "Refusal",
    "Standing",
    "Step",
    "Verdict",
    "join_facts",
    "plan_duplicate",
    "plan_join",
    "plan_reappraisal",
]


class Verdict(StrEnum):
    """What an appraisal comes to for admission."""

    GOOD = "good"
    TIER_TOO_LOW = "tier_too_low"
    WARNING = "warning"
    NONE = "none"
    CONTRAINDICATED = "contraindicated"

    @classmethod
    def of(cls, *, status: str, tier_reached: bool) -> Verdict:
        """Return the verdict for an AR4SI status; an unknown status is contraindicated."""
        if status == "affirming":
            return cls.GOOD if tier_reached else cls.TIER_TOO_LOW
        known = {"warning": cls.WARNING, "none": cls.NONE}
        return known.get(status, cls.CONTRAINDICATED)


class Refusal(StrEnum):
    """Why a join does not end in an SVID although its Evidence is authentic."""

    EXPELLED = "expelled"
    RETIRED = "retired"
    HELD = "held_for_operator"
    DUPLICATE = "duplicate_identity"
    NOT_AFFIRMING = "not_affirming"
    TIER_TOO_LOW = "tier_too_low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One transition to apply."""

    trigger: Trigger
    reason: Reason
    actor: Actor = Actor.SERVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a node stands when it joins.

    Attributes:
        state: its state.
        reason: why it is in that state.
        boot_unchanged: the Evidence is from the boot session that the node was last admitted in.
        boot_returned: the Evidence is from a boot session that another one has replaced. A
            machine does not go back to an earlier boot: two machines hold one identity.
        key_copied: it authenticates with a key that is another device's.
    """

    state: NodeState
    reason: Reason | None = None
    boot_unchanged: bool = False
    boot_returned: bool = False
    key_copied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPlan:
    """The steps to apply, and why the join is refused if it is."""

    steps: tuple[Step, ...] = ()
    refusal: Refusal | None = None


_ATTEST = Step(trigger=Trigger.ATTEST, reason=Reason.EVIDENCE_RECEIVED, actor=Actor.NODE)
_REMEDIATE = Step(trigger=Trigger.REMEDIATE, reason=Reason.EVIDENCE_RECEIVED, actor=Actor.NODE)
_BOOT = Step(trigger=Trigger.BOOT_CHANGED, reason=Reason.BOOT_SESSION_CHANGED, actor=Actor.NODE)
_APPRAISED = Step(trigger=Trigger.APPRAISED, reason=Reason.RESULT_AFFIRMING)
_ADMIT = Step(trigger=Trigger.ADMIT, reason=Reason.POLICY_MET)
_DUPLICATE = Step(trigger=Trigger.HOLD, reason=Reason.DUPLICATE_IDENTITY)


def plan_join(standing: Standing, verdict: Verdict) -> JoinPlan:
    """Return what joining with authentic Evidence and `verdict` does to a node at `standing`."""
    state = standing.state
    if state is NodeState.EXPELLED:
        return JoinPlan(refusal=Refusal.EXPELLED)
    if state is NodeState.RETIRED:
        return JoinPlan(refusal=Refusal.RETIRED)
    if _held(state, standing.reason):
        return JoinPlan(refusal=Refusal.HELD)
    if standing.boot_returned or standing.key_copied:
        # Whatever the state: a copy that made the node lose its membership is a copy still.
        return JoinPlan(steps=(_DUPLICATE,), refusal=Refusal.DUPLICATE)
    if verdict is Verdict.GOOD:
        return JoinPlan(steps=_good(standing))
    refusal = Refusal.TIER_TOO_LOW if verdict is Verdict.TIER_TOO_LOW else Refusal.NOT_AFFIRMING
    return JoinPlan(steps=_bad(standing, verdict), refusal=refusal)


def plan_duplicate(state: NodeState, reason: Reason | None) -> tuple[Step, ...]:
    """Return what it does to a node in `state` that its device or its key exists twice.

    Nobody can tell the copy from the original, so both are held until an operator has looked. A
    node that is held or gone already stays as it is.
    """
    gone = state in (NodeState.EXPELLED, NodeState.RETIRED)
    return () if gone or _held(state, reason) else (_DUPLICATE,)


def plan_reappraisal(state: NodeState, verdict: Verdict, *, reason: Reason) -> tuple[Step, ...]:
    """Return what a new appraisal of recorded Evidence does to a node in `state`.

    An operator who withdraws a value says that what it stood for is no longer acceptable, so
    anything but a good verdict quarantines, a mere warning too. Good Evidence changes nothing.
    """
    live = (NodeState.ATTESTING, NodeState.ATTESTED, NodeState.ADMITTED, NodeState.DEGRADED)
    if verdict is Verdict.GOOD or state not in live:
        return ()
    return (Step(trigger=Trigger.QUARANTINE, reason=reason),)


def join_facts(verdict: Verdict, *, boot_unchanged: bool, remediable_now: bool) -> Facts:
    """Return the facts of a join whose Evidence was verified and whose device has an entry.

    `key_bound` and `epoch_current` are here because the caller appraises the Evidence for the
    key of this join and applies the steps in a transaction that compares the epoch.
    """
    return Facts(
        evidence_authentic=True,
        entry_matches=True,
        key_bound=True,
        boot_recorded=True,
        epoch_current=True,
        boot_unchanged=boot_unchanged,
        result_affirming=verdict in (Verdict.GOOD, Verdict.TIER_TOO_LOW),
        tier_reached=verdict is Verdict.GOOD,
        remediable=remediable_now,
    )


def _held(state: NodeState, reason: Reason | None) -> bool:
    """Say whether only an operator can let the node go on."""
    return state is NodeState.QUARANTINED and reason is not None and not remediable(reason)


def _good(standing: Standing) -> tuple[Step, ...]:
    renewals = {NodeState.ADMITTED: Trigger.RENEW, NodeState.DEGRADED: Trigger.RECOVER}
    if standing.boot_unchanged and standing.state in renewals:
        return (Step(trigger=renewals[standing.state], reason=Reason.RESULT_AFFIRMING),)
    return (*_to_attesting(standing), _APPRAISED, _ADMIT)


def _bad(standing: Standing, verdict: Verdict) -> tuple[Step, ...]:
    state = standing.state
    if state is NodeState.QUARANTINED:
        return ()
    if verdict is Verdict.CONTRAINDICATED:
        first = (_ATTEST,) if state is NodeState.REGISTERED else ()
        return (*first, Step(trigger=Trigger.QUARANTINE, reason=Reason.CONTRAINDICATED))
    live = state in (NodeState.ADMITTED, NodeState.DEGRADED)
    if live and standing.boot_unchanged:
        return _weakened(state, verdict)
    reason = Reason.TIER_LOST if verdict is Verdict.TIER_TOO_LOW else Reason.NOT_AFFIRMING
    return (*_to_attesting(standing), Step(trigger=Trigger.GIVE_UP, reason=reason))


def _weakened(state: NodeState, verdict: Verdict) -> tuple[Step, ...]:
    if verdict is Verdict.TIER_TOO_LOW:
        return (Step(trigger=Trigger.QUARANTINE, reason=Reason.TIER_LOST),)
    if state is NodeState.DEGRADED:
        return ()
    reason = Reason.WARNING if verdict is Verdict.WARNING else Reason.OUT_OF_DATE
    return (Step(trigger=Trigger.DEGRADE, reason=reason),)


def _to_attesting(standing: Standing) -> tuple[Step, ...]:
    match standing.state:
        case NodeState.REGISTERED:
            return (_ATTEST,)
        case NodeState.QUARANTINED:
            return (_REMEDIATE,)
        case NodeState.ATTESTING:
            return ()
        case _:
            return (_BOOT,)
