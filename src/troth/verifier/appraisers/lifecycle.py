# SPDX-License-Identifier: Apache-2.0
"""The security lifecycle of PSA and CCA platforms: only a secured platform keeps its promises.

Veraison lets debugging of software outside the root of trust pass as well. We do not: who debugs
the code that is measured can change it after it was measured.

Source: RFC 9783 section 4.3.1; Arm RMM Specification (DEN0137) section A7.2.3.2.7.
"""

from __future__ import annotations

from typing import Final

from troth.evidence.lifecycle import Lifecycle
from troth.formats.ar4si import TrustworthinessVector
from troth.verifier.finding import Finding

__all__ = ["GENUINE_AND_SECURED", "NOT_SECURED", "lifecycle_finding"]

GENUINE_AND_SECURED: Final = TrustworthinessVector(
    instance_identity=2, hardware=2, runtime_opaque=2, storage_opaque=2
)
"""What a verified token of a secured platform says: known instance, genuine, isolated, sealed."""

NOT_SECURED: Final = TrustworthinessVector(
    instance_identity=96, hardware=2, runtime_opaque=96, storage_opaque=96
)
"""What it says in every other lifecycle state: genuine, but nothing on it is protected."""

_WHY: Final = {
    Lifecycle.UNKNOWN: "the platform does not say in which state it is",
    Lifecycle.ASSEMBLY_AND_TEST: "it is still being made, and open to its makers' tools",
    Lifecycle.ROT_PROVISIONING: "its root of trust is not provisioned yet",
    Lifecycle.NON_ROT_DEBUG: "software outside its root of trust can be debugged",
    Lifecycle.RECOVERABLE_ROT_DEBUG: "its root of trust can be debugged",
    Lifecycle.DECOMMISSIONED: "it has been taken out of service",
}


def lifecycle_finding(
    lifecycle: Lifecycle, value: int, *, rule: str, submod: str
) -> Finding | None:
    """Return what is wrong with the state, or None for a secured platform.

    Args:
        lifecycle: the state.
        value: the claim's value, for the message.
        rule: the specification and section.
        submod: label of the claims set.
    """
    if lifecycle is Lifecycle.SECURED:
        return None
    return Finding(
        claim="security-lifecycle",
        expected="secured (0x3000 to 0x30ff)",
        actual=f"{lifecycle.value} ({value:#06x}): {_WHY[lifecycle]}",
        rule=f"{rule}; only a secured platform is affirmed",
        remedy="Take the device out of debugging or provisioning mode, or replace it.",
        submod=submod,
    )
