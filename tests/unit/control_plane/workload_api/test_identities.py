# SPDX-License-Identifier: Apache-2.0
"""Identities stay fresh without a gap, whatever the server does, and go when they must."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.workloads import DOMAIN, IssuingServer, StepClock, authority, entry
from support.x509 import p256
from troth.control_plane.workload_api.identities import HeldIdentity, WorkloadIdentities
from troth.control_plane.workload_api.jwt_cache import MAX_KEPT_TOKENS, JwtCache
from troth.errors import AuthorizationError, UnavailableError
from troth.formats.signer import LocalSigner
from troth.identity.jwt_svid import JwtAuthority
from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.mesh.event import Bundles, EntriesChanged
from troth.mesh.workload_messages import MAX_BATCH

ME = frozenset({Selector("unix", f"uid:{os.getuid()}")})
HOUR = timedelta(hours=1)


class Agent:
    def __init__(self, *names: str) -> None:
        self.clock = StepClock()
        self.server = IssuingServer(self.clock, entries=[entry(name) for name in names])
        self.identities = WorkloadIdentities(self.server, clock=self.clock)
        self.identities.adopt(self.server.bundle)

    async def step(self, *, after: timedelta | None = None) -> float | None:
        if after is not None:
            self.clock.ahead = after
        return await self.identities.step()

    def held(self) -> tuple[HeldIdentity, ...]:
        return self.identities.view(ME).identities

    def svids(self) -> list[Any]:
        return [held.svid for held in self.held() if held.svid is not None]

    def check(self, count: int) -> None:
        """Every identity is there and verifies now."""
        svids = self.svids()
        assert len(svids) == count
        for svid in svids:
            bundles = TrustBundleSet([self.server.bundle])
            verify_x509_svid(svid, bundles, now=self.clock.now())
            assert svid.private_key is not None


async def test_all_identities_are_there_after_the_first_step() -> None:
    agent = Agent("a", "b", "c")
    with pytest.raises(UnavailableError):
        agent.held()
    wait = await agent.step()
    agent.check(3)
    assert wait is not None
    assert 1150 < wait <= 1200


async def test_many_are_issued_in_batches() -> None:
    agent = Agent(*(f"w{n}" for n in range(MAX_BATCH + 20)))
    await agent.step()
    assert agent.server.batches == [MAX_BATCH, 20]
    agent.check(MAX_BATCH + 20)


async def test_an_svid_is_replaced_after_a_third_of_its_life_and_not_sooner() -> None:
    agent = Agent("a")
    await agent.step()
    [first] = agent.svids()
    await agent.step(after=timedelta(minutes=19))
    assert agent.svids() == [first]
    await agent.step(after=timedelta(minutes=20, seconds=5))
    [second] = agent.svids()
    assert second.spki != first.spki


async def test_at_no_moment_of_many_rotations_is_there_a_gap() -> None:
    """Each look, before and after a step, finds every identity, verified; even if steps fail."""
    agent = Agent("a", "b")
    await agent.step()
    for minute in range(0, 6 * 60, 5):
        agent.clock.ahead = timedelta(minutes=minute)
        agent.check(2)
        agent.server.failure = UnavailableError("down") if minute % 20 else None
        with contextlib.suppress(UnavailableError):
            await agent.step()
        agent.check(2)
    assert len(agent.server.batches) > 10


async def test_an_svid_that_has_ended_is_not_handed_out() -> None:
    agent = Agent("a")
    await agent.step()
    agent.server.failure = UnavailableError("down")
    with pytest.raises(UnavailableError):
        await agent.step(after=timedelta(minutes=59))
    agent.check(1)
    with pytest.raises(UnavailableError):
        await agent.step(after=HOUR)
    assert agent.svids() == []
    agent.server.failure = None
    await agent.step()
    agent.check(1)


async def test_one_that_is_refused_does_not_stop_the_others_and_is_tried_again() -> None:
    agent = Agent("a", "b")
    agent.server.refused = {"a"}
    assert await agent.step() == pytest.approx(30, abs=1)
    assert [str(svid.spiffe_id) for svid in agent.svids()] == [f"spiffe://{DOMAIN}/b"]
    agent.server.refused = set()
    await agent.step(after=timedelta(seconds=31))
    agent.check(2)


async def test_an_svid_for_another_identity_is_not_taken() -> None:
    agent = Agent("a")
    issue = agent.server._issue

    def wrong(request: Any) -> Any:
        agent.server.entries[0] = entry("a", spiffe_id=f"spiffe://{DOMAIN}/admin")
        return issue(request)

    agent.server._issue = wrong  # type: ignore[method-assign]
    await agent.step()
    assert agent.svids() == []


async def test_new_entries_are_read_when_the_feed_says_so() -> None:
    agent = Agent("a")
    await agent.step()
    agent.server.entries.append(entry("b"))
    await agent.step()
    agent.check(1)
    agent.server.revision = 2
    agent.identities.notice(EntriesChanged(revision=2))
    await agent.step()
    agent.check(2)
    assert agent.server.batches == [1, 1]


async def test_entries_are_read_again_when_the_node_renews() -> None:
    """What a node may run depends on its result too."""
    agent = Agent("a")
    await agent.step()
    agent.server.entries.append(entry("b"))
    agent.identities.adopt(agent.server.bundle)
    await agent.step()
    agent.check(2)


async def test_an_entry_that_is_gone_is_forgotten_with_its_key() -> None:
    agent = Agent("a", "b")
    await agent.step()
    del agent.server.entries[0]
    agent.identities.notice(EntriesChanged(revision=2))
    await agent.step()
    assert [str(svid.spiffe_id) for svid in agent.svids()] == [f"spiffe://{DOMAIN}/b"]
    assert list(agent.identities._held) == ["b"]


async def test_a_changed_form_is_issued_anew_without_a_gap_and_a_changed_identity_with_one() -> (
    None
):
    agent = Agent("a")
    await agent.step()
    [first] = agent.svids()
    agent.server.entries[0] = entry("a", form="2")
    agent.server.failure = UnavailableError("down")
    agent.identities._take_entries(agent.server.entries)
    assert agent.svids() == [first]
    agent.server.failure = None
    await agent.step()
    assert agent.svids()[0].spki != first.spki
    agent.server.entries[0] = entry("a", spiffe_id=f"spiffe://{DOMAIN}/renamed")
    agent.identities._take_entries(agent.server.entries)
    assert agent.svids() == []


async def test_a_changed_hint_costs_no_new_svid() -> None:
    agent = Agent("a")
    await agent.step()
    agent.server.entries[0] = entry("a", hint="new")
    agent.identities.adopt(agent.server.bundle)
    await agent.step()
    assert agent.held()[0].entry.hint == "new"
    assert agent.server.batches == [1]


async def test_a_node_that_is_no_member_forgets_everything() -> None:
    agent = Agent("a")
    await agent.step()
    agent.identities.withdraw()
    assert agent.held() == ()
    assert await agent.step() is None
    assert agent.server.batches == [1]
    agent.identities.adopt(agent.server.bundle)
    await agent.step()
    agent.check(1)


async def test_who_is_withdrawn_while_svids_are_issued_keeps_none() -> None:
    agent = Agent("a")
    issue = agent.server.issue_x509_svids

    async def slow(requests: Any) -> Any:
        outcomes = await issue(requests)
        agent.identities.withdraw()
        return outcomes

    agent.server.issue_x509_svids = slow  # type: ignore[method-assign]
    await agent.step()
    assert agent.held() == ()


async def test_running_goes_on_after_failures_and_forgets_when_refused() -> None:
    agent = Agent("a")
    agent.server.failure = UnavailableError("down")
    running = asyncio.create_task(agent.identities.run())
    await asyncio.sleep(0.05)
    agent.server.failure = None
    agent.identities.notice(EntriesChanged(revision=1))
    async with asyncio.timeout(5):
        while not agent.identities.ready or not agent.svids():
            await agent.identities.changed.wait()
    agent.check(1)
    agent.server.failure = AuthorizationError("expelled")
    agent.identities.notice(EntriesChanged(revision=9))
    async with asyncio.timeout(5):
        while agent.held():
            await agent.identities.changed.wait()
    running.cancel()
    await asyncio.wait([running])


async def test_bundles_are_taken_in_order_and_equal_ones_are_no_change() -> None:
    agent = Agent("a")
    await agent.step()
    before = agent.identities.view(ME)
    agent.identities.notice(agent.server.bundles_message())
    assert agent.identities.view(ME).mark == before.mark
    agent.server.authorities.append(authority())
    agent.server.bundle_revision = 2
    agent.identities.notice(agent.server.bundles_message())
    after = agent.identities.view(ME)
    assert after.mark != before.mark
    assert len(after.own.x509_authorities) == 2
    old = Bundles(revision=1, own=before.own.encode().decode(), federated={})
    agent.identities.notice(old)
    assert agent.identities.view(ME).own == after.own


async def test_a_bundle_from_a_renewal_does_not_replace_a_newer_one() -> None:
    agent = Agent("a")
    await agent.step()
    newer = replace(agent.server.bundle, sequence=9)
    agent.identities.adopt(newer)
    agent.identities.adopt(agent.server.bundle)
    assert agent.identities.own_bundle == newer


@pytest.mark.parametrize(
    "bundles",
    [
        Bundles(revision=9, own="nonsense", federated={}),
        Bundles(revision=9, own='{"keys":[]}', federated={"other.example": "nonsense"}),
        Bundles(revision=9, own='{"keys":[]}', federated={"Other": '{"keys":[]}'}),
    ],
)
async def test_bundles_that_cannot_be_read_change_nothing(bundles: Bundles) -> None:
    agent = Agent("a")
    await agent.step()
    before = agent.identities.view(ME)
    agent.identities.notice(bundles)
    assert agent.identities.view(ME).mark == before.mark


async def test_a_foreign_bundle_in_our_own_name_is_not_taken() -> None:
    agent = Agent("a")
    await agent.step()
    message = agent.server.bundles_message()
    mine = Bundles(revision=9, own=message.own, federated={DOMAIN.name: '{"keys":[]}'})
    agent.identities.notice(mine)
    assert agent.identities.view(ME).own.x509_authorities


async def test_a_token_of_a_key_that_left_the_bundle_is_not_handed_out() -> None:
    agent = Agent("a")
    await agent.step()
    [held] = agent.held()
    first = await agent.identities.jwt_svid(held, ["x"])
    agent.server.signers.append(LocalSigner(p256(), "jwt-2"))
    agent.server.bundle_revision = 2
    agent.identities.notice(agent.server.bundles_message())
    assert await agent.identities.jwt_svid(held, ["x"]) == first
    del agent.server.signers[0]
    agent.server.bundle_revision = 3
    agent.identities.notice(agent.server.bundles_message())
    assert await agent.identities.jwt_svid(held, ["x"]) != first


def test_tokens_are_kept_up_to_a_limit() -> None:
    clock = StepClock()
    cache, kept = JwtCache(), entry("a")
    signer = LocalSigner(p256(), "k")
    token = JwtAuthority(DOMAIN, signer).issue(
        SpiffeId(DOMAIN, "/a"), ["x"], now=clock.now(), ttl=HOUR
    )
    for number in range(MAX_KEPT_TOKENS + 5):
        cache.keep(kept, [str(number)], token, now=clock.now())
    assert len(cache) == MAX_KEPT_TOKENS
    assert cache.find(kept, ["0"], now=clock.now()) is None
    assert cache.find(kept, [str(MAX_KEPT_TOKENS)], now=clock.now()) == token
    cache.trim(set())
    assert len(cache) == 0
