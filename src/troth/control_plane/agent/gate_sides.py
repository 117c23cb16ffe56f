# SPDX-License-Identifier: Apache-2.0
"""What the gate demands of each peer, from this node's rules.

The pattern is chosen per peer, per service and per direction: the first rule that is about them says whether its SVID is enough, or a passport, or a background check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from troth.control_plane.agent.config import RuleSection
from troth.control_plane.gate.connection import GateSide
from troth.identity.trust_bundle import TrustBundleSource
from troth.mesh.member import Member
from troth.mesh.passport import TrustedVerifier
from troth.mesh.peer_policy import covers
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier
from troth.tls.judge import BackgroundCheck, Judge
from troth.tls.policy import AttestationPolicy

__all__ = ["GateSides"]

Known = Callable[[str], Member | None]
"""Finds what the feed says about a SPIFFE ID; None where it says nothing or names several."""


class GateSides:
    """The rules of one direction, as the gate's connections need them."""

    def __init__(
        self,
        rules: Sequence[RuleSection],
        *,
        verifiers: Sequence[TrustedVerifier],
        bundles: TrustBundleSource,
        known: Known,
        check: BackgroundCheck | None = None,
    ) -> None:
        """Prepare the rules; `check` is needed for those that want background checks."""
        self._sides = [
            (rule, _side(rule, verifiers=verifiers, bundles=bundles, known=known, check=check))
            for rule in rules
        ]

    def find(self, spiffe_id: str, service: str) -> GateSide | None:
        """Return what is demanded of `spiffe_id` at `service`; None where no rule is about them."""
        for rule, side in self._sides:
            if rule.services and service not in rule.services:
                continue
            if any(covers(pattern, spiffe_id) for pattern in rule.peers):
                return side
        return None


def _side(
    rule: RuleSection,
    *,
    verifiers: Sequence[TrustedVerifier],
    bundles: TrustBundleSource,
    known: Known,
    check: BackgroundCheck | None,
) -> GateSide:
    believed = [verifier for verifier in verifiers if verifier.name in rule.verifiers]
    max_age = timedelta(seconds=rule.max_age_seconds) if rule.max_age_seconds else None
    longest = timedelta(seconds=rule.max_connection_seconds) or None
    policy = AttestationPolicy(
        peers=rule.peers,
        # Without keys of a believed Verifier a passport cannot be read; asking still says so.
        model=rule.model if believed or rule.model != "passport" else "background_check",
        min_tier=rule.min_tier,
        max_age=max_age,
        verifiers=believed,
        require_affirming=not rule.allow_warning,
        allow_insecure=rule.allow_insecure,
        max_connection_age=longest,
    )

    def svid_end(spiffe_id: str, now: datetime) -> datetime:
        # Envoy verified the SVID but does not say until when it is valid: a short life instead.
        end = now + (longest or DEFAULT_LIFETIMES[Tier.REGISTERED].connection)
        member = known(spiffe_id)
        if member is not None and member.deadline is not None:
            end = min(end, member.deadline)
        return end

    return GateSide(judge=Judge(policy, bundles, verifier=check), svid_end=svid_end)
