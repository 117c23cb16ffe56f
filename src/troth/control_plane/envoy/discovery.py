# SPDX-License-Identifier: Apache-2.0
"""The xDS state-of-the-world protocol, without sockets.

Theory of operation. `ResourceTable` holds what is published, with a version per resource type. A
`DiscoveryStream` is one Envoy's stream over it. Envoy asks for a type; each response carries a
version and a nonce of its own; the next request with that nonce accepts it (ACK) or refuses it
with a reason (NACK). A request that names an older nonce answers an older response. Clusters and
listeners are asked for as a whole: what is absent from a response is removed. Secrets are asked
for by name, and a response says nothing of the others. A refused version is not sent again: Envoy
keeps what it had, and the refusal is kept until a later version is accepted.

Spec: xDS REST and gRPC protocol, "ACK/NACK and resource type instance version", and
"How the client specifies what resources to return", as of Envoy 1.40.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from troth.control_plane.envoy.resources import CLUSTER, LISTENER, SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ORDER",
    "Answer",
    "DiscoveryRequest",
    "DiscoveryResponse",
    "DiscoveryStream",
    "Resource",
    "ResourceTable",
]

# Make before break: what a listener refers to comes before the listener.
ORDER = (SECRET, CLUSTER, LISTENER)
_WHOLE = frozenset({CLUSTER, LISTENER})
# A stream whose peer never answers would otherwise remember each response for ever.
_MAX_OUTSTANDING = 256


class Resource(Protocol):
    """A packed resource; only its bytes matter here."""

    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True)
class DiscoveryRequest:
    """What Envoy asked or answered.

    Attributes:
        type_url: the resource type.
        names: the resources wanted; empty means all of a type that is asked for as a whole.
        nonce: the response that this answers; "" where it answers none.
        error: why Envoy refused that response, or "" where it accepted it.
    """

    type_url: str
    names: frozenset[str] = frozenset()
    nonce: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class DiscoveryResponse:
    """What to send to Envoy: all resources of one type that it wants."""

    type_url: str
    version: int
    nonce: str
    resources: Mapping[str, Resource]


@dataclass(frozen=True, slots=True)
class Answer:
    """Envoy's answer to one response; `error` is "" where it accepted."""

    type_url: str
    version: int
    error: str


@dataclass(slots=True)
class _Published:
    version: int
    resources: dict[str, Resource]
    changed_in: dict[str, int]


@dataclass(slots=True)
class _Subscription:
    names: frozenset[str]
    sent: int = 0
    applied: int = 0
    refused: Answer | None = None
    known: dict[str, int] = field(default_factory=dict)
    outstanding: dict[str, int] = field(default_factory=dict)
    forced: bool = True


class ResourceTable:
    """What is published at this moment. Versions start at 1 and only grow."""

    def __init__(self) -> None:
        self._types: dict[str, _Published] = {}

    def publish(self, type_url: str, resources: Mapping[str, Resource]) -> int:
        """Replace all resources of a type, and return their version.

        Publishing what is published already changes nothing and gives the version it has.
        """
        now = self._types.setdefault(type_url, _Published(0, {}, {}))
        kept = {
            name
            for name, resource in resources.items()
            if name in now.resources and now.resources[name].value == resource.value
        }
        if now.version and len(kept) == len(resources) == len(now.resources):
            return now.version
        now.version += 1
        now.changed_in = {
            name: now.changed_in[name] if name in kept else now.version for name in resources
        }
        now.resources = dict(resources)
        return now.version

    def version(self, type_url: str) -> int:
        """Return the version of a type; 0 where it was never published."""
        published = self._types.get(type_url)
        return published.version if published else 0

    def resources(self, type_url: str) -> Mapping[str, Resource]:
        """Return all resources of a type by name."""
        published = self._types.get(type_url)
        return published.resources if published else {}

    def changed_in(self, type_url: str, name: str) -> int:
        """Return the version in which a resource got the content it has."""
        return self._types[type_url].changed_in[name]


