# SPDX-License-Identifier: Apache-2.0
"""What the server counts. Label values are from fixed sets: no stranger can make new ones."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from troth.mesh.node import NodeState
from troth.verifier.replay import Change

__all__ = ["ServerMetrics"]

_JOIN_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


class ServerMetrics:
    """The server's metrics, on a registry of their own."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.joins = Counter(
            "troth_joins", "Joins by outcome", ["outcome", "code"], registry=self._registry
        )
        self.join_seconds = Histogram(
            "troth_join_seconds",
            "Time from Evidence to SVID or refusal",
            buckets=_JOIN_BUCKETS,
            registry=self._registry,
        )
        self.limited = Counter(
            "troth_rate_limited", "Requests turned away by a rate limit", registry=self._registry
        )
        self.withdrawals = Counter(
            "troth_withdrawals", "Withdrawals of Endorsements", registry=self._registry
        )
        self.policy_audits = Counter(
            "troth_policy_audits",
            "Appraisals that a policy which is not enforced was asked about, by how its "
            "conclusion differs",
            ["change"],
            registry=self._registry,
        )
        for change in Change:
            self.policy_audits.labels(change.value)
        self.unrecorded = Counter(
            "troth_appraisals_unrecorded",
            "Appraisals that could not be put on record",
            registry=self._registry,
        )
        self.streams = Gauge("troth_feed_streams", "Open feed streams", registry=self._registry)
        self._nodes = Gauge("troth_nodes", "Nodes by state", ["state"], registry=self._registry)

    @property
    def registry(self) -> CollectorRegistry:
        """Where other parts of the server register theirs."""
        return self._registry

    def render(self, counts: Mapping[NodeState, int]) -> bytes:
        """Return the exposition, with `counts` nodes by state."""
        for state in NodeState:
            self._nodes.labels(state.value).set(counts.get(state, 0))
        return generate_latest(self._registry)
