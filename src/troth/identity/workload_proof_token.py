# SPDX-License-Identifier: Apache-2.0
"""Workload Proof Tokens: that who sends a WIT holds its key, now and for this receiver.

A WPT covers the WIT, the receiver's URI, and the tokens beside it. It covers neither method nor
query nor body: where these must hold too, sign the message (`request_signature`).

Source: draft-ietf-wimse-wpt-02 section 2 (header field `Workload-Proof-Token`; later texts of the
working group move it to `Authorization`, which is not read here).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from troth.errors import BindingError, DecodeError, FreshnessError
from troth.formats.base64url import encode_base64url
from troth.formats.jose import check_times, sign_jwt, verify_jwt
from troth.formats.limits import Limits
from troth.formats.signer import Signer
from troth.identity.replay_cache import ReplayCache
from troth.identity.workload_identity_token import Wit

__all__ = [
    "MAX_PROOF_LIFETIME",
    "WPT_HEADER",
    "WPT_LIMITS",
    "WPT_TYPE",
    "BoundTokens",
    "make_wpt",
    "token_hash",
    "verify_wpt",
]

WPT_TYPE: Final = "wpt+jwt"
WPT_HEADER: Final = "workload-proof-token"

WPT_LIMITS: Final = Limits(max_bytes=4096, max_items=128, max_depth=4)
"""What decoding a WPT may cost."""

MAX_PROOF_LIFETIME: Final = timedelta(minutes=10)
"""A proof that would be taken longer than this is refused."""

_FORMAT: Final = "Workload Proof Token"
_ID_OCTETS: Final = 16
_MAX_ID: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundTokens:
    """The tokens beside the WIT in one request, that a proof has to cover.

    Attributes:
        access: the access token of `Authorization: Bearer`, or "".
        transaction: `Txn-Token`, or "".
        others: header name in lower case to value: what goes into `oth`.
    """

    access: str = ""
    transaction: str = ""
    others: Mapping[str, str] | None = None


def token_hash(value: str) -> str:
    """Return the base64url SHA-256 of a token as it stands in its header field."""
    return encode_base64url(hashlib.sha256(value.strip(" \t").encode("ascii")).digest())


def make_wpt(
    wit: str,
    signer: Signer,
    *,
    audience: str,
    tokens: BoundTokens = BoundTokens(),
    now: datetime,
    lifetime: timedelta = timedelta(seconds=60),
    random: Callable[[int], bytes],
) -> str:
    """Make a proof for one request.

    Args:
        wit: the WIT that goes with it.
        signer: holds the WIT's key, under the algorithm that the WIT names.
        audience: the target URI without query and fragment, or what the receiver calls itself.
        tokens: what else is in the request.
        now: timezone-aware.
        lifetime: how long it is good for.
        random: source of randomness.
    """
    claims: dict[str, object] = {
        "aud": audience,
        "exp": int((now + lifetime).timestamp()),
        "jti": encode_base64url(random(_ID_OCTETS)),
        "wth": token_hash(wit),
    }
    if tokens.access:
        claims["ath"] = token_hash(tokens.access)
    if tokens.transaction:
        claims["tth"] = token_hash(tokens.transaction)
    if tokens.others:
        claims["oth"] = {name: token_hash(value) for name, value in tokens.others.items()}
    return sign_jwt(claims, signer, header={"typ": WPT_TYPE})


def verify_wpt(
    token: str,
    wit: Wit,
    *,
    audiences: Collection[str],
    tokens: BoundTokens,
    replay: ReplayCache,
    now: datetime,
    leeway: timedelta = timedelta(0),
) -> None:
    """Verify that the holder of a WIT's key made this for us, just now, and for these tokens.

    In this order: (1) algorithm, `typ` and signature under the WIT's key; (2) WIT; (3) audience;
    (4) times; (5) the other tokens, neither more nor fewer; (6) that it was not used before.

    Args:
        token: compact serialization.
        wit: verified.
        audiences: what we are called; from configuration, never from the request's `Host`.
        tokens: what else is in the request and must be covered.
        replay: remembers proofs.
        now: timezone-aware.
        leeway: how far the clocks may be apart.

    Raises:
        SignatureError: another key, or another algorithm than the WIT names for it.
        DecodeError: not a WPT.
        BindingError: it is about another WIT, for another receiver, or about other tokens.
        FreshnessError: ended, good for too long, or used before.
    """
    _, claims = verify_jwt(
        token,
        [wit.key],
        algorithms={wit.key.algorithm},
        typ=WPT_TYPE,
        format=_FORMAT,
        limits=WPT_LIMITS,
    )
    _check_hash(claims.get("wth"), wit.token, "wth", "the WIT")
    audience = claims.get("aud")
    if not isinstance(audience, str) or audience not in audiences:
        raise BindingError(f"{_FORMAT}: made out to {audience!r:.128}, not to us")
    check_times(claims, now=now, leeway=leeway, require_exp=True, format=_FORMAT)
    expires = claims["exp"]
    assert isinstance(expires, int | float)  # noqa: S101 - `check_times` saw to it
    if expires - now.timestamp() > (MAX_PROOF_LIFETIME + leeway).total_seconds():
        raise FreshnessError(f"{_FORMAT}: good for longer than {MAX_PROOF_LIFETIME}")
    _check_tokens(claims, tokens)
    name = claims.get("jti")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_ID:
        raise DecodeError(f"has no jti of 1 to {_MAX_ID} characters", format=_FORMAT)
    until = datetime.fromtimestamp(expires, UTC) + leeway
    replay.remember(f"wpt:{wit.key_digest}", name, until=until, now=now)


def _check_tokens(claims: Mapping[str, object], tokens: BoundTokens) -> None:
    for name, value, words in (
        ("ath", tokens.access, "the access token"),
        ("tth", tokens.transaction, "the Txn-Token"),
    ):
        if value:
            _check_hash(claims.get(name), value, name, words)
        elif name in claims:
            raise BindingError(f"{_FORMAT}: {name} is there, but {words} is not")
    others = tokens.others or {}
    hashes = claims.get("oth", {})
    if not isinstance(hashes, dict):
        raise DecodeError("oth is not an object", format=_FORMAT)
    if unknown := sorted(hashes.keys() - others.keys()):
        raise BindingError(
            f"{_FORMAT}: oth names {unknown[0]!r:.64}, which is not there or unknown"
        )
    for name, value in others.items():
        _check_hash(hashes.get(name), value, f"oth.{name}", name)


def _check_hash(claim: object, value: str, name: str, words: str) -> None:
    if claim is None:
        raise BindingError(f"{_FORMAT}: does not cover {words}: no {name}")
    if not isinstance(claim, str) or not claim.isascii():
        raise DecodeError(f"{name} is not a hash", format=_FORMAT)
    if not hmac.compare_digest(claim, token_hash(value)):
        raise BindingError(f"{_FORMAT}: {name} is not of {words} in this request")
