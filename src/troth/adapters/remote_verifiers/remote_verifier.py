# SPDX-License-Identifier: Apache-2.0
"""A Verifier elsewhere, in place of ours.

The order of an appraisal, whose numbers the code wears:

1. the Evidence is decoded here too, and carries exactly the challenge: some Verifiers do not look;
2. the simulator is recognised;
3. the other Verifier appraises; nothing that it says is believed before
4. its EAR verifies under a configured key, is fresh, and is about this submission;
5. its words become ours (`remote_result`).

Keys are configured. They are asked for at the service only where that is configured as well, over
TLS to an authority that is configured: whoever could forge the key could forge the verdict.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Final, Protocol

from troth.adapters.remote_verifiers.remote_result import Answered, remote_result
from troth.clock import Clock, SystemClock
from troth.errors import (
    FreshnessError,
    SignatureError,
    TrothError,
    UnavailableError,
    UnsupportedError,
)
from troth.evidence import registry
from troth.evidence.claimed import claimed
from troth.evidence.evidence import Scheme
from troth.evidence.freshness import check_freshness
from troth.evidence.insecure import refuse_simulator
from troth.formats.ear import PROFILES, Ear, verify_ear
from troth.formats.verification_key import VerificationKey
from troth.verifier.background_check import AUTO
from troth.verifier.conclusion import Judgement
from troth.verifier.failure import failure_result
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import AssuranceTier, AttestationResult, VerifierIdentity

__all__ = ["AttestationService", "RemoteVerifier", "Submission"]

_LOG = logging.getLogger(__name__)
MAX_RESULT_AGE: Final = timedelta(minutes=5)
"""How long ago the other Verifier may have signed: it did so while we waited."""
LEEWAY: Final = timedelta(seconds=60)
"""How far its clock and ours may be apart."""
_ASK_AGAIN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is sent to another Verifier."""

    scheme: Scheme[Any]
    evidence: bytes = field(repr=False)
    media_type: str
    challenge: bytes


