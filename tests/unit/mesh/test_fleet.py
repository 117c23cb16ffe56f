# SPDX-License-Identifier: Apache-2.0
"""A small fleet on the rules that run: what an outage does, and what it must not do."""

import random

from benchmarks.fleet import Fleet, Outcome, simulate
from benchmarks.picture import Curve, draw

_NODES = 3000


def _chance() -> random.Random:
    return random.Random(7)  # noqa: S311 - a simulation, the same each time


def _run(**changes: float) -> Outcome:
    return simulate(Fleet(nodes=_NODES, minutes=110, **changes), _chance())  # type: ignore[arg-type]


def test_nobody_lapses_while_the_verifier_is_there() -> None:
    quiet = _run(outage=0.0)
    assert quiet.ever == 0.0
    assert max(quiet.demand) < max(_run(outage=900.0).demand) / 4


def test_an_outage_shorter_than_what_a_result_has_left_costs_nobody_a_result() -> None:
    assert _run(outage=600.0).ever == 0.0


def test_renewing_at_a_third_saves_most_of_whom_renewing_at_a_half_would_lose() -> None:
    third, half = _run(outage=1800.0), _run(outage=1800.0, fraction=0.5)
    assert 0 < third.ever < half.ever / 3


def test_a_fleet_comes_back_by_itself_after_an_outage_that_took_all_of_it() -> None:
    long = _run(outage=3600.0)
    assert long.ever > 0.95
    assert long.recovered is not None
    assert long.recovered < 30
    assert long.lapsed[-1] == 0.0


def test_a_picture_has_a_line_for_each_curve_and_escapes_its_words() -> None:
    picture = draw("a < b", [Curve("one", [0.0, 1.0]), Curve("two", [1.0, 0.5])], unit="%")
    assert picture.count('stroke-width="2"') == 2
    assert "a &lt; b" in picture
    assert "a < b" not in picture
