# SPDX-License-Identifier: Apache-2.0
"""What a Python program demands of the other end, for one direction of its connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from troth.errors import ApiMisuseError
from troth.mesh.passport import TrustedVerifier
from troth.mesh.peer_policy import PeerPolicy, PeerRule, ResultModel
from troth.mesh.tier import Tier
from troth.tls.core.messages import MAX_PROOF_OCTETS, Model, RequestParameters

__all__ = ["AttestationPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationPolicy:
    """What the peer must show. The two directions of a connection have a policy each.

    Attributes:
        peers: SPIFFE IDs, exactly, or "spiffe://TRUST-DOMAIN/*". Empty admits nobody.
        model: "passport": a result that a believed Verifier gave earlier. "background_check":
            fresh Evidence, appraised now by this side's Verifier. "any": a passport, and a
            background check where that is not enough. "svid_only": identity alone.
        min_tier: the weakest acceptable tier.
        max_age: oldest acceptable result, or None for as long as it is valid.
        verifiers: the Verifiers whose results are believed, with their keys. A result of this
            side's own background check is believed as well.
        proof_key: "separate" refuses a proof made with the key of the TLS certificate, so that who
            stole that key cannot pass; "any" takes both. The result says which it was.
        on_indeterminate: what to do where no decision can be had in time, because a Verifier is
            away. "refuse" ends the connection. "keep" lets an open connection live on, during
            re-attestation only, and no longer than its last accepted result allows.
        require_affirming: False also accepts the status "warning".
        allow_insecure: accept simulators and published test keys. For trials only.
        max_connection_age: longest life of a connection between attestations; None takes the
            tier's default.
        renew: ask the peer again after a third of the time that is left, so that a healthy
            connection does not end. False ends it at its deadline, unless `reattest` is called.
        max_payload_octets: longest attestation payload that is taken as it is; a longer one may
            come compressed or by reference.
    """

    peers: Sequence[str]
    model: Literal["passport", "background_check", "any", "svid_only"] = "passport"
    min_tier: Literal["registered", "identified", "measured", "confidential"] = "measured"
    max_age: timedelta | None = None
    verifiers: Sequence[TrustedVerifier] = ()
    proof_key: Literal["any", "separate"] = "any"
    on_indeterminate: Literal["refuse", "keep"] = "refuse"
    require_affirming: bool = True
    allow_insecure: bool = False
    max_connection_age: timedelta | None = None
    renew: bool = True
    max_payload_octets: int = 1 << 16

    def __post_init__(self) -> None:
        if isinstance(self.peers, str):
            raise ApiMisuseError("peers is a sequence of SPIFFE IDs, not one text")
        if self.model == "passport" and not self.verifiers:
            raise ApiMisuseError("a passport needs a Verifier to believe: pass verifiers=[…]")
        if self.model == "svid_only" and self.proof_key == "separate":
            raise ApiMisuseError("svid_only asks for no proof, so it cannot ask for its key")
        if not 0 < self.max_payload_octets <= MAX_PROOF_OCTETS:
            raise ApiMisuseError(f"max_payload_octets is 1 to {MAX_PROOF_OCTETS}")

    def peer_policy(self, own_verifier: str) -> PeerPolicy:
        """Return the mesh's form of it; `own_verifier` names this side's background check."""
        believed = {verifier.name for verifier in self.verifiers}
        if own_verifier and self.model in ("background_check", "any"):
            believed.add(own_verifier)
        return PeerPolicy(
            rules=(
                PeerRule(
                    peers=tuple(self.peers),
                    model=ResultModel(self.model),
                    min_tier=Tier(self.min_tier),
                    max_age=self.max_age,
                    verifiers=frozenset(believed),
                    require_affirming=self.require_affirming,
                    allow_insecure=self.allow_insecure,
                    max_connection_age=self.max_connection_age,
                ),
            )
        )

    def demand(
        self,
        model: Model | None = None,
        *,
        encodings: Sequence[str] = (),
        takes_references: bool = False,
    ) -> RequestParameters | None:
        """Return what to ask the peer for, or None where its SVID is enough.

        Args:
            model: ask for this one only.
            encodings: compressions that this side undoes.
            takes_references: whether this side fetches payloads.
        """
        if self.model == "svid_only":
            return None
        models = {
            "passport": (Model.PASSPORT,),
            "background_check": (Model.BACKGROUND_CHECK,),
            "any": (Model.PASSPORT, Model.BACKGROUND_CHECK),
        }[self.model]
        return RequestParameters(
            models=(model,) if model is not None else models,
            verifiers=tuple(verifier.name for verifier in self.verifiers),
            max_proof_octets=self.max_payload_octets,
            encodings=encodings,
            takes_references=takes_references,
        )
