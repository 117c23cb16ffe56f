# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from troth.errors import ApiMisuseError
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier, floor


def test_tiers_compare_by_strength_not_by_alphabet() -> None:
    assert Tier.REGISTERED < Tier.IDENTIFIED < Tier.MEASURED < Tier.CONFIDENTIAL
    assert Tier.CONFIDENTIAL >= Tier.CONFIDENTIAL > Tier.MEASURED
    assert Tier.IDENTIFIED <= Tier.IDENTIFIED


def test_several_platforms_are_as_strong_as_the_weakest() -> None:
    assert floor([Tier.CONFIDENTIAL, Tier.IDENTIFIED, Tier.MEASURED]) is Tier.IDENTIFIED


def test_nothing_appraised_has_no_tier() -> None:
    with pytest.raises(ApiMisuseError):
        floor([])


def test_every_tier_has_lifetimes_and_an_svid_does_not_outlive_its_result() -> None:
    assert set(DEFAULT_LIFETIMES) == set(Tier)
    assert all(each.svid <= each.result for each in DEFAULT_LIFETIMES.values())


def test_a_lifetime_must_be_positive() -> None:
    with pytest.raises(ApiMisuseError, match="connection"):
        replace(DEFAULT_LIFETIMES[Tier.MEASURED], connection=timedelta(0))
