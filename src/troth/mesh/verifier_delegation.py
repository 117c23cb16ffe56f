# SPDX-License-Identifier: Apache-2.0
"""What a trust domain lets another Verifier judge, signed: a delegation.

A Verifier near the nodes it judges, at a plant or on a ship, keeps them working while the way to
the others is cut. Its key is then out there with it, so what the key is good for is written down:
which schemes, up to which tier, for which site, until when. A Relying Party that was given the
delegation holds each result against it.

A bound is a bound and no filter: a result that claims more than its Verifier may say is refused,
and not read as if it claimed less.

Form: a JWT (RFC 7519) of type "troth-delegation+jwt" with `sub` (the Verifier's name), `cnf.jwk`
(RFC 7800, its result key), `site`, `schemes` and `tier_ceiling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from troth.errors import ApiMisuseError, AuthorizationError, DecodeError, SignatureError
from troth.formats.jose import check_times, sign_jwt, verify_jwt
from troth.formats.jwk import decode_jwk, required_members, thumbprint
from troth.formats.limits import Limits
from troth.formats.signer import Signer
from troth.formats.verification_key import PublicKey, VerificationKey
from troth.mesh.tier import Tier

if TYPE_CHECKING:
    from troth.formats.ear.result import Ear
    from troth.mesh.peer_policy import PeerResult

__all__ = [
    "MAX_DELEGATION",
    "MAX_DELEGATION_BYTES",
    "VerifierDelegation",
    "verify_delegation",
]

MAX_DELEGATION: Final = timedelta(days=31)
"""The longest one; a week is usual, so that a stolen site is not believed for long."""

MAX_DELEGATION_BYTES: Final = 8192

_FORMAT = "delegation"
_TYPE = "troth-delegation+jwt"
_SKEW = timedelta(seconds=30)
_LIMITS = Limits(max_bytes=MAX_DELEGATION_BYTES, max_items=256, max_depth=6)
_MOST_SCHEMES, _LONGEST_NAME = 32, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierDelegation:
    """What one Verifier may judge. Whoever holds one that came by `verify_delegation` may use it.

    Attributes:
        verifier: its name, which results on its word carry in decisions and logs.
        key: its result key.
        site: where its results count; see `require_site`.
        schemes: the schemes of Evidence that it may judge; at least one.
        tier_ceiling: the best tier that it may name.
        not_before: aware UTC, whole seconds.
        not_after: likewise; the instant itself is too late.
    """

    verifier: str
    key: VerificationKey
    site: str
    schemes: tuple[str, ...]
    tier_ceiling: Tier
    not_before: datetime
    not_after: datetime

    def __post_init__(self) -> None:
        for name in ("verifier", "site"):
            value = getattr(self, name)
            if not value or len(value) > _LONGEST_NAME or not value.isprintable():
                raise ApiMisuseError(f"{name} needs 1 to {_LONGEST_NAME} printable characters")
        _public(self.key)
        if not 0 < len(set(self.schemes)) == len(self.schemes) <= _MOST_SCHEMES:
            raise ApiMisuseError(f"schemes needs 1 to {_MOST_SCHEMES} different names")
        if not timedelta(0) < self.not_after - self.not_before <= MAX_DELEGATION:
            raise ApiMisuseError(f"a delegation lasts up to {MAX_DELEGATION.days} days")

    def sign(self, signer: Signer, *, trust_domain: str) -> str:
        """Return the delegation as the trust domain gives it out.

        Args:
            signer: the key that Relying Parties believe for delegations.
            trust_domain: its name, for those who read it.
        """
        claims = {
            "iss": trust_domain,
            "sub": self.verifier,
            "iat": int(self.not_before.timestamp()),
            "nbf": int(self.not_before.timestamp()),
            "exp": int(self.not_after.timestamp()),
            "cnf": {"jwk": required_members(_public(self.key))},
            "site": self.site,
            "schemes": list(self.schemes),
            "tier_ceiling": self.tier_ceiling.value,
        }
        return sign_jwt(claims, signer, header={"typ": _TYPE})

    def require_site(self, site: str, *, elsewhere: bool = False) -> None:
        """Make sure that the results count for a Relying Party at `site`.

        Args:
            site: the Relying Party's own; "" where it is at none.
            elsewhere: it believes this Verifier although it is at another site.

        Raises:
            AuthorizationError: they do not.
        """
        if site != self.site and not elsewhere:
            where = f"at {site}" if site else "at no site"
            raise AuthorizationError(
                f"Verifier {self.verifier} judges for site {self.site}; this side is {where}",
                remedy="set the node's site, or believe this Verifier elsewhere by its setting",
            )

    def bound(self, result: PeerResult, ear: Ear, *, now: datetime) -> PeerResult:
        """Return `result`, which ends with the delegation at the latest.

        Args:
            result: what the Verifier's signed result says.
            ear: the result itself; the caller verified it with `key`.
            now: aware UTC.

        Raises:
            AuthorizationError: the Verifier may not say this, or not any more.
        """
        if not self.not_before - _SKEW <= result.issued < self.not_after or now >= self.not_after:
            raise AuthorizationError(
                f"the delegation of Verifier {self.verifier} is for"
                f" {self.not_before.isoformat()} until {self.not_after.isoformat()}",
                remedy="give this Relying Party the Verifier's new delegation",
            )
        judged = {ear.troth.scheme, *(each.troth.scheme for each in ear.submods.values())} - {""}
        outside = sorted(judged.difference(self.schemes))
        if outside or not judged:
            raise AuthorizationError(
                f"Verifier {self.verifier} judged Evidence of scheme"
                f" {', '.join(outside) or 'unnamed'}; it may judge {', '.join(self.schemes)}"
            )
        if result.tier > self.tier_ceiling:
            raise AuthorizationError(
                f"Verifier {self.verifier} names tier {result.tier}; it may name"
                f" {self.tier_ceiling} at best"
            )
        return replace(result, expires=min(result.expires, self.not_after))


def verify_delegation(
    token: str | bytes, keys: Sequence[VerificationKey], *, now: datetime
) -> VerifierDelegation:
    """Verify that one of `keys` signed a delegation that is in force.

    Args:
        token: as `VerifierDelegation.sign` made it.
        keys: of the trust domain, for delegations. A key that it delegates to is not one of them:
            there are no delegations of delegations.
        now: aware UTC.

    Raises:
        SignatureError: none of `keys` signed it, or it delegates to one of them.
        FreshnessError: not in force yet, or no longer.
        DecodeError: it is something else.
        LimitExceededError: longer than `MAX_DELEGATION_BYTES`.
    """
    _, claims = verify_jwt(token, keys, typ=_TYPE, limits=_LIMITS, format=_FORMAT)
    check_times(claims, now=now, leeway=_SKEW, require_exp=True, format=_FORMAT)
    try:
        found = VerifierDelegation(
            verifier=_text(claims, "sub"),
            key=_key(claims),
            site=_text(claims, "site"),
            schemes=_schemes(claims),
            tier_ceiling=_tier(claims),
            not_before=_moment(claims, "nbf"),
            not_after=_moment(claims, "exp"),
        )
    except ApiMisuseError as exc:
        raise DecodeError(str(exc), format=_FORMAT) from exc
    if thumbprint(found.key) in {thumbprint(key) for key in keys}:
        raise SignatureError("a delegation to the key that signs delegations bounds nothing")
    return found


def _public(key: VerificationKey) -> PublicKey:
    if isinstance(key.material, bytes):
        raise ApiMisuseError("results are not authenticated with a shared secret")
    return key.material


def _text(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise DecodeError(f"{name} must be text", format=_FORMAT)
    return value


def _key(claims: Mapping[str, object]) -> VerificationKey:
    confirmation = claims.get("cnf")
    jwk = confirmation.get("jwk") if isinstance(confirmation, dict) else None
    if not isinstance(jwk, dict):
        raise DecodeError("cnf.jwk must be a JWK", format=_FORMAT)
    return decode_jwk(jwk, format=_FORMAT)


def _schemes(claims: Mapping[str, object]) -> tuple[str, ...]:
    value = claims.get("schemes")
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise DecodeError("schemes must be a list of names", format=_FORMAT)
    return tuple(value)


def _tier(claims: Mapping[str, object]) -> Tier:
    word = _text(claims, "tier_ceiling")
    for tier in Tier:
        if tier.value == word:
            return tier
    raise DecodeError(f"tier_ceiling {word!r} is no tier", format=_FORMAT)


def _moment(claims: Mapping[str, object], name: str) -> datetime:
    value = claims.get(name)
    if not isinstance(value, int):
        raise DecodeError(f"{name} must be a whole number of seconds", format=_FORMAT)
    return datetime.fromtimestamp(value, UTC)
