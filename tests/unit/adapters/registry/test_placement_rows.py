# SPDX-License-Identifier: Apache-2.0
"""Placements in both databases."""

from __future__ import annotations

from typing import Any

import pytest

from support.logical_tees import NOW, tee
from troth.adapters.registry import placement_rows
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.errors import ConflictError, UnavailableError
from troth.mesh.placement import Placement, Unit

ACTOR = "operator 0"
UNIT = Unit(name="api.service", text="[Service]\nExecStart=/bin/true\n")


def placement(**changes: Any) -> Placement:
    values: dict[str, Any] = {
        "name": "api",
        "ltee": "claims-processing",
        "member_class": "realm",
        "units": (UNIT,),
        "secrets": ("token", "key"),
    }
    return Placement(**(values | changes))


def put(registry: SqlRegistry, **changes: Any) -> bool:
    return registry.put_placement(placement(**changes), actor=ACTOR, at=NOW)


def secret(registry: SqlRegistry, name: str, value: bytes, placement: str = "api") -> None:
    registry.put_secret(placement, name, value, actor=ACTOR, at=NOW)


def test_a_placement_is_kept_with_its_secrets_which_no_log_has(registry: SqlRegistry) -> None:
    registry.put_logical_tee(tee(), actor=ACTOR, at=NOW)
    assert put(registry)
    assert not put(registry)
    secret(registry, "token", b"first")
    secret(registry, "token", b"hush")
    secret(registry, "key", b"\x00\xff")
    assert registry.secrets_of("api") == {"token": b"hush", "key": b"\x00\xff"}
    assert put(registry, secrets=("token",))
    assert registry.secrets_of("api") == {"token": b"hush"}
    assert registry.placements() == (placement(secrets=("token",)),)
    assert not any("hush" in row.entry for row in registry.log_rows(after=0, limit=20))
    registry.delete_placement("api", actor=ACTOR, at=NOW)
    assert (registry.placements(), registry.secrets_of("api")) == ((), {})
    registry.verify_log()


def test_it_needs_a_class_that_exists(registry: SqlRegistry) -> None:
    with pytest.raises(ConflictError, match="no class"):
        put(registry)
    registry.put_logical_tee(tee(), actor=ACTOR, at=NOW)
    with pytest.raises(ConflictError, match="no class"):
        put(registry, member_class="other")
    assert put(registry)
    with pytest.raises(ConflictError, match="names no secret"):
        secret(registry, "other", b"x")
    with pytest.raises(ConflictError, match="no placement"):
        secret(registry, "token", b"x", placement="other")
    with pytest.raises(ConflictError, match="no placement"):
        registry.delete_placement("other", actor=ACTOR, at=NOW)


def test_there_is_a_limit(registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement_rows, "MAX_PLACEMENTS", 1)
    registry.put_logical_tee(tee(), actor=ACTOR, at=NOW)
    put(registry)
    put(registry, secrets=())
    with pytest.raises(UnavailableError, match="already"):
        put(registry, name="another")
