# SPDX-License-Identifier: Apache-2.0
"""Logical TEEs in both databases."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from support.logical_tees import NOW, tee
from troth.adapters.registry import logical_tee_rows
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.errors import ConflictError, UnavailableError
from troth.mesh.logical_tee import Epoch

ACTOR = "operator 0"


def test_a_definition_is_kept_replaced_and_deleted(registry: SqlRegistry) -> None:
    assert registry.put_logical_tee(tee(), actor=ACTOR, at=NOW)
    assert not registry.put_logical_tee(tee(), actor=ACTOR, at=NOW)
    assert registry.put_logical_tee(tee(owner="insurer-b"), actor=ACTOR, at=NOW)
    assert registry.put_logical_tee(tee(name="another"), actor=ACTOR, at=NOW)
    assert registry.logical_tees() == (tee(name="another"), tee(owner="insurer-b"))
    registry.delete_logical_tee("another", actor=ACTOR, at=NOW)
    for ask in (registry.logical_tee, lambda name: _delete(registry, name)):
        with pytest.raises(ConflictError, match="there is no Logical TEE"):
            ask("another")
    kinds = [row.entry for row in registry.log_rows(after=0, limit=10)]
    assert len(kinds) == 4  # what changed nothing is not logged
    assert tee(owner="insurer-b").definition_digest in kinds[1]
    registry.verify_log()


def _delete(registry: SqlRegistry, name: str) -> None:
    registry.delete_logical_tee(name, actor=ACTOR, at=NOW)


def test_an_epoch_that_has_begun_keeps_its_meaning(registry: SqlRegistry) -> None:
    first = Epoch(id=1, not_before=NOW - timedelta(days=1), registry_epoch=5)
    second = Epoch(id=2, not_before=NOW, registry_epoch=6, overlap_seconds=60)
    planned = Epoch(id=3, not_before=NOW + timedelta(days=1), registry_epoch=7)
    registry.put_logical_tee(tee(epochs=(first, second, planned)), actor=ACTOR, at=NOW)
    change = msgspec.structs.replace
    for epochs in (
        (first, change(second, registry_epoch=5)),
        (first, change(second, not_before=NOW + timedelta(hours=1))),
        (first,),
    ):
        with pytest.raises(ConflictError, match="has begun"):
            registry.put_logical_tee(tee(epochs=epochs), actor=ACTOR, at=NOW)
    for epochs in (
        (first, second),  # what has not begun may go
        (first, change(second, overlap_seconds=600)),
        (second, change(planned, registry_epoch=9)),
    ):
        assert registry.put_logical_tee(tee(epochs=epochs), actor=ACTOR, at=NOW)


def test_there_is_a_limit(registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logical_tee_rows, "MAX_LOGICAL_TEES", 1)
    registry.put_logical_tee(tee(), actor=ACTOR, at=NOW)
    registry.put_logical_tee(tee(owner="insurer-b"), actor=ACTOR, at=NOW)
    with pytest.raises(UnavailableError, match="already"):
        registry.put_logical_tee(tee(name="another"), actor=ACTOR, at=NOW)
