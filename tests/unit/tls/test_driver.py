# SPDX-License-Identifier: Apache-2.0
"""The driver of an exchange: what it does between an event and the answer to it."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from support.attested_pair import Party, Setting, certificates, channel_peer, pair, session
from support.attested_world import Node, World
from support.waiting import until
from troth.errors import ApiMisuseError, SignatureError, UnavailableError
from troth.evidence.simulator import CcaOptions
from troth.formats.ear.result import Ear
from troth.tls.asyncio import driver as driver_module
from troth.tls.asyncio.driver import AttestationRefusedError
from troth.tls.core.binding import BindingKind
from troth.tls.core.exchange import Timeouts
from troth.tls.core.messages import MessageKind, Verdict
from troth.tls.peer import ChannelPeer

QUICK = Timeouts(peer=0.3, prove=0.3, appraise=0.3, renewal=0.3)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def cloud(world: World) -> Node:
    return world.join("cloud", world.platform(CcaOptions()))


@pytest.fixture(scope="module")
def edge(world: World) -> Node:
    return world.join("edge")


class Check:
    """A Verifier that does what a test wants before it answers."""

    def __init__(self, world: World, before: Callable[[], Any] = lambda: None) -> None:
        self.name = "here"
        self._check, self.before, self.calls = world.check, before, 0

    async def appraise(self, evidence: bytes, media_type: str, **about: Any) -> Ear:
        self.calls += 1
        waited = self.before()
        if asyncio.iscoroutine(waited):
            await waited
        return await self._check.appraise(evidence, media_type, **about)


class SlowAttester:
    """A platform whose device is busy as often as a test wants."""

    def __init__(self, node: Node, busy: int) -> None:
        self._platform, self.busy = node.platform, busy
        self.scheme = node.platform.scheme
        self.media_type = node.platform.media_type
        self.challenge_size = node.platform.challenge_size

    def attest(self, challenge: bytes) -> bytes:
        if self.busy:
            self.busy -= 1
            raise UnavailableError("the device is busy")
        return self._platform.attest(challenge)

    def describe(self) -> Any:
        return self._platform.describe()


async def both_open(one: Party, other: Party) -> None:
    async with asyncio.timeout(5):
        await asyncio.gather(one.opened, other.opened)


async def ends(party: Party) -> Any:
    async with asyncio.timeout(5):
        return await party.ended


@pytest.mark.parametrize("bind", [session, certificates])
async def test_both_ends_open_on_either_binding(
    world: World, cloud: Node, edge: Node, bind: Any
) -> None:
    client = Setting(cloud, world.policy(model="background_check"))
    server = Setting(edge, world.policy())
    async with pair(world, client, server, bind=bind) as (one, other):
        await both_open(one, other)
    assert one.driver.peer.node_id == "edge"
    assert one.driver.peer.model == "background_check"
    assert other.driver.peer.model == "passport"
    kind = BindingKind.SESSION if bind is session else BindingKind.KEY
    assert {one.driver.peer.binding, other.driver.peer.binding} == {kind}


async def test_whom_no_proof_could_help_is_refused_unasked(
    world: World, cloud: Node, edge: Node
) -> None:
    check = Check(world)
    policy = world.policy(peers=["spiffe://mesh.example/node/other"], model="background_check")
    server = Setting(edge, policy, verifier=check)
    async with pair(world, Setting(cloud, world.policy()), server) as (one, other):
        assert (await ends(one)).by_peer
        assert "SPIFFE ID is spiffe://mesh.example/node/cloud" in (await ends(other)).why
    assert [message.kind for message in other.sent] == [MessageKind.DECISION]
    assert not check.calls


async def test_an_identity_that_is_known_later_still_decides(
    world: World, cloud: Node, edge: Node
) -> None:
    """A gate's client speaks before its proxy says who answered."""
    client = Setting(cloud, world.policy(model="svid_only", verifiers=()))
    async with pair(
        world, client, Setting(edge, world.policy()), bind=certificates, start=False
    ) as (one, other):
        one.driver.start()
        other.driver.start(channel_peer(world, cloud))
        await asyncio.sleep(0)
        assert MessageKind.DECISION not in [sent.kind for sent in one.sent]
        one.driver.see_peer(channel_peer(world, edge))
        await both_open(one, other)
    assert one.driver.peer.binding is BindingKind.NONE


