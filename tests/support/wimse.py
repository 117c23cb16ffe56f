# SPDX-License-Identifier: Apache-2.0
"""A caller with a WIT and a result for its key, and a service that checks requests."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx

from support.ears import NOW, plain_ear
from support.signing import p256_signer
from troth.formats.ear import Dialect, TrothClaims, minimise, sign_ear
from troth.formats.http_signature import HttpMessage
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.workload_identity_token import Wit, WitAuthority
from troth.wimse import RequestCheck, ResultRequirement, WimseAuth, WimseCredentials

DOMAIN = TrustDomain("mesh.example")
WEB = SpiffeId.decode("spiffe://mesh.example/web")
ORIGIN = "https://orders.example"
ISSUER = p256_signer("issuer", key_id="issuer-1")
VERIFIER = p256_signer("verifier", key_id="verifier-1")
CALLER = p256_signer("caller")
TROTH = TrothClaims(scheme="psa", tier="measured", component="workload", layer="node_agent")
MINUTE = timedelta(minutes=1)


class FixedClock:
    """A clock that stands still."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


def issuers(trust_domain: TrustDomain) -> list[VerificationKey]:
    return [VerificationKey(ISSUER.public_key, ISSUER.key_id)] if trust_domain == DOMAIN else []


def wit_of(
    signer: LocalSigner = CALLER, *, issuer: LocalSigner = ISSUER, now: datetime = NOW, **known: Any
) -> Wit:
    values: dict[str, Any] = {"ttl": 5 * MINUTE, "not_after": now + 10 * MINUTE} | known
    return WitAuthority(DOMAIN, issuer).issue(
        WEB, signer.public_key, signer.algorithm, now=now, random=os.urandom, **values
    )


def result_for(
    signer: LocalSigner = CALLER,
    *,
    verifier: LocalSigner = VERIFIER,
    now: datetime = NOW,
    **changes: Any,
) -> str:
    ear = plain_ear(spki(signer.public_key), expires_at=now + 10 * MINUTE)
    ear = minimise(replace(ear, issued_at=now, troth=TROTH))
    return sign_ear(replace(ear, **changes), verifier, Dialect.IETF_03, wire="jwt").decode()


def credentials(now: datetime = NOW) -> WimseCredentials:
    return WimseCredentials(wit=wit_of(now=now).token, signer=CALLER, result=result_for(now=now))


def check(**changes: Any) -> RequestCheck:
    results = ResultRequirement(keys=[VerificationKey(VERIFIER.public_key, VERIFIER.key_id)])
    values: dict[str, Any] = {
        "issuers": issuers,
        "origins": [ORIGIN],
        "callers": ["spiffe://mesh.example/*"],
        "results": results,
    } | changes
    return RequestCheck(**values)


def request(
    proof: str = "wpt",
    *,
    method: str = "POST",
    url: str = f"{ORIGIN}/pay?sum=1",
    body: bytes = b"",
    shown: WimseCredentials | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> HttpMessage:
    """Return a request as a caller with these credentials sends it."""
    auth = WimseAuth(shown or credentials(), proof=proof, clock=FixedClock(), **options)  # type: ignore[arg-type]
    sent = httpx.Request(method, url, content=body, headers=headers)
    next(auth.auth_flow(sent))
    return HttpMessage(
        method=method,
        target=sent.url.raw_path.decode(),
        headers=[(name.decode(), value.decode()) for name, value in sent.headers.raw],
    )


def with_header(message: HttpMessage, name: str, value: str | None) -> HttpMessage:
    """Return the message with one header in place of another, or without it."""
    kept = [(key, held) for key, held in message.headers if key.lower() != name]
    return replace(message, headers=kept if value is None else [*kept, (name, value)])
