# SPDX-License-Identifier: Apache-2.0
"""Evidence in, signed Attestation Result out, with what the registry has to remember of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from troth.control_plane.result_keys import ResultKeys
from troth.control_plane.server.endorsement_set import EndorsementSet
from troth.errors import UnsupportedError
from troth.evidence import registry as schemes
from troth.evidence.challenge import derive_challenge
from troth.formats.ear import Dialect, minimise, sign_ear
from troth.mesh.join_messages import JOIN_LABEL
from troth.mesh.node_record import AppraisedEvidence, ResultSummary
from troth.verifier.background_check import BackgroundCheck
from troth.verifier.conclusion import Judgement
from troth.verifier.result import AttestationResult
from troth.verifier.verifier import signed

__all__ = ["Appraisal", "EvidenceAppraiser"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """One appraisal of a join.

    Attributes:
        result: what the Verifier concluded.
        remembered: for the registry.
        judgement: what the policies were asked and what each concluded; None where another
            Verifier appraised.
        ear: the whole result as a signed JWT, for the node itself.
        minimised: without claims and findings, for the certificate.
    """

    result: AttestationResult
    remembered: AppraisedEvidence
    judgement: Judgement | None = field(repr=False)
    ear: str = field(repr=False)
    minimised: str = field(repr=False)


class EvidenceAppraiser:
    """The Verifier with its key, on the Endorsements in force. Its methods block; any thread.

    Args:
        verifier: appraises; its endorsements, if it has any here, are `endorsements`.
        endorsements: for the epoch.
        keys: sign results.
    """

    def __init__(
        self, verifier: BackgroundCheck, endorsements: EndorsementSet, keys: ResultKeys
    ) -> None:
        self._verifier = verifier
        self._endorsements = endorsements
        self._keys = keys

    def appraise(
        self, evidence: bytes, *, media_type: str, spki: bytes, nonce: bytes, now: datetime
    ) -> Appraisal:
        """Verify and appraise Evidence that has to answer `nonce` for the key `spki`.

        Raises:
            DecodeError: not Evidence that we take (UnsupportedError, LimitExceededError).
            VerificationError: not authentic, or not about this key and nonce.
            UnsupportedError: the result has no end, so that nothing can be issued on it.
        """
        epoch = self._endorsements.epoch  # before the set: see EndorsementSet
        scheme = schemes.scheme(
            schemes.by_media_type(media_type, schemes=self._verifier.schemes),
            schemes=self._verifier.schemes,
        )
        challenge = derive_challenge(JOIN_LABEL, spki, nonce, scheme.challenge_size)
        judgements: list[Judgement] = []
        result = self._verifier.appraise(
            evidence,
            now=now,
            challenge=challenge,
            scheme=scheme.name,
            media_type=media_type,
            nonce=nonce,
            key=spki,
            observe=judgements.append,
        )
        if result.expires_at is None:
            raise UnsupportedError(
                f"results of tier {result.tier} never end here", format="Attestation Result"
            )
        small = minimise(result.to_ear())
        signer = self._keys.signer(now)
        minimised = sign_ear(small, signer, Dialect.IETF_03, wire="jwt").decode("ascii")
        return Appraisal(
            result=result,
            judgement=judgements[-1] if judgements else None,
            remembered=AppraisedEvidence(
                scheme=result.scheme,
                media_type=media_type,
                evidence=evidence,
                challenge=challenge,
                spki=spki,
                boot_session=result.boot_session,
                result=_summary(result, result.expires_at, epoch),
                ear=minimised,
            ),
            ear=signed(result, signer, dialect=Dialect.IETF_03).decode("ascii"),
            minimised=minimised,
        )

    def check(self, evidence: bytes, *, media_type: str, challenge: bytes, now: datetime) -> bytes:
        """Appraise Evidence for a member that asks about a peer; return a signed, minimised EAR.

        It names no key: only who made the challenge knows what that covers.

        Raises:
            DecodeError: not Evidence that we take.
            VerificationError: not authentic, or it does not carry the challenge.
        """
        result = self._verifier.appraise(
            evidence, now=now, challenge=challenge, media_type=media_type
        )
        return sign_ear(
            minimise(result.to_ear()), self._keys.signer(now), Dialect.IETF_03, wire="jwt"
        )

    def again(self, remembered: AppraisedEvidence, *, now: datetime) -> AttestationResult:
        """Appraise recorded Evidence under what is in force now.

        The result is not signed: it says whether the old one still stands, and does not renew it.

        Raises:
            VerificationError: its trust anchor is gone.
            DecodeError: it is not taken any more.
        """
        return self._verifier.appraise(
            remembered.evidence,
            now=now,
            challenge=remembered.challenge,
            scheme=remembered.scheme,
            media_type=remembered.media_type,
            key=remembered.spki,
            received=remembered.result.issued,
        )


def _summary(result: AttestationResult, expires: datetime, epoch: int) -> ResultSummary:
    matched = {each for submod in result.submods.values() for each in submod.matched}
    return ResultSummary(
        status=result.status.word,
        tier=result.tier,
        verifier=result.verifier.name,
        issued=result.issued_at,
        expires=expires,
        policy_id=result.policy_id,
        policy_digest=result.policy_digest,
        epoch=epoch,
        insecure=tuple(result.insecure),
        reference_values=tuple(sorted(matched)),
    )
