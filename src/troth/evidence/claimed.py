# SPDX-License-Identifier: Apache-2.0
"""What Evidence says of itself, before anybody has verified it.

Where another Verifier verifies a piece of Evidence, its verdict is about these octets, so what
they say is as authentic as the verdict says they are. Until then nothing of it may be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from troth.errors import UnsupportedError
from troth.evidence.evidence import ClaimsSet, Scheme

__all__ = ["Claimed", "claimed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Unverified claims, with the names that `VerifiedEvidence` has for them.

    Attributes:
        challenge: what the Evidence carries.
        padded_to: octets that the scheme pads a shorter challenge to, with zeros at its end.
        challenge_claim: name of that claim.
        claims_sets: one for each Attesting Environment, outermost (platform) first.
        implementation_id, instance_id, boot_session: as in VerifiedEvidence.
    """

    challenge: bytes
    challenge_claim: str
    claims_sets: Sequence[ClaimsSet]
    padded_to: int = 0
    implementation_id: bytes = b""
    instance_id: bytes = b""
    boot_session: bytes = b""


class _Claiming(Protocol):
    def claimed(self, evidence: Any) -> Claimed:  # noqa: ANN401 - each scheme's own
        ...


def claimed(scheme: Scheme[Any], evidence: Any) -> Claimed:  # noqa: ANN401 - each scheme's own
    """Return what decoded Evidence says of itself.

    Raises:
        UnsupportedError: the scheme cannot say that without verifying.
    """
    read = getattr(scheme, "claimed", None)
    if read is None:
        raise UnsupportedError(
            f"{scheme.name} Evidence cannot be read without verifying it",
            format="Evidence",
            remedy="verify it with Troth's own Verifier",
        )
    claiming: _Claiming = scheme  # type: ignore[assignment]  # the method was looked for above
    return claiming.claimed(evidence)