class DiscoveryStream:
    """One stream of one Envoy.

    Feed it with `receive`; after that, and after each change of the table, send what `due` gives.
    """

    def __init__(self, table: ResourceTable, types: frozenset[str]) -> None:
        self._table = table
        self._subscriptions: dict[str, _Subscription] = {}
        self._responses = 0
        self.types = types

    def receive(self, request: DiscoveryRequest) -> Answer | None:
        """Take in a request; return the answer that it holds, if it answers a response.

        A type that is not served on this stream is ignored: Envoy then waits, as for a resource
        that does not exist.
        """
        if request.type_url not in self.types:
            return None
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            self._subscriptions[request.type_url] = _Subscription(names=request.names)
            return None
        if request.names != subscription.names:
            # Envoy may drop a secret and want it again later: then it must be sent again.
            subscription.known = {
                name: version
                for name, version in subscription.known.items()
                if name in request.names
            }
            subscription.names = request.names
        version = subscription.outstanding.get(request.nonce)
        if version is None:
            return None
        for nonce in list(subscription.outstanding):  # older responses are answered along with it
            del subscription.outstanding[nonce]
            if nonce == request.nonce:
                break
        answer = Answer(request.type_url, version, request.error)
        if request.error:
            subscription.refused = answer
        else:
            subscription.applied = max(subscription.applied, version)
            subscription.refused = None
        return answer

    def due(self) -> list[DiscoveryResponse]:
        """Return the responses to send now, in the order to send them."""
        responses = []
        for type_url in ORDER:
            subscription = self._subscriptions.get(type_url)
            version = self._table.version(type_url)
            if subscription is None or version == 0:
                continue
            if self._is_due(type_url, subscription):
                responses.append(self._respond(type_url, subscription, version))
            elif subscription.sent < version:
                # Nothing that this stream wants has changed: it is up to date as it is.
                self._skip(subscription, version)
        return responses

    def renew(self, type_url: str) -> None:
        """Send the resources of a type once more although nothing changed."""
        subscription = self._subscriptions.get(type_url)
        if subscription is not None:
            subscription.forced = True

    def applied(self, type_url: str) -> int:
        """Return the version that Envoy has accepted; 0 where it has none.

        A stream that wants no secrets has nothing to accept: it counts as up to date.
        """
        subscription = self._subscriptions.get(type_url)
        if subscription is None:
            return 0 if type_url in _WHOLE else self._table.version(type_url)
        if subscription.outstanding or self._is_due(type_url, subscription):
            # Sent or about to be sent, and not answered.
            return min(subscription.applied, self._table.version(type_url) - 1)
        return subscription.applied

    def refused(self, type_url: str) -> Answer | None:
        """Return the latest refusal of a type, unless a later version was accepted."""
        subscription = self._subscriptions.get(type_url)
        return subscription.refused if subscription else None

    def _wanted(self, type_url: str, subscription: _Subscription) -> dict[str, Resource]:
        available = self._table.resources(type_url)
        if type_url in _WHOLE:
            return dict(available)
        return {name: available[name] for name in sorted(subscription.names & available.keys())}

    def _is_due(self, type_url: str, subscription: _Subscription) -> bool:
        if self._table.version(type_url) == 0:
            return False
        wanted = self._wanted(type_url, subscription)
        now = {name: self._table.changed_in(type_url, name) for name in wanted}
        if type_url in _WHOLE:
            return subscription.forced or now != subscription.known
        # A secret that is no longer published cannot be taken back; only additions are sent.
        known = subscription.known
        return bool(wanted) and (
            subscription.forced or any(known.get(name) != since for name, since in now.items())
        )

    def _respond(
        self, type_url: str, subscription: _Subscription, version: int
    ) -> DiscoveryResponse:
        wanted = self._wanted(type_url, subscription)
        self._responses += 1
        nonce = str(self._responses)
        subscription.known = {name: self._table.changed_in(type_url, name) for name in wanted}
        subscription.sent = version
        subscription.forced = False
        subscription.outstanding[nonce] = version
        while len(subscription.outstanding) > _MAX_OUTSTANDING:
            del subscription.outstanding[next(iter(subscription.outstanding))]
        return DiscoveryResponse(type_url, version, nonce, wanted)

    def _skip(self, subscription: _Subscription, version: int) -> None:
        if subscription.applied == subscription.sent:
            subscription.applied = version
        elif subscription.outstanding:
            # The answer to the last response is also the answer for this version.
            last = next(reversed(subscription.outstanding))
            subscription.outstanding[last] = version
        subscription.sent = version
