# SPDX-License-Identifier: Apache-2.0
"""Endorsements in a registry are kept as the port promises, in SQLite and in PostgreSQL, and read
back after every change as they were."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from conformance.endorsement_repository import (
    DAY,
    NOW,
    EndorsementRepositoryConformance,
    good_corim,
    names,
    replacing,
    verified,
)
from support.postgres import PostgresServer
from support.signing import p256_signer
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.control_plane.server.persistent_endorsements import PersistentEndorsements
from troth.endorsement.repository import EndorsementRepository
from troth.errors import ConflictError, UnavailableError
from troth.formats.keys import VerificationKey

KEYS = tuple(VerificationKey(p256_signer(name).public_key) for name in ("maker", "somebody else"))


class Reopened(PersistentEndorsements):
    """Forgets everything before each question: what it knows, it has read back."""

    _last = NOW

    def list(self, *, now: datetime) -> Any:
        self.reload(now=self._latest(now))
        return super().list(now=now)

    def snapshot(self, now: datetime) -> Any:
        self.reload(now=self._latest(now))
        return super().snapshot(now)

    def provision(self, *arguments: Any, **options: Any) -> Any:
        self.reload(now=self._latest(options["now"]))
        return super().provision(*arguments, **options)

    def replace(self, *arguments: Any, **options: Any) -> Any:
        self.reload(now=self._latest(options["now"]))
        return super().replace(*arguments, **options)

    def withdraw(self, identifier: str, *, now: datetime) -> Any:
        self.reload(now=self._latest(now))
        return super().withdraw(identifier, now=now)

    def _latest(self, now: datetime) -> datetime:
        # Time does not go back, not even for who reads everything anew.
        self._last = max(self._last, now)
        return self._last


def opened(registry: SqlRegistry, kind: type[PersistentEndorsements] = Reopened) -> Any:
    return kind(registry, keys=KEYS, actor="test", now=NOW)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    made = SqlRegistry(sqlite_url(tmp_path / "registry.db"))
    yield made
    made.close()


class TestInSqlite(EndorsementRepositoryConformance):
    @pytest.fixture
    def repository(self, registry: SqlRegistry) -> EndorsementRepository:
        return opened(registry, PersistentEndorsements)


class TestReadBackFromSqlite(EndorsementRepositoryConformance):
    @pytest.fixture
    def repository(self, registry: SqlRegistry) -> EndorsementRepository:
        return opened(registry)


class TestReadBackFromPostgres(EndorsementRepositoryConformance):
    @pytest.fixture
    def repository(self, postgres: PostgresServer) -> Iterator[EndorsementRepository]:
        url = postgres.url_of_prepared(lambda url: SqlRegistry(url).close())
        made = SqlRegistry(url)
        yield opened(made)
        made.close()


def test_a_copy_that_was_signed_again_does_not_bring_a_withdrawn_corim_back(
    registry: SqlRegistry,
) -> None:
    kept = opened(registry)
    kept.provision(verified(good_corim()), now=NOW, source="a")
    again = kept.provision(verified(good_corim()), now=NOW, source="b")
    assert again.unchanged
    kept.withdraw("good", now=NOW)
    with pytest.raises(ConflictError, match="withdrawn"):
        kept.provision(verified(good_corim(), "somebody else"), now=NOW, source="c")
    assert names(kept) == set()


def test_a_tag_stays_replaced_when_the_replacement_is_withdrawn(registry: SqlRegistry) -> None:
    kept = opened(registry)
    kept.provision(verified(good_corim()), now=NOW, source="a")
    new = replacing(good_corim("next", firmware=b"bl3"), "good:state")
    kept.provision(verified(new), now=NOW, source="b")
    kept.withdraw("next", now=NOW)
    assert names(kept) == set()
    assert kept.list(now=NOW)[0].withdrawn == ("good/good:state",)


def test_what_was_withdrawn_of_a_corim_does_not_concern_new_content_of_its_id(
    registry: SqlRegistry,
) -> None:
    kept = opened(registry)
    kept.provision(good_corim(), now=NOW, source="a")
    kept.withdraw("good/good:state#0", now=NOW)
    kept.replace("good", good_corim(firmware=b"bl3"), now=NOW, source="b")
    assert names(kept) == {"bl3", "prot"}


def test_another_server_takes_over_what_was_withdrawn_and_came_back(registry: SqlRegistry) -> None:
    first, second = (opened(registry, PersistentEndorsements) for _ in range(2))
    first.provision(good_corim(), now=NOW, source="a")
    assert second._set.look(now=NOW)
    first.withdraw("good/good:state#0", now=NOW)
    assert second._set.look(now=NOW)
    assert names(second) == {"prot"}
    first.withdraw("good", now=NOW)
    first.provision(good_corim(), now=NOW + DAY, source="a", reinstate=True)
    assert second._set.look(now=NOW + DAY)
    assert names(second, NOW + DAY) == {"bl2", "prot"}
    assert second.snapshot(NOW + DAY).epoch == first.snapshot(NOW + DAY).epoch
    assert not second._set.look(now=NOW + DAY)


def test_the_end_of_an_overlap_is_the_end_after_a_restart_too(registry: SqlRegistry) -> None:
    kept = opened(registry)
    kept.provision(good_corim(), now=NOW, source="a")
    kept.replace(
        "good", good_corim("next", firmware=b"3"), now=NOW, source="b", overlap_until=NOW + DAY
    )
    assert names(opened(registry), NOW + DAY) == {"bl2", "3", "prot"}
    assert names(opened(registry), NOW + 2 * DAY) == {"3", "prot"}
    with pytest.raises(ConflictError, match="withdrawn"):
        opened(registry).provision(good_corim(), now=NOW + 2 * DAY, source="a")


def test_a_change_that_cannot_be_written_is_none(
    registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = opened(registry, PersistentEndorsements)
    kept.provision(good_corim(), now=NOW, source="a")
    epoch = kept.snapshot(NOW).epoch

    def fail(*_: object, **__: object) -> int:
        raise UnavailableError("disk full")

    with monkeypatch.context() as patched:
        for name in ("provision", "withdraw"):
            patched.setattr(registry, name, fail)
        with pytest.raises(UnavailableError):
            kept.provision(good_corim("next", firmware=b"3"), now=NOW, source="b")
        with pytest.raises(UnavailableError):
            kept.replace("good", good_corim("next", firmware=b"3"), now=NOW, source="b")
        with pytest.raises(UnavailableError):
            kept.withdraw("good", now=NOW)
    assert kept.snapshot(NOW).epoch == epoch
    assert names(kept) == {"bl2", "prot"}
