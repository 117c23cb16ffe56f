# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime

import pytest

from troth.errors import ApiMisuseError, LimitExceededError
from troth.evidence.context import (
    MAX_COLLATERAL_BYTES,
    MAX_COLLATERAL_DOCUMENTS,
    NO_CONTEXT,
    Collateral,
    VerificationContext,
)


def test_collateral_does_not_change_with_what_it_was_made_of() -> None:
    documents = {"a": b"1"}
    collateral = Collateral(documents)
    documents["b"] = b"2"
    assert dict(collateral.documents) == {"a": b"1"}


def test_what_is_at_hand_stays_where_something_else_is_fetched_by_its_name() -> None:
    collateral = Collateral({"a": b"1"}).with_documents({"a": b"2", "b": b"3"})
    assert dict(collateral.documents) == {"a": b"1", "a (fetched)": b"2", "b": b"3"}
    assert collateral.with_documents({"a": b"1"}).documents == collateral.documents
    assert collateral.with_documents({}) is collateral


@pytest.mark.parametrize(
    "other", [{}, {"a": b"12"}, {"b": b"1"}, {"a": b"1", "b": b""}, {"a1": b""}, {"": b"a1"}]
)
def test_other_documents_have_another_digest(other: dict[str, bytes]) -> None:
    assert Collateral({"a": b"1"}).digest != Collateral(other).digest


def test_the_order_of_documents_does_not_matter() -> None:
    assert Collateral({"a": b"1", "b": b"2"}).digest == Collateral({"b": b"2", "a": b"1"}).digest


def test_the_number_and_size_of_documents_are_limited() -> None:
    most = {str(index): b"" for index in range(MAX_COLLATERAL_DOCUMENTS)}
    assert Collateral(most)
    with pytest.raises(LimitExceededError, match="MAX_COLLATERAL_DOCUMENTS"):
        Collateral(most | {"more": b""})
    assert Collateral({"a": bytes(MAX_COLLATERAL_BYTES)})
    with pytest.raises(LimitExceededError, match="MAX_COLLATERAL_BYTES"):
        Collateral({"a": bytes(MAX_COLLATERAL_BYTES), "b": b"1"})


def test_a_context_without_a_time_refuses_to_give_one() -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    assert VerificationContext(now=now).time == now
    for context in (NO_CONTEXT, VerificationContext(now=now.replace(tzinfo=None))):
        with pytest.raises(ApiMisuseError, match="clock reading"):
            _ = context.time
