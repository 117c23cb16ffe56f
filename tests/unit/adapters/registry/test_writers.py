# SPDX-License-Identifier: Apache-2.0
"""Several servers on one database: one writer at a time, readers that see one state."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.members import NOW, join, new_node, svid_for
from support.postgres import PostgresServer, Store
from troth.adapters.registry import database
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.errors import AuthorizationError, ConflictError, TrothError, UnavailableError
from troth.mesh.admission import Step
from troth.mesh.node import Actor, Reason, Trigger
from troth.mesh.registry import Change, ProvisionedCorim, Withdrawal

REATTEST = Step(trigger=Trigger.REATTEST, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR)


def test_joins_moves_and_withdrawals_of_two_servers_leave_one_whole_log(store: Store) -> None:
    servers = [SqlRegistry(store.url), SqlRegistry(store.url)]

    def work(number: int) -> list[type[TrothError]]:
        registry, failures = servers[number % 2], []
        for turn in range(3):
            name = f"n{number}-{turn}"
            try:
                node = registry.apply(
                    join(new_node(name), require_epoch=registry.epoch), issue=svid_for
                )
                move = Change(
                    node_id=node.id,
                    generation=node.generation,
                    steps=(REATTEST,),
                    actor="operator 0",
                    at=NOW,
                )
                registry.apply(move)
                registry.withdraw(
                    Withdrawal(actor="operator 0", at=NOW, parts=(name,)),
                    [],
                    require_epoch=registry.epoch,
                    require_sequence=registry.snapshot().sequence,
                )
            except ConflictError as exc:
                failures.append(type(exc))
        return failures

    with ThreadPoolExecutor(4) as threads:
        # Conflicts are allowed, nothing else is: a deadlock would be UnavailableError.
        for failures in threads.map(work, range(4)):
            assert set(failures) <= {ConflictError}
    head = servers[0].verify_log()
    assert servers[1].verify_log(head=head) == head
    events = servers[0].events(after=0, limit=1000)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    for server in servers:
        server.close()


def test_one_key_goes_to_one_node_whoever_asks_first(store: Store) -> None:
    servers = [SqlRegistry(store.url), SqlRegistry(store.url)]
    barrier = threading.Barrier(2)

    def work(number: int) -> bool:
        barrier.wait()
        try:
            servers[number].apply(
                join(new_node(f"n{number}")), issue=lambda node: svid_for(node, key="same")
            )
        except AuthorizationError:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(work, range(2))) == [False, True]
    assert len(servers[0].nodes()) == 1
    for server in servers:
        server.close()


def test_servers_that_start_together_make_one_schema(empty_store: Store) -> None:
    barrier = threading.Barrier(3)

    def start(_: int) -> SqlRegistry:
        barrier.wait()
        return SqlRegistry(empty_store.url)

    with ThreadPoolExecutor(3) as threads:
        opened = list(threads.map(start, range(3)))
    assert opened[0].provision(corim()) == 1
    assert [registry.epoch for registry in opened] == [1, 1, 1]
    for registry in opened:
        registry.close()


def test_a_reader_sees_one_state_while_another_server_writes(store: Store) -> None:
    reader, writer = SqlRegistry(store.url), SqlRegistry(store.url)
    with reader._database.read() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM nodes").scalar_one()
        writer.apply(join(new_node()), issue=svid_for)
        again = connection.exec_driver_sql("SELECT count(*) FROM nodes").scalar_one()
    assert (before, again) == (0, 0)
    assert len(reader.nodes()) == 1
    reader.close()
    writer.close()


def test_a_writer_that_waits_too_long_gives_up_and_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.1)
    slow, waiting = SqlRegistry(store.url), SqlRegistry(store.url)
    with slow._database.write(), pytest.raises(UnavailableError) as caught:
        waiting.apply(join(new_node()), issue=svid_for)
    assert caught.value.retry_after_seconds is not None
    assert waiting.nodes() == ()
    assert waiting.apply(join(new_node()), issue=svid_for).id == "n1"
    slow.close()
    waiting.close()


def test_a_server_cut_off_while_it_writes_is_rolled_back_and_the_others_go_ahead(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SILENT_WRITER_SECONDS", 0.2)
    url = postgres.url_of_prepared(lambda url: SqlRegistry(url).close())
    cut_off, other = SqlRegistry(url), SqlRegistry(url)

    def write_half() -> None:
        with cut_off._database.write() as connection:
            connection.exec_driver_sql("UPDATE counters SET value = 99 WHERE name = 'event'")
            # No word for longer than PostgreSQL waits for one.
            assert other.apply(join(new_node()), issue=svid_for).id == "n1"

    with pytest.raises(UnavailableError):
        write_half()
    assert other.snapshot().sequence == cut_off.snapshot().sequence == 3
    cut_off.close()
    other.close()


def corim() -> ProvisionedCorim:
    return ProvisionedCorim(
        id="corim",
        digest="c" * 64,
        source="good.cbor",
        data=b"corim",
        provisioned_at=NOW,
        provisioned_by="file",
    )
