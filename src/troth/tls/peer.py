# SPDX-License-Identifier: Apache-2.0
"""The other end of a connection: as its channel shows it, and as it was found to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from troth.formats.ear.result import Ear
from troth.identity.spiffe_id import SpiffeId
from troth.identity.svid_verifier import RecognisedSvid
from troth.mesh.peer_policy import Decision, ResultModel
from troth.mesh.tier import Tier
from troth.tls.core.binding import BindingKind

__all__ = ["AttestedPeer", "ChannelPeer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPeer:
    """Whom TLS showed, verified by whoever owns the TLS session.

    Attributes:
        spiffe_id: of the verified SVID.
        not_after: end of that SVID, or None where the owner of the session does not tell it, as
            a proxy does not; then only a proof can admit the peer.
        svid: the SVID, or None where the owner of the session keeps it to itself.
    """

    spiffe_id: SpiffeId
    not_after: datetime | None = None
    svid: RecognisedSvid | None = None

    @classmethod
    def of(cls, svid: RecognisedSvid) -> ChannelPeer:
        """Return the peer whose verified SVID is at hand."""
        return cls(spiffe_id=svid.spiffe_id, not_after=svid.not_after, svid=svid)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedPeer:
    """Who the peer is and what was proved about it; nothing more than that.

    Attributes:
        spiffe_id: from its verified SVID.
        node_id: the node that its SVID names, or "" where it names none or is not at hand.
        binding: what the proof is tied to. NONE where only an SVID was asked for and it carries no
            result that this side believes.
        proof_key: "separate" for a key that the authority vouches for as held in hardware, and
            that is not the TLS key; "tls" for any other; "" where no proof was made.
        proof_key_digest: SHA-256 of the SubjectPublicKeyInfo of the key that proved, or b"".
        result: the Attestation Result, or None.
        model: how it came: "passport" or "background_check", or None.
        verifier: this side's name for the Verifier that gave it, or "".
        tier: its assurance tier, or None.
        scheme, component, layer: of the result, or "".
        decision: this side's decision with its deadline.
    """

    spiffe_id: SpiffeId
    node_id: str = ""
    binding: BindingKind
    proof_key: str = ""
    proof_key_digest: bytes = field(default=b"", repr=False)
    result: Ear | None = None
    model: ResultModel | None = None
    verifier: str = ""
    tier: Tier | None = None
    scheme: str = ""
    component: str = ""
    layer: str = ""
    decision: Decision

    @property
    def deadline(self) -> datetime | None:
        """When the connection ends unless the peer attests again; None where it was refused."""
        return self.decision.deadline.at if self.decision.deadline else None

    def describe(self) -> dict[str, str]:
        """Return everything as texts, for logs and headers; what is not known is left out."""
        facts = {
            "spiffe_id": str(self.spiffe_id),
            "node_id": self.node_id,
            "binding": self.binding.value,
            "proof_key": self.proof_key,
            "model": str(self.model or ""),
            "verifier": self.verifier,
            "tier": str(self.tier or ""),
            "scheme": self.scheme,
            "component": self.component,
            "layer": self.layer,
            "attested_at": self.result.issued_at.isoformat() if self.result else "",
            "deadline": self.deadline.isoformat() if self.deadline else "",
        }
        return {name: value for name, value in facts.items() if value}
