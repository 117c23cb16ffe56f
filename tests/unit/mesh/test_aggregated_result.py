# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from support.logical_tees import MINUTE, NOW, gateway, realm, tee
from troth.errors import (
    BindingError,
    DecodeError,
    FreshnessError,
    SignatureError,
    VerificationError,
)
from troth.formats.ar4si import TrustTier
from troth.formats.ear import PROFILES, Ear, TrothClaims, VerifierId, verify_ear
from troth.formats.signer import LocalSigner
from troth.formats.verification_key import VerificationKey
from troth.mesh.aggregated_result import (
    AGGREGATE_LIFETIME,
    AggregatedResult,
    aggregate,
    sign_aggregated_result,
    verify_aggregated_result,
)
from troth.mesh.logical_tee import Epoch
from troth.mesh.membership import Membership, inclusion_proof, membership_of
from troth.mesh.node import NodeState
from troth.mesh.node_record import NodeRecord
from troth.mesh.tier import Tier

_KEY = ec.generate_private_key(ec.SECP256R1())
_SIGNER = LocalSigner(_KEY, "results-1")
_PUBLIC = [VerificationKey(_KEY.public_key(), key_id="results-1")]
_TIERS = (Tier.IDENTIFIED, Tier.MEASURED, Tier.CONFIDENTIAL)


def membership(*nodes: NodeRecord, **changes: Any) -> Membership:
    return membership_of(tee(**changes), nodes, now=NOW)


def unsigned(found: Membership) -> Ear:
    return aggregate(found, verifier=VerifierId("Troth", "1"), name="lead", now=NOW)


def read(ear: Ear, *, now: datetime = NOW, **options: Any) -> AggregatedResult:
    return verify_aggregated_result(
        sign_aggregated_result(ear, _SIGNER), _PUBLIC, now=now, **options
    )


def result(*nodes: NodeRecord, **changes: Any) -> AggregatedResult:
    return read(unsigned(membership(*nodes, **changes)))


def test_a_stranger_reads_it_with_the_public_key_alone() -> None:
    found = membership(realm("r1"), realm("r2"), gateway("g1"))
    made = read(unsigned(found), name="claims-processing", trust_domain="mesh.example")
    assert made.status is TrustTier.AFFIRMING
    assert made.tier is Tier.MEASURED
    assert {each.name: (each.tier, each.admitted) for each in made.classes} == {
        "realm": (Tier.CONFIDENTIAL, 2),
        "gateway": (Tier.MEASURED, 1),
    }
    assert made.membership_digest == found.digest
    assert made.definition_digest == tee().definition_digest
    assert (made.epochs, made.size, made.owner) == ((1,), 3, "insurer-a")
    made.verify_members(found.members)
    wanted = found.members[0]
    proof = inclusion_proof(found.members, wanted)
    assert made.verify_inclusion(proof, now=NOW) == wanted


def test_one_weaker_member_takes_the_floor_down() -> None:
    strong = [gateway(f"g{i}", tier=Tier.CONFIDENTIAL) for i in range(20)]
    before = result(realm("r1"), *strong)
    after = result(realm("r1"), *strong, gateway("weak", tier=Tier.IDENTIFIED))
    assert (before.tier, after.tier) == (Tier.CONFIDENTIAL, Tier.IDENTIFIED)
    assert {each.name: each.tier for each in after.classes}["realm"] is Tier.CONFIDENTIAL


@given(st.lists(st.sampled_from(_TIERS), min_size=1, max_size=8))
def test_the_tier_is_always_that_of_the_weakest(tiers: list[Tier]) -> None:
    nodes = [gateway(f"g{i}", tier=tier) for i, tier in enumerate(tiers)]
    assert result(realm("r1"), *nodes).tier is min(tiers)


def test_an_empty_class_is_not_affirming_and_leaves_the_whole_without_tier() -> None:
    made = result(realm("r1"))
    empty = next(each for each in made.classes if each.name == "gateway")
    assert (empty.status, empty.tier) == (TrustTier.NONE, None)
    assert (made.status, made.tier) == (TrustTier.NONE, None)


def test_a_degraded_member_is_a_warning_and_still_holds_the_floor_down() -> None:
    weak = gateway("g2", tier=Tier.IDENTIFIED, state=NodeState.DEGRADED)
    made = result(realm("r1"), gateway("g1"), weak)
    own = next(each for each in made.classes if each.name == "gateway")
    assert (own.admitted, own.degraded, own.status) == (1, 1, TrustTier.WARNING)
    assert made.tier is Tier.IDENTIFIED
    assert made.status is TrustTier.WARNING


def test_it_ends_with_the_first_of_its_members_results() -> None:
    soon = NOW + 2 * MINUTE
    assert result(realm("r1"), gateway("g1", expires=soon)).expires_at == soon
    assert result().expires_at == NOW + AGGREGATE_LIFETIME
    epochs = (
        Epoch(id=1, not_before=NOW - timedelta(days=1), registry_epoch=5),
        Epoch(id=2, not_before=NOW + MINUTE, registry_epoch=6),
    )
    assert result(realm("r1"), gateway("g1"), epochs=epochs).expires_at == NOW + MINUTE


