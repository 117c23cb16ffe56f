# SPDX-License-Identifier: Apache-2.0
"""Several Verifiers: who is asked, who decides, and what silence is worth."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ears import plain_ear
from troth.errors import ApiMisuseError, BindingError, TrothError, UnavailableError
from troth.formats.ar4si import TrustTier
from troth.formats.ear.result import Ear
from troth.formats.ear.troth_claims import TrothClaims
from troth.mesh.tier import Tier
from troth.tls.several_checks import MAX_CHECKS, FailoverCheck, QuorumCheck, agreed


def _ear(
    status: TrustTier = TrustTier.AFFIRMING, tier: Tier = Tier.MEASURED, later: int = 0
) -> Ear:
    plain = plain_ear()
    submods = {
        name: replace(submod, status=status, vector=None) for name, submod in plain.submods.items()
    }
    assert plain.expires_at
    return replace(
        plain,
        submods=submods,
        status=status,
        troth=TrothClaims(tier=tier.value),
        expires_at=plain.expires_at + timedelta(seconds=later),
    )


@dataclass
class Says:
    """A Verifier that answers as a test decides, and remembers that it was asked."""

    name: str
    answer: Ear | TrothError | None
    asked: int = field(default=0)

    async def appraise(
        self, evidence: bytes, media_type: str, *, challenge: Callable[[int], bytes], spki: bytes
    ) -> Ear:
        del evidence, media_type, challenge, spki
        self.asked += 1
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, TrothError):
            raise self.answer
        assert self.answer is not None
        return self.answer


AWAY = UnavailableError("away", retry_after_seconds=3.0)
REFUSED = BindingError("another key")


async def _ask(check: FailoverCheck | QuorumCheck) -> Ear:
    return await check.appraise(b"", "", challenge=bytes, spki=b"")


async def test_the_next_one_is_asked_where_the_first_is_away_or_silent() -> None:
    good = _ear()
    for silent in (AWAY, None):
        last = Says("c", good)
        check = FailoverCheck(
            name="any", checks=[Says("a", silent), Says("b", good), last], seconds=0.05
        )
        assert await _ask(check) is good
        assert last.asked == 0


async def test_a_refusal_is_not_taken_to_another_judge() -> None:
    second = Says("b", _ear())
    with pytest.raises(BindingError):
        await _ask(FailoverCheck(name="any", checks=[Says("a", REFUSED), second]))
    assert second.asked == 0


async def test_a_result_that_is_not_affirming_is_not_taken_to_another_judge() -> None:
    bad, second = _ear(TrustTier.CONTRAINDICATED), Says("b", _ear())
    assert await _ask(FailoverCheck(name="any", checks=[Says("a", bad), second])) is bad
    assert second.asked == 0


async def test_with_none_there_nothing_is_said_about_the_peer() -> None:
    with pytest.raises(UnavailableError) as absent:
        await _ask(FailoverCheck(name="any", checks=[Says("a", AWAY), Says("b", AWAY)]))
    assert absent.value.retry_after_seconds == 3.0


def _quorum(*answers: Ear | TrothError | None, needed: int = 2) -> QuorumCheck:
    checks = [Says(f"v{number}", answer) for number, answer in enumerate(answers)]
    return QuorumCheck(name="two", checks=checks, needed=needed, seconds=0.05)


async def test_two_of_three_are_enough_and_one_is_not() -> None:
    good = _ear()
    assert await _ask(_quorum(good, AWAY, good)) is good
    assert await _ask(_quorum(None, good, good)) is good
    with pytest.raises(UnavailableError, match="1 Verifiers of two answered; 2 have to agree"):
        await _ask(_quorum(good, AWAY, None))


async def test_what_only_one_says_is_not_what_two_say() -> None:
    high, low = _ear(tier=Tier.CONFIDENTIAL), _ear(tier=Tier.MEASURED)
    assert await _ask(_quorum(high, low, AWAY)) is low
    assert await _ask(_quorum(high, low, high)) is high
    warning = _ear(TrustTier.WARNING)
    assert await _ask(_quorum(high, warning, AWAY)) is warning


async def test_one_contraindication_or_refusal_outweighs_the_others() -> None:
    good, bad = _ear(), _ear(TrustTier.CONTRAINDICATED)
    assert await _ask(_quorum(good, good, bad)) is bad
    with pytest.raises(BindingError):
        await _ask(_quorum(good, good, REFUSED))


@pytest.mark.parametrize("needed", [0, 1, 4])
def test_a_quorum_of_less_than_half_or_more_than_all_cannot_be_made(needed: int) -> None:
    with pytest.raises(ApiMisuseError):
        _quorum(AWAY, AWAY, AWAY, needed=needed)


def test_the_same_verifier_twice_is_no_second_opinion() -> None:
    twice: Sequence[Says] = [Says("a", AWAY), Says("a", AWAY)]
    with pytest.raises(ApiMisuseError):
        QuorumCheck(name="two", checks=twice, needed=2)
    for checks in ([], [Says(str(number), AWAY) for number in range(MAX_CHECKS + 1)]):
        with pytest.raises(ApiMisuseError):
            FailoverCheck(name="any", checks=checks)


_ANSWERS = st.lists(
    st.builds(_ear, st.sampled_from(TrustTier), st.sampled_from(Tier), st.integers(0, 9)),
    max_size=5,
)


def _worth(answers: Sequence[Ear], needed: int) -> tuple[int, Tier]:
    """Say how much is claimed: nothing at all, or a status and a tier."""
    try:
        found = agreed(answers, needed=needed)
    except UnavailableError:
        return -1, Tier.REGISTERED
    words = [TrustTier.CONTRAINDICATED, TrustTier.NONE, TrustTier.WARNING, TrustTier.AFFIRMING]
    order = sorted(words, key=lambda word: sum(word.is_better_than(other) for other in words))
    return order.index(found.overall_status), Tier(found.troth.tier)


@given(_ANSWERS, st.integers(1, 5), st.integers(0, 4))
def test_an_answer_less_never_claims_more_unless_it_was_a_veto(
    answers: list[Ear], needed: int, left_out: int
) -> None:
    fewer = answers[:left_out] + answers[left_out + 1 :]
    vetoed = any(ear.overall_status is TrustTier.CONTRAINDICATED for ear in answers)
    if not vetoed:
        assert _worth(fewer, needed) <= _worth(answers, needed)


@given(_ANSWERS, st.integers(1, 5))
def test_what_is_agreed_is_what_that_many_say_at_least(answers: list[Ear], needed: int) -> None:
    status, tier = _worth(answers, needed)
    if status > 0:
        as_good = [ear for ear in answers if _worth([ear], 1) >= (status, tier)]
        assert len(as_good) >= needed
