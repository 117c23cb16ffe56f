# SPDX-License-Identifier: Apache-2.0
"""What the registry promises: all of a change or nothing of it, in order, and durably."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from support.members import APPRAISED, NOW, RESULT, SPIFFE_ID, join, new_node, svid_for
from support.postgres import Store
from troth.adapters.registry import state_log, transitions
from troth.adapters.registry.schema import SCHEMA_VERSION
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.errors import (
    AuthorizationError,
    ConfigurationError,
    ConflictError,
    FreshnessError,
    UnavailableError,
    VerificationError,
)
from troth.mesh.admission import Step, Verdict
from troth.mesh.node import Actor, NodeState, Reason, Trigger
from troth.mesh.node_record import IssuedSvid, NodeRecord, member_of
from troth.mesh.registration_entry import RegistrationEntry, node_selector
from troth.mesh.registry import (
    Change,
    JoinRefusal,
    JoinSession,
    LogHead,
    ProvisionedCorim,
    Withdrawal,
)
from troth.verifier.finding import Finding

EXPEL = Step(trigger=Trigger.EXPEL, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR)
REATTEST = Step(trigger=Trigger.REATTEST, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR)
HOLD = Step(trigger=Trigger.HOLD, reason=Reason.DUPLICATE_IDENTITY)
QUARANTINE = Step(trigger=Trigger.QUARANTINE, reason=Reason.REFERENCE_VALUE_WITHDRAWN)
SESSION = JoinSession(
    id="s1",
    nonce=b"n" * 32,
    node_name="edge",
    address="127.0.0.1",
    created=NOW,
    expires=NOW + timedelta(seconds=150),
)
ENTRY = RegistrationEntry(
    id="e1", spiffe_id=SPIFFE_ID, selectors=(node_selector("instance:01"),), hint="a test"
)
CORIM = ProvisionedCorim(
    id="corim",
    digest="c" * 64,
    source="good.cbor",
    data=b"corim",
    provisioned_at=NOW,
    provisioned_by="file",
)


def by_operator(node: NodeRecord, step: Step) -> Change:
    return Change(
        node_id=node.id, generation=node.generation, steps=(step,), actor="operator 0", at=NOW
    )


def by_server(node: NodeRecord, step: Step) -> Change:
    return replace(by_operator(node, step), actor="server")


def admit(registry: SqlRegistry, name: str = "n1") -> NodeRecord:
    return registry.apply(join(new_node(name)), issue=svid_for)


def test_a_first_join_registers_attests_admits_and_issues_in_one_go(registry: SqlRegistry) -> None:
    node = admit(registry)
    assert (node.state, node.generation) == (NodeState.ADMITTED, 3)
    assert node.svid is not None
    assert node.appraised == APPRAISED
    assert registry.find_node(device="psa:signer:n1", spiffe_id=SPIFFE_ID) == registry.node("n1")
    assert [event.member.state for event in registry.events(after=0, limit=9)] == [
        NodeState.ATTESTING,
        NodeState.ATTESTED,
        NodeState.ADMITTED,
    ]
    last = registry.events(after=2, limit=9)[0]
    assert last.member == member_of(registry.node("n1"))
    assert last.member.ear == "a.b.c"
    assert last.member.key_digest == node.svid.key_digest


def test_the_certificate_itself_is_not_kept(registry: SqlRegistry) -> None:
    admit(registry)
    svid = registry.node("n1").svid
    assert svid is not None
    assert svid.chain == ""


def test_a_change_decided_on_an_older_generation_is_a_conflict(registry: SqlRegistry) -> None:
    node = admit(registry)
    registry.apply(join(node), issue=svid_for)
    with pytest.raises(ConflictError, match="generation 4, not 3"):
        registry.apply(join(node), issue=svid_for)
    assert registry.node("n1").generation == 4


def test_an_svid_is_issued_only_if_the_state_still_allows_it_at_commit(
    registry: SqlRegistry,
) -> None:
    node = admit(registry)
    renewal = join(node)
    registry.apply(by_operator(node, EXPEL))
    with pytest.raises(ConflictError):
        registry.apply(renewal, issue=svid_for)
    with pytest.raises(ConflictError, match="expelled cannot be changed by renew"):
        registry.apply(replace(renewal, generation=node.generation + 1), issue=svid_for)
    assert registry.node("n1").state is NodeState.EXPELLED


def test_a_change_that_leads_elsewhere_than_admitted_issues_nothing(registry: SqlRegistry) -> None:
    def never(_: NodeRecord) -> IssuedSvid:
        raise AssertionError("an SVID was made")

    with pytest.raises(AuthorizationError, match="quarantined gets no SVID"):
        registry.apply(join(new_node(), Verdict.CONTRAINDICATED), issue=never)
    assert registry.nodes() == ()


def test_a_fact_that_is_not_established_rolls_everything_back(registry: SqlRegistry) -> None:
    change = join(new_node())
    change = replace(change, facts=replace(change.facts, epoch_current=False))
    with pytest.raises(AuthorizationError, match="epoch_current"):
        registry.apply(change, issue=svid_for)
    assert registry.nodes() == ()
    assert registry.snapshot().sequence == 0
    assert registry.verify_log().sequence == 0


def test_a_result_of_an_older_epoch_admits_nobody(registry: SqlRegistry) -> None:
    registry.provision(CORIM)
    with pytest.raises(ConflictError, match="epoch 1, not 0"):
        registry.apply(join(new_node(), require_epoch=0), issue=svid_for)
    assert registry.apply(join(new_node(), require_epoch=1), issue=svid_for).state == "admitted"


def test_a_key_that_was_another_nodes_is_denied_even_after_it_was_expelled(
    registry: SqlRegistry,
) -> None:
    node = admit(registry)
    registry.apply(by_operator(node, EXPEL))
    with pytest.raises(AuthorizationError, match="belongs to node n1"):
        registry.apply(join(new_node("n2")), issue=lambda each: svid_for(each, key="n1"))
    assert [each.id for each in registry.nodes()] == ["n1"]


def test_one_device_is_one_node_in_one_role(registry: SqlRegistry) -> None:
    admit(registry)
    with pytest.raises(ConflictError):
        registry.apply(join(new_node("n2", device="psa:signer:n1")), issue=svid_for)
    other_role = new_node("n2", device="psa:signer:n1", spiffe_id=SPIFFE_ID + "2")
    assert registry.apply(join(other_role), issue=svid_for).id == "n2"


def test_a_node_is_found_by_any_key_that_it_had(registry: SqlRegistry) -> None:
    node = admit(registry)
    assert node.svid is not None
    renewed = registry.apply(join(node), issue=lambda each: svid_for(each, key="another"))
    assert registry.find_node_by_key(node.svid.key_digest) == renewed
    assert renewed.svid is not None
    assert registry.find_node_by_key(renewed.svid.key_digest) == renewed
    assert registry.find_node_by_key("f" * 64) is None


class _PowerCutError(Exception):
    """The process is gone at this very point."""


@pytest.mark.parametrize("lost", ["append", "next_number"])
@pytest.mark.parametrize("after", range(6))
def test_a_crash_anywhere_in_a_change_leaves_nothing_of_it(
    registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch, lost: str, after: int
) -> None:
    module = transitions.state_log
    calls = 0
    original = getattr(module, lost)

    def cut(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls > after:
            raise _PowerCutError
        return original(*arguments, **options)

    admit(registry)
    before = (registry.snapshot(), registry.verify_log())
    monkeypatch.setattr(module, lost, cut)
    try:
        registry.apply(join(new_node("n2")), issue=svid_for)
    except _PowerCutError:
        assert (registry.snapshot(), registry.verify_log()) == before
    else:
        assert after >= 5
        assert registry.verify_log().sequence == before[1].sequence + 5


def test_a_failing_commit_admits_nobody(sqlite_registry: SqlRegistry) -> None:
    registry = sqlite_registry

    def fail(_connection: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    engine = registry._database._engine
    before = registry.snapshot()
    sa.event.listen(engine, "commit", fail)
    with pytest.raises(sqlite3.OperationalError):
        registry.apply(join(new_node()), issue=svid_for)
    sa.event.remove(engine, "commit", fail)
    assert registry.snapshot() == before
    assert admit(registry).state is NodeState.ADMITTED


def test_a_full_disk_admits_nobody_and_keeps_what_was_acknowledged(
    sqlite_registry: SqlRegistry,
) -> None:
    registry = sqlite_registry
    admit(registry)

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    engine = registry._database._engine
    engine.dispose()
    sa.event.listen(engine, "connect", limit)
    bulky = replace(APPRAISED, evidence=b"x" * 65536)
    with pytest.raises(UnavailableError, match="full") as caught:
        registry.apply(join(new_node("n2"), appraised=bulky), issue=svid_for)
    assert "free space" in caught.value.remedy
    assert [node.id for node in registry.nodes()] == ["n1"]
    assert registry.verify_log().sequence == 5
    engine.dispose()
    sa.event.remove(engine, "connect", limit)
    assert registry.apply(join(new_node("n2"), appraised=bulky), issue=svid_for).svid is not None


def test_a_read_only_database_admits_nobody(sqlite_registry: SqlRegistry) -> None:
    registry = sqlite_registry
    admit(registry)

    def forbid(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    engine = registry._database._engine
    engine.dispose()
    sa.event.listen(engine, "connect", forbid)
    with pytest.raises(UnavailableError, match="readonly"):
        admit(registry, "n2")
    assert [node.id for node in registry.nodes()] == ["n1"]


def test_what_was_acknowledged_is_there_after_a_restart(empty_store: Store) -> None:
    first = SqlRegistry(empty_store.url)
    node = admit(first)
    first.create_entry(ENTRY, actor="operator 0", at=NOW)
    first.provision(CORIM)
    head = first.verify_log()
    first.close()
    second = SqlRegistry(empty_store.url)
    assert second.node("n1").generation == node.generation
    assert second.entries() == (ENTRY,)
    assert second.corims() == (CORIM,)
    assert second.epoch == 1
    assert second.verify_log(head=head) == head
    assert second.snapshot().sequence == 3
    second.close()


def test_the_database_is_private_and_durable(
    database_path: Path, sqlite_registry: SqlRegistry
) -> None:
    assert stat.S_IMODE(database_path.stat().st_mode) == 0o600
    with sqlite_registry._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2


def test_a_database_of_a_newer_program_is_refused(store: Store) -> None:
    SqlRegistry(store.url).close()
    store.tamper(f"UPDATE schema_version SET version = {SCHEMA_VERSION + 1}")  # noqa: S608 - our own number
    with pytest.raises(ConfigurationError, match="older than the database"):
        SqlRegistry(store.url)


def test_a_database_of_the_first_version_is_brought_up_to_date(empty_store: Store) -> None:
    first = SqlRegistry(empty_store.url)
    admit(first)
    first.close()
    empty_store.tamper("DROP TABLE appraisals")
    empty_store.tamper("UPDATE schema_version SET version = 1")
    second = SqlRegistry(empty_store.url)
    assert second.appraisals(since=NOW, after="", limit=9) == ()
    assert second.node("n1").state is NodeState.ADMITTED
    second.close()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("nonsense", ConfigurationError),
        ("sqlite://", ConfigurationError),
        ("sqlite:///:memory:", ConfigurationError),
        ("oracle://somewhere/db", ConfigurationError),
        ("postgresql://somewhere/db", ConfigurationError),
        ("postgresql+asyncpg://somewhere/db", ConfigurationError),
        ("postgresql+psycopg:///db?host=/nowhere/at/all", UnavailableError),
        ("sqlite:////nowhere/at/all/db", UnavailableError),
    ],
)
def test_a_url_that_cannot_last_is_refused(url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        SqlRegistry(url)


# Sessions


def test_a_nonce_answers_once(registry: SqlRegistry) -> None:
    registry.open_session(SESSION, max_open=9)
    assert registry.take_session("s1", now=NOW) == SESSION
    with pytest.raises(FreshnessError):
        registry.take_session("s1", now=NOW)


def test_a_nonce_answers_within_its_time(registry: SqlRegistry) -> None:
    registry.open_session(SESSION, max_open=9)
    with pytest.raises(FreshnessError):
        registry.take_session("s1", now=SESSION.expires)
    assert registry.take_session("s1", now=SESSION.expires - timedelta(microseconds=1))


def test_an_unknown_session_is_refused(registry: SqlRegistry) -> None:
    with pytest.raises(FreshnessError):
        registry.take_session("s1", now=NOW)


def test_open_sessions_are_limited_and_expired_ones_do_not_count(registry: SqlRegistry) -> None:
    registry.open_session(SESSION, max_open=1)
    with pytest.raises(UnavailableError) as caught:
        registry.open_session(replace(SESSION, id="s2"), max_open=1)
    assert caught.value.retry_after_seconds is not None
    later = replace(
        SESSION, id="s3", created=SESSION.expires, expires=SESSION.expires + timedelta(minutes=1)
    )
    registry.open_session(later, max_open=1)


# Boot sessions


def test_a_boot_session_that_another_has_replaced_is_recognised(registry: SqlRegistry) -> None:
    node = admit(registry)
    assert not registry.boot_replaced("n1", b"boot 1")
    assert not registry.boot_replaced("n1", b"boot 2")
    node = registry.apply(
        join(node, appraised=replace(APPRAISED, boot_session=b"boot 2")), issue=svid_for
    )
    assert node.generation == 6
    assert registry.boot_replaced("n1", b"boot 1")
    assert not registry.boot_replaced("n1", b"boot 2")


# Entries


def test_deleting_an_entry_quarantines_who_joined_by_it(registry: SqlRegistry) -> None:
    registry.create_entry(ENTRY, actor="operator 0", at=NOW)
    admit(registry, "n1")
    registry.apply(join(new_node("n2", entry_id="e2")), issue=svid_for)
    assert registry.delete_entry("e1", actor="operator 0", at=NOW) == ("n1",)
    assert registry.entries() == ()
    assert registry.node("n1").reason is Reason.ENTRY_DELETED
    assert registry.node("n2").state is NodeState.ADMITTED
    with pytest.raises(ConflictError):
        registry.delete_entry("e1", actor="operator 0", at=NOW)


def test_an_entry_id_is_taken_once(registry: SqlRegistry) -> None:
    registry.create_entry(ENTRY, actor="operator 0", at=NOW)
    with pytest.raises(ConflictError):
        registry.create_entry(ENTRY, actor="operator 0", at=NOW)


# Endorsements


def test_provisioning_raises_the_epoch_once(registry: SqlRegistry) -> None:
    assert registry.provision(CORIM) == 1
    assert registry.provision(CORIM) == 1
    assert registry.provision(replace(CORIM, digest="e" * 64)) == 2


def test_a_withdrawal_and_its_consequences_are_one_transaction(registry: SqlRegistry) -> None:
    registry.provision(CORIM)
    node = admit(registry)
    withdrawal = Withdrawal(actor="operator 0", at=NOW, parts=("v1",), why="a bug")
    stale = by_operator(replace(node, generation=1), QUARANTINE)
    with pytest.raises(ConflictError):
        registry.withdraw(withdrawal, [stale], require_epoch=1, require_sequence=3)
    assert registry.withdrawn_parts() == ()
    assert registry.epoch == 1
    quarantine = by_operator(node, QUARANTINE)
    for epoch, sequence in ((0, 3), (1, 2), (1, 4)):
        with pytest.raises(ConflictError, match="not"):
            registry.withdraw(
                withdrawal, [quarantine], require_epoch=epoch, require_sequence=sequence
            )
    epoch = registry.withdraw(withdrawal, [quarantine], require_epoch=1, require_sequence=3)
    assert epoch == 2
    assert registry.withdrawn_parts() == ("v1",)
    assert registry.node("n1").state is NodeState.QUARANTINED
    assert registry.events(after=3, limit=9)[0].member.reason == "reference_value_withdrawn"


def test_a_withdrawal_of_nothing_new_or_nothing_there_is_a_conflict(registry: SqlRegistry) -> None:
    registry.provision(CORIM)
    once = Withdrawal(actor="operator 0", at=NOW, parts=("v1",))
    registry.withdraw(once, [], require_epoch=1, require_sequence=0)
    with pytest.raises(ConflictError, match="already"):
        registry.withdraw(once, [], require_epoch=2, require_sequence=0)
    with pytest.raises(ConflictError, match="no CoRIM"):
        registry.withdraw(
            Withdrawal(actor="operator 0", at=NOW, corims=("f" * 64,)),
            [],
            require_epoch=2,
            require_sequence=0,
        )
    registry.withdraw(
        Withdrawal(actor="operator 0", at=NOW, corims=(CORIM.digest,)),
        [],
        require_epoch=2,
        require_sequence=0,
    )
    assert registry.corims()[0].withdrawn
    assert registry.provision(CORIM) == 4
    assert not registry.corims()[0].withdrawn


def test_a_new_policy_starts_a_new_epoch(registry: SqlRegistry) -> None:
    def adopt(digest: str) -> int:
        return registry.adopt_policy(policy_id="p", digest=digest, actor="server", at=NOW)

    assert [adopt("a"), adopt("a"), adopt("b"), adopt("a")] == [1, 1, 2, 3]


# Feed


def test_events_are_numbered_without_gaps_and_read_in_pages(registry: SqlRegistry) -> None:
    for number in range(4):
        admit(registry, f"n{number}")
    read: list[int] = []
    while page := registry.events(after=len(read), limit=5):
        read += [event.sequence for event in page]
    assert read == list(range(1, 13))
    assert registry.snapshot().sequence == 12
    assert len(registry.snapshot().members) == 4


def test_events_that_are_gone_or_never_were_ask_for_a_snapshot(registry: SqlRegistry) -> None:
    admit(registry)
    with pytest.raises(ConflictError, match="3 is the last one"):
        registry.events(after=4, limit=9)
    assert registry.events(after=3, limit=9) == ()
    registry.prune(now=NOW, keep_events=1, keep_refusals=9)
    with pytest.raises(ConflictError, match="not kept"):
        registry.events(after=1, limit=9)
    assert [event.sequence for event in registry.events(after=2, limit=9)] == [3]


def test_an_event_is_delivered_when_every_reader_has_it_or_has_lapsed(
    registry: SqlRegistry,
) -> None:
    node = admit(registry)
    admit(registry, "n2")
    admit(registry, "n3")
    registry.apply(by_operator(node, EXPEL))
    event = registry.last_event_of("n1")
    assert event == 10
    lease = NOW + timedelta(seconds=30)
    for name, sequence in (("n1", 0), ("n2", 10), ("n3", 9), ("stranger", 0)):
        registry.acknowledge(name, sequence=sequence, lease_until=lease)
    delivery = registry.delivery(event, now=NOW)
    assert (delivery.acknowledged, delivery.waiting, delivery.done) == (("n2",), ("n3",), False)
    lapsed = registry.delivery(event, now=lease)
    assert (lapsed.lapsed, lapsed.done) == (("n3",), True)
    registry.acknowledge("n3", sequence=10, lease_until=lease)
    registry.acknowledge("n3", sequence=2, lease_until=lease)
    assert registry.delivery(event, now=NOW).done
    assert registry.last_event_of("stranger") == 0


def test_nodes_are_counted_by_state_and_those_that_stall_are_found(registry: SqlRegistry) -> None:
    admit(registry)
    node = admit(registry, "n2")
    reattest = Step(trigger=Trigger.REATTEST, reason=Reason.OPERATOR_REQUEST, actor=Actor.OPERATOR)
    registry.apply(by_operator(node, reattest))
    assert registry.count_by_state() == {NodeState.ADMITTED: 1, NodeState.ATTESTING: 1}
    assert [each.id for each in registry.stalled(NOW, limit=9)] == ["n2"]
    assert registry.stalled(NOW - timedelta(seconds=1), limit=9) == ()


# Refusals and housekeeping


def test_a_refused_join_can_be_explained_later(registry: SqlRegistry) -> None:
    finding = Finding(
        claim="sw-components[1]", expected="aa", actual="bb", rule="policy:7", remedy="update"
    )
    refusal = JoinRefusal(
        id="r1", at=NOW, code="refused", message="no", stage="appraise", findings=(finding,)
    )
    registry.record_refusal(refusal)
    assert registry.refusal("r1") == refusal
    assert registry.refusal("r2") is None
    assert registry.refusals(limit=9) == (refusal,)
    node = registry.apply(
        join(new_node(), Verdict.CONTRAINDICATED, refusal=replace(refusal, id="r2"))
    )
    assert node.state is NodeState.QUARANTINED
    assert registry.refusal("r2") is not None


def test_only_the_newest_refusals_are_kept(registry: SqlRegistry) -> None:
    for number in range(5):
        registry.record_refusal(
            JoinRefusal(
                id=f"r{number}",
                at=NOW + timedelta(seconds=number),
                code="malformed",
                message="",
                stage="decode",
            )
        )
    registry.prune(now=NOW, keep_events=9, keep_refusals=2)
    assert [refusal.id for refusal in registry.refusals(limit=9)] == ["r4", "r3"]


def test_an_admitted_node_lapses_at_its_deadline(registry: SqlRegistry) -> None:
    node = admit(registry)
    assert node.svid is not None
    assert registry.lapsed(node.svid.deadline - timedelta(seconds=1), limit=9) == ()
    assert [each.id for each in registry.lapsed(node.svid.deadline, limit=9)] == ["n1"]
    registry.apply(by_operator(node, EXPEL))
    assert registry.lapsed(node.svid.deadline, limit=9) == ()


def test_grace_brings_the_deadline_forward_and_never_moves_it_back(registry: SqlRegistry) -> None:
    node = admit(registry)
    degrade = Step(trigger=Trigger.DEGRADE, reason=Reason.WARNING)
    ends = NOW + timedelta(minutes=1)
    degraded = registry.apply(replace(by_operator(node, degrade), connections_end=ends))
    assert degraded.svid is not None
    assert degraded.svid.deadline == ends
    assert registry.events(after=3, limit=1)[0].member.deadline == ends
    later = replace(join(degraded), steps=(), connections_end=ends + timedelta(hours=1))
    kept = registry.apply(later)
    assert kept.svid is not None
    assert kept.svid.deadline == ends


def test_a_new_appraisal_without_transition_is_remembered(registry: SqlRegistry) -> None:
    node = admit(registry)
    again = replace(APPRAISED, result=replace(RESULT, epoch=7))
    kept = registry.apply(replace(join(node), steps=(), appraised=again))
    assert kept.generation == node.generation
    assert registry.node("n1").appraised == again
    assert registry.snapshot().sequence == 3


# State log


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE state_log SET entry = replace(entry, 'n1', 'n2') WHERE sequence = 2", "row 2 was"),
        ("DELETE FROM state_log WHERE sequence = 3", "row 3 is missing"),
        ("DELETE FROM state_log WHERE sequence = 5", "5 were written"),
        ("UPDATE state_log SET previous = digest WHERE sequence = 4", "row 4 does not continue"),
        ("UPDATE nodes SET state = 'admitted', generation = 9", "node n1 is"),
        ("UPDATE counters SET digest = '' WHERE name = 'log'", "is the last one"),
        (
            """INSERT INTO nodes SELECT 'n9', 'other', entry_id, spiffe_id, name, state, reason,
            generation, registered_at, changed_at, services, scheme, media_type, evidence,
            challenge, spki, boot_session, result, ear, svid, deadline FROM nodes""",
            "node n9 is",
        ),
    ],
)
def test_a_change_beside_the_server_is_noticed(
    registry: SqlRegistry, store: Store, statement: str, message: str
) -> None:
    admit(registry)
    assert registry.verify_log().sequence == 5
    store.tamper(statement)
    with pytest.raises(VerificationError, match=message):
        registry.verify_log()


def test_a_row_that_no_transition_led_to_is_noticed_in_a_chain_that_holds(
    registry: SqlRegistry,
) -> None:
    node = admit(registry)
    expelled = registry.apply(by_operator(node, EXPEL))
    assert registry.verify_log().sequence == 6
    back = {"node_id": node.id, "from": "expelled", "state": "admitted", "generation": 5}
    with registry._database.write() as connection:
        state_log.append(connection, "transition", actor="nobody", at=NOW, data=back)
        connection.execute(sa.text("UPDATE nodes SET state = 'admitted', generation = 5"))
    assert registry.node(node.id).generation == expelled.generation + 1
    with pytest.raises(VerificationError, match=r"row 7 leads node n1 to .* not follow"):
        registry.verify_log()


@pytest.mark.parametrize("wrong", [{"from": "degraded"}, {"generation": 6}])
def test_a_row_that_does_not_continue_its_node_is_noticed(
    registry: SqlRegistry, wrong: dict[str, object]
) -> None:
    node = admit(registry)
    row = {"node_id": node.id, "from": "admitted", "state": "expelled", "generation": 4} | wrong
    with registry._database.write() as connection:
        state_log.append(connection, "transition", actor="nobody", at=NOW, data=row)
    with pytest.raises(VerificationError, match="does not follow"):
        registry.verify_log()


# Two machines with one identity


def test_both_nodes_of_a_copied_key_are_held_in_one_transaction(registry: SqlRegistry) -> None:
    one, two = admit(registry), admit(registry, "n2")
    both = replace(by_server(one, HOLD), also=(by_server(two, HOLD),))
    registry.apply(both)
    assert [node.state for node in registry.nodes()] == [NodeState.QUARANTINED] * 2
    assert [event.member.node_id for event in registry.events(after=6, limit=9)] == ["n1", "n2"]
    registry.verify_log()


def test_where_the_other_node_has_changed_neither_is_held(registry: SqlRegistry) -> None:
    one, two = admit(registry), admit(registry, "n2")
    registry.apply(by_operator(two, EXPEL))
    head = registry.verify_log()
    with pytest.raises(ConflictError, match="node n2 is at generation 4"):
        registry.apply(replace(by_server(one, HOLD), also=(by_server(two, HOLD),)))
    assert registry.node("n1").state is NodeState.ADMITTED
    assert registry.verify_log() == head


def test_a_reattest_forgets_boot_sessions_and_an_expulsion_does_not(registry: SqlRegistry) -> None:
    rebooted = replace(APPRAISED, boot_session=b"boot 2")
    for name in ("n1", "n2"):
        registry.apply(join(admit(registry, name), appraised=rebooted), issue=svid_for)
        assert registry.boot_replaced(name, b"boot 1")
    registry.apply(by_operator(registry.node("n1"), REATTEST))
    registry.apply(by_operator(registry.node("n2"), EXPEL))
    assert not registry.boot_replaced("n1", b"boot 1")
    assert registry.boot_replaced("n2", b"boot 1")


def test_a_log_rewritten_from_some_row_on_is_noticed_by_a_kept_head(
    registry: SqlRegistry, store: Store
) -> None:
    admit(registry)
    head = registry.verify_log()
    store.tamper("DELETE FROM state_log WHERE sequence = 5")
    digest = registry.log_rows(after=3, limit=1)[0].digest
    statement = f"UPDATE counters SET value = 4, digest = '{digest}' WHERE name = 'log'"  # noqa: S608 - our own digest
    store.tamper(statement)
    assert registry.verify_log().sequence == 4
    with pytest.raises(VerificationError, match="a later one was kept"):
        registry.verify_log(head=head)
    with pytest.raises(VerificationError, match="digest was kept"):
        registry.verify_log(head=LogHead(sequence=4, digest="0" * 64))