class AttestationService(Protocol):
    """One service's interface. Methods block; any thread may call them.

    Attributes:
        name: for messages, such as "Veraison at https://…".
        schemes: the schemes whose Evidence it can be sent, of those that can be read here.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - documented above

    @property
    def schemes(self) -> Mapping[str, registry.Loader]: ...  # noqa: D102 - documented above

    def submit(self, submission: Submission) -> str:
        """Return the EAR, not verified.

        Raises:
            UnsupportedError, SignatureError: it refuses the Evidence.
            UnavailableError: it does not answer, or could not tell.
            TrothError: what it answers is not what its interface says.
        """
        ...

    def keys(self) -> list[VerificationKey]:
        """Return the keys that it says its results verify with.

        Raises:
            UnavailableError, DecodeError: they cannot be had.
        """
        ...

    def close(self) -> None:
        """Close all connections."""


class RemoteVerifier:
    """Has Evidence appraised by a service; a `BackgroundCheck`. Close it.

    Args:
        service: the other Verifier.
        keys: that its results verify with; may be empty where `discover` is set.
        discover: ask the service for its keys, also when an unknown one signs. Only over TLS that
            is pinned.
        identity: who signs our results.
        lifetimes: how long a result of each tier lasts at most.
        lifetime_without_exp: as for `remote_result`.
        allow_simulator: take Evidence of the platform simulator.
        clock: time.
    """

    def __init__(
        self,
        service: AttestationService,
        *,
        keys: Sequence[VerificationKey],
        discover: bool,
        identity: VerifierIdentity,
        lifetimes: Mapping[AssuranceTier, timedelta],
        lifetime_without_exp: timedelta | None = None,
        allow_simulator: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._service, self._keys, self._discover = service, tuple(keys), discover
        self._identity, self._lifetimes = identity, lifetimes
        self._without_exp, self._allow_simulator = lifetime_without_exp, allow_simulator
        self._clock = clock or SystemClock()
        self._policy = AppraisalPolicy.default()
        self._lock = Lock()
        self._discovered: tuple[VerificationKey, ...] = ()
        self._ask_at = 0.0

    @property
    def schemes(self) -> Mapping[str, registry.Loader]:
        """The schemes that it takes."""
        return self._service.schemes

    def close(self) -> None:
        """Close all connections."""
        self._service.close()

    def failure(
        self, error: TrothError, *, scheme: str, now: datetime, nonce: bytes | None = None
    ) -> AttestationResult:
        """Return the result of an appraisal that did not come about."""
        return failure_result(
            error,
            scheme=scheme,
            now=now,
            verifier=self._identity,
            policy=self._policy,
            nonce=nonce,
        )

    def appraise(
        self,
        evidence: bytes,
        *,
        now: datetime,
        challenge: bytes,
        scheme: str = AUTO,
        media_type: str = "",
        nonce: bytes | None = None,
        key: bytes | None = None,
        received: datetime | None = None,
        observe: Callable[[Judgement], None] | None = None,
    ) -> AttestationResult:
        """Return what the other Verifier says of this Evidence, for our key.

        Raises:
            DecodeError, VerificationError: the Evidence is refused.
            UnavailableError: the other Verifier could not tell, or what it says cannot be
                believed: nothing follows from that about the Evidence.
        """
        del received, observe  # the other Verifier judges now, by policies of its own
        found = self._scheme(evidence, scheme, media_type)
        decoded = found.decode(evidence, media_type=media_type)  # (1)
        said = claimed(found, decoded)
        check_freshness(
            said.challenge,
            challenge,
            claim=said.challenge_claim,
            zero_pad_to=said.padded_to,
        )
        insecure = refuse_simulator(said.implementation_id, allowed=self._allow_simulator)  # (2)
        submission = Submission(
            scheme=found,
            evidence=evidence,
            media_type=media_type or found.media_types[0],
            challenge=challenge,
        )
        with self._doubted(UnsupportedError, SignatureError):  # (3)
            token = self._service.submit(submission)
        with self._doubted():  # (4)
            ear = self._believed(token, challenge, now)
        return remote_result(  # (5)
            Answered(
                scheme=found,
                claimed=said,
                challenge=challenge,
                ear=ear,
                source=self._service.name,
            ),
            now=now,
            verifier=self._identity,
            lifetimes=self._lifetimes,
            lifetime_without_exp=self._without_exp,
            nonce=nonce,
            key=key,
            insecure=insecure,
        )

    def _scheme(self, evidence: bytes, name: str, media_type: str) -> Scheme[Any]:
        schemes = self._service.schemes
        if name == AUTO and media_type:
            name = registry.by_media_type(media_type, schemes=schemes)
        elif name == AUTO:
            name = registry.detect(evidence, schemes=schemes)
        return registry.scheme(name, schemes=schemes)

    @contextmanager
    def _doubted(self, *verdicts: type[TrothError]) -> Iterator[None]:
        """Turn errors that are about the other Verifier, and not about Evidence, into one."""
        try:
            yield
        except UnavailableError:
            raise
        except verdicts:
            raise
        except TrothError as exc:
            _LOG.error("%s cannot be believed: %s", self._service.name, exc)
            raise UnavailableError(
                f"{self._service.name} cannot be believed: {exc}",
                remedy="compare its address, authority and result keys with verifier.remote",
            ) from exc

    def _believed(self, token: str, challenge: bytes, now: datetime) -> Ear:
        ear = self._verified(token, now)
        # Signed over the very connection that we asked on; a nonce in it says so once more.
        if ear.nonce is not None and not hmac.compare_digest(ear.nonce, challenge):
            raise FreshnessError("the result is about another challenge")
        return ear

    def _verified(self, token: str, now: datetime) -> Ear:
        try:
            return _verify(token, self._current_keys(), now)
        except SignatureError:
            if not self._discover:
                raise
        # It may have another key since.
        return _verify(token, self._asked_keys(), now)

    def _current_keys(self) -> Sequence[VerificationKey]:
        if self._keys or not self._discover:
            return self._keys
        return self._discovered or self._asked_keys()

    def _asked_keys(self) -> Sequence[VerificationKey]:
        with self._lock:
            if self._clock.monotonic() < self._ask_at:
                return (*self._keys, *self._discovered)
            self._ask_at = self._clock.monotonic() + _ASK_AGAIN_SECONDS
            self._discovered = tuple(self._service.keys())
            _LOG.info("%s has %d result keys", self._service.name, len(self._discovered))
            return (*self._keys, *self._discovered)


def _verify(token: str, keys: Sequence[VerificationKey], now: datetime) -> Ear:
    if not keys:
        raise UnavailableError("no key is known that results of the other Verifier verify with")
    return verify_ear(
        token,
        keys,
        now=now,
        max_age=MAX_RESULT_AGE,
        leeway=LEEWAY,
        profiles=PROFILES,
        require_key=False,
        require_exp=False,
    )
