# SPDX-License-Identifier: Apache-2.0
"""Refused joins: why, in words, and what their nodes may be told."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from troth.errors import AuthorizationError, TrothError
from troth.mesh.admission import Refusal
from troth.mesh.registry import JoinRefusal
from troth.verifier.result import AttestationResult

__all__ = ["JoinRefusedError", "refusal_cause"]


class JoinRefusedError(TrothError):
    """The join was refused and the refusal is on record.

    Attributes:
        cause: why.
        refusal: what was recorded.
        disclosed: whether the node may be told the findings: its Evidence was authentic, so they
            go to the machine that they are about and to nobody else.
    """

    def __init__(self, cause: TrothError, refusal: JoinRefusal, *, disclosed: bool) -> None:
        super().__init__(str(cause), remedy=cause.remedy)
        self.cause, self.refusal, self.disclosed = cause, refusal, disclosed


def refusal_cause(why: Refusal, result: AttestationResult) -> AuthorizationError:
    """Return the error that a refusal of an authentic node is."""
    message, remedy = _WORDS[why]
    return AuthorizationError(
        message.format(status=result.status.word, tier=result.tier), result=result, remedy=remedy
    )


_WORDS: Mapping[Refusal, tuple[str, str]] = MappingProxyType(
    {
        Refusal.EXPELLED: (
            "this node was expelled",
            "an expelled node does not come back; register the machine anew",
        ),
        Refusal.RETIRED: (
            "this node was retired",
            "a retired node does not come back; register the machine anew",
        ),
        Refusal.HELD: (
            "this node is quarantined until an operator has looked at it",
            "`reattest` lets it try again once the cause is known",
        ),
        Refusal.DUPLICATE: (
            (
                "two machines hold this node's identity: it answers from a boot session that "
                "another one has replaced, or with the key of another device's node"
            ),
            "find the copy; then `reattest` each node that is to stay, and `expel` the others",
        ),
        Refusal.NOT_AFFIRMING: (
            "the Attestation Result is {status}",
            "see the findings: each names what was expected and what to do",
        ),
        Refusal.TIER_TOO_LOW: (
            "the Attestation Result reaches only the tier {tier}",
            "see the findings, or lower the entry's min_tier if that is meant",
        ),
    }
)
