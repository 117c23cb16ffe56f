# SPDX-License-Identifier: Apache-2.0
"""An Attestation Result that a peer brings along, read by a Relying Party.

The holder of the key that a result names may present it until it expires: the passport pattern
of RFC 9334 section 5.1. Whether the peer holds that key is shown elsewhere, by its certificate or
by an authenticator; whether the result is good enough is `peer_policy.authorize`'s question.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from troth.errors import BindingError, SignatureError, UnsupportedError
from troth.formats.ear.dialects import PROFILES
from troth.formats.ear.result import Ear
from troth.formats.ear.token import verify_ear
from troth.formats.keys import VerificationKey
from troth.mesh.peer_policy import CLOCK_SKEW, PeerResult, ResultModel
from troth.mesh.tier import Tier
from troth.mesh.verifier_delegation import VerifierDelegation

__all__ = [
    "MAX_KEPT_PASSPORTS",
    "Passport",
    "PassportReader",
    "TrustedVerifier",
    "read_passport",
    "result_of",
]

MAX_KEPT_PASSPORTS: Final = 4096
"""Genuine results kept, least recently used first to go; one takes about 6 KB."""

# Policy bounds the age; this bounds what is looked at.
_OLDEST = timedelta(days=31)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedVerifier:
    """A Verifier whose results this Relying Party believes.

    Attributes:
        name: our name for it; it is what policies list. A token cannot choose it.
        keys: its result keys, the current one and those it still uses.
        delegation: what its word is good for, where it speaks for others; the key is then the
            delegation's. See `verifier_delegation.py`.
    """

    name: str
    keys: Sequence[VerificationKey]
    delegation: VerifierDelegation | None = None

    @classmethod
    def delegated(cls, delegation: VerifierDelegation) -> TrustedVerifier:
        """Believe the Verifier of a delegation, within its bounds."""
        return cls(name=delegation.verifier, keys=[delegation.key], delegation=delegation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passport:
    """A result that a believed Verifier signed, about the expected key.

    Attributes:
        result: what a policy decides on.
        ear: the whole result.
        key_digest: SHA-256 of the one key that it is about.
        scheme: the Evidence's scheme, or "" where the result does not say.
        component: what was appraised, or "".
        layer: who vouches for it, or "".
    """

    result: PeerResult
    ear: Ear
    key_digest: bytes
    scheme: str = ""
    component: str = ""
    layer: str = ""


class PassportReader:
    """Reads passports on behalf of one Relying Party, and remembers those that were genuine.

    A peer shows one result until it gets the next, on every connection. Its signature is verified
    once; its dates and the key that it is about are looked at each time. Not for several threads.
    """

    def __init__(
        self, verifiers: Iterable[TrustedVerifier], *, size: int = MAX_KEPT_PASSPORTS
    ) -> None:
        """Believe `verifiers`; none means that every passport is refused."""
        self._verifiers = tuple(verifiers)
        self._size = size
        self._kept: OrderedDict[bytes, tuple[datetime, Passport]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def forget(self) -> None:
        """Verify every token anew."""
        self._kept.clear()

    def read(self, token: str | bytes, *, key_digest: bytes, now: datetime) -> Passport:
        """Verify a result and that it is about the key that the peer proves to hold.

        Args:
            token: EAR as JWT or CWT.
            key_digest: SHA-256 of that key's DER SubjectPublicKeyInfo.
            now: aware UTC.

        Raises:
            SignatureError: none of the Verifiers signed it.
            FreshnessError: expired, or not valid yet.
            BindingError: it is about another key, or about none or several.
            AuthorizationError: its Verifier may not say this; see `VerifierDelegation.bound`.
            DecodeError: not an EAR.
        """
        token = token.encode() if isinstance(token, str) else token
        digest = hashlib.sha256(token).digest()
        since, passport = self._kept.get(digest, (None, None))
        if since is None or passport is None or not since <= now < passport.result.expires:
            passport = _verify(token, self._verifiers, now)
            self._kept[digest] = (now, passport)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(digest)
        if not hmac.compare_digest(passport.key_digest, key_digest):
            raise BindingError("the Attestation Result is about another key than the peer proved")
        return passport


def read_passport(
    token: str | bytes, *, key_digest: bytes, verifiers: Iterable[TrustedVerifier], now: datetime
) -> Passport:
    """Read one passport, as `PassportReader.read` does."""
    return PassportReader(verifiers).read(token, key_digest=key_digest, now=now)


def _verify(token: bytes, verifiers: Iterable[TrustedVerifier], now: datetime) -> Passport:
    refusal: SignatureError | None = None
    for verifier in verifiers:
        try:
            ear = verify_ear(
                token,
                verifier.keys,
                now=now,
                max_age=_OLDEST,
                leeway=CLOCK_SKEW,
                profiles=PROFILES,
                require_key=True,
                require_exp=True,
            )
        except SignatureError as exc:
            refusal = exc
            continue
        result = result_of(ear, verifier=verifier.name, model=ResultModel.PASSPORT)
        if verifier.delegation is not None:
            result = verifier.delegation.bound(result, ear, now=now)
        return Passport(
            result=result,
            ear=ear,
            key_digest=hashlib.sha256(ear.keys[0]).digest(),
            scheme=ear.troth.scheme,
            component=ear.troth.component,
            layer=ear.troth.layer,
        )
    raise SignatureError(
        "no believed Verifier signed the Attestation Result",
        remedy="add the Verifier's name and result key to this side's configuration",
    ) from refusal


def result_of(ear: Ear, *, verifier: str, model: ResultModel) -> PeerResult:
    """Return what a policy decides on. A tier that is not named counts as the lowest.

    Raises:
        UnsupportedError: the result never ends.
    """
    if ear.expires_at is None:
        raise UnsupportedError("a result without expiry admits nobody", format="EAR")
    tiers = {tier.value: tier for tier in Tier}
    return PeerResult(
        model=model,
        status=ear.overall_status.word,
        tier=tiers.get(ear.troth.tier, Tier.REGISTERED),
        verifier=verifier,
        issued=ear.issued_at,
        # Seconds of leeway belong to the token's check, not to a connection's deadline.
        expires=ear.expires_at,
        insecure=ear.insecure,
    )
