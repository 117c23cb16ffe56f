# SPDX-License-Identifier: Apache-2.0
"""The agent against simulators of its two ports: a server and a proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.attested_world import DOMAIN, World
from support.waiting import until
from troth.control_plane.agent import static_side
from troth.control_plane.agent.config import AgentConfig
from troth.control_plane.agent.metrics import AgentMetrics
from troth.control_plane.agent.node_agent import NodeAgent
from troth.control_plane.config_file import parse_config
from troth.control_plane.envoy.resources import MeshResources
from troth.errors import AuthorizationError, UnavailableError
from troth.evidence.simulator import CcaOptions
from troth.formats.keys import spki
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_svid import X509Svid
from troth.mesh.event import Event, FeedMessage, FeedNotice, Heartbeat, Snapshot
from troth.mesh.member import Member, Service
from troth.mesh.node import NodeState
from troth.mesh.tier import Tier

CONFIG = f"""
[node]
name = "cloud"
[server]
url = "https://127.0.0.1:1"
trust_bundle = "unused"
spiffe_id = "spiffe://{DOMAIN}/troth/server"
[attester]
device = "unused"
[envoy]
xds_socket = "/tmp/unused"
[[inbound]]
name = "web"
listen = "127.0.0.1:1001"
upstream = "127.0.0.1:1002"
[[outbound]]
name = "web"
peer = "spiffe://{DOMAIN}/node/edge"
listen = "127.0.0.1:1003"
[[clients]]
peers = ["spiffe://{DOMAIN}/*"]
verifiers = ["home"]
allow_insecure = true
[[servers]]
peers = ["spiffe://{DOMAIN}/*"]
verifiers = ["home"]
allow_insecure = true
[[verifiers]]
name = "home"
"""


@dataclass(frozen=True)
class Joined:
    node_id: str
    spiffe_id: SpiffeId
    svid: X509Svid
    ear: str
    bundle: TrustBundle
    expires: datetime
    refresh_after: timedelta


class SimulatedServer:
    """A server whose answers the test decides."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.platform = world.platform(CcaOptions())
        self.problems: list[Exception] = []
        self.joins = 0
        self.keys: set[bytes] = set()
        self.refresh_after = timedelta(hours=1)
        self.lifetime = timedelta(hours=1)
        self.messages: asyncio.Queue[FeedMessage] = asyncio.Queue()
        self.acknowledged: list[int] = []
        self.believed: list[str] = []
        self.on_notice: Callable[[FeedNotice], None] | None = None

    def believe(self, pem: str) -> None:
        self.believed.append(pem)

    async def join(
        self,
        attester: object,
        key: ec.EllipticCurvePrivateKey,
        *,
        node_name: str = "",
        services: Sequence[Service] = (),
    ) -> Joined:
        del attester, node_name, services
        self.joins += 1
        if self.problems:
            raise self.problems.pop(0)
        self.keys.add(spki(key.public_key()))
        node = self.world.join("cloud", self.platform)
        plain = self.world._plain_svid(key, node.svid.spiffe_id)
        return Joined(
            node_id="n-cloud",
            spiffe_id=node.svid.spiffe_id,
            svid=plain,
            ear=node.passport,
            bundle=self.world.authority.bundle(),
            expires=datetime.now(UTC) + self.lifetime,
            refresh_after=self.refresh_after,
        )

    async def feed(self, after: int | None = None) -> AsyncIterator[FeedMessage]:
        del after
        while True:
            yield await self.messages.get()

    async def acknowledge(self, sequence: int) -> None:
        self.acknowledged.append(sequence)

    async def result_keys(self) -> bytes:
        numbers = self.world.result_key.public_key().public_numbers()

        def text(value: int) -> str:
            import base64  # noqa: PLC0415 - used here alone

            return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()

        jwk = {"kty": "EC", "crv": "P-256", "x": text(numbers.x), "y": text(numbers.y)}
        return json.dumps({"keys": [jwk]}).encode()


@dataclass
class SimulatedProxy:
    """A proxy that takes everything, or fails as the test decides."""

    applied: list[MeshResources] = field(default_factory=list)
    problem: Exception | None = None

    async def apply(self, resources: MeshResources, *, timeout_seconds: float = 10) -> None:
        del timeout_seconds
        self.applied.append(resources)
        if self.problem is not None:
            raise self.problem

    @property
    def listeners(self) -> list[str]:
        return [str(listener["name"]) for listener in self.applied[-1].listeners]

    def chains(self) -> str:
        return json.dumps([dict(each) for each in self.applied[-1].listeners], default=str)


