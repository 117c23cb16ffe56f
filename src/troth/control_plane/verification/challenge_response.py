# SPDX-License-Identifier: Apache-2.0
"""Challenge-response verification: a session, one piece of Evidence, one signed result.

The order of a submission, whose numbers the code wears:

1. the session was opened here and is not over;
2. the media type is one that a scheme travels under;
3. the session has not been used;
4. verify and appraise against the session's nonce, as it is: what the scheme pads, it pads;
5. sign; what could not be appraised gets a result as well;
6. enter the session into the book: from here on it is used.

The result names no key: that the nonce covers one, nobody has said. `troth server` issues nothing
on such a result.

Source: veraison/docs, api/challenge-response; veraison/services (6b88102).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from troth.clock import Clock
from troth.control_plane.result_keys import ResultKeys
from troth.control_plane.server.worker import Worker
from troth.control_plane.verification.messages import EvidenceMessage, SessionMessage
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.control_plane.verification.sections import ChallengeResponseSection
from troth.control_plane.verification.session import Session, SessionTokens
from troth.errors import ConflictError, DecodeError, TrothError, UnsupportedError
from troth.evidence import registry
from troth.formats import cmw
from troth.formats.base64url import encode_base64url
from troth.formats.ear import Dialect, sign_ear
from troth.formats.media_type import parse_media_type
from troth.verifier.background_check import BackgroundCheck
from troth.verifier.result import AttestationResult
from troth.verifier.session_book import Outcome, SessionBook
from troth.verifier.veraison import veraison_ear

__all__ = ["ChallengeResponse", "SessionUsedError"]

_CMW_TYPES: Final = frozenset(
    {
        "application/cmw",
        "application/cmw+cbor",
        "application/cmw+json",
        "application/vnd.veraison.cmw",
        "application/vnd.veraison.cmw+cbor",
        "application/vnd.veraison.cmw+json",
    }
)
_MAX_KNOWN_TYPES: Final = 256
"""Spellings of media types whose scheme is remembered."""


class SessionUsedError(ConflictError):
    """The session has its result already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Submission:
    session: Session
    evidence: bytes
    media_type: str
    scheme: str
    dialect: Dialect
    submitted_type: str
    submitted: bytes