async def test_a_proof_before_the_identity_ends_it(world: World, cloud: Node, edge: Node) -> None:
    sides = Setting(cloud, world.policy()), Setting(edge, world.policy())
    async with pair(world, *sides, start=False) as (one, other):
        other.driver.start(channel_peer(world, cloud))
        one.driver.start()
        assert (await ends(one)).verdict is Verdict.UNAVAILABLE
        assert not other.driver.flowing


async def test_a_verifier_that_is_silent_refuses_at_the_opening(
    world: World, cloud: Node, edge: Node
) -> None:
    check = Check(world, lambda: asyncio.sleep(60))
    client = Setting(cloud, world.policy(model="background_check"), verifier=check, timeouts=QUICK)
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        ended = await ends(one)
        assert ended.verdict is Verdict.UNAVAILABLE
        assert "did not answer in time" in ended.why
        assert (await ends(other)).by_peer


@pytest.mark.parametrize("why", ["silent", "away"])
@pytest.mark.parametrize("keep", [True, False])
async def test_a_verifier_outage_keeps_an_open_connection_only_where_the_policy_says(
    world: World, cloud: Node, edge: Node, *, keep: bool, why: str
) -> None:
    check = Check(world)
    policy = world.policy(
        model="background_check", on_indeterminate="keep" if keep else "refuse", renew=False
    )
    client = Setting(cloud, policy, verifier=check, timeouts=QUICK)
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        before = one.driver.peer

        def fail() -> Any:
            if why == "away":
                raise UnavailableError("the Verifier is away")
            return asyncio.sleep(60)

        check.before = fail
        expected = UnavailableError if keep else AttestationRefusedError
        with pytest.raises(expected):
            await one.driver.reattest()
        assert one.driver.flowing is keep
        assert one.driver.peer.deadline == before.deadline
        if keep:
            check.before = lambda: None
            await one.driver.reattest()
            assert one.driver.flowing


