# SPDX-License-Identifier: Apache-2.0
"""What an agent counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from troth.control_plane.agent.peers import JudgedPeer
from troth.control_plane.agent.ports import Membership
from troth.errors import ConfigurationError, TrothError

__all__ = ["AgentMetrics", "serving"]


class AgentMetrics:
    """Of one agent. The gate registers its own beside them.

    Names say nothing about peers: a series for each would let a peer decide how many there are.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._member = Gauge(
            "troth_agent_member", "1 while this node is a member, else 0", registry=self.registry
        )
        self._svid = Gauge(
            "troth_agent_svid_expires_seconds",
            "End of this node's SVID, seconds since 1970",
            registry=self.registry,
        )
        self._renewals = Counter(
            "troth_agent_renewals",
            "Attempts to join or renew, by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self._heard = Gauge(
            "troth_agent_feed_heard_seconds",
            "When the server's feed was last heard, seconds since 1970",
            registry=self.registry,
        )
        self._sequence = Gauge(
            "troth_agent_feed_sequence", "Last event that was applied", registry=self.registry
        )
        self._peers = Gauge(
            "troth_agent_peers",
            "Other members, by this node's decision about them as clients and as servers",
            ["direction", "decision"],
            registry=self.registry,
        )

    def joined(self, membership: Membership) -> None:
        """Count a join or renewal that led to `membership`."""
        self._renewals.labels("renewed").inc()
        self._member.set(1)
        self._svid.set(membership.svid.not_after.timestamp())

    def failed(self, error: TrothError) -> None:
        """Count one that did not; `error` has a code of our own and nothing that a peer wrote."""
        self._renewals.labels(error.code).inc()

    def lost(self) -> None:
        """Note that this node is no member any more."""
        self._member.set(0)

    def heard(self, sequence: int, *, now: datetime) -> None:
        """Note that the feed said something, and up to which event it is known."""
        self._heard.set(now.timestamp())
        self._sequence.set(sequence)

    def judged(self, peers: Sequence[JudgedPeer]) -> None:
        """Note the decisions of the moment."""
        for direction, decisions in (
            ("client", [peer.as_client for peer in peers]),
            ("server", [peer.as_server for peer in peers]),
        ):
            admitted = sum(decision.admitted for decision in decisions)
            self._peers.labels(direction, "admitted").set(admitted)
            self._peers.labels(direction, "refused").set(len(decisions) - admitted)


@contextmanager
def serving(registry: CollectorRegistry, listen: str) -> Iterator[str]:
    """Serve `/metrics` over plain HTTP at "host:port" meanwhile; gives the address with its port.

    Raises:
        ConfigurationError: that is no address, or it is taken.
    """
    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, ValueError, OverflowError) as exc:
        raise ConfigurationError(
            source="agent configuration",
            key="metrics.listen",
            value=listen,
            accepted=f"a free address as host:port ({exc})",
        ) from exc
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
