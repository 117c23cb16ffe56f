# SPDX-License-Identifier: Apache-2.0
"""When the inventory lets a machine in; each rule beside the neighbour that breaks it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import AuthorizationError, DecodeError
from troth.mesh.device import (
    MAX_IDENTITIES,
    Device,
    DeviceIdentity,
    DeviceState,
    IdentityKind,
    Presented,
    admit_device,
    find_device,
    key_identity,
    may_bind,
)

EK = key_identity(IdentityKind.EK, b"ek")
CERTIFICATE = key_identity(IdentityKind.CERTIFICATE, b"idevid")
DEVICE = Device(
    id="edge-7",
    identities=(EK, CERTIFICATE),
    state=DeviceState.APPROVED,
    bound="tpm2:signer:aa",
    presented_at=datetime(2026, 1, 1, tzinfo=UTC),
)
BY_EK = Presented(attester="tpm2:signer:aa", identities=(EK,))


@given(st.sampled_from(IdentityKind), st.binary(min_size=1, max_size=128))
def test_an_identity_reads_back_as_it_was_written(kind: IdentityKind, value: bytes) -> None:
    text = f"instance:psa/{value.hex()}" if kind is IdentityKind.INSTANCE else ""
    identity = DeviceIdentity.decode(text or str(key_identity(kind, value)))
    assert DeviceIdentity.decode(str(identity)) == identity


@pytest.mark.parametrize(
    "text", ["", "ek", "ek:", "ek:1F", "token:aa", "instance:01", "instance:psa/0", "signer:zz"]
)
def test_other_texts_are_no_identity(text: str) -> None:
    with pytest.raises(DecodeError, match="ek:SHA256"):
        DeviceIdentity.decode(text)


def test_a_device_is_accepted_when_both_sides_are() -> None:
    assert DEVICE.accepted
    assert not replace(DEVICE, presented_at=None).accepted
    assert not replace(DEVICE, state=DeviceState.PENDING).accepted


def test_a_device_has_an_id_and_identities_of_the_right_form() -> None:
    many = tuple(key_identity(IdentityKind.EK, bytes([n])) for n in range(MAX_IDENTITIES + 1))
    assert Device(id="a", identities=many[1:], class_id="00" * 128).id == "a"
    for fields in (
        {"id": "A"},
        {"id": "-a"},
        {"id": "a" * 64},
        {"identities": many},
        {"class_id": "0"},
        {"class_id": "00" * 129},
    ):
        with pytest.raises(DecodeError):
            Device(**{"id": "a", **fields})  # type: ignore[arg-type]  # wrong on purpose


def test_a_device_is_found_by_what_it_proved() -> None:
    other = Device(id="edge-8", identities=(key_identity(IdentityKind.EK, b"other"),))
    unproved = Presented(attester="tpm2:signer:bb", identities=())
    assert find_device([DEVICE, other], BY_EK) == DEVICE
    assert find_device([DEVICE, other], replace(unproved, attester=DEVICE.bound)) == DEVICE
    assert find_device([DEVICE, other], replace(unproved, token_device="edge-8")) == other
    assert find_device([DEVICE, other], unproved) is None
    with pytest.raises(AuthorizationError, match="edge-7, edge-8"):
        find_device([DEVICE, other], replace(BY_EK, token_device="edge-8"))


def test_only_hardware_may_bring_another_attester() -> None:
    moved = replace(BY_EK, attester="tpm2:signer:bb")
    assert may_bind(DEVICE, moved)
    copied = replace(moved, identities=(CERTIFICATE,))
    assert not may_bind(DEVICE, copied)
    assert not may_bind(DEVICE, replace(moved, identities=(), token_device="edge-7"))
    assert may_bind(replace(DEVICE, bound=""), copied)
    with pytest.raises(AuthorizationError, match="on another machine"):
        admit_device(DEVICE, copied, required=False)


def test_who_is_admitted() -> None:
    admit_device(DEVICE, BY_EK, required=True)
    admit_device(None, BY_EK, required=False)
    for device, required, why in (
        (None, True, "not in the inventory"),
        (replace(DEVICE, state=DeviceState.PENDING), False, "not approved"),
        (replace(DEVICE, state=DeviceState.REVOKED), False, "was revoked"),
    ):
        with pytest.raises(AuthorizationError, match=why):
            admit_device(device, BY_EK, required=required)
