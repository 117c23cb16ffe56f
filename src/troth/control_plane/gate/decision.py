# SPDX-License-Identifier: Apache-2.0
"""An agent's decision about a peer, as the gate, Envoy and people see it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from troth.control_plane.gate.frames import MAX_DEADLINE_MS, PeerClass
from troth.mesh.deadline import Deadline
from troth.tls.core.messages import Verdict
from troth.tls.peer import AttestedPeer

__all__ = ["deadline_ms", "filter_state", "peer_class"]

_CLASSES = {
    Verdict.REFUSED: PeerClass.REFUSED,
    Verdict.NOT_FRESH: PeerClass.REFUSED,
    Verdict.MALFORMED: PeerClass.PROTOCOL,
    Verdict.UNAVAILABLE: PeerClass.UNAVAILABLE,
    Verdict.TIMEOUT: PeerClass.TIMEOUT,
    Verdict.DECLINED: PeerClass.REFUSED,
}


def filter_state(peer: AttestedPeer, *, deadline: Deadline) -> Mapping[str, str]:
    """Return what Envoy's RBAC, headers and access logs may know of an admitted peer.

    Args:
        peer: as it was judged.
        deadline: when the connection ends unless it is extended.
    """
    result = peer.result
    words = {
        "troth.spiffe_id": str(peer.spiffe_id),
        "troth.binding": peer.binding.value,
        "troth.proof_key": peer.proof_key,
        "troth.scheme": peer.scheme,
        "troth.component": peer.component,
        "troth.layer": peer.layer,
        "troth.verifier": peer.verifier,
        "troth.deadline": f"{deadline.at:%Y-%m-%dT%H:%M:%SZ}",
    }
    if result is not None:
        words |= {
            "troth.result": result.overall_status.word,
            "troth.tier": result.troth.tier,
            "troth.result_issued_at": f"{result.issued_at:%Y-%m-%dT%H:%M:%SZ}",
            "troth.policy_digest": result.troth.policy_digest,
            "troth.insecure": "; ".join(result.insecure),
        }
    return {key: value[:4000] for key, value in words.items() if value}


def deadline_ms(at: datetime, now: datetime) -> int:
    """Return what the gate counts down from; at least 1, and at most what it accepts."""
    left = int((at - now) / timedelta(milliseconds=1))
    return max(1, min(left, MAX_DEADLINE_MS))


def peer_class(verdict: Verdict) -> PeerClass:
    """Return the class that the refused peer is told."""
    return _CLASSES.get(verdict, PeerClass.REFUSED)
