# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import ApiMisuseError
from troth.mesh.renewal import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, retry_seconds

_JITTER = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), st.none() | st.floats(0, 1e6), _JITTER)
def test_nobody_comes_back_before_the_server_has_room(
    attempt: int, told: float | None, jitter: float
) -> None:
    wait = retry_seconds(attempt, told=told, jitter=jitter)
    assert (told or 0) + FIRST_RETRY_SECONDS / 2 <= wait <= (told or 0) + LAST_RETRY_SECONDS


@given(st.integers(1, 100), _JITTER)
def test_attempts_move_apart_up_to_a_bound(attempt: int, jitter: float) -> None:
    this = retry_seconds(attempt, told=None, jitter=jitter)
    following = retry_seconds(attempt + 1, told=None, jitter=jitter)
    assert this <= following <= LAST_RETRY_SECONDS


def test_those_who_are_told_the_same_do_not_return_together() -> None:
    waits = {retry_seconds(5, told=1.0, jitter=number / 100) for number in range(100)}
    assert max(waits) - min(waits) > 3


@pytest.mark.parametrize(("attempt", "jitter"), [(0, 0.5), (1, 1.0), (1, -0.1)])
def test_a_wait_for_nothing_is_a_mistake(attempt: int, jitter: float) -> None:
    with pytest.raises(ApiMisuseError):
        retry_seconds(attempt, told=None, jitter=jitter)
