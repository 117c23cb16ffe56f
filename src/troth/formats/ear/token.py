# SPDX-License-Identifier: Apache-2.0
"""Signed EARs: JWT or CWT out, and a verified `Ear` in.

Source: draft-ietf-rats-ear-03 section 3; RFC 7519; RFC 8392.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from troth.errors import (
    BindingError,
    DecodeError,
    FreshnessError,
    SignatureError,
    UnsupportedError,
)
from troth.formats import cbor
from troth.formats.cose import KID, Sign1, sign1
from troth.formats.ear.codec import ear_claims, ear_from_claims
from troth.formats.ear.dialects import Dialect
from troth.formats.ear.result import Ear
from troth.formats.jose import DEFAULT_ALGORITHMS, sign_jwt, verify_jwt
from troth.formats.key_selection import select_keys
from troth.formats.limits import DEFAULT_LIMITS, Limits
from troth.formats.signer import Signer
from troth.formats.verification_key import VerificationKey

__all__ = ["sign_ear", "verify_ear"]

_FORMAT: Final = "EAR"
_CWT_TAG: Final = 61
# Names that an EAR's JWT header may give its kind: none, the plain one, RFC 9782's, and draft 03's.
_JWT_TYPES: Final = frozenset({None, "jwt", "eat+jwt", "eat-jwt"})


def sign_ear(ear: Ear, signer: Signer, dialect: Dialect, *, wire: Literal["jwt", "cwt"]) -> bytes:
    """Sign `ear` as a compact JWT in ASCII, or as a CWT: COSE_Sign1 under its tag.

    Raises:
        UnsupportedError: the dialect or the encoding cannot carry a claim.
    """
    if wire == "jwt":
        claims = ear_claims(ear, dialect, wire="json")
        named = {str(label): value for label, value in claims.items()}
        return sign_jwt(named, signer, header={"typ": dialect.jwt_type}).encode("ascii")
    protected: dict[int | str, object] = {KID: signer.key_id.encode()} if signer.key_id else {}
    payload = cbor.encode(ear_claims(ear, dialect, wire="cbor"))
    return sign1(payload, signer, protected=protected)


def verify_ear(
    token: str | bytes,
    keys: Sequence[VerificationKey],
    *,
    now: datetime,
    max_age: timedelta,
    leeway: timedelta,
    profiles: Collection[str],
    require_key: bool,
    require_exp: bool,
    nonce: bytes | None = None,
    audience: str | None = None,
    algorithms: Collection[str] = DEFAULT_ALGORITHMS,
    limits: Limits = DEFAULT_LIMITS,
) -> Ear:
    """Return the EAR in a token that a trusted Verifier signed and that is in force.

    In this order: (1) signature under one of `keys`, (2) the claims set and its own rules, (3)
    profile, (4) audience, (5) times, (6) nonce, (7) the key that it vouches for.

    Does NOT decide whether the result is good enough: look at `Ear.overall_status`, where "none"
    means deny. Nor does it check that the peer holds the key: that takes a proof of possession.

    Args:
        token: JWT as text or ASCII, or CWT (COSE_Sign1, with or without tags 18 and 61).
        keys: the Verifiers' public keys; never taken from the token.
        now: timezone-aware.
        max_age: how long ago the result may have been issued.
        leeway: how far the two clocks may be apart.
        profiles: accepted values of `eat_profile`; of `PROFILES`.
        require_key: refuse a result that does not vouch for exactly one key.
        require_exp: refuse a result that never ends.
        nonce: what the requester gave, if it gave one; must then be in the result.
        audience: our own name; a result made out to others is refused, even if this is None.
        algorithms: accepted signature algorithms.
        limits: what decoding may cost.

    Raises:
        SignatureError: not signed by any of `keys` with an accepted algorithm.
        DecodeError: not an EAR, or one that contradicts itself; UnsupportedError: its profile.
        FreshnessError: too old, expired, not valid yet, or the nonce is not ours.
        BindingError: made out to someone else, or does not vouch for exactly one key.
    """
    claims, wire = _verified_claims(token, keys, algorithms, limits)
    ear = ear_from_claims(claims, wire=wire)
    if ear.profile not in profiles:
        raise UnsupportedError(
            f"eat_profile {ear.profile!r} is not accepted here "
            f"(accepted: {', '.join(sorted(profiles)) or 'none'})",
            format=_FORMAT,
        )
    _check_audience(ear, audience)
    _check_times(ear, now=now, max_age=max_age, leeway=leeway, require_exp=require_exp)
    if nonce is not None and not hmac.compare_digest(nonce, ear.nonce or b""):
        raise FreshnessError(f"{_FORMAT}: the nonce is not the one that was given for this result")
    if require_key and len(ear.keys) != 1:
        raise BindingError(
            f"{_FORMAT}: vouches for {len(ear.keys)} keys, not for exactly one",
            remedy="have the Verifier put the attested key into the key attestation (akpub)",
        )
    return ear


def _verified_claims(
    token: str | bytes,
    keys: Sequence[VerificationKey],
    algorithms: Collection[str],
    limits: Limits,
) -> tuple[Mapping[str, object] | object, Literal["json", "cbor"]]:
    """Check the signature and return the claims set with its encoding."""
    # The first octet of COSE_Sign1 is an array of four or a tag; no JWT starts so.
    if isinstance(token, bytes) and token[:1] and token[0] >= 0x80:
        return _verified_cwt(token, keys, algorithms, limits), "cbor"
    header, claims = verify_jwt(token, keys, algorithms=algorithms, format=_FORMAT, limits=limits)
    typ = header.get("typ")
    kind = typ.lower().removeprefix("application/") if isinstance(typ, str) else typ
    if kind not in _JWT_TYPES:
        raise UnsupportedError(f"the JWT is of type {typ!r:.64}, not an EAR", format=_FORMAT)
    return claims, "json"


def _verified_cwt(
    token: bytes, keys: Sequence[VerificationKey], algorithms: Collection[str], limits: Limits
) -> object:
    value = cbor.decode(token, format=_FORMAT, limits=limits)
    tagging: Literal["required", "either"] = "either"
    if isinstance(value, cbor.Tag) and value.number == _CWT_TAG:
        value, tagging = value.value, "required"  # RFC 8392 section 6
    message = Sign1.from_value(value, format=_FORMAT, tagging=tagging)
    algorithm = message.algorithm
    if algorithm not in algorithms:
        raise SignatureError(f"{_FORMAT}: alg {algorithm or 'absent or unknown'} is not allowed")
    refusal: SignatureError | None = None
    for key in select_keys(keys, algorithm=algorithm, key_id=_key_id(message), format=_FORMAT):
        try:
            payload = message.verify(key, algorithms=algorithms)
        except SignatureError as exc:
            refusal = exc
            continue
        return cbor.decode(payload, format=_FORMAT, limits=limits)
    raise SignatureError(
        f"{_FORMAT}: the signature does not verify under any key that fits",
        remedy="check that the Verifier's current public key is the one configured here",
    ) from refusal


def _key_id(message: Sign1) -> str | None:
    """Return `kid` as JOSE would spell it."""
    if not message.key_id:
        return None
    try:
        return message.key_id.decode()
    except UnicodeDecodeError:
        return message.key_id.hex()


def _check_audience(ear: Ear, audience: str | None) -> None:
    """RFC 7519 section 4.1.3: who does not find itself in `aud` MUST refuse the token."""
    if "aud" not in ear.extensions:
        return
    named = ear.extensions["aud"]
    members = named if isinstance(named, list) else [named]
    if audience is None or audience not in members:
        raise BindingError(f"{_FORMAT}: made out to another audience ({named!r:.128})")


def _check_times(
    ear: Ear, *, now: datetime, max_age: timedelta, leeway: timedelta, require_exp: bool
) -> None:
    if ear.expires_at is None and require_exp:
        raise DecodeError("has no exp, which is required here", format=_FORMAT)
    if ear.issued_at > now + leeway:
        ahead = (ear.issued_at - now).total_seconds()
        raise FreshnessError(
            f"{_FORMAT}: issued {ahead:.0f} s in the future",
            remedy="compare the clocks of the Verifier and of this machine",
        )
    age = now - ear.issued_at
    if age > max_age + leeway:
        raise FreshnessError(
            f"{_FORMAT}: issued {age.total_seconds():.0f} s ago, "
            f"more than the {max_age.total_seconds():.0f} s allowed"
        )
    if ear.expires_at is not None and now >= ear.expires_at + leeway:
        late = (now - ear.expires_at).total_seconds()
        raise FreshnessError(f"{_FORMAT}: expired {late:.0f} s ago")
    if ear.not_before is not None and now < ear.not_before - leeway:
        raise FreshnessError(f"{_FORMAT}: not valid before {ear.not_before.isoformat()}")
