# SPDX-License-Identifier: Apache-2.0
"""What the server, operators' tools and members say to each other about Logical TEEs."""

from __future__ import annotations

from datetime import datetime

import msgspec

from troth.formats.ar4si import TrustTier
from troth.formats.ear import VerifierId
from troth.mesh.aggregated_result import aggregate
from troth.mesh.membership import InclusionProof, Membership, TeeMember

__all__ = ["ClassStatus", "OutsiderMessage", "ResultReply", "StatusReply"]


class ClassStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One member class in numbers.

    Attributes:
        name: of the class.
        status: word of AR4SI.
        tier: of its weakest member, "" where it has none.
        admitted, degraded, outside: how many; outside: named by the class and not in it.
    """

    name: str
    status: str
    tier: str
    admitted: int
    degraded: int
    outside: int


class OutsiderMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A node that a class names and that is not in it; see `NotAMember`."""

    member_class: str
    node_id: str
    reason: str
    detail: str


class StatusReply(msgspec.Struct, frozen=True, kw_only=True):
    """A Logical TEE as it is; for operators, and not signed.

    Attributes:
        name, trust_domain, owner: which.
        at: when this was so.
        definition: SHA-256 (hex) of the definition.
        epochs: accepted ones, newest first.
        membership: root of the tree of members.
        status, tier: of the whole, as in the result.
        ends: when a result made now ends.
        classes, members, others: the parts.
    """

    name: str
    trust_domain: str
    owner: str
    at: datetime
    definition: str
    epochs: tuple[int, ...]
    membership: str
    status: str
    tier: str
    ends: datetime | None
    classes: tuple[ClassStatus, ...]
    members: tuple[TeeMember, ...]
    others: tuple[OutsiderMessage, ...]

    @classmethod
    def of(cls, found: Membership, *, now: datetime) -> StatusReply:
        """Return the status of a membership."""
        # The result itself, so that screens and strangers are told the same.
        ear = aggregate(found, verifier=VerifierId("", ""), name="", now=now)
        classes = []
        for name, submod in ear.submods.items():
            own = found.of_class(name)
            admitted = sum(member.standing == "admitted" for member in own)
            classes.append(
                ClassStatus(
                    name=name,
                    status=submod.status.word,
                    tier=submod.troth.tier,
                    admitted=admitted,
                    degraded=len(own) - admitted,
                    outside=sum(other.member_class == name for other in found.others),
                )
            )
        return cls(
            name=found.tee.name,
            trust_domain=found.tee.trust_domain,
            owner=found.tee.owner,
            at=now,
            definition=found.tee.definition_digest,
            epochs=found.epochs,
            membership=found.digest,
            status=(ear.status or TrustTier.NONE).word,
            tier=ear.troth.tier,
            ends=ear.expires_at,
            classes=tuple(classes),
            members=found.members,
            others=tuple(
                OutsiderMessage(
                    member_class=other.member_class,
                    node_id=other.node_id,
                    reason=other.reason,
                    detail=other.detail,
                )
                for other in found.others
            ),
        )


class ResultReply(msgspec.Struct, frozen=True, kw_only=True):
    """A signed result with what can be checked against it.

    Attributes:
        result: the Aggregated Attestation Result, a compact JWT.
        members: all members, for operators.
        proofs: that one node is a member, of each of its classes.
    """

    result: str
    members: tuple[TeeMember, ...] = ()
    proofs: tuple[InclusionProof, ...] = ()
