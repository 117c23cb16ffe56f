# SPDX-License-Identifier: Apache-2.0
"""The inventory in both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from troth.adapters.registry.sql_registry import SqlRegistry
from troth.errors import ConflictError, UnavailableError
from troth.mesh.device import Device, DeviceIdentity, DeviceState, IdentityKind
from troth.mesh.device_registry import ActivatedKeyRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EK = DeviceIdentity(IdentityKind.EK, "1f" * 32)
INSTANCE = DeviceIdentity(IdentityKind.INSTANCE, "psa/01a2")
DEVICE = Device(id="edge-7", identities=(EK, INSTANCE), owner="plant 3", class_id="c0de")
ACTIVATED = ActivatedKeyRecord(
    name=b"\x00\x0b" + b"n" * 32, public=b"area", endorsement=EK, vouched_by="root", at=NOW
)


def test_a_device_is_entered_presents_itself_and_is_approved(registry: SqlRegistry) -> None:
    registry.add_device(DEVICE, actor="operator 0", at=NOW)
    entered = registry.device("edge-7")
    assert entered == replace(DEVICE, added_at=NOW, added_by="operator 0")
    assert registry.find_devices([INSTANCE]) == (entered,)
    assert registry.find_devices([], attester="psa:signer:aa") == ()
    registry.present_device("edge-7", attester="psa:signer:aa", at=NOW)
    approved = registry.approve_device("edge-7", actor="operator 0", at=NOW)
    assert approved.accepted
    assert registry.find_devices([], attester="psa:signer:aa") == (approved,)
    assert registry.devices() == (approved,)
    registry.verify_log()


def test_an_identity_belongs_to_one_device(registry: SqlRegistry) -> None:
    registry.add_device(DEVICE, actor="operator 0", at=NOW)
    with pytest.raises(ConflictError, match="already"):
        registry.add_device(replace(DEVICE, identities=()), actor="operator 0", at=NOW)
    with pytest.raises(ConflictError, match="belongs to device 'edge-7'"):
        registry.add_device(Device(id="edge-8", identities=(EK,)), actor="operator 0", at=NOW)
    registry.add_device(Device(id="edge-8"), actor="operator 0", at=NOW)
    registry.present_device("edge-7", attester="psa:signer:aa", at=NOW)
    with pytest.raises(ConflictError):
        registry.present_device("edge-8", attester="psa:signer:aa", at=NOW)


def test_a_revoked_device_stays_revoked_and_loses_tokens_and_keys(registry: SqlRegistry) -> None:
    registry.add_device(DEVICE, actor="operator 0", at=NOW)
    registry.add_join_token(
        "ab" * 32, "edge-7", expires=NOW + timedelta(hours=1), actor="operator 0", at=NOW
    )
    registry.put_activated_key(ACTIVATED, limit=1)
    assert registry.activated_key(ACTIVATED.name) == ACTIVATED
    assert registry.revoke_device("edge-7", actor="operator 0", at=NOW).nodes == ()
    assert registry.device("edge-7").state is DeviceState.REVOKED
    assert registry.token_device("ab" * 32, now=NOW) == ""
    assert registry.activated_key(ACTIVATED.name) is None
    with pytest.raises(ConflictError, match="for good"):
        registry.approve_device("edge-7", actor="operator 0", at=NOW)
    with pytest.raises(ConflictError, match="for good"):
        registry.add_join_token("cd" * 32, "edge-7", expires=NOW, actor="operator 0", at=NOW)


def test_a_join_token_is_used_once_and_within_its_time(registry: SqlRegistry) -> None:
    registry.add_device(DEVICE, actor="operator 0", at=NOW)
    later = NOW + timedelta(hours=1)
    registry.add_join_token("ab" * 32, "edge-7", expires=later, actor="operator 0", at=NOW)
    assert registry.token_device("ab" * 32, now=NOW) == "edge-7"
    assert registry.token_device("ab" * 32, now=later) == ""
    registry.present_device("edge-7", attester="psa:signer:aa", at=NOW, token="ab" * 32)
    assert registry.token_device("ab" * 32, now=NOW) == ""
    with pytest.raises(ConflictError, match="used meanwhile"):
        registry.present_device("edge-7", attester="psa:signer:bb", at=NOW, token="ab" * 32)
    assert registry.device("edge-7").bound == "psa:signer:aa"


def test_a_tpm_has_one_activated_key_and_there_is_a_limit(registry: SqlRegistry) -> None:
    registry.put_activated_key(ACTIVATED, limit=1)
    newer = replace(ACTIVATED, name=b"\x00\x0b" + b"m" * 32)
    registry.put_activated_key(newer, limit=1)
    assert registry.activated_key(ACTIVATED.name) is None
    assert registry.activated_key(newer.name) == newer
    other = replace(newer, name=b"o", endorsement=DeviceIdentity(IdentityKind.EK, "2f" * 32))
    with pytest.raises(UnavailableError, match="1 TPMs"):
        registry.put_activated_key(other, limit=1)


def test_nobody_is_found_who_is_not_there(registry: SqlRegistry) -> None:
    for call in (registry.device, lambda each: registry.revoke_device(each, actor="x", at=NOW)):
        with pytest.raises(ConflictError, match="no device 'nobody'"):
            call("nobody")
