# SPDX-License-Identifier: Apache-2.0
"""Workload Identity Tokens: who a key is, for callers behind hops that end TLS.

A WIT says of a key what an X.509-SVID says of one, and travels in a header. It is no bearer token:
it counts only beside a proof by that key, which is a Workload Proof Token or a signature over the
message (`workload_proof_token`, `request_signature`).

Source: draft-ietf-wimse-workload-creds-02 section 3; WIT-SVID (spiffe/spiffe, July 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.jose import DEFAULT_ALGORITHMS, check_times, sign_jwt, verify_jwt
from troth.formats.jwk import decode_jwk, required_members, thumbprint
from troth.formats.key_selection import select_keys
from troth.formats.keys import spki
from troth.formats.limits import Limits
from troth.formats.signer import Signer
from troth.formats.strict_json import decode_json_object
from troth.formats.verification_key import PublicKey, VerificationKey
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundleSource

__all__ = [
    "WIT_HEADER",
    "WIT_LIMITS",
    "WIT_TYPE",
    "IssuerKeys",
    "Wit",
    "WitAuthority",
    "bundle_keys",
    "proof_algorithm",
    "read_wit",
    "verify_wit",
]

WIT_TYPE: Final = "wit+jwt"
WIT_HEADER: Final = "workload-identity-token"

WIT_LIMITS: Final = Limits(max_bytes=8192, max_items=256, max_depth=8)
"""What decoding a WIT may cost."""

_FORMAT: Final = "Workload Identity Token"
_WIMSE: Final = "wimse://"
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_ID_OCTETS: Final = 16
_CURVE_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

IssuerKeys = Callable[[TrustDomain], Sequence[VerificationKey]]
"""Gives the keys that may say who is who in a trust domain; none means that it is not trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wit:
    """What a token says of a key. Only `verify_wit` gives one that was verified.

    Attributes:
        subject: the workload, a `spiffe:` or `wimse:` URI.
        trust_domain: that of the subject.
        key: the subject's key, bound to the one algorithm that the token names for it.
        expires_at: when it ends, UTC.
        token: its compact serialization.
        claims: all of its claims, read-only.
    """

    subject: str
    trust_domain: TrustDomain
    key: VerificationKey
    expires_at: datetime
    token: str = field(repr=False)
    claims: Mapping[str, object] = field(repr=False)

    @property
    def spki(self) -> bytes:
        """The key as DER SubjectPublicKeyInfo."""
        return spki(self.key)

    @property
    def key_digest(self) -> str:
        """The RFC 7638 thumbprint of the key, hex."""
        return thumbprint(self.key)


@dataclass(frozen=True, slots=True)
class WitAuthority:
    """One key that signs WITs of one trust domain; its `key_id` names it in the bundle."""

    trust_domain: TrustDomain
    signer: Signer

    def __post_init__(self) -> None:
        if self.signer.algorithm not in DEFAULT_ALGORITHMS or not self.signer.key_id:
            raise ApiMisuseError(
                "WITs are signed by a key with a kid, never with RS256 or its like"
            )

    def issue(
        self,
        spiffe_id: SpiffeId,
        key: PublicKey,
        algorithm: str,
        *,
        now: datetime,
        ttl: timedelta,
        not_after: datetime,
        random: Callable[[int], bytes],
    ) -> Wit:
        """Issue a token.

        Does NOT check that the subject may have one, nor that it holds the key: the caller has.

        Args:
            spiffe_id: the subject, with a path.
            key: its public key, which it has proved to hold.
            algorithm: the one algorithm that it signs with, "ES256".
            now: timezone-aware.
            ttl: wanted lifetime.
            not_after: end of the Attestation Result of the key, which it must not outlive.
            random: source of randomness.

        Raises:
            AuthorizationError: the subject is of another trust domain, or is the trust domain.
            FreshnessError: it would end before it begins.
            SignatureError: the key does not fit the algorithm.
        """
        if spiffe_id.trust_domain != self.trust_domain or not spiffe_id.path:
            raise AuthorizationError(f"{spiffe_id} is no workload of {self.trust_domain}")
        issued_at = int(now.timestamp())
        expires_at = int(min(now + ttl, not_after).timestamp())
        if expires_at <= issued_at:
            raise FreshnessError(f"{spiffe_id}: a WIT issued now would already have ended")
        claims = {
            "sub": str(spiffe_id),
            "iss": str(self.trust_domain.id),
            "iat": issued_at,
            "exp": expires_at,
            "jti": encode_base64url(random(_ID_OCTETS)),
            "cnf": {"jwk": {**required_members(key), "alg": algorithm}},
        }
        return _wit(claims, sign_jwt(claims, self.signer, header={"typ": WIT_TYPE}))


