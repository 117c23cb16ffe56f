# SPDX-License-Identifier: Apache-2.0
"""What one side of a connection wants to see of the other, and the decision.

The two directions of a connection are two independent decisions: each side has its own
`PeerPolicy` and applies it to what it knows of the other. A policy is a list of rules; one rule
that is met in full is enough; no rule means nobody.

This decides on facts that others have verified: that the peer holds the key of its SVID, that
the result was signed by the Verifier it names and is about that key. It checks none of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from troth.errors import ApiMisuseError, AuthorizationError
from troth.mesh.deadline import Deadline, connection_deadline
from troth.mesh.node import PERMISSIONS, NodeState
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier

__all__ = [
    "CLOCK_SKEW",
    "Decision",
    "Objection",
    "Peer",
    "PeerPolicy",
    "PeerResult",
    "PeerRule",
    "ResultModel",
    "authorize",
    "covers",
]

# Clocks of nodes may differ by this much; a result from further in the future is not believed.
CLOCK_SKEW = timedelta(seconds=30)


class ResultModel(StrEnum):
    """How the state of a peer becomes known (RFC 9334 section 5)."""

    SVID_ONLY = "svid_only"
    PASSPORT = "passport"
    BACKGROUND_CHECK = "background_check"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResult:
    """The Attestation Result that a peer stands on.

    Attributes:
        model: PASSPORT or BACKGROUND_CHECK, whichever way it came.
        status: AR4SI status: "none", "affirming", "warning" or "contraindicated".
        tier: assurance tier.
        verifier: name of the Verifier that signed it.
        issued, expires: its life, aware UTC.
        insecure: why it must not count in production; empty where nothing is wrong.
    """

    model: ResultModel
    status: str
    tier: Tier
    verifier: str
    issued: datetime
    expires: datetime
    insecure: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in (ResultModel.PASSPORT, ResultModel.BACKGROUND_CHECK):
            raise ApiMisuseError(f"a result does not come by {self.model}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other end of a connection.

    Attributes:
        spiffe_id: as in its verified X.509-SVID.
        svid_not_after: end of that SVID's validity.
        state: its state by the feed, or None where no feed says anything about it.
        result: what its state was found to be, or None.
    """

    spiffe_id: str
    svid_not_after: datetime
    state: NodeState | None = None
    result: PeerResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRule:
    """One way to be acceptable.

    Attributes:
        peers: SPIFFE IDs, exactly; or "spiffe://td/*" for every ID of a trust domain. Empty
            matches nobody.
        model: how the state must have become known; SVID_ONLY asks for no result, ANY for one
            that came either way.
        min_tier: the weakest acceptable tier.
        max_age: oldest acceptable result, or None for as long as it is valid.
        verifiers: names of the Verifiers that are believed. Empty believes none; SVID_ONLY needs
            none.
        require_affirming: False also accepts "warning"; "none" and "contraindicated" never pass.
        allow_degraded: accept a peer that the feed calls degraded.
        allow_insecure: accept simulators and published test keys. For trials only.
        max_connection_age: None takes the default of the peer's tier.
    """

    peers: tuple[str, ...]
    model: ResultModel = ResultModel.PASSPORT
    min_tier: Tier = Tier.MEASURED
    max_age: timedelta | None = None
    verifiers: frozenset[str] = frozenset()
    require_affirming: bool = True
    allow_degraded: bool = False
    allow_insecure: bool = False
    max_connection_age: timedelta | None = None

    def __post_init__(self) -> None:
        for name in ("max_age", "max_connection_age"):
            value = getattr(self, name)
            if value is not None and value <= timedelta(0):
                raise ApiMisuseError(f"{name} must be positive or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPolicy:
    """What one direction requires. Without rules it denies everybody."""

    rules: tuple[PeerRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """One thing that a rule holds against a peer.

    Attributes:
        rule: number of the rule in its policy from 0, or -1 for the policy as a whole.
        what: the property, such as "tier".
        expected, actual: in words.
    """

    rule: int
    what: str
    expected: str
    actual: str

    def __str__(self) -> str:
        where = "policy" if self.rule < 0 else f"rule {self.rule}"
        return f"{where}: {self.what} is {self.actual}; expected {self.expected}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a peer is acceptable, until when, and if not, everything that is wrong.

    Attributes:
        admitted: the answer.
        rule: number of the rule that was met, or None.
        deadline: when a connection admitted on this has to be gone, or None where refused.
        objections: for a refusal, what every rule holds against the peer.
    """

    admitted: bool
    rule: int | None = None
    deadline: Deadline | None = None
    objections: tuple[Objection, ...] = ()

    def require(self) -> Deadline:
        """Return the deadline.

        Raises:
            AuthorizationError: the peer is refused; the message has every objection.
        """
        if not self.admitted or self.deadline is None:
            raise AuthorizationError("; ".join(str(each) for each in self.objections))
        return self.deadline


def authorize(peer: Peer, policy: PeerPolicy, *, now: datetime) -> Decision:
    """Decide whether `peer` meets `policy` at `now`. Reads nothing else and never raises."""
    if not policy.rules:
        nobody = Objection(rule=-1, what="policy", expected="at least one rule", actual="empty")
        return Decision(admitted=False, objections=(nobody,))
    objections: list[Objection] = []
    for number, rule in enumerate(policy.rules):
        found = [*_identity(peer, rule, number, now), *_state(peer, rule, number)]
        if rule.model is not ResultModel.SVID_ONLY:
            found += _result(peer.result, rule, number, now)
        deadline = _deadline(peer, rule)
        if deadline.passed(now) and not found:
            found.append(
                Objection(
                    rule=number,
                    what="deadline",
                    expected=f"after {now.isoformat()}",
                    actual=f"{deadline.at.isoformat()} ({deadline.because})",
                )
            )
        if not found:
            return Decision(admitted=True, rule=number, deadline=deadline)
        objections += found
    return Decision(admitted=False, objections=tuple(objections))


def _deadline(peer: Peer, rule: PeerRule) -> Deadline:
    # A rule that asks for no result still ends with the result that the peer happens to have:
    # a passport that lapses says that something is wrong with the node.
    result = peer.result
    if result is None:
        return connection_deadline(
            svid_not_after=peer.svid_not_after,
            result_expires=None,
            attested_at=None,
            max_connection_age=timedelta(0),
        )
    limit = rule.max_connection_age or DEFAULT_LIFETIMES[result.tier].connection
    if rule.max_age is not None:
        limit = min(limit, rule.max_age)
    return connection_deadline(
        svid_not_after=peer.svid_not_after,
        result_expires=result.expires,
        attested_at=result.issued,
        max_connection_age=limit,
    )


def _identity(peer: Peer, rule: PeerRule, number: int, now: datetime) -> list[Objection]:
    found = []
    if not any(covers(pattern, peer.spiffe_id) for pattern in rule.peers):
        expected = ", ".join(rule.peers) or "nobody"
        found.append(
            Objection(rule=number, what="SPIFFE ID", expected=expected, actual=peer.spiffe_id)
        )
    if now >= peer.svid_not_after:
        found.append(
            Objection(
                rule=number,
                what="SVID notAfter",
                expected=f"after {now.isoformat()}",
                actual=peer.svid_not_after.isoformat(),
            )
        )
    return found


def covers(pattern: str, spiffe_id: str) -> bool:
    """Say whether a rule's pattern, a SPIFFE ID or "spiffe://td/*", is about `spiffe_id`."""
    if pattern.startswith("spiffe://") and pattern.endswith("/*"):
        domain = pattern.removeprefix("spiffe://").removesuffix("/*")
        return "/" not in domain and domain != "" and spiffe_id.startswith(pattern[:-1])
    return pattern == spiffe_id


def _state(peer: Peer, rule: PeerRule, number: int) -> list[Objection]:
    if peer.state is None:
        return []
    allowed = PERMISSIONS[peer.state].new_connections
    if allowed == "yes" or (allowed == "lower_tier" and rule.allow_degraded):
        return []
    expected = "admitted or degraded" if rule.allow_degraded else "admitted"
    return [Objection(rule=number, what="node state", expected=expected, actual=str(peer.state))]


def _result(  # noqa: C901 - one check after the other, each by itself
    result: PeerResult | None, rule: PeerRule, number: int, now: datetime
) -> list[Objection]:
    if result is None:
        absent = f"one by {rule.model}"
        return [Objection(rule=number, what="result", expected=absent, actual="absent")]
    found: list[Objection] = []

    def object_to(what: str, expected: str, actual: str) -> None:
        found.append(Objection(rule=number, what=what, expected=expected, actual=actual))

    # Texts are made for refusals only: a mesh decides thousands of times a second.
    if rule.model not in (ResultModel.ANY, result.model):
        object_to("model", str(rule.model), str(result.model))
    affirming = ("affirming",) if rule.require_affirming else ("affirming", "warning")
    if result.status not in affirming:
        object_to("status", " or ".join(affirming), result.status)
    if result.tier < rule.min_tier:
        object_to("tier", f"at least {rule.min_tier}", str(result.tier))
    if result.verifier not in rule.verifiers:
        believed = ", ".join(sorted(rule.verifiers)) or "none"
        object_to("Verifier", f"one of: {believed}", result.verifier or "unnamed")
    if result.insecure and not rule.allow_insecure:
        object_to("insecure", "nothing", "; ".join(result.insecure))
    if now >= result.expires:
        object_to("result expiry", f"after {now.isoformat()}", result.expires.isoformat())
    age = now - result.issued
    if age < -CLOCK_SKEW:
        object_to("result issue", "in the past", result.issued.isoformat())
    if rule.max_age is not None and age > rule.max_age:
        limit = f"at most {rule.max_age.total_seconds():.0f} s"
        object_to("result age", limit, f"{age.total_seconds():.0f} s")
    return found
