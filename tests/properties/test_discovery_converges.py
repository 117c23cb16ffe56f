# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in between: when Envoy has answered everything, it holds what is published."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from troth.control_plane.envoy.discovery import (
    DiscoveryRequest,
    DiscoveryResponse,
    DiscoveryStream,
    ResourceTable,
)
from troth.control_plane.envoy.resources import CLUSTER, LISTENER, SECRET

TYPES = (SECRET, CLUSTER, LISTENER)
NAMES = st.sampled_from(["a", "b", "c"])
CONTENTS = st.dictionaries(NAMES, st.sampled_from([b"1", b"2", b"bad"]))


@dataclass
class Packed:
    type_url: str
    value: bytes


class EnvoyModel:
    """The client side of the protocol: holds resources, refuses any response with a bad one."""

    def __init__(self) -> None:
        self.wanted: frozenset[str] = frozenset()
        self.held: dict[str, dict[str, bytes]] = {type_url: {} for type_url in TYPES}
        self.inbox: deque[DiscoveryResponse] = deque()
        self.refused: set[str] = set()
        self.accepted = dict.fromkeys(TYPES, 0)

    def take(self) -> DiscoveryRequest:
        response = self.inbox.popleft()
        contents = {name: item.value for name, item in response.resources.items()}
        names = self.wanted if response.type_url == SECRET else frozenset()
        error = "bad" if b"bad" in contents.values() else ""
        if error:
            self.refused.add(response.type_url)
        else:
            self.refused.discard(response.type_url)
            self.accepted[response.type_url] = response.version
            if response.type_url != SECRET:
                self.held[response.type_url] = contents
            else:
                self.held[SECRET].update(contents)
        return DiscoveryRequest(response.type_url, names, response.nonce, error)


class Convergence(RuleBasedStateMachine):
    @initialize()
    def connect(self) -> None:
        self.table = ResourceTable()
        self.reconnect()

    @rule()
    def reconnect(self) -> None:
        """Envoy lost the stream, or restarted: it asks anew."""
        held = getattr(self, "envoy", None)
        self.envoy = EnvoyModel()
        if held is not None:
            self.envoy.held, self.envoy.wanted = held.held, held.wanted
        self.stream = DiscoveryStream(self.table, frozenset(TYPES))
        for type_url in (CLUSTER, LISTENER):
            self.stream.receive(DiscoveryRequest(type_url))
        self.stream.receive(DiscoveryRequest(SECRET, self.envoy.wanted))
        self.flush()

    @rule(type_url=st.sampled_from(TYPES), contents=CONTENTS)
    def publish(self, type_url: str, contents: dict[str, bytes]) -> None:
        self.table.publish(
            type_url, {name: Packed(type_url, value) for name, value in contents.items()}
        )
        self.flush()

    @rule(names=st.frozensets(NAMES))
    def want_secrets(self, names: frozenset[str]) -> None:
        for name in set(self.envoy.held[SECRET]) - names:
            del self.envoy.held[SECRET][name]
        self.envoy.wanted = names
        self.stream.receive(DiscoveryRequest(SECRET, names))
        self.flush()

    @rule()
    def answer_one(self) -> None:
        if self.envoy.inbox:
            self.stream.receive(self.envoy.take())
            self.flush()

    @rule()
    def answer_all(self) -> None:
        while self.envoy.inbox:
            self.answer_one()

    @rule(type_url=st.sampled_from(TYPES))
    def renew(self, type_url: str) -> None:
        self.stream.renew(type_url)
        self.flush()

    @invariant()
    def quiet_means_equal(self) -> None:
        if not hasattr(self, "envoy") or self.envoy.inbox:
            return
        for type_url in TYPES:
            published = {name: item.value for name, item in self.table.resources(type_url).items()}
            if type_url == SECRET:
                published = {
                    name: value for name, value in published.items() if name in self.envoy.wanted
                }
            if type_url in self.envoy.refused:
                assert self.stream.refused(type_url) is not None
            elif self.table.version(type_url):
                held = self.envoy.held[type_url]
                assert {name: held.get(name) for name in published} == published
                assert type_url == SECRET or held.keys() == published.keys()
                assert self.stream.applied(type_url) == self.table.version(type_url)

    @invariant()
    def applied_never_runs_ahead(self) -> None:
        if hasattr(self, "envoy"):
            for type_url in TYPES:
                assert self.stream.applied(type_url) <= self.table.version(type_url)
            for type_url in (CLUSTER, LISTENER):
                assert self.stream.applied(type_url) <= self.envoy.accepted[type_url]

    def flush(self) -> None:
        self.envoy.inbox.extend(self.stream.due())


TestConvergence = Convergence.TestCase
