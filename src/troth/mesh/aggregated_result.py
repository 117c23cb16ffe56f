# SPDX-License-Identifier: Apache-2.0
"""The Aggregated Attestation Result: one signed statement about a whole Logical TEE.

It is an EAR (draft-ietf-rats-ear-03) with one submodule for each member class. Whoever has the
public result keys can verify it without asking any member, and one who is told the members, or
shown a proof by one of them, can check these against it.

It is the floor and never an average: the tier of a class is that of its weakest member, the tier
of the whole that of its weakest class, and a class without members is of no tier at all. It ends
with the first of its members' results.

Two claims stand beside those of every EAR. `troth_ltee` at the top: `name`, `trust_domain`,
`owner`, `definition` (SHA-256 of the definition), `epochs` (accepted ones, newest first),
`membership` (root of the tree of `troth.mesh.membership`), `size`. `troth_member_class` in a
submodule: `admitted`, `degraded`, `min_tier`, `schemes`, `proxy_placement`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from troth.errors import BindingError, DecodeError
from troth.formats.ar4si import TrustTier
from troth.formats.ear import (
    PROFILE_IETF_03,
    Dialect,
    Ear,
    EarSubmod,
    TrothClaims,
    VerifierId,
    sign_ear,
    verify_ear,
)
from troth.formats.signer import Signer
from troth.formats.verification_key import VerificationKey
from troth.mesh.logical_tee import MAX_CLASSES, MAX_EPOCHS, MemberClass
from troth.mesh.membership import (
    InclusionProof,
    Membership,
    TeeMember,
    membership_digest,
    verify_inclusion,
)
from troth.mesh.tier import Tier, floor

__all__ = [
    "AGGREGATE_LIFETIME",
    "AggregatedResult",
    "ClassResult",
    "aggregate",
    "sign_aggregated_result",
    "verify_aggregated_result",
]

AGGREGATE_LIFETIME: Final = timedelta(minutes=10)
"""The longest life: an expulsion is in every result by then, whoever kept an old one."""

_FORMAT: Final = "Aggregated Attestation Result"
_WHOLE: Final = "troth_ltee"
_CLASS: Final = "troth_member_class"
_TIERS: Final = {tier.value: tier for tier in Tier}
_Count = Annotated[int, Meta(ge=0, le=2**40)]
_Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class _WholeClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    trust_domain: str
    owner: str
    definition: _Digest
    epochs: Annotated[tuple[int, ...], Meta(max_length=MAX_EPOCHS)]
    membership: _Digest
    size: _Count


class _ClassClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    admitted: _Count
    degraded: _Count
    min_tier: Tier
    schemes: tuple[str, ...]
    proxy_placement: Literal["in_member", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """What is said about one member class.

    Attributes:
        name: of the class.
        status: affirming; warning while a member is degraded; none where there is no member.
        tier: of the weakest member, the degraded ones too; None where there is none.
        admitted, degraded: how many.
        min_tier, schemes, proxy_placement: what the class asks for; see `MemberClass`.
        policy_ids: the Appraisal Policies that the members' results were made under.
        insecure: why it must not count in production.
    """

    name: str
    status: TrustTier
    tier: Tier | None
    admitted: int
    degraded: int
    min_tier: Tier
    schemes: tuple[str, ...]
    proxy_placement: str
    policy_ids: tuple[str, ...]
    insecure: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatedResult:
    """A verified result.

    Attributes:
        name, trust_domain, owner: of the Logical TEE.
        definition_digest: SHA-256 (hex) of its definition, as `LogicalTee.definition_digest`.
        epochs: accepted ones, newest first.
        membership_digest, size: root of the tree of members, and its leaves.
        status: the least trusted of all classes.
        tier: the floor over all classes, or None where one has no member.
        classes: by name.
        issued_at, expires_at: its life, aware UTC.
        insecure: every reason, of any member, why it must not count in production.
    """

    name: str
    trust_domain: str
    owner: str
    definition_digest: str
    epochs: tuple[int, ...]
    membership_digest: str
    size: int
    status: TrustTier
    tier: Tier | None
    classes: tuple[ClassResult, ...]
    issued_at: datetime
    expires_at: datetime
    insecure: tuple[str, ...]

    def verify_inclusion(self, proof: InclusionProof, *, now: datetime) -> TeeMember:
        """Return the member that a proof shows to be one.

        Does NOT check that who shows it is that member: compare `TeeMember.key_digest` with the
        key that the peer holds.

        Raises:
            DecodeError: not a proof for this membership.
            BindingError: not in it, or not any more.
        """
        member = verify_inclusion(proof, root=self.membership_digest, size=self.size)
        if member.ends <= now.timestamp():
            raise BindingError(f"{_FORMAT}: the membership of node {member.node_id} has ended")
        return member

    def verify_members(self, members: Sequence[TeeMember]) -> None:
        """Check that these are all members, and that what is said of the classes follows.

        Raises:
            BindingError: another set, or the result says more than its members give.
        """
        if len(members) != self.size or membership_digest(members) != self.membership_digest:
            raise BindingError(
                f"{_FORMAT}: these members do not have the digest that was signed",
                remedy="fetch result and members again: the membership may have changed",
            )
        known = {each.name for each in self.classes}
        if any(member.member_class not in known for member in members):
            raise BindingError(f"{_FORMAT}: a member is of a class that the result does not have")
        for each in self.classes:
            own = [member for member in members if member.member_class == each.name]
            admitted = sum(member.standing == "admitted" for member in own)
            tier = floor(member.tier for member in own) if own else None
            if (admitted, len(own) - admitted, tier) != (each.admitted, each.degraded, each.tier):
                raise BindingError(
                    f"{_FORMAT}: class {each.name} says another tier or count than its members give"
                )
        if any(member.ends < self.expires_at.timestamp() for member in members):
            raise BindingError(f"{_FORMAT}: lasts longer than the result of a member")


def aggregate(membership: Membership, *, verifier: VerifierId, name: str, now: datetime) -> Ear:
    """Return the result about a membership, unsigned.

    Args:
        membership: as computed at `now`.
        verifier: who says so.
        name: the Verifier's name (`iss`), or "".
        now: aware UTC.
    """
    tee = membership.tee
    submods = {each.name: _submod(each, membership) for each in tee.classes}
    tiers = [submod.troth.tier for submod in submods.values()]
    whole = _WholeClaim(
        name=tee.name,
        trust_domain=tee.trust_domain,
        owner=tee.owner,
        definition=tee.definition_digest,
        epochs=membership.epochs,
        membership=membership.digest,
        size=len(membership.members),
    )
    extensions: dict[str | int, object] = {_WHOLE: _json(whole)}
    if name:
        extensions["iss"] = name
    return Ear(
        submods=submods,
        issued_at=now.replace(microsecond=0),
        verifier_id=verifier,
        profile=PROFILE_IETF_03,
        status=TrustTier.least_trusted(submod.status for submod in submods.values()),
        expires_at=_end(membership, now),
        troth=TrothClaims(
            tier=floor(_TIERS[tier] for tier in tiers).value if all(tiers) else "",
            epoch=str(membership.epochs[0]) if membership.epochs else "",
            policy_digest=f"sha-256:{tee.definition_digest}",
        ),
        extensions=extensions,
    )


def _end(membership: Membership, now: datetime) -> datetime:
    """Return the first moment at which something here may be true no longer."""
    latest = now + AGGREGATE_LIFETIME
    ends = [datetime.fromtimestamp(member.ends, now.tzinfo) for member in membership.members]
    change = membership.tee.next_change(now)
    return min([latest, *ends, *([change] if change else [])]).replace(microsecond=0)


def _submod(each: MemberClass, membership: Membership) -> EarSubmod:
    members = membership.of_class(each.name)
    admitted = sum(member.standing == "admitted" for member in members)
    claim = _ClassClaim(
        admitted=admitted,
        degraded=len(members) - admitted,
        min_tier=each.min_tier,
        schemes=each.schemes,
        proxy_placement=each.proxy_placement,
    )
    return EarSubmod(
        status=_status(admitted=admitted, degraded=len(members) - admitted),
        policy_ids=_distinct(member.policy_id for member in members),
        troth=TrothClaims(
            tier=floor(member.tier for member in members).value if members else "",
            insecure=_distinct(reason for member in members for reason in member.insecure),
        ),
        extensions={_CLASS: _json(claim)},
    )


def _json(claim: _WholeClaim | _ClassClaim) -> object:
    """Return a claim as the JSON tree that it is read back as."""
    return msgspec.json.decode(msgspec.json.encode(claim))


def _status(*, admitted: int, degraded: int) -> TrustTier:
    if not admitted and not degraded:
        return TrustTier.NONE
    return TrustTier.WARNING if degraded else TrustTier.AFFIRMING


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts)))


def sign_aggregated_result(ear: Ear, signer: Signer) -> str:
    """Return the result as a compact JWT."""
    return sign_ear(ear, signer, Dialect.IETF_03, wire="jwt").decode("ascii")


def verify_aggregated_result(
    token: str | bytes,
    keys: Sequence[VerificationKey],
    *,
    now: datetime,
    name: str = "",
    trust_domain: str = "",
    max_age: timedelta = AGGREGATE_LIFETIME,
    leeway: timedelta = timedelta(seconds=30),
) -> AggregatedResult:
    """Return the result in a token that the holder of one of `keys` signed and that is in force.

    Does NOT decide whether it is good enough: look at status, tier, classes and `insecure`. It
    says what the signer knew when it was issued: later expulsions are in a later one.

    Args:
        token: compact JWT.
        keys: public result keys; never taken from the token.
        now: aware UTC.
        name: which Logical TEE is meant, where the caller knows.
        trust_domain: and of which trust domain.
        max_age: how long ago it may have been issued.
        leeway: how far the two clocks may be apart.

    Raises:
        SignatureError, FreshnessError: as `verify_ear`.
        DecodeError: not such a result, or one that says more than its own parts give.
        BindingError: about another Logical TEE.
    """
    ear = verify_ear(
        token,
        keys,
        now=now,
        max_age=max_age,
        leeway=leeway,
        profiles=(PROFILE_IETF_03,),
        require_key=False,
        require_exp=True,
    )
    result = _read(ear)
    for what, meant, found in (
        ("Logical TEE", name, result.name),
        ("trust domain", trust_domain, result.trust_domain),
    ):
        if meant and meant != found:
            raise BindingError(f"{_FORMAT}: about {what} {found!r}, not {meant!r}")
    return result


def _read(ear: Ear) -> AggregatedResult:
    whole = _claim(ear.extensions.get(_WHOLE), _WholeClaim, _WHOLE)
    if len(ear.submods) > MAX_CLASSES:
        raise DecodeError(f"more than {MAX_CLASSES} member classes", format=_FORMAT)
    classes = tuple(_class(label, submod) for label, submod in ear.submods.items())
    tiers = [each.tier for each in classes if each.tier is not None]
    tier = floor(tiers) if len(tiers) == len(classes) else None
    if _tier(ear.troth.tier) is not tier:
        raise DecodeError("its tier is not the floor of its member classes", format=_FORMAT)
    if sum(each.admitted + each.degraded for each in classes) != whole.size:
        raise DecodeError("its classes do not have as many members as it says", format=_FORMAT)
    if ear.keys or ear.expires_at is None:
        raise DecodeError("vouches for a key, as the result of one Attester does", format=_FORMAT)
    return AggregatedResult(
        name=whole.name,
        trust_domain=whole.trust_domain,
        owner=whole.owner,
        definition_digest=whole.definition,
        epochs=whole.epochs,
        membership_digest=whole.membership,
        size=whole.size,
        status=ear.overall_status,
        tier=tier,
        classes=classes,
        issued_at=ear.issued_at,
        expires_at=ear.expires_at,
        insecure=ear.insecure,
    )


def _class(label: str, submod: EarSubmod) -> ClassResult:
    claim = _claim(submod.extensions.get(_CLASS), _ClassClaim, f"{_CLASS} of {label!r:.64}")
    tier = _tier(submod.troth.tier)
    most = _status(admitted=claim.admitted, degraded=claim.degraded)
    if submod.status.is_better_than(most):
        raise DecodeError(
            f"class {label!r:.64} is {submod.status.word}, its counts give {most.word}",
            format=_FORMAT,
        )
    if (tier is None) is not (claim.admitted + claim.degraded == 0):
        raise DecodeError(f"class {label!r:.64}: a tier goes with members", format=_FORMAT)
    if tier is not None and tier < claim.min_tier:
        raise DecodeError(f"class {label!r:.64} is below its own weakest tier", format=_FORMAT)
    return ClassResult(
        name=label,
        status=submod.status,
        tier=tier,
        admitted=claim.admitted,
        degraded=claim.degraded,
        min_tier=claim.min_tier,
        schemes=claim.schemes,
        proxy_placement=claim.proxy_placement,
        policy_ids=tuple(submod.policy_ids),
        insecure=tuple(submod.troth.insecure),
    )


def _claim(value: object, kind: Any, name: str) -> Any:  # noqa: ANN401 - one of two structs
    if value is None:
        raise DecodeError(
            f"has no {name}: an Attestation Result, but not of a Logical TEE", format=_FORMAT
        )
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise DecodeError(f"{name}: {exc}", format=_FORMAT) from exc


def _tier(word: str) -> Tier | None:
    if not word:
        return None
    if word not in _TIERS:
        raise DecodeError(f"{word!r:.32} is no tier", format=_FORMAT)
    return _TIERS[word]
