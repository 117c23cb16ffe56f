# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from troth.control_plane.server.rate_limit import MAX_TRACKED_ADDRESSES, Rate, RateLimiter

MANY = Rate(100, 100)


def limiter(together: Rate = MANY) -> RateLimiter:
    return RateLimiter(each=Rate(1, 2), together=together)


def test_a_burst_passes_and_the_next_one_waits_for_a_token() -> None:
    limit = limiter()
    assert [limit.take("a", monotonic=0) for _ in range(2)] == [0, 0]
    assert limit.take("a", monotonic=0) == pytest.approx(1)
    assert limit.take("a", monotonic=0.75) == pytest.approx(0.25)
    assert limit.take("a", monotonic=1.0) == 0
    assert limit.take("a", monotonic=1.0) > 0


def test_one_caller_does_not_use_up_anothers_tokens() -> None:
    limit = limiter()
    for _ in range(50):
        limit.take("a", monotonic=0)
    assert limit.take("b", monotonic=0) == 0


def test_all_together_are_limited_too() -> None:
    limit = limiter(together=Rate(1, 3))
    assert [limit.take(str(n), monotonic=0) for n in range(3)] == [0, 0, 0]
    assert limit.take("another", monotonic=0) == pytest.approx(1)


def test_idle_time_fills_no_more_than_the_burst() -> None:
    limit = limiter()
    limit.take("a", monotonic=0)
    assert [limit.take("a", monotonic=1e6) > 0 for _ in range(3)] == [False, False, True]


def test_memory_is_bounded_whoever_asks() -> None:
    limit = limiter(together=Rate(1e9, 10**9))
    for number in range(MAX_TRACKED_ADDRESSES + 10):
        limit.take(str(number), monotonic=0)
    assert len(limit._buckets) == MAX_TRACKED_ADDRESSES
