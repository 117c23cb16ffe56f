# SPDX-License-Identifier: Apache-2.0
"""What the registry remembers of a node."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from troth.mesh.member import Member, Service
from troth.mesh.node import NodeState, Reason
from troth.mesh.tier import Tier

__all__ = ["AppraisedEvidence", "IssuedSvid", "NodeRecord", "ResultSummary", "member_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSummary:
    """The Attestation Result in the words that decisions and screens need.

    Attributes:
        status: AR4SI status.
        tier: assurance tier.
        verifier: name of the Verifier that signed.
        issued, expires: its life, aware UTC.
        policy_id, policy_digest: the Appraisal Policy that decided.
        epoch: registry epoch of the reference values and policy that it was made under.
        insecure: why the Evidence must not count in production.
        reference_values: ids of the Reference Values that matched, where the Verifier says so.
    """

    status: str
    tier: Tier
    verifier: str
    issued: datetime
    expires: datetime
    policy_id: str
    policy_digest: str
    epoch: int
    insecure: tuple[str, ...] = ()
    reference_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisedEvidence:
    """The last Evidence of a node with what came of it; enough to appraise it again.

    Attributes:
        scheme, media_type, evidence: the Evidence as it was received.
        challenge: what it had to carry.
        spki: DER SubjectPublicKeyInfo of the key that it vouches for.
        boot_session: of the Attester, or b"" where the scheme has none.
        result: what the appraisal came to.
        ear: the minimised result as a signed JWT, or "" where it was not signed.
    """

    scheme: str
    media_type: str
    evidence: bytes = field(repr=False)
    challenge: bytes
    spki: bytes = field(repr=False)
    boot_session: bytes
    result: ResultSummary
    ear: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedSvid:
    """The last X.509-SVID of a node; the certificate itself is not kept.

    Attributes:
        serial: certificate serial number in hex.
        key_digest: SHA-256 (hex) of its SubjectPublicKeyInfo.
        not_after: end of its validity.
        deadline: when connections on it have to be gone.
        chain: PEM of the certificates, leaf first; only in memory, empty when read back.
    """

    serial: str
    key_digest: str
    not_after: datetime
    deadline: datetime
    chain: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """One node.

    Attributes:
        id: random, and part of names in certificates and DNS labels.
        device: `device_key()` of the machine behind it.
        entry_id: the registration entry that it joined by.
        spiffe_id: the identity that it has; unique together with `device`.
        name: what its operator calls it.
        state, reason: where it stands and why.
        generation: raised by every transition.
        registered_at, changed_at: first and last change, aware UTC.
        services: what it advertised at its last join.
        appraised: its last Evidence, or None before the first.
        svid: its last SVID, or None.
    """

    id: str
    device: str
    entry_id: str
    spiffe_id: str
    name: str
    state: NodeState
    reason: Reason | None
    generation: int
    registered_at: datetime
    changed_at: datetime
    services: tuple[Service, ...] = ()
    appraised: AppraisedEvidence | None = None
    svid: IssuedSvid | None = None


def member_of(node: NodeRecord) -> Member:
    """Return what peers are told about `node`: neither its Evidence nor its device."""
    result = node.appraised.result if node.appraised else None
    return Member(
        node_id=node.id,
        name=node.name,
        spiffe_id=node.spiffe_id,
        state=node.state,
        reason=node.reason,
        generation=node.generation,
        tier=result.tier if result else None,
        key_digest=node.svid.key_digest if node.svid else "",
        deadline=node.svid.deadline if node.svid else None,
        ear=node.appraised.ear if node.appraised else "",
        services=node.services,
        insecure=result.insecure if result else (),
    )
