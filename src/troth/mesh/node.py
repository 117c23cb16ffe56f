# SPDX-License-Identifier: Apache-2.0
"""The life of a node: states, and the one table of transitions between them.

Theory of operation. A node is one device in one role (its registration entry). What a node may
do hangs on its state alone (`PERMISSIONS`). A state changes only along a row of `TRANSITIONS`:
somebody pulls a `Trigger` for a `Reason`, the row must leave from the present state, and every
fact that the row requires must have been established. A fact that nobody established is false,
so forgetting one refuses. Nothing here stores or signs: the registry applies a row as one
guarded statement (`WHERE generation = …`), and every applied row raises the generation by one.

Verbs that look alike differ on purpose. `reattest` takes away the session, and the node may come
back by itself; `expel` is final for the node and for its device in this role. `quarantine` ends
with fresh Evidence; `hold` ends with an operator only, since a copied or tampered machine can make
fresh Evidence too, and so it also leaves from a quarantine that fresh Evidence would end.

docs/explanation/node-states.md is drawn from this table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType

from troth.errors import ApiMisuseError, AuthorizationError, ConflictError

__all__ = [
    "PERMISSIONS",
    "TRANSITIONS",
    "Actor",
    "Facts",
    "NodeState",
    "Permissions",
    "Reason",
    "Transition",
    "Trigger",
    "find_transition",
    "follow",
    "remediable",
]


class NodeState(StrEnum):
    """Where a node stands."""

    REGISTERED = "registered"
    ATTESTING = "attesting"
    ATTESTED = "attested"
    ADMITTED = "admitted"
    DEGRADED = "degraded"
    QUARANTINED = "quarantined"
    EXPELLED = "expelled"
    RETIRED = "retired"


class Trigger(StrEnum):
    """What makes a node change its state."""

    ATTEST = "attest"
    APPRAISED = "appraised"
    ADMIT = "admit"
    RENEW = "renew"
    RECOVER = "recover"
    BOOT_CHANGED = "boot_changed"
    REMEDIATE = "remediate"
    REATTEST = "reattest"
    GIVE_UP = "give_up"
    DEGRADE = "degrade"
    QUARANTINE = "quarantine"
    HOLD = "hold"
    EXPEL = "expel"
    RETIRE = "retire"


class Actor(StrEnum):
    """Who may pull a trigger."""

    NODE = "node"
    SERVER = "server"
    OPERATOR = "operator"


class Reason(StrEnum):
    """Why a state changed; operators and peers' logs read it."""

    EVIDENCE_RECEIVED = "evidence_received"
    RESULT_AFFIRMING = "result_affirming"
    POLICY_MET = "policy_met"
    BOOT_SESSION_CHANGED = "boot_session_changed"
    TIMED_OUT = "timed_out"
    NOT_AFFIRMING = "not_affirming"
    RESULT_STALE = "result_stale"
    WARNING = "warning"
    VERIFIER_UNREACHABLE = "verifier_unreachable"
    OUT_OF_DATE = "out_of_date"
    SITE_OFFLINE = "site_offline"
    FEED_STALE = "feed_stale"
    CONTRAINDICATED = "contraindicated"
    REFERENCE_VALUE_WITHDRAWN = "reference_value_withdrawn"
    TRUST_ANCHOR_WITHDRAWN = "trust_anchor_withdrawn"
    TIER_LOST = "tier_lost"
    ENTRY_DELETED = "entry_deleted"
    DEVICE_REVOKED = "device_revoked"
    DUPLICATE_IDENTITY = "duplicate_identity"
    TAMPERED = "tampered"
    OPERATOR_REQUEST = "operator_request"
    POLICY_DECISION = "policy_decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What has been established about the node at this moment. Unsaid is false.

    Attributes:
        evidence_authentic: its Evidence was verified and answers this server's nonce and key.
        result_affirming: the Attestation Result is affirming; "none" is not.
        key_bound: the result is about the key that the node asks an SVID for.
        boot_recorded: the boot session is written down, so that a later change is noticed.
        boot_unchanged: the boot session is the one that the node was admitted in.
        tier_reached: the tier is at least the floor of the registration entry.
        entry_matches: a registration entry in force names this device.
        epoch_current: the result was made under the reference values and policy now in force.
        remediable: the node is quarantined for something that fresh Evidence can put right.
    """

    evidence_authentic: bool = False
    result_affirming: bool = False
    key_bound: bool = False
    boot_recorded: bool = False
    boot_unchanged: bool = False
    tier_reached: bool = False
    entry_matches: bool = False
    epoch_current: bool = False
    remediable: bool = False

    def missing(self, required: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `required` that are not established."""
        return tuple(name for name in required if not getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What a node may do in a state.

    Attributes:
        new_connections: peers may open connections with it: "yes", "no", or "lower_tier" (only
            peers whose policy accepts what it still is).
        keeps_connections: what is open stays open: "until_deadline", "until_grace" or "no".
        svid: "yes", "within_grace" or "no".
        feed: it may read the feed of its trust domain.
        placement: workloads and secrets: "yes", "keep" (nothing new) or "no".
    """

    new_connections: str = "no"
    keeps_connections: str = "no"
    svid: str = "no"
    feed: bool = False
    placement: str = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One row of the table.

    Attributes:
        trigger: what pulls it.
        sources: the states that it leaves from.
        target: the state that it leads to.
        reasons: the reasons that it may be given.
        actors: who may pull it.
        requires: names of the `Facts` that must be established.
    """

    trigger: Trigger
    sources: tuple[NodeState, ...]
    target: NodeState
    reasons: tuple[Reason, ...]
    actors: tuple[Actor, ...]
    requires: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        unknown = set(self.requires) - {fact.name for fact in fields(Facts)}
        if unknown:
            raise ApiMisuseError(f"no such facts: {', '.join(sorted(unknown))}")


_FRESH = (
    "evidence_authentic",
    "result_affirming",
    "key_bound",
    "boot_recorded",
    "boot_unchanged",
    "tier_reached",
    "entry_matches",
    "epoch_current",
)

TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        trigger=Trigger.ATTEST,
        sources=(NodeState.REGISTERED,),
        target=NodeState.ATTESTING,
        reasons=(Reason.EVIDENCE_RECEIVED,),
        actors=(Actor.NODE,),
        requires=("evidence_authentic", "entry_matches"),
    ),
    Transition(
        trigger=Trigger.APPRAISED,
        sources=(NodeState.ATTESTING,),
        target=NodeState.ATTESTED,
        reasons=(Reason.RESULT_AFFIRMING,),
        actors=(Actor.SERVER,),
        requires=("evidence_authentic", "result_affirming", "key_bound", "boot_recorded"),
    ),
    Transition(
        trigger=Trigger.ADMIT,
        sources=(NodeState.ATTESTED,),
        target=NodeState.ADMITTED,
        reasons=(Reason.POLICY_MET,),
        actors=(Actor.SERVER,),
        requires=("tier_reached", "entry_matches", "epoch_current"),
    ),
    Transition(
        trigger=Trigger.RENEW,
        sources=(NodeState.ADMITTED,),
        target=NodeState.ADMITTED,
        reasons=(Reason.RESULT_AFFIRMING,),
        actors=(Actor.SERVER,),
        requires=_FRESH,
    ),
    Transition(
        trigger=Trigger.RECOVER,
        sources=(NodeState.DEGRADED,),
        target=NodeState.ADMITTED,
        reasons=(Reason.RESULT_AFFIRMING,),
        actors=(Actor.SERVER,),
        requires=_FRESH,
    ),
    Transition(
        trigger=Trigger.BOOT_CHANGED,
        sources=(NodeState.ATTESTED, NodeState.ADMITTED, NodeState.DEGRADED),
        target=NodeState.ATTESTING,
        reasons=(Reason.BOOT_SESSION_CHANGED,),
        actors=(Actor.NODE,),
        requires=("evidence_authentic",),
    ),
    Transition(
        trigger=Trigger.REMEDIATE,
        sources=(NodeState.QUARANTINED,),
        target=NodeState.ATTESTING,
        reasons=(Reason.EVIDENCE_RECEIVED,),
        actors=(Actor.NODE,),
        requires=("evidence_authentic", "entry_matches", "remediable"),
    ),
    Transition(
        trigger=Trigger.REATTEST,
        sources=(
            NodeState.ATTESTED,
            NodeState.ADMITTED,
            NodeState.DEGRADED,
            NodeState.QUARANTINED,
        ),
        target=NodeState.ATTESTING,
        reasons=(Reason.OPERATOR_REQUEST,),
        actors=(Actor.OPERATOR,),
    ),
    Transition(
        trigger=Trigger.GIVE_UP,
        sources=(NodeState.ATTESTING, NodeState.ATTESTED),
        target=NodeState.REGISTERED,
        reasons=(Reason.TIMED_OUT, Reason.NOT_AFFIRMING, Reason.TIER_LOST),
        actors=(Actor.SERVER,),
    ),
    Transition(
        trigger=Trigger.DEGRADE,
        sources=(NodeState.ADMITTED,),
        target=NodeState.DEGRADED,
        reasons=(
            Reason.RESULT_STALE,
            Reason.WARNING,
            Reason.VERIFIER_UNREACHABLE,
            Reason.OUT_OF_DATE,
            Reason.SITE_OFFLINE,
            Reason.FEED_STALE,
        ),
        actors=(Actor.SERVER,),
    ),
    Transition(
        trigger=Trigger.QUARANTINE,
        sources=(
            NodeState.ATTESTING,
            NodeState.ATTESTED,
            NodeState.ADMITTED,
            NodeState.DEGRADED,
        ),
        target=NodeState.QUARANTINED,
        reasons=(
            Reason.CONTRAINDICATED,
            Reason.REFERENCE_VALUE_WITHDRAWN,
            Reason.TRUST_ANCHOR_WITHDRAWN,
            Reason.TIER_LOST,
            Reason.ENTRY_DELETED,
            Reason.DEVICE_REVOKED,
        ),
        actors=(Actor.SERVER,),
    ),
    Transition(
        trigger=Trigger.HOLD,
        sources=(
            NodeState.REGISTERED,
            NodeState.ATTESTING,
            NodeState.ATTESTED,
            NodeState.ADMITTED,
            NodeState.DEGRADED,
            NodeState.QUARANTINED,
        ),
        target=NodeState.QUARANTINED,
        reasons=(Reason.DUPLICATE_IDENTITY, Reason.TAMPERED),
        actors=(Actor.SERVER,),
    ),
    Transition(
        trigger=Trigger.EXPEL,
        sources=(
            NodeState.REGISTERED,
            NodeState.ATTESTING,
            NodeState.ATTESTED,
            NodeState.ADMITTED,
            NodeState.DEGRADED,
            NodeState.QUARANTINED,
        ),
        target=NodeState.EXPELLED,
        reasons=(Reason.OPERATOR_REQUEST, Reason.POLICY_DECISION),
        actors=(Actor.OPERATOR, Actor.SERVER),
    ),
    Transition(
        trigger=Trigger.RETIRE,
        sources=(
            NodeState.REGISTERED,
            NodeState.ADMITTED,
            NodeState.DEGRADED,
            NodeState.QUARANTINED,
            NodeState.EXPELLED,
        ),
        target=NodeState.RETIRED,
        reasons=(Reason.OPERATOR_REQUEST,),
        actors=(Actor.OPERATOR,),
    ),
)