async def test_a_busy_device_is_asked_again_while_bytes_flow_but_not_before(
    world: World, cloud: Node, edge: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_FIRST_RETRY_SECONDS", 0.01)
    attester = SlowAttester(edge, busy=0)
    credentials = world.credentials(edge, attester=attester)
    client = Setting(cloud, world.policy(model="background_check", renew=False))
    server = Setting(edge, world.policy(), credentials=credentials)
    async with pair(world, client, server) as (one, other):
        await both_open(one, other)
        attester.busy = 3
        await one.driver.reattest()
        assert attester.busy == 0
    attester.busy = 1
    async with pair(world, client, server) as (one, other):
        assert (await ends(one)).verdict is Verdict.DECLINED
        assert "busy" in (await ends(other)).why


async def test_an_attester_that_hangs_is_given_up(world: World, cloud: Node, edge: Node) -> None:
    class Hanging(SlowAttester):
        def attest(self, challenge: bytes) -> bytes:
            released.wait(5)
            return super().attest(challenge)

    released = threading.Event()
    credentials = world.credentials(edge, attester=Hanging(edge, 0))
    client = Setting(cloud, world.policy(model="background_check"))
    server = Setting(edge, world.policy(), credentials=credentials, timeouts=QUICK)
    try:
        async with pair(world, client, server) as (one, other):
            assert "took too long" in (await ends(other)).why
            assert (await ends(one)).verdict is Verdict.DECLINED
    finally:
        released.set()


async def test_who_does_not_read_gets_no_more_proofs(world: World, cloud: Node, edge: Node) -> None:
    client = Setting(cloud, world.policy(renew=False), timeouts=QUICK)
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        other.free.clear()
        sent = len(other.sent)
        renewal = asyncio.create_task(one.driver.reattest())
        with pytest.raises(AttestationRefusedError):
            await renewal
        assert len(other.sent) == sent
        assert one.driver.ended is not None
        assert one.driver.ended.verdict is Verdict.TIMEOUT


async def test_rounds_asked_for_at_once_take_turns(world: World, cloud: Node, edge: Node) -> None:
    check = Check(world)
    client = Setting(cloud, world.policy(model="background_check", renew=False), verifier=check)
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        peers = await asyncio.gather(*(one.driver.reattest() for _ in range(3)))
        assert check.calls == 4
        assert len({id(peer) for peer in peers}) == 3


async def test_both_ends_may_ask_at_the_same_moment(world: World, cloud: Node, edge: Node) -> None:
    model = world.policy(model="background_check", renew=False)
    async with pair(world, Setting(cloud, model), Setting(edge, model)) as (one, other):
        await both_open(one, other)
        for _ in range(3):
            await asyncio.gather(one.driver.reattest(), other.driver.reattest())
        assert len(one.renewed) == len(other.renewed) == 3
        assert one.driver.flowing
        assert other.driver.flowing


async def test_a_healthy_connection_is_renewed_before_its_deadline(
    world: World, cloud: Node, edge: Node
) -> None:
    policy = world.policy(model="background_check", max_connection_age=timedelta(seconds=4))
    async with pair(world, Setting(cloud, policy), Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        first = one.driver.peer.deadline
        await until(lambda: bool(one.renewed))
        assert one.driver.flowing
        assert first is not None
        assert one.driver.peer.deadline is not None
        assert one.driver.peer.deadline >= first


@pytest.mark.parametrize("step", [timedelta(0), -timedelta(days=1)])
async def test_a_result_that_lapses_ends_both_ends_whatever_the_wall_clock_does(
    world: World, cloud: Node, edge: Node, step: timedelta
) -> None:
    policy = world.policy(renew=False, max_connection_age=timedelta(minutes=5))
    client = Setting(cloud, policy)
    async with pair(world, Setting(cloud, policy), Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        deadline = one.driver.peer.deadline
    assert deadline is not None
    client.clock.set(deadline - timedelta(milliseconds=200))
    with capture_logs() as logs:
        async with pair(world, client, Setting(edge, world.policy())) as (one, other):
            await both_open(one, other)
            client.clock.offset += step
            assert (await ends(one)).why == "lapsed: max_connection_age"
            assert (await ends(other)).by_peer
    whys = {(entry["role"], entry["why"]) for entry in logs if entry["event"] == "connection ended"}
    assert whys == {
        ("client", "lapsed: max_connection_age"),
        ("server", "the peer says: refused"),
    }


async def test_a_wall_clock_that_jumps_ahead_ends_what_is_past_its_deadline(
    world: World, cloud: Node, edge: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_LOOK_SECONDS", 0.05)
    client = Setting(cloud, world.policy(renew=False))
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        client.clock.offset = timedelta(hours=1)
        assert (await ends(one)).why.startswith("lapsed")


async def test_a_channel_that_is_gone_fails_whoever_waits(
    world: World, cloud: Node, edge: Node
) -> None:
    sides = Setting(cloud, world.policy(renew=False)), Setting(edge, world.policy())
    async with pair(world, *sides) as (one, other):
        await both_open(one, other)
        one.hold = lambda _: True
        waiting = asyncio.create_task(one.driver.reattest())
        await asyncio.sleep(0)
        one.driver.stop()
        with pytest.raises(AttestationRefusedError, match="gone"):
            await waiting
        assert not one.driver.flowing
        with pytest.raises(AttestationRefusedError):
            await one.driver.reattest()


async def test_nothing_can_be_asked_again_before_it_is_open_or_of_an_svid(
    world: World, cloud: Node, edge: Node
) -> None:
    sides = Setting(cloud, world.policy(model="svid_only")), Setting(edge, world.policy())
    async with pair(world, *sides, start=False) as (one, other):
        with pytest.raises(ApiMisuseError, match="before the connection is open"):
            _ = one.driver.peer
        with pytest.raises(ApiMisuseError, match="only an open"):
            await one.driver.reattest()
        one.driver.start(channel_peer(world, edge))
        other.driver.start(channel_peer(world, cloud))
        await both_open(one, other)
        with pytest.raises(ApiMisuseError, match="svid_only"):
            await one.driver.reattest()
        assert one.driver.flowing


async def test_a_defect_of_ours_ends_the_connection_and_is_logged(
    world: World, cloud: Node, edge: Node
) -> None:
    def explode() -> None:
        raise ZeroDivisionError

    check = Check(world, explode)
    client = Setting(cloud, world.policy(model="background_check"), verifier=check)
    with capture_logs() as logs:
        async with pair(world, client, Setting(edge, world.policy())) as (one, other):
            assert (await ends(one)).verdict is Verdict.UNAVAILABLE
            assert (await ends(other)).by_peer
    assert any(entry["event"] == "defect in an exchange" for entry in logs)


async def test_a_passport_that_is_not_believed_is_followed_by_one_background_check(
    world: World, cloud: Node, edge: Node
) -> None:
    check = Check(world)
    stranger = World().trusted
    client = Setting(cloud, world.policy(model="any", verifiers=[stranger]), verifier=check)
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        assert one.driver.peer.model == "background_check"
    assert check.calls == 1

    def refuse() -> None:
        raise SignatureError("not this one")

    check.before = refuse
    async with pair(world, client, Setting(edge, world.policy())) as (one, _):
        assert (await ends(one)).why == "not this one"
    assert check.calls == 2


async def test_an_appraisal_that_ends_after_the_connection_opens_nothing(
    world: World, cloud: Node, edge: Node
) -> None:
    check = Check(world, lambda: asyncio.sleep(0.05))
    client = Setting(cloud, world.policy(model="background_check"), verifier=check)
    async with pair(world, client, Setting(edge, world.policy())) as (one, _):
        await until(lambda: check.calls == 1)
        one.driver.refuse(Verdict.REFUSED, "an operator said so")
        await asyncio.sleep(0.1)
        assert not one.opened.done()
        with pytest.raises(ApiMisuseError):
            _ = one.driver.peer


async def test_an_outage_at_a_renewal_is_outlived_where_the_policy_keeps(
    world: World, cloud: Node, edge: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again by itself, after the Verifier was away once."""
    monkeypatch.setattr(driver_module, "_LEAST_RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(driver_module, "REFRESH_FRACTION", 1e-9)
    failures = 0

    def away_once() -> None:
        nonlocal failures
        if check.calls == 2:
            failures += 1
            raise UnavailableError("the Verifier is away")

    check = Check(world, away_once)
    policy = world.policy(model="background_check", on_indeterminate="keep")
    client = Setting(cloud, policy, verifier=check)
    with capture_logs() as logs:
        async with pair(world, client, Setting(edge, world.policy())) as (one, other):
            await both_open(one, other)
            await until(lambda: len(one.renewed) >= 2)
            assert one.driver.flowing
    assert failures == 1
    assert any(entry["event"] == "connection kept without a new decision" for entry in logs)


async def test_a_peer_that_stops_answering_renewals_is_given_up_at_its_deadline(
    world: World, cloud: Node, edge: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_LEAST_RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(driver_module, "REFRESH_FRACTION", 1e-9)
    client = Setting(cloud, world.policy(max_connection_age=timedelta(minutes=5)))
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        deadline = one.driver.peer.deadline
    assert deadline is not None
    client.clock.set(deadline - timedelta(milliseconds=400))
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        await both_open(one, other)
        other.hold = lambda sent: sent.kind is MessageKind.PROOF
        ended = await ends(one)
        assert ended.why.startswith(("lapsed", "no progress"))
        assert client.clock.now() >= deadline - timedelta(milliseconds=50)


async def test_a_passport_too_large_for_the_peer_is_declined_at_once(
    world: World, cloud: Node, edge: Node
) -> None:
    client = Setting(cloud, world.policy(max_payload_octets=200))
    async with pair(world, client, Setting(edge, world.policy())) as (one, other):
        assert (await ends(one)).verdict is Verdict.DECLINED
        assert "the peer takes 200" in (await ends(other)).why


async def test_an_svid_that_nobody_dates_is_refused_where_nothing_is_asked(
    world: World, cloud: Node, edge: Node
) -> None:
    client = Setting(cloud, world.policy(model="svid_only"))
    async with pair(world, client, Setting(edge, world.policy()), start=False) as (one, _):
        one.driver.start(ChannelPeer(spiffe_id=edge.svid.spiffe_id))
        assert "nobody says when its SVID ends" in (await ends(one)).why