def proof_algorithm(key: PublicKey) -> str:
    """Return the algorithm that WITs name for a key: the one that `LocalSigner` takes for it."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVE_ALGORITHMS[key.curve.name]
    return "PS256" if isinstance(key, rsa.RSAPublicKey) else "EdDSA"


def bundle_keys(bundles: TrustBundleSource) -> IssuerKeys:
    """Return the issuers that the JWT authorities of trust bundles are."""

    def keys(trust_domain: TrustDomain) -> Sequence[VerificationKey]:
        bundle = bundles.bundle(trust_domain)
        if bundle is None or bundle.trust_domain != trust_domain:
            return ()
        return bundle.jwt_authorities

    return keys


def verify_wit(
    token: str, issuers: IssuerKeys, *, now: datetime, leeway: timedelta = timedelta(0)
) -> Wit:
    """Verify that an issuer of the subject's own trust domain says whose key this is.

    Does NOT show that who sent it holds the key: without a proof of that it means nothing.

    In this order: (1) the subject, not believed yet, names the issuers; (2) algorithm, `typ` and
    signature; (3) the claims, the key and its algorithm; (4) times.

    Raises:
        SignatureError: the trust domain is not trusted, or none of its keys signed this.
        DecodeError: not a WIT (UnsupportedError: another type of token).
        FreshnessError: ended, or not valid yet.
    """
    trust_domain = _trust_domain(_unverified_claims(token))
    keys = issuers(trust_domain)
    if not keys:
        raise SignatureError(
            f"{_FORMAT}: there are no issuers for trust domain {trust_domain}",
            remedy=f"federate with {trust_domain}, or refresh its bundle",
        )
    _, claims = verify_jwt(token, keys, typ=WIT_TYPE, format=_FORMAT, limits=WIT_LIMITS)
    wit = _wit(claims, token)
    check_times(claims, now=now, leeway=leeway, require_exp=True, format=_FORMAT)
    return wit


def read_wit(token: str) -> Wit:
    """Read a token from somebody who is believed anyway, such as one's own. Verifies NOTHING.

    Raises:
        DecodeError: not a WIT.
    """
    return _wit(_unverified_claims(token), token)


def _unverified_claims(token: str) -> dict[str, object]:
    if len(token) > WIT_LIMITS.max_bytes:
        raise LimitExceededError(format=_FORMAT, limit="max_bytes", value=WIT_LIMITS.max_bytes)
    parts = token.split(".", 3)
    if len(parts) != 3:
        raise DecodeError("does not have three parts separated by dots", format=_FORMAT)
    payload = decode_base64url(parts[1], format=_FORMAT)
    return decode_json_object(payload, format=_FORMAT, limits=WIT_LIMITS)


def _wit(claims: dict[str, object], token: str) -> Wit:
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise DecodeError("has no exp claim that is a time", format=_FORMAT)
    try:
        expires_at = datetime.fromtimestamp(expires, UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise DecodeError("exp is not a time in seconds", format=_FORMAT) from exc
    trust_domain = _trust_domain(claims)
    return Wit(
        subject=str(claims["sub"]),
        trust_domain=trust_domain,
        key=_confirmed_key(claims),
        expires_at=expires_at,
        token=token,
        claims=MappingProxyType(claims),
    )


def _trust_domain(claims: Mapping[str, object]) -> TrustDomain:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise DecodeError("has no sub claim that is text", format=_FORMAT)
    # Both schemes are read by the letter of SPIFFE-ID: one spelling only, and nothing to normalise.
    text = f"spiffe://{subject.removeprefix(_WIMSE)}" if subject.startswith(_WIMSE) else subject
    spiffe_id = SpiffeId.decode(text)
    if not spiffe_id.path:
        raise DecodeError(f"{subject} has no path: it names no workload", format=_FORMAT)
    return spiffe_id.trust_domain


def _confirmed_key(claims: Mapping[str, object]) -> VerificationKey:
    cnf = claims.get("cnf")
    jwk = cnf.get("jwk") if isinstance(cnf, dict) else None
    if not isinstance(jwk, dict):
        raise DecodeError("has no key in cnf.jwk", format=_FORMAT)
    if _PRIVATE & jwk.keys():
        raise DecodeError("cnf.jwk holds more than a public key", format=_FORMAT)
    algorithm = jwk.get("alg")
    if algorithm not in DEFAULT_ALGORITHMS:
        raise UnsupportedError(f"cnf.jwk.alg is {algorithm!r:.32}", format=_FORMAT)
    key = decode_jwk(jwk, format=f"{_FORMAT} cnf.jwk")
    select_keys([key], algorithm=str(algorithm), key_id=None, format=f"{_FORMAT} cnf.jwk")
    return key
