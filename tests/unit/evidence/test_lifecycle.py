# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from troth.evidence.lifecycle import Lifecycle

_MAJORS = {
    0x00: "unknown",
    0x10: "assembly-and-test",
    0x20: "rot-provisioning",
    0x30: "secured",
    0x40: "non-rot-debug",
    0x50: "recoverable-rot-debug",
    0x60: "decommissioned",
}


@pytest.mark.parametrize("major", range(0x100))
def test_the_upper_octet_is_the_state_whatever_the_lower_one_is(major: int) -> None:
    for minor in (0x00, 0x03, 0xFF):
        state = Lifecycle.from_claim(major << 8 | minor)
        assert (state.value if state else None) == _MAJORS.get(major)


@pytest.mark.parametrize("value", [-1, -0x3000, 0x1_3000, 0x1_0000, 2**63])
def test_what_is_not_sixteen_bits_is_no_state(value: int) -> None:
    assert Lifecycle.from_claim(value) is None
