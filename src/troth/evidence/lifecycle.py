# SPDX-License-Identifier: Apache-2.0
"""The security lifecycle claim (2395) that PSA and CCA platform tokens share.

The upper octet of the 16-bit value is the state, the lower one belongs to the implementation.
PSA and CCA name the same seven states after their own root of trust ("non-psa-rot-debug",
"non-cca-platform-rot-debug"); the names here leave the owner out, so that one policy rule fits
both.

Source: RFC 9783 section 4.3.1; Arm RMM Specification (DEN0137) section A7.2.3.2.7.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Lifecycle"]


class Lifecycle(Enum):
    """A lifecycle state; its value is the name that JSON and policies see."""

    UNKNOWN = "unknown"
    ASSEMBLY_AND_TEST = "assembly-and-test"
    ROT_PROVISIONING = "rot-provisioning"
    SECURED = "secured"
    NON_ROT_DEBUG = "non-rot-debug"
    RECOVERABLE_ROT_DEBUG = "recoverable-rot-debug"
    DECOMMISSIONED = "decommissioned"

    @classmethod
    def from_claim(cls, value: int) -> Lifecycle | None:
        """Return the state that the 16-bit claim value stands for, or None for none of them."""
        return _BY_MAJOR.get(value >> 8)


_BY_MAJOR = {
    0x00: Lifecycle.UNKNOWN,
    0x10: Lifecycle.ASSEMBLY_AND_TEST,
    0x20: Lifecycle.ROT_PROVISIONING,
    0x30: Lifecycle.SECURED,
    0x40: Lifecycle.NON_ROT_DEBUG,
    0x50: Lifecycle.RECOVERABLE_ROT_DEBUG,
    0x60: Lifecycle.DECOMMISSIONED,
}
