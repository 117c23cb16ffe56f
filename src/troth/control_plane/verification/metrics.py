# SPDX-License-Identifier: Apache-2.0
"""What the standard APIs count. Label values are from fixed sets: no stranger can make new ones.

With several workers each counts into files that all of them read (`PROMETHEUS_MULTIPROC_DIR`, set
before a worker starts), so that any of them answers for all.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["VerificationMetrics"]

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)


class VerificationMetrics:
    """The metrics of the standard APIs.

    Args:
        registry: where they are registered; one of their own by default.
    """

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or CollectorRegistry()
        self.sessions = Counter(
            "troth_verification_sessions", "Sessions opened", registry=self._registry
        )
        self._verifications = Counter(
            "troth_verifications",
            "Evidence appraised through the standard API, by scheme and status",
            ["scheme", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "troth_verification_seconds",
            "Time to verify, appraise and sign",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.refused = Counter(
            "troth_api_refused",
            "Requests to the standard APIs that were refused, by interface and class of error",
            ["api", "code"],
            registry=self._registry,
        )
        self.provisioned = Counter(
            "troth_provisionings",
            "CoRIMs submitted through the standard API, by outcome",
            ["outcome"],
            registry=self._registry,
        )
        self.answers = Counter(
            "troth_coserv_answers",
            "CoSERV queries answered, by where the answer came from",
            ["source"],
            registry=self._registry,
        )

    def verified(self, scheme: str, status: str, seconds: float) -> None:
        """Count one appraisal."""
        self._verifications.labels(scheme or "unknown", status).inc()
        self._seconds.observe(seconds)

    def render(self) -> bytes:
        """Return the exposition: of all workers where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]  # prometheus_client has no types for it
        return generate_latest(everybody)