PERMISSIONS: Mapping[NodeState, Permissions] = MappingProxyType(
    {
        NodeState.REGISTERED: Permissions(),
        NodeState.ATTESTING: Permissions(),
        NodeState.ATTESTED: Permissions(),
        NodeState.ADMITTED: Permissions(
            new_connections="yes",
            keeps_connections="until_deadline",
            svid="yes",
            feed=True,
            placement="yes",
        ),
        NodeState.DEGRADED: Permissions(
            new_connections="lower_tier",
            keeps_connections="until_grace",
            svid="within_grace",
            feed=True,
            placement="keep",
        ),
        NodeState.QUARANTINED: Permissions(),
        NodeState.EXPELLED: Permissions(),
        NodeState.RETIRED: Permissions(),
    }
)

# Fresh affirming Evidence answers what `quarantine` is done for. What `hold` is done for needs an
# operator: a copied credential or a tampered machine can make fresh Evidence too.
_REMEDIABLE = frozenset(
    reason for row in TRANSITIONS if row.trigger is Trigger.QUARANTINE for reason in row.reasons
)


def remediable(reason: Reason) -> bool:
    """Say whether a node quarantined for `reason` may come back by fresh Evidence alone."""
    return reason in _REMEDIABLE


def find_transition(
    state: NodeState, trigger: Trigger, *, table: Sequence[Transition] = TRANSITIONS
) -> Transition:
    """Return the row that `trigger` takes from `state`; only tests bring another table.

    Raises:
        ConflictError: there is none; the state has changed since the caller looked, or the
            caller asks for something that this state does not allow.
    """
    for row in table:
        if row.trigger is trigger and state in row.sources:
            return row
    raise ConflictError(
        f"a node that is {state} cannot be changed by {trigger!s}",
        remedy="read the node again; its state decides what is possible",
    )


def follow(
    state: NodeState,
    trigger: Trigger,
    *,
    reason: Reason,
    actor: Actor,
    facts: Facts | None = None,
    table: Sequence[Transition] = TRANSITIONS,
) -> NodeState:
    """Return the state after `trigger`, or refuse; only tests bring another table.

    Raises:
        ConflictError: no row leaves from `state`.
        AuthorizationError: the actor may not pull it, or a required fact is not established.
        ApiMisuseError: the row does not know this reason.
    """
    row = find_transition(state, trigger, table=table)
    if actor not in row.actors:
        raise AuthorizationError(f"{actor!s} may not {trigger!s} a node")
    if reason not in row.reasons:
        raise ApiMisuseError(f"{trigger!s} is not done because of {reason!s}")
    missing = (facts or Facts()).missing(row.requires)
    if missing:
        raise AuthorizationError(f"{trigger!s} needs what is not established: {', '.join(missing)}")
    return row.target
