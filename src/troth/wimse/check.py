# SPDX-License-Identifier: Apache-2.0
"""What a service demands of the headers of a request, and what they proved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    BindingError,
    DecodeError,
    LimitExceededError,
)
from troth.formats.ar4si import TrustTier
from troth.formats.ear import PROFILES, Ear, verify_ear
from troth.formats.http_signature import HttpMessage
from troth.formats.verification_key import VerificationKey
from troth.identity.replay_cache import MemoryReplayCache, ReplayCache
from troth.identity.request_signature import (
    SIGNATURE_HEADER,
    SIGNATURE_INPUT_HEADER,
    verify_message,
)
from troth.identity.workload_identity_token import WIT_HEADER, IssuerKeys, Wit, verify_wit
from troth.identity.workload_proof_token import WPT_HEADER, BoundTokens, verify_wpt
from troth.verifier.result import AssuranceTier

__all__ = [
    "MAX_HEADERS",
    "RESULT_HEADER",
    "Proof",
    "RequestCheck",
    "ResultRequirement",
    "WimseCaller",
    "bound_tokens",
]

RESULT_HEADER: Final = "workload-attestation-result"
"""The header field with the EAR (JWT) for the WIT's key. The drafts name none; this one is ours."""

MAX_HEADERS: Final = 128
"""Header fields of a request that is checked."""

_FORMAT: Final = "request"
_BEARER: Final = "bearer "

