# SPDX-License-Identifier: Apache-2.0
"""JWT-SVIDs: issued, and validated by the letter.

A JWT-SVID is a bearer token: whoever has it is its subject, towards every audience in it, until it
ends. So it has few audiences and a short life, and where the caller can show a certificate instead
it had better do that.

Source: JWT-SVID sections 2 to 4 and appendix A (spiffe/spiffe, July 2026); RFC 7519.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    BindingError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.formats.base64url import decode_base64url
from troth.formats.jose import check_times, sign_jwt, verify_jwt
from troth.formats.limits import Limits
from troth.formats.signer import Signer
from troth.formats.strict_json import decode_json_object
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundleSource

__all__ = [
    "JWT_SVID_ALGORITHMS",
    "JWT_SVID_LIMITS",
    "MAX_AUDIENCES",
    "MAX_AUDIENCE_CHARACTERS",
    "JwtAuthority",
    "JwtSvid",
    "check_audience",
    "read_jwt_svid",
    "verify_jwt_svid",
]

JWT_SVID_ALGORITHMS: Final = frozenset(
    f"{family}{size}" for family in ("RS", "ES", "PS") for size in (256, 384, 512)
)
"""What a JWT-SVID may be signed with (section 2.1): EdDSA is not among them."""

JWT_SVID_LIMITS: Final = Limits(max_bytes=16_384, max_items=1024, max_depth=8)
"""What decoding a token may cost."""

MAX_AUDIENCES: Final = 16
MAX_AUDIENCE_CHARACTERS: Final = 1024

_FORMAT: Final = "JWT-SVID"
_HEADERS: Final = frozenset({"alg", "kid", "typ"})
_TYPES: Final = ("JWT", "JOSE")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSvid:
    """A token that says who its bearer is.

    Only `verify_jwt_svid` gives one that was verified; `read_jwt_svid` believes what it reads.

    Attributes:
        spiffe_id: the bearer.
        audience: whom it is made out to; one or more.
        expires_at: when it ends, UTC.
        issued_at: when it was issued, or None where it does not say.
        claims: all of its claims, read-only.
        token: its compact serialization.
    """

    spiffe_id: SpiffeId
    audience: Sequence[str]
    expires_at: datetime
    issued_at: datetime | None = None
    claims: Mapping[str, object] = field(repr=False)
    token: str = field(repr=False)


def check_audience(audience: Sequence[str]) -> tuple[str, ...]:
    """Return the audiences to issue for, each once.

    Raises:
        DecodeError: none, or one that is empty or cannot be shown.
        LimitExceededError: more or longer than the limits.
    """
    if not audience or not all(name and name.isprintable() for name in audience):
        raise DecodeError("an audience is missing, empty or not printable", format=_FORMAT)
    if len(audience) > MAX_AUDIENCES:
        raise LimitExceededError(format=_FORMAT, limit="max_audiences", value=MAX_AUDIENCES)
    if any(len(name) > MAX_AUDIENCE_CHARACTERS for name in audience):
        raise LimitExceededError(
            format=_FORMAT, limit="max_audience_characters", value=MAX_AUDIENCE_CHARACTERS
        )
    return tuple(dict.fromkeys(audience))


@dataclass(frozen=True, slots=True)
class JwtAuthority:
    """One key that signs JWT-SVIDs of one trust domain.

    Attributes:
        trust_domain: the trust domain.
        signer: holds the key; its `key_id` is the `kid` under which the bundle has it.

    Raises:
        ApiMisuseError: an algorithm that JWT-SVIDs do not know, or no `key_id`.
    """

    trust_domain: TrustDomain
    signer: Signer

    def __post_init__(self) -> None:
        if self.signer.algorithm not in JWT_SVID_ALGORITHMS:
            raise ApiMisuseError(f"a JWT-SVID is not signed with {self.signer.algorithm}")
        if not self.signer.key_id:
            raise ApiMisuseError("a key for JWT-SVIDs has a kid: the bundle names it by that")

    def issue(
        self,
        spiffe_id: SpiffeId,
        audience: Sequence[str],
        *,
        now: datetime,
        ttl: timedelta,
        not_after: datetime | None = None,
    ) -> JwtSvid:
        """Issue a token. Says nothing about whether its subject may have one: that is the caller's.

        Args:
            spiffe_id: the subject, with a path.
            audience: whom it is made out to.
            now: timezone-aware.
            ttl: wanted lifetime.
            not_after: what it must not outlive, such as an Attestation Result; or None.

        Raises:
            AuthorizationError: the subject is of another trust domain, or is the trust domain.
            DecodeError: see `check_audience`.
            FreshnessError: it would end before it begins.
        """
        if spiffe_id.trust_domain != self.trust_domain or not spiffe_id.path:
            raise AuthorizationError(f"{spiffe_id} is no workload of {self.trust_domain}")
        audience = check_audience(audience)
        issued_at = int(now.timestamp())
        end = now + ttl if not_after is None else min(now + ttl, not_after)
        expires_at = int(end.timestamp())
        if expires_at <= issued_at:
            raise FreshnessError(f"{spiffe_id}: a JWT-SVID issued now would already have ended")
        claims = {
            "sub": str(spiffe_id),
            "aud": list(audience),
            "iat": issued_at,
            "exp": expires_at,
        }
        return JwtSvid(
            spiffe_id=spiffe_id,
            audience=audience,
            expires_at=datetime.fromtimestamp(expires_at, UTC),
            issued_at=datetime.fromtimestamp(issued_at, UTC),
            claims=MappingProxyType(claims),
            token=sign_jwt(claims, self.signer),
        )


def verify_jwt_svid(
    token: str | bytes,
    bundles: TrustBundleSource,
    *,
    audience: str,
    now: datetime,
    leeway: timedelta = timedelta(0),
) -> JwtSvid:
    """Verify that an authority of the subject's own trust domain made this out to `audience`.

    Does NOT check that who sent it is the subject (it is a bearer token), nor that the subject may
    do anything.

    In this order: (1) the subject, not believed yet, names the bundle; (2) the signature under one
    of that bundle's JWT authorities; (3) the header; (4) the claims; (5) audience and times.

    Args:
        token: compact serialization.
        bundles: one bundle for each trust domain that is trusted.
        audience: our own name; never one that the caller chose for us.
        now: timezone-aware.
        leeway: how far the two clocks may be apart.

    Raises:
        SignatureError: the trust domain is not trusted, or none of its keys signed this.
        DecodeError: not a JWT-SVID by the letter (UnsupportedError: a header it must not have).
        BindingError: made out to others.
        FreshnessError: ended, or not valid yet.
    """
    if not audience:
        raise ApiMisuseError("without an audience of one's own every JWT-SVID would do")
    domain = _subject(_unverified_claims(token)).trust_domain  # (1)
    bundle = bundles.bundle(domain)
    if bundle is None or bundle.trust_domain != domain or not bundle.jwt_authorities:
        raise SignatureError(
            f"{_FORMAT}: there are no JWT authorities for trust domain {domain}",
            remedy=f"federate with {domain}, or refresh its bundle",
        )
    header, claims = verify_jwt(  # (2)
        token,
        bundle.jwt_authorities,
        algorithms=JWT_SVID_ALGORITHMS,
        format=_FORMAT,
        limits=JWT_SVID_LIMITS,
    )
    _check_header(header)  # (3)
    svid = _svid(claims, token)  # (4)
    if audience not in svid.audience:  # (5)
        raise BindingError(f"{_FORMAT}: made out to {', '.join(svid.audience)[:128]}, not to us")
    check_times(claims, now=now, leeway=leeway, require_exp=True, format=_FORMAT)
    return svid


def read_jwt_svid(token: str | bytes) -> JwtSvid:
    """Read a token from somebody who is believed anyway, such as the authority itself.

    Verifies NOTHING: neither signature nor audience nor times.

    Raises:
        DecodeError: not a JWT-SVID.
    """
    return _svid(_unverified_claims(token), token)


def _unverified_claims(token: str | bytes) -> dict[str, object]:
    if len(token) > JWT_SVID_LIMITS.max_bytes:
        raise LimitExceededError(format=_FORMAT, limit="max_bytes", value=JWT_SVID_LIMITS.max_bytes)
    parts = _text(token).split(".", 3)
    if len(parts) != 3:
        raise DecodeError("does not have three parts separated by dots", format=_FORMAT)
    payload = decode_base64url(parts[1], format=_FORMAT)
    return decode_json_object(payload, format=_FORMAT, limits=JWT_SVID_LIMITS)


def _text(token: str | bytes) -> str:
    if isinstance(token, str):
        return token
    try:
        return token.decode("ascii")
    except UnicodeDecodeError as exc:
        raise DecodeError("is not ASCII", format=_FORMAT, offset=exc.start) from exc


def _check_header(header: Mapping[str, object]) -> None:
    """Sections 2 and 2.3."""
    if unknown := sorted(header.keys() - _HEADERS):
        raise UnsupportedError(
            f"has the header parameter {unknown[0]!r:.64}; allowed are alg, kid and typ",
            format=_FORMAT,
        )
    if "typ" in header and header["typ"] not in _TYPES:
        raise UnsupportedError(f"typ {header['typ']!r:.64} is not JWT or JOSE", format=_FORMAT)


def _svid(claims: dict[str, object], token: str | bytes) -> JwtSvid:
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise DecodeError("has no exp claim", format=_FORMAT)
    return JwtSvid(
        spiffe_id=_subject(claims),
        audience=_audience(claims),
        expires_at=expires_at,
        issued_at=_moment(claims, "iat"),
        claims=MappingProxyType(claims),
        token=_text(token),
    )


def _subject(claims: Mapping[str, object]) -> SpiffeId:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise DecodeError("has no sub claim that is text", format=_FORMAT)
    spiffe_id = SpiffeId.decode(subject)
    if not spiffe_id.path:
        raise DecodeError(f"{spiffe_id} has no path: it names no workload", format=_FORMAT)
    return spiffe_id


def _audience(claims: Mapping[str, object]) -> tuple[str, ...]:
    """RFC 7519 section 4.1.3: one text, or an array of texts."""
    value = claims.get("aud")
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise DecodeError("has no aud claim with a value", format=_FORMAT)
    audience: list[str] = []
    for name in names:
        if not isinstance(name, str) or not name:
            raise DecodeError("aud holds something else than names", format=_FORMAT)
        audience.append(name)
    return tuple(audience)


def _moment(claims: Mapping[str, object], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DecodeError(f"{name} is not a number", format=_FORMAT)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise DecodeError(f"{name} is not a time in seconds", format=_FORMAT) from exc
