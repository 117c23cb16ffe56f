# SPDX-License-Identifier: Apache-2.0
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.logical_tees import MINUTE, NOW, gateway, realm, tee
from troth.errors import ApiMisuseError, BindingError, DecodeError
from troth.mesh.logical_tee import Epoch
from troth.mesh.membership import (
    TeeMember,
    inclusion_proof,
    membership_digest,
    membership_of,
    verify_inclusion,
)
from troth.mesh.node import NodeState
from troth.mesh.tier import Tier


def members(count: int) -> tuple[TeeMember, ...]:
    return membership_of(tee(), [realm(f"n{i}") for i in range(count)], now=NOW).members


def test_nodes_are_members_of_the_class_that_names_them() -> None:
    found = membership_of(tee(), [realm("r1"), gateway("g1")], now=NOW)
    assert {(m.node_id, m.member_class, m.epoch) for m in found.members} == {
        ("r1", "realm", 1),
        ("g1", "gateway", 1),
    }
    assert found.others == ()
    assert found.accepts("r1", "realm")
    assert not found.accepts("r1", "gateway")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": NodeState.QUARANTINED}, "state"),
        ({"state": NodeState.ATTESTED}, "state"),
        ({"appraised": None}, "no_result"),
        ({"svid": None}, "no_svid"),
        ({"tier": Tier.MEASURED}, "tier"),
        ({"scheme": "psa"}, "scheme"),
        ({"policy_id": "realm-v6"}, "policy"),
        ({"epoch": 4}, "epoch"),
        ({"status": "warning"}, "not_affirming"),
        ({"expires": NOW}, "too_old"),
        ({"issued": NOW - 10 * MINUTE}, "too_old"),
    ],
)
def test_one_thing_that_is_not_met_keeps_a_node_out(change: dict[str, Any], reason: str) -> None:
    found = membership_of(tee(), [realm("good"), realm("bad", **change)], now=NOW)
    assert [m.node_id for m in found.members] == ["good"]
    assert [(o.node_id, o.reason) for o in found.others] == [("bad", reason)]


def test_a_node_that_no_class_names_is_not_mentioned() -> None:
    found = membership_of(tee(), [replace(realm("x"), entry_id="others")], now=NOW)
    assert (found.members, found.others) == ((), ())


def test_a_degraded_node_is_counted_apart_until_its_connections_end() -> None:
    node = realm("r1", state=NodeState.DEGRADED, expires=NOW - MINUTE)
    found = membership_of(tee(), [node], now=NOW)
    assert [(m.standing, m.ends) for m in found.members] == [
        ("degraded", int((NOW + 15 * MINUTE).timestamp()))
    ]
    assert not found.accepts("r1", "realm")
    later = membership_of(tee(), [node], now=NOW + 15 * MINUTE)
    assert [o.reason for o in later.others] == ["no_svid"]


def test_the_old_epoch_is_a_membership_while_it_overlaps_and_no_longer() -> None:
    made = tee(
        epochs=(
            Epoch(id=1, not_before=NOW - timedelta(days=1), registry_epoch=5),
            Epoch(id=2, not_before=NOW - MINUTE, registry_epoch=6, overlap_seconds=120),
        )
    )
    nodes = [realm("old", epoch=5), realm("new", epoch=6)]
    found = membership_of(made, nodes, now=NOW)
    assert found.epochs == (2, 1)
    assert {m.node_id: m.epoch for m in found.members} == {"old": 1, "new": 2}
    later = membership_of(made, nodes, now=NOW + MINUTE)
    assert [m.node_id for m in later.members] == ["new"]
    assert [o.reason for o in later.others] == ["epoch"]


def test_the_digest_is_of_a_set_and_changes_with_any_member() -> None:
    nodes = [realm("r1"), realm("r2"), gateway("g1")]
    digest = membership_of(tee(), nodes, now=NOW).digest
    assert membership_of(tee(), nodes[::-1], now=NOW).digest == digest
    assert membership_of(tee(), nodes[:2], now=NOW).digest != digest
    changed = [replace(nodes[0], generation=4), *nodes[1:]]
    assert membership_of(tee(), changed, now=NOW).digest != digest


def test_the_digest_is_made_of_the_documented_octets() -> None:
    assert membership_digest([]) == hashlib.sha256(b"").hexdigest()
    (one,) = members(1)
    assert one.leaf() == (
        b'{"ends":1764072540,"epoch":1,"generation":3,"insecure":[],"key_digest":"key-of-n0",'
        b'"member_class":"realm","node_id":"n0","policy_id":"realm-v7","result_digest":"'
        + hashlib.sha256(b"ear-of-n0").hexdigest().encode()
        + b'","scheme":"cca","spiffe_id":"spiffe://mesh.example/realm","standing":"admitted",'
        b'"tier":"confidential"}'
    ).replace(b"1764072540", str(int((NOW + 9 * MINUTE).timestamp())).encode())
    assert membership_digest([one]) == hashlib.sha256(b"\x00" + one.leaf()).hexdigest()
    three = members(3)
    a, b, c = (hashlib.sha256(b"\x00" + m.leaf()).digest() for m in three)
    ab = hashlib.sha256(b"\x01" + a + b).digest()
    assert membership_digest(three) == hashlib.sha256(b"\x01" + ab + c).hexdigest()


@given(st.integers(1, 40), st.data())
def test_every_member_can_prove_that_it_is_in(size: int, data: st.DataObject) -> None:
    all_of_them = members(size)
    wanted = all_of_them[data.draw(st.integers(0, size - 1))]
    proof = inclusion_proof(all_of_them, wanted)
    root = membership_digest(all_of_them)
    assert verify_inclusion(proof, root=root, size=size) == wanted
    for other in {(proof.index + 1) % size, size - 1, 0} - {proof.index}:
        moved = msgspec.structs.replace(proof, index=other)
        with pytest.raises((BindingError, DecodeError)):
            verify_inclusion(moved, root=root, size=size)


def test_a_proof_with_one_thing_changed_is_refused() -> None:
    all_of_them = members(5)
    root = membership_digest(all_of_them)
    proof = inclusion_proof(all_of_them, all_of_them[2])
    change = msgspec.structs.replace
    better = change(proof, member=change(proof.member, key_digest="mine"))
    with pytest.raises(BindingError):
        verify_inclusion(better, root=root, size=5)
    with pytest.raises(BindingError):
        verify_inclusion(proof, root=membership_digest(all_of_them[:4]), size=5)
    for wrong in (
        change(proof, size=4),
        change(proof, index=-1),
        change(proof, path=proof.path[:-1]),
        change(proof, path=(*proof.path, proof.path[0])),
        change(proof, path=(proof.path[0].upper(), *proof.path[1:])),
        change(proof, path=("zz", *proof.path[1:])),
        change(proof, path=proof.path * 20),
    ):
        with pytest.raises(DecodeError):
            verify_inclusion(wrong, root=root, size=5)


def test_who_is_no_member_gets_no_proof() -> None:
    (one,) = members(1)
    with pytest.raises(ApiMisuseError):
        inclusion_proof((), one)