def test_an_expired_result_is_refused() -> None:
    ear = unsigned(membership(realm("r1"), gateway("g1", expires=NOW + MINUTE)))
    read(ear, now=NOW + MINUTE)  # within the leeway
    with pytest.raises(FreshnessError, match="expired"):
        read(ear, now=NOW + MINUTE + timedelta(seconds=30))


def test_what_may_not_count_in_production_is_said_of_the_whole() -> None:
    made = result(realm("r1"), gateway("g1", insecure=("simulator",)))
    assert made.insecure == ("simulator",)
    assert result(realm("r1"), gateway("g1")).insecure == ()


def test_another_key_and_another_subject_are_refused() -> None:
    ear = unsigned(membership(realm("r1"), gateway("g1")))
    other = ec.generate_private_key(ec.SECP256R1())
    token = sign_aggregated_result(ear, LocalSigner(other, "results-1"))
    with pytest.raises(SignatureError):
        verify_aggregated_result(token, _PUBLIC, now=NOW)
    for meant in ({"name": "other"}, {"trust_domain": "other.example"}):
        with pytest.raises(BindingError, match="not 'other"):
            read(ear, **meant)


def test_it_is_not_taken_for_the_result_of_one_node_nor_the_other_way_round() -> None:
    ear = unsigned(membership(realm("r1"), gateway("g1")))
    token = sign_aggregated_result(ear, _SIGNER)
    with pytest.raises(BindingError, match="vouches for 0 keys"):
        verify_ear(
            token,
            _PUBLIC,
            now=NOW,
            max_age=AGGREGATE_LIFETIME,
            leeway=timedelta(0),
            profiles=tuple(PROFILES),
            require_key=True,
            require_exp=True,
        )
    with pytest.raises(DecodeError, match="not of a Logical TEE"):
        read(replace(ear, extensions={}))


def test_members_that_were_not_signed_are_refused() -> None:
    found = membership(realm("r1"), gateway("g1"))
    made = read(unsigned(found))
    made.verify_members(found.members[::-1])
    for others in (
        found.members[:1],
        (*found.members, found.members[0]),
        (msgspec.structs.replace(found.members[0], tier=Tier.REGISTERED), found.members[1]),
    ):
        with pytest.raises(BindingError):
            made.verify_members(others)
    proof = inclusion_proof(found.members, found.members[0])
    with pytest.raises(VerificationError):
        result(realm("r1"), realm("r2")).verify_inclusion(proof, now=NOW)
    with pytest.raises(BindingError, match="has ended"):
        made.verify_inclusion(proof, now=NOW + 10 * MINUTE)


def _class_changed(ear: Ear, name: str, **changes: Any) -> Ear:
    """Return the result with other words about one class, as a careless signer would write them."""
    submods = dict(ear.submods)
    submods[name] = replace(submods[name], **changes)
    return replace(ear, submods=submods)


def test_a_signer_that_averages_is_refused() -> None:
    found = membership(
        realm("r1"),
        *(gateway(f"g{i}", tier=Tier.CONFIDENTIAL) for i in range(9)),
        gateway("weak", tier=Tier.IDENTIFIED),
    )
    ear = unsigned(found)
    read(ear)
    # The whole above its classes.
    with pytest.raises(DecodeError, match="floor"):
        read(replace(ear, troth=replace(ear.troth, tier="measured")))
    # A class above its members: whoever sees these notices.
    lifted = _class_changed(ear, "gateway", troth=TrothClaims(tier="confidential"))
    made = read(replace(lifted, troth=replace(ear.troth, tier="confidential")))
    with pytest.raises(BindingError, match="than its members give"):
        made.verify_members(found.members)
    # A longer life than its members have.
    longer = read(replace(ear, expires_at=NOW + timedelta(hours=1)))
    with pytest.raises(BindingError, match="lasts longer"):
        longer.verify_members(found.members)


def test_counts_status_and_tier_have_to_agree() -> None:
    ear = unsigned(membership(realm("r1")))
    empty = ear.submods["gateway"]
    claim: dict[str, Any] = dict(empty.extensions["troth_member_class"])  # type: ignore[call-overload]
    read(ear)
    for changes in (
        {"status": TrustTier.AFFIRMING},
        {"extensions": {"troth_member_class": claim | {"admitted": 1}}},
        {"troth": TrothClaims(tier="measured")},
        {"troth": TrothClaims(tier="splendid")},
        {"extensions": {}},
        {"extensions": {"troth_member_class": claim | {"more": 1}}},
    ):
        with pytest.raises(DecodeError):
            read(_class_changed(replace(ear, status=None), "gateway", **changes))
    below = _class_changed(ear, "realm", troth=TrothClaims(tier="measured"))
    with pytest.raises(DecodeError, match="below its own"):
        read(below)