class Scene:
    """World, server, proxy, agent, and a peer called edge."""

    def __init__(self, config: str = CONFIG) -> None:
        self.world = World()
        self.server = SimulatedServer(self.world)
        self.proxy = SimulatedProxy()
        self.edge = self.world.join("edge", self.world.platform())
        self.joined: list[Any] = []
        self.metrics = AgentMetrics()
        self.agent = NodeAgent(
            parse_config(config, AgentConfig, source="test"),
            server=self.server,
            proxy=self.proxy,
            attester=self.server.platform,
            on_joined=self.joined.append,
            metrics=self.metrics,
        )

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def member(self, **changes: Any) -> Member:
        given: dict[str, Any] = {
            "node_id": "n-edge",
            "spiffe_id": str(self.edge.svid.spiffe_id),
            "state": NodeState.ADMITTED,
            "reason": None,
            "generation": 3,
            "tier": Tier.MEASURED,
            "key_digest": hashlib.sha256(self.edge.svid.spki).hexdigest(),
            "deadline": datetime.now(UTC) + timedelta(minutes=10),
            "ear": self.edge.passport,
            "services": (Service(name="web", protocol="http", address="127.0.0.1:2001"),),
        }
        return Member(**{**given, **changes})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Scene]:
        task = asyncio.create_task(self.agent.run())
        try:
            await until(lambda: bool(self.joined) or task.done())
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def tell(self, *members: Member, sequence: int = 1) -> None:
        await self.server.messages.put(Snapshot(sequence=sequence, members=members))
        await until(lambda: sequence in self.server.acknowledged)


async def test_nobody_is_reachable_before_the_feed_names_somebody() -> None:
    async with Scene().running() as scene:
        await until(lambda: bool(scene.proxy.applied))
        assert scene.proxy.listeners == []


