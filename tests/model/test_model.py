# SPDX-License-Identifier: Apache-2.0
"""I1 to I5 hold in every small world, and each broken rule is found out."""

from __future__ import annotations

from functools import cache

import pytest

from model.mutants import MUTANTS
from model.search import Report, TooLargeError, search
from model.world import Budget, Rules, World, joined
from model.worlds import SMALL
from troth.mesh.node import TRANSITIONS


@pytest.mark.parametrize("name", SMALL)
def test_the_invariants_hold_in_every_world(name: str) -> None:
    report = search(SMALL[name])
    assert not report.broke, str(report)
    assert report.linked, "no world had a connection, so nothing was proved about any"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_found_out_with_the_way_to_it(name: str) -> None:
    mutant = MUTANTS[name]
    report = search(mutant.start, mutant.rules, most=100_000)
    assert report.broke.startswith(mutant.breaks), str(report)
    assert report.trace
    assert str(report).splitlines()[1] == f"  1 {report.trace[0]}"
    assert not _healthy(mutant.start).broke


@cache
def _healthy(start: World) -> Report:
    return search(start, most=100_000)


def test_the_model_runs_the_products_table() -> None:
    assert Rules().table is TRANSITIONS


def test_a_feed_that_may_be_late_keeps_the_bound_that_much_longer() -> None:
    start = joined(Budget(ticks=2, operator=1))
    assert not search(start, Rules(late_ticks=1)).broke


def test_a_search_that_was_not_finished_proves_nothing() -> None:
    with pytest.raises(TooLargeError):
        search(World(left=Budget(joins=2)), most=100)