Proof = Literal["wpt", "signature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRequirement:
    """What a caller's Attestation Result must be.

    Attributes:
        keys: the Verifiers whose results are believed; none admits nobody.
        max_age: how long ago it may have been issued.
        min_tier: the weakest acceptable tier.
        require_affirming: False also accepts the status "warning".
        allow_insecure: accept simulators and published test keys. For trials only.
    """

    keys: Sequence[VerificationKey]
    max_age: timedelta = timedelta(hours=1)
    min_tier: AssuranceTier = AssuranceTier.MEASURED
    require_affirming: bool = True
    allow_insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WimseCaller:
    """Who sent a request, and how that was proved.

    Attributes:
        subject: the workload, a URI.
        proof: "wpt" covers the receiver's URI and the tokens; "signature" also method, query and
            body.
        wit: its WIT.
        result: the result for its key; None where none was asked for.
    """

    subject: str
    proof: Proof
    wit: Wit = field(repr=False)
    result: Ear | None = field(default=None, repr=False)

    @property
    def tier(self) -> str:
        """The tier of the caller's platform, or "" without a result."""
        return self.result.troth.tier if self.result is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCheck:
    """Decides on requests by their headers. Nothing configured admits nobody.

    Attributes:
        issuers: the keys that sign WITs, by trust domain (`bundle_keys` gives them from bundles).
        origins: what this service is called, "https://orders.example": a proof is for one of these
            with the request's path after it.
        audiences: further names that a proof may be made out to, exactly. Who may be given such a
            proof for one path may use it once for another.
        callers: identities that are admitted, exactly, or "spiffe://TRUST-DOMAIN/*".
        results: what their results must be; None admits on identity alone.
        proofs: what is taken as a proof. Only "signature" covers method, query and body.
        bound: further header fields (lower case) that a proof must cover where they are there.
        replay: remembers proofs.
        leeway: how far the clocks may be apart.
    """

    issuers: IssuerKeys
    origins: Sequence[str]
    callers: Sequence[str]
    results: ResultRequirement | None
    audiences: Collection[str] = ()
    proofs: Collection[Proof] = ("wpt", "signature")
    bound: Sequence[str] = ()
    replay: ReplayCache = field(default_factory=MemoryReplayCache)
    leeway: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        if any(isinstance(names, str) for names in (self.origins, self.callers, self.audiences)):
            raise ApiMisuseError("origins, callers and audiences are sequences, not one text")
        if any(origin.endswith("/") for origin in self.origins):
            raise ApiMisuseError('an origin has no path: "https://orders.example", without "/"')

    def identify(self, message: HttpMessage, *, now: datetime) -> Wit:
        """Return the verified WIT of a request: whom it claims to come from. Proves nothing yet.

        Raises:
            DecodeError: no WIT, two, or too many headers; else as `verify_wit`.
            AuthorizationError: nobody who is admitted.
        """
        if len(message.headers) > MAX_HEADERS:
            raise LimitExceededError(format=_FORMAT, limit="max_headers", value=MAX_HEADERS)
        token = _needed(message, WIT_HEADER)
        wit = verify_wit(token, self.issuers, now=now, leeway=self.leeway)
        everybody = f"spiffe://{wit.trust_domain}/*"
        if wit.subject not in self.callers and not (
            wit.subject.startswith("spiffe://") and everybody in self.callers
        ):
            raise AuthorizationError(f"{wit.subject} is not among the callers of this service")
        return wit

    def proof_of(self, message: HttpMessage) -> Proof:
        """Return which proof a request has.

        Raises:
            DecodeError: none, or two of which one could be left unchecked.
            AuthorizationError: one that is not taken here.
        """
        wpt = message.header(WPT_HEADER) is not None
        signed = message.header(SIGNATURE_INPUT_HEADER) or message.header(SIGNATURE_HEADER)
        if wpt == bool(signed):
            raise DecodeError("needs one proof: a WPT or a signature", format=_FORMAT)
        proof: Proof = "wpt" if wpt else "signature"
        if proof not in self.proofs:
            raise AuthorizationError(f"this service does not take a {proof} as proof")
        return proof

    def prove(self, message: HttpMessage, wit: Wit, *, body: bytes, now: datetime) -> WimseCaller:
        """Verify the proof and the result of a request whose WIT `identify` gave.

        Args:
            message: the request.
            wit: from `identify`.
            body: the whole body; looked at where the proof is a signature.
            now: timezone-aware.

        Raises:
            VerificationError, DecodeError: the proof or the result does not hold.
            AuthorizationError: the result is not good enough.
        """
        proof = self.proof_of(message)
        result = self._result(message, wit, now)  # first: a proof is used up once it is verified
        path = message.target.partition("?")[0]
        audiences = {*self.audiences, *(origin + path for origin in self.origins)}
        if proof == "wpt":
            verify_wpt(
                _needed(message, WPT_HEADER),
                wit,
                audiences=audiences,
                tokens=bound_tokens(message, self.bound),
                replay=self.replay,
                now=now,
                leeway=self.leeway,
            )
        else:
            verify_message(
                message,
                wit,
                body=body,
                audiences=audiences,
                covered=(RESULT_HEADER, *self.bound),
                replay=self.replay,
                now=now,
                leeway=self.leeway,
            )
        return WimseCaller(subject=wit.subject, proof=proof, wit=wit, result=result)

    def check(self, message: HttpMessage, *, body: bytes = b"", now: datetime) -> WimseCaller:
        """Do `identify` and `prove` in one."""
        return self.prove(message, self.identify(message, now=now), body=body, now=now)

    def _result(self, message: HttpMessage, wit: Wit, now: datetime) -> Ear | None:
        wanted = self.results
        if wanted is None:
            return None
        token = message.header(RESULT_HEADER)
        if token is None:
            raise BindingError(f"{wit.subject}: the request carries no Attestation Result")
        ear = verify_ear(
            token,
            wanted.keys,
            now=now,
            max_age=wanted.max_age,
            leeway=self.leeway,
            profiles=PROFILES,
            require_key=True,
            require_exp=True,
        )
        if ear.keys != (wit.spki,):
            raise BindingError(
                f"{wit.subject}: the Attestation Result is for another key than the WIT's"
            )
        _check_good_enough(ear, wanted, wit.subject)
        return ear


def bound_tokens(message: HttpMessage, bound: Sequence[str]) -> BoundTokens:
    """Return what of a request a WPT has to cover.

    Raises:
        DecodeError: one of these fields is there twice.
    """
    credentials = message.header("authorization") or ""
    bearer = credentials[: len(_BEARER)].lower() == _BEARER
    others = {
        name: value
        for name in (RESULT_HEADER, *bound)
        if (value := message.header(name)) is not None
    }
    if credentials and not bearer:
        others["authorization"] = credentials
    return BoundTokens(
        access=credentials[len(_BEARER) :].strip() if bearer else "",
        transaction=message.header("txn-token") or "",
        others=others,
    )


def _check_good_enough(ear: Ear, wanted: ResultRequirement, subject: str) -> None:
    status = ear.overall_status
    good = (
        {TrustTier.AFFIRMING}
        if wanted.require_affirming
        else {
            TrustTier.AFFIRMING,
            TrustTier.WARNING,
        }
    )
    if status not in good:
        raise AuthorizationError(
            f"{subject}: the Attestation Result is {status.word}",
            result=ear,
            remedy="read the result's findings",
        )
    if ear.insecure and not wanted.allow_insecure:
        raise AuthorizationError(
            f"{subject}: the Attestation Result must not count in production: "
            f"{'; '.join(ear.insecure)}",
            result=ear,
        )
    tiers = {tier.value: tier for tier in AssuranceTier}
    tier = tiers.get(ear.troth.tier)
    if tier is None or tier < wanted.min_tier:
        raise AuthorizationError(
            f"{subject}: tier {ear.troth.tier[:32]!r} is below {wanted.min_tier.value}", result=ear
        )


def _needed(message: HttpMessage, name: str) -> str:
    value = message.header(name)
    if not value:
        raise DecodeError(f"has no {name} header", format=_FORMAT)
    return value
