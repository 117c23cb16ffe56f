# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from troth.errors import DecodeError, LimitExceededError
from troth.evidence.software_component import (
    MAX_SOFTWARE_COMPONENTS,
    SoftwareComponent,
    decode_software_components,
)

_FULL: dict[int, Any] = {1: "BL", 2: b"m" * 32, 4: "1.0", 5: b"s" * 48, 6: "sha-256"}
_NAMES = {1: "measurement-type", 2: "measurement-value", 4: "version", 5: "signer-id", 6: "measurement-desc"}  # fmt: skip


def decode(*entries: object) -> tuple[SoftwareComponent, ...]:
    return decode_software_components(list(entries), format="claims")


def test_a_full_component_keeps_every_attribute() -> None:
    (component,) = decode(_FULL)
    assert component == SoftwareComponent(b"m" * 32, b"s" * 48, "BL", "1.0", "sha-256")
    assert component.to_json() == {
        "measurement-type": "BL",
        "measurement-value": "6d" * 32,
        "version": "1.0",
        "signer-id": "73" * 48,
        "measurement-desc": "sha-256",
    }


def test_a_bare_component_leaves_absent_names_out() -> None:
    (component,) = decode({2: b"m" * 64, 5: b"s" * 32})
    assert component.to_json() == {"measurement-value": "6d" * 64, "signer-id": "73" * 32}


@pytest.mark.parametrize("missing", [2, 5])
def test_measurement_and_signer_must_be_there(missing: int) -> None:
    entry = {key: value for key, value in _FULL.items() if key != missing}
    with pytest.raises(DecodeError, match=rf"component 1: claim {missing} .*{_NAMES[missing]}"):
        decode(_FULL, entry)


@pytest.mark.parametrize("key", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("value", [1, True, None, [], {}])
def test_an_attribute_of_another_type_is_refused(key: int, value: object) -> None:
    with pytest.raises(DecodeError, match=rf"software component 0: claim {key} .*{_NAMES[key]}"):
        decode({**_FULL, key: value})


@pytest.mark.parametrize("key", [2, 5])
@pytest.mark.parametrize("size", [0, 20, 31, 33, 65])
def test_a_hash_of_another_size_is_refused(key: int, size: int) -> None:
    with pytest.raises(DecodeError, match=f"has {size} octets; expected 32 or 48 or 64"):
        decode({**_FULL, key: bytes(size)})


def test_text_and_octets_are_not_confused() -> None:
    with pytest.raises(DecodeError, match="expected a byte string"):
        decode({**_FULL, 2: "m" * 32})
    with pytest.raises(DecodeError, match="expected a text string"):
        decode({**_FULL, 1: b"BL"})


def test_unknown_attributes_are_kept_apart() -> None:
    (component,) = decode({**_FULL, 7: True, 8: [b"\x01"]})
    assert component.unrecognised == {"7": True, "8": ["01"]}
    assert component.to_json()["unrecognised"] == {"7": True, "8": ["01"]}
    assert component.measurement_value == b"m" * 32


@pytest.mark.parametrize("entry", [None, 1, b"", [], "BL"])
def test_an_entry_that_is_no_map_is_refused_by_its_place(entry: object) -> None:
    with pytest.raises(DecodeError, match="software component 2: the claims are not a map"):
        decode(_FULL, _FULL, entry)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(DecodeError, match="empty array"):
        decode()


def test_the_number_of_components_is_bounded() -> None:
    assert len(decode(*[_FULL] * MAX_SOFTWARE_COMPONENTS)) == MAX_SOFTWARE_COMPONENTS
    with pytest.raises(LimitExceededError, match="MAX_SOFTWARE_COMPONENTS=64"):
        decode(*[_FULL] * (MAX_SOFTWARE_COMPONENTS + 1))
