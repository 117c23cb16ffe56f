# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from troth.errors import ApiMisuseError
from troth.mesh.deadline import Deadline, connection_deadline, refresh_after

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("svid", "result", "age", "because"),
    [
        (1, 2, 3, "svid_expires"),
        (2, 1, 3, "result_expires"),
        (2, 3, 1, "max_connection_age"),
    ],
)
def test_a_connection_ends_with_the_first_fact_that_runs_out(
    svid: int, result: int, age: int, because: str
) -> None:
    deadline = connection_deadline(
        svid_not_after=NOW + svid * HOUR,
        result_expires=NOW + result * HOUR,
        attested_at=NOW,
        max_connection_age=age * HOUR,
    )
    assert deadline == Deadline(NOW + HOUR, because)


def test_an_svid_alone_lasts_as_long_as_the_svid() -> None:
    deadline = connection_deadline(
        svid_not_after=NOW + HOUR,
        result_expires=None,
        attested_at=None,
        max_connection_age=timedelta(0),
    )
    assert deadline == Deadline(NOW + HOUR, "svid_expires")


def test_the_very_instant_is_too_late() -> None:
    deadline = Deadline(NOW, "result_expires")
    assert not deadline.passed(NOW - timedelta(microseconds=1))
    assert deadline.passed(NOW)


def test_a_node_renews_after_a_third_of_the_lifetime() -> None:
    assert refresh_after(issued=NOW, expires=NOW + HOUR) == timedelta(minutes=20)
    assert refresh_after(issued=NOW, expires=NOW + HOUR, jitter=1.0) == timedelta(minutes=22)
    assert refresh_after(issued=NOW, expires=NOW + HOUR, jitter=-1.0) == timedelta(minutes=18)


def test_a_lifetime_that_is_over_before_it_begins_is_misuse() -> None:
    with pytest.raises(ApiMisuseError):
        refresh_after(issued=NOW, expires=NOW)
    with pytest.raises(ApiMisuseError, match="jitter"):
        refresh_after(issued=NOW, expires=NOW + HOUR, jitter=1.5)