async def test_an_admitted_peer_gets_its_chains_and_its_key_is_pinned() -> None:
    async with Scene().running() as scene:
        await scene.tell(scene.member())
        assert len(scene.proxy.listeners) == 2
        assert "verify_certificate_spki" in scene.proxy.chains()
        assert scene.counted("troth_agent_member") == 1
        assert scene.counted("troth_agent_renewals_total", outcome="renewed") == 1
        assert scene.counted("troth_agent_feed_sequence") == 1
        for direction in ("client", "server"):
            peers = {"direction": direction, "decision": "admitted"}
            assert scene.counted("troth_agent_peers", **peers) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"state": NodeState.QUARANTINED},
        {"state": NodeState.EXPELLED},
        {"ear": ""},
        {"ear": "e30.e30.e30"},
        {"key_digest": "00" * 32},
        {"deadline": None},
        {"deadline": datetime(2020, 1, 1, tzinfo=UTC)},
        {"spiffe_id": "spiffe://elsewhere.example/node/edge"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_one_thing_wrong_with_a_member_keeps_it_out(change: dict[str, Any]) -> None:
    async with Scene().running() as scene:
        await scene.tell(scene.member(**change))
        assert scene.proxy.listeners == []


async def test_a_result_of_a_stranger_keeps_a_member_out_although_the_server_admits_it() -> None:
    stranger = World()
    node = stranger.join("edge", stranger.platform())
    async with Scene().running() as scene:
        member = scene.member(
            ear=node.passport, key_digest=hashlib.sha256(node.svid.spki).hexdigest()
        )
        await scene.tell(member)
        assert scene.proxy.listeners == []


async def test_without_rules_nobody_is_admitted() -> None:
    bare = CONFIG.partition("[[clients]]")[0] + CONFIG[CONFIG.index("[[verifiers]]") :]
    async with Scene(bare).running() as scene:
        await scene.tell(scene.member())
        assert scene.proxy.listeners == []


async def test_a_withdrawn_peer_loses_its_chains_and_the_event_is_acknowledged() -> None:
    async with Scene().running() as scene:
        await scene.tell(scene.member())
        gone = scene.member(state=NodeState.QUARANTINED, generation=4)
        await scene.server.messages.put(Event(sequence=2, at=datetime.now(UTC), member=gone))
        await until(lambda: 2 in scene.server.acknowledged)
        assert scene.proxy.listeners == []


async def test_an_old_event_does_not_bring_a_peer_back() -> None:
    async with Scene().running() as scene:
        await scene.tell(scene.member(state=NodeState.QUARANTINED, generation=4))
        await scene.server.messages.put(
            Event(sequence=2, at=datetime.now(UTC), member=scene.member(generation=3))
        )
        await until(lambda: 2 in scene.server.acknowledged)
        assert scene.proxy.listeners == []


async def test_an_event_that_no_proxy_has_is_not_acknowledged() -> None:
    scene = Scene()
    scene.proxy.problem = UnavailableError("no proxy")
    async with scene.running():
        await scene.server.messages.put(Snapshot(sequence=5, members=(scene.member(),)))
        await until(lambda: bool(scene.proxy.applied) and len(scene.proxy.listeners) == 2)
        await scene.server.messages.put(Heartbeat(sequence=5))
        await until(scene.server.messages.empty)
        assert 5 not in scene.server.acknowledged


async def test_a_peers_chains_are_replaced_once_at_the_deadline_they_were_admitted_with() -> None:
    async with Scene().running() as scene:
        first = scene.member(deadline=datetime.now(UTC) + timedelta(seconds=1))
        await scene.tell(first)
        before = scene.proxy.chains()
        renewed = replace_member(first, deadline=datetime.now(UTC) + timedelta(minutes=5))
        await scene.server.messages.put(Event(sequence=2, at=datetime.now(UTC), member=renewed))
        await until(lambda: 2 in scene.server.acknowledged)
        assert scene.proxy.chains() == before, "a renewal disturbs nothing"
        await until(lambda: scene.proxy.chains() != before, seconds=5)
        assert len(scene.proxy.listeners) == 2


async def test_a_peer_that_does_not_renew_is_gone_at_its_deadline() -> None:
    async with Scene().running() as scene:
        await scene.tell(scene.member(deadline=datetime.now(UTC) + timedelta(seconds=1)))
        assert len(scene.proxy.listeners) == 2
        await until(lambda: scene.proxy.listeners == [], seconds=5)


async def test_a_server_that_cannot_be_reached_is_asked_again() -> None:
    scene = Scene()
    scene.server.problems = [UnavailableError("down", retry_after_seconds=0.01)] * 3
    async with scene.running():
        assert scene.server.joins == 4


async def test_a_refusal_at_the_start_ends_the_agent_with_nothing_published() -> None:
    scene = Scene()
    scene.server.problems = [AuthorizationError("refused")]
    with pytest.raises(AuthorizationError):
        await scene.agent.run()
    assert scene.proxy.applied == []


async def test_a_refusal_at_renewal_takes_everything_from_the_proxy() -> None:
    scene = Scene()
    scene.server.refresh_after = timedelta(seconds=0.5)
    async with scene.running():
        await scene.tell(scene.member())
        scene.server.problems = [AuthorizationError("expelled")]
        await until(lambda: scene.proxy.applied[-1].secrets == (), seconds=5)
        assert scene.proxy.listeners == []
        assert scene.counted("troth_agent_member") == 0
        assert scene.counted("troth_agent_renewals_total", outcome="refused") == 1


async def test_a_renewal_keeps_the_key_that_peers_have_pinned() -> None:
    scene = Scene()
    scene.server.refresh_after = timedelta(seconds=0.05)
    async with scene.running():
        await until(lambda: scene.server.joins >= 3, seconds=5)
        assert len(scene.server.keys) == 1


async def test_an_unreachable_server_at_renewal_leaves_the_svid_until_it_ends() -> None:
    scene = Scene()
    scene.server.refresh_after = timedelta(seconds=0.05)
    scene.server.lifetime = timedelta(seconds=2)
    async with scene.running():
        await scene.tell(scene.member())
        scene.server.problems = [UnavailableError("down", retry_after_seconds=0.2)] * 100
        joins = scene.server.joins
        await until(lambda: scene.server.joins > joins + 1)
        assert len(scene.proxy.listeners) == 2
        await until(lambda: scene.proxy.applied[-1].secrets == (), seconds=6)


def replace_member(member: Member, **changes: Any) -> Member:
    import msgspec  # noqa: PLC0415 - used here alone

    return msgspec.structs.replace(member, **changes)


@pytest.mark.parametrize("bound", [0, 600])
async def test_an_envoy_with_a_file_of_its_own_gets_pins_and_an_end_is_in_force_after_the_bound(
    monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    monkeypatch.setattr(static_side, "MAX_UNGATED_SECONDS", bound)
    scene = Scene()
    config = parse_config(CONFIG, AgentConfig, source="test")
    scene.agent._static = static_side.StaticSide(config, trust=scene.agent._trust)

    def pins() -> list[str]:
        secrets = scene.proxy.applied[-1].secrets if scene.proxy.applied else ()
        contexts = [s["validation_context"] for s in secrets if s["name"] == "troth/servers/web"]
        return [pin for each in contexts for pin in each["verify_certificate_spki"]]

    pin = base64.b64encode(hashlib.sha256(scene.edge.svid.spki).digest()).decode()
    async with scene.running():
        await scene.server.messages.put(Snapshot(sequence=1, members=(scene.member(),)))
        await until(lambda: pins() == [pin])
        assert scene.proxy.listeners == []
        gone = scene.member(state=NodeState.EXPELLED, generation=4)
        await scene.server.messages.put(Event(sequence=2, at=datetime.now(UTC), member=gone))
        await until(lambda: pins() == [base64.b64encode(bytes(32)).decode()])
        if bound:
            await scene.server.messages.put(Heartbeat(sequence=2))
            await until(scene.server.messages.empty)
            assert not scene.server.acknowledged
        else:
            await until(lambda: 2 in scene.server.acknowledged)
