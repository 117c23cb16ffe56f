# SPDX-License-Identifier: Apache-2.0
"""Background checks by several Verifiers: one after the other, or several who have to agree.

Two questions are kept apart. A Verifier that does not answer has said nothing about the peer, and
another may be asked. A Verifier that refuses has said something, and asking on until one is
content would let a peer choose its judge.

Source: RFC 9334 section 3.4 leaves several Verifiers to the deployment; the terms are those of
draft-deshpande-rats-multi-verifier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from troth.errors import ApiMisuseError, UnavailableError
from troth.formats.ar4si import TrustTier
from troth.formats.ear.result import Ear
from troth.mesh.tier import Tier
from troth.tls.judge import BackgroundCheck

__all__ = ["MAX_CHECKS", "FailoverCheck", "QuorumCheck", "agreed"]

MAX_CHECKS: Final = 16
"""Verifiers that one check may ask: each is a cost that a peer causes."""

_TIERS = {tier.value: tier for tier in Tier}
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverCheck:
    """Asks its checks in order, and takes the word of the first that answers.

    Attributes:
        name: what policies call all of them together.
        checks: in the order of asking; one or more.
        seconds: how long each may take.
    """

    name: str
    checks: Sequence[BackgroundCheck]
    seconds: float = 5.0

    def __post_init__(self) -> None:
        _require_some(self.checks)

    async def appraise(
        self, evidence: bytes, media_type: str, *, challenge: Callable[[int], bytes], spki: bytes
    ) -> Ear:
        """Appraise `evidence` by the first Verifier that is there.

        Raises:
            DecodeError, VerificationError: that one refuses the Evidence; no other is asked.
            UnavailableError: none is there.
        """
        absent: UnavailableError | None = None
        for check in self.checks:
            try:
                return await _asked(
                    check, self.seconds, evidence, media_type, challenge=challenge, spki=spki
                )
            except UnavailableError as exc:
                absent = exc
        raise UnavailableError(
            f"none of the {len(self.checks)} Verifiers of {self.name} answers",
            retry_after_seconds=absent.retry_after_seconds if absent else None,
        ) from absent


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumCheck:
    """Asks all of its checks at once, and says what `needed` of them say at least.

    Attributes:
        name: what policies call all of them together.
        checks: each by a Verifier of its own; the same one twice is no second opinion.
        needed: how many have to answer and agree; more than half.
        seconds: how long they may take.
    """

    name: str
    checks: Sequence[BackgroundCheck]
    needed: int
    seconds: float = 5.0

    def __post_init__(self) -> None:
        _require_some(self.checks)
        if len({check.name for check in self.checks}) < len(self.checks):
            raise ApiMisuseError("one Verifier is in a quorum twice")
        if not len(self.checks) / 2 < self.needed <= len(self.checks):
            raise ApiMisuseError(
                "a quorum is more than half of its Verifiers, and not more than all"
            )

    async def appraise(
        self, evidence: bytes, media_type: str, *, challenge: Callable[[int], bytes], spki: bytes
    ) -> Ear:
        """Appraise `evidence` by all Verifiers; see `agreed` for what comes of it.

        Raises:
            DecodeError, VerificationError: one of them refuses the Evidence.
            UnavailableError: too few answer.
        """
        answers = await asyncio.gather(
            *(
                _asked(check, self.seconds, evidence, media_type, challenge=challenge, spki=spki)
                for check in self.checks
            ),
            return_exceptions=True,
        )
        given: list[Ear] = []
        refusal: BaseException | None = None
        for answer in answers:
            if isinstance(answer, Ear):
                given.append(answer)
            elif not isinstance(answer, UnavailableError):
                refusal = refusal or answer
        if refusal is not None:
            raise refusal
        return agreed(given, needed=self.needed, name=self.name)


def agreed(answers: Sequence[Ear], *, needed: int, name: str = "the quorum") -> Ear:
    """Return the one of `answers` that says what at least `needed` of them say.

    One that contraindicates is returned whatever the others say. Else the answers are put in order,
    and the one in place `needed` is returned: that many are as good or better. Nothing is merged,
    so what is returned is what one Verifier signed or concluded.

    Raises:
        UnavailableError: there are fewer answers. That says nothing about the peer.
    """
    ranked = sorted(answers, key=_rank, reverse=True)
    if ranked and ranked[-1].overall_status is TrustTier.CONTRAINDICATED:
        return ranked[-1]
    if needed < 1 or len(ranked) < needed:
        raise UnavailableError(
            f"{len(ranked)} Verifiers of {name} answered; {max(needed, 1)} have to agree"
        )
    return ranked[needed - 1]


def _rank(ear: Ear) -> tuple[int, Tier, bool, datetime]:
    """Order answers by what they are good for; what is insecure or ends sooner is less."""
    status = ear.overall_status
    better = sum(status.is_better_than(other) for other in TrustTier)
    tier = _TIERS.get(ear.troth.tier, Tier.REGISTERED)
    return better, tier, not ear.insecure, ear.expires_at or _NEVER


def _require_some(checks: Sequence[BackgroundCheck]) -> None:
    if not 0 < len(checks) <= MAX_CHECKS:
        raise ApiMisuseError(f"1 to {MAX_CHECKS} checks, not {len(checks)}")


async def _asked(
    check: BackgroundCheck,
    seconds: float,
    evidence: bytes,
    media_type: str,
    *,
    challenge: Callable[[int], bytes],
    spki: bytes,
) -> Ear:
    try:
        async with asyncio.timeout(seconds):
            return await check.appraise(evidence, media_type, challenge=challenge, spki=spki)
    except TimeoutError as exc:
        raise UnavailableError(f"Verifier {check.name} took longer than {seconds} s") from exc