class ChallengeResponse:
    """Opens sessions and appraises what is submitted to them.

    Args:
        verifier: appraises.
        keys: sign results.
        tokens, book: sessions.
        worker: threads for appraisal.
        section: the configuration.
        refresh: takes over Endorsements that another process changed; called before each appraisal.
        clock: time.
        metrics: counts.
    """

    def __init__(
        self,
        *,
        verifier: BackgroundCheck,
        keys: ResultKeys,
        tokens: SessionTokens,
        book: SessionBook,
        worker: Worker,
        section: ChallengeResponseSection,
        refresh: Callable[[datetime], None],
        clock: Clock,
        metrics: VerificationMetrics,
    ) -> None:
        self._verifier, self._keys, self._tokens = verifier, keys, tokens
        self._book, self._worker, self._refresh = book, worker, refresh
        self._clock, self._metrics = clock, metrics
        self._annotate = section.annotate
        self._schemes: dict[str, str] = {}
        self.media_types: Sequence[str] = tuple(
            media_type for load in verifier.schemes.values() for media_type in load().media_types
        )
        self._accept = tuple(self.media_types)

    def open(self, *, nonce: bytes | None, size: int) -> tuple[Session, SessionMessage]:
        """Return a new session; see `SessionTokens.open`."""
        session = self._tokens.open(nonce=nonce, size=size, now=self._clock.now())
        self._metrics.sessions.inc()
        return session, self._message(session)

    async def look(self, identifier: str) -> SessionMessage:
        """Return a session as it is.

        Raises:
            DecodeError: no session has such an id.
            FreshnessError: there is none, or it is over.
            ConflictError: it was used, and its outcome is not kept.
        """
        session = self.session(identifier)
        return self._message(session, await self._worker.run(self._book.find, session.mark))

    async def give_up(self, identifier: str) -> None:
        """Forget a session: it cannot be used, nor its outcome be read, from now on.

        Raises:
            DecodeError, FreshnessError, ConflictError: as `look`.
        """
        session = self.session(identifier)
        await self._worker.run(self._give_up, session)

    def _give_up(self, session: Session) -> None:
        if self._book.find(session.mark) is not None:
            self._book.forget(session.mark)
            return
        # Two that give up one session at once have both got what they wanted.
        with suppress(ConflictError):
            self._book.enter(session.mark, None, expires=session.expires)

    def session(self, identifier: str) -> Session:
        """Return the session of this id, used or not.

        Raises:
            DecodeError, FreshnessError: as `look`.
        """
        return self._tokens.recognise(identifier, now=self._clock.now())  # (1)

    async def submit(
        self, session: Session, evidence: bytes, *, media_type: str, dialect: Dialect
    ) -> SessionMessage:
        """Appraise Evidence and return the session with its result.

        Bad Evidence gets a result too: contraindicated, or none where it was not understood.

        Args:
            session: from `session`.
            evidence: as received.
            media_type: that it came under.
            dialect: of the result.

        Raises:
            DecodeError: a broken wrapper; not a media type.
            UnsupportedError: a media type that no scheme travels under.
            SessionUsedError: it has its result already.
            ConflictError: it was given up.
            UnavailableError: too much waits; the session is as it was.
        """
        inner, inner_type = self._unwrapped(evidence, media_type)
        submission = _Submission(
            session=session,
            evidence=inner,
            media_type=inner_type,
            scheme=self._scheme(inner_type),  # (2)
            dialect=dialect,
            submitted_type=media_type,
            submitted=evidence,
        )
        outcome = await self._worker.run(self._appraise, submission)
        return self._message(session, outcome)

    def _appraise(self, submission: _Submission) -> Outcome:
        session, started = submission.session, self._clock.monotonic()
        if self._book.find(session.mark) is not None:  # (3)
            raise SessionUsedError("the session has its result", remedy="open a new session")
        now = self._clock.now()
        result = self._result(submission, now)  # (4)
        outcome = Outcome(
            media_type=submission.submitted_type,
            evidence=submission.submitted,
            result=self._signed(result, submission.dialect, now),  # (5)
        )
        try:
            self._book.enter(session.mark, outcome, expires=session.expires)  # (6)
        except ConflictError as exc:
            raise SessionUsedError(str(exc), remedy=exc.remedy) from exc
        self._metrics.verified(result.scheme, result.status.word, self._clock.monotonic() - started)
        return outcome

    def _result(self, submission: _Submission, now: datetime) -> AttestationResult:
        nonce = submission.session.nonce
        try:
            self._refresh(now)
            return self._verifier.appraise(
                submission.evidence,
                now=now,
                challenge=nonce,
                scheme=submission.scheme,
                media_type=submission.media_type,
                nonce=nonce,
            )
        except TrothError as exc:
            return self._verifier.failure(exc, scheme=submission.scheme, now=now, nonce=nonce)

    def _signed(self, result: AttestationResult, dialect: Dialect, now: datetime) -> str:
        if dialect is Dialect.VERAISON:
            ear = veraison_ear(result, annotate=self._annotate)
        else:
            ear = result.to_ear(annotate=self._annotate)
        return sign_ear(ear, self._keys.signer(now), dialect, wire="jwt").decode("ascii")

    def _unwrapped(self, evidence: bytes, media_type: str) -> tuple[bytes, str]:
        """Take Evidence out of a CMW record; a collection is a scheme's to take apart."""
        if "cmw" not in media_type or parse_media_type(media_type).name not in _CMW_TYPES:
            return evidence, media_type
        record = cmw.decode(evidence)
        if not isinstance(record, cmw.CmwRecord):
            return evidence, media_type
        if record.indicator not in (cmw.Indicator.UNSTATED, cmw.Indicator.EVIDENCE):
            raise DecodeError("the CMW record holds no Evidence", format="CMW")
        if not record.media_type:
            raise UnsupportedError(
                f"Content-Format {record.type} is none that we know", format="CMW"
            )
        return record.value, record.media_type

    def _scheme(self, media_type: str) -> str:
        known = self._schemes.get(media_type)
        if known is None:
            known = registry.by_media_type(media_type, schemes=self._verifier.schemes)
            if len(self._schemes) < _MAX_KNOWN_TYPES:
                self._schemes[media_type] = known
        return known

    def _message(self, session: Session, outcome: Outcome | None = None) -> SessionMessage:
        nonce = encode_base64url(session.nonce)
        if outcome is None:
            return SessionMessage(
                status="waiting", nonce=nonce, expiry=session.expires, accept=self._accept
            )
        return SessionMessage(
            status="complete",
            nonce=nonce,
            expiry=session.expires,
            accept=self._accept,
            evidence=EvidenceMessage(
                type=outcome.media_type,
                value=base64.b64encode(outcome.evidence).decode("ascii"),
            ),
            result=outcome.result,
        )
