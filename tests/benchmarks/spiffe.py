# SPDX-License-Identifier: Apache-2.0
"""SPIFFE at the size of a large node and a small mesh: issuing, streams, rotation, rollover.

Server and agents are real and share one process, each side on an event loop and thread of its own,
so what is measured includes both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

import httpx
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.harness import Case, Table, measure
from support.ears import plain_ear
from support.server_thread import in_own_thread
from support.server_world import DOMAIN, World, entry_for, new_key, new_platform, world
from support.workloads import WorkloadClient, agent_side, authority, entry
from troth.adapters.server_client import ServerClient
from troth.clock import SystemClock
from troth.control_plane.server.config import LifetimeSection, LifetimesSection, LimitSection
from troth.control_plane.server.serve import RunningServer
from troth.control_plane.workload_api.identities import WorkloadIdentities, _csr
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.formats.ear import Dialect, TrothClaims, minimise, sign_ear
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.identity.certificate_request import decode_csr
from troth.identity.jwt_svid import JwtAuthority
from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.workload_result import NodeResult
from troth.mesh.event import Bundles, FeedNotice
from troth.mesh.workload_entry import WorkloadEntry

__all__ = ["spiffe"]

_ISSUED_AIM = 5000.0
_STREAMS, _SVIDS, _AGENTS = 2000, 10_000, 200
_CHANGES = 20
_SVID_SECONDS = 60
_ROTATIONS = 2


def spiffe() -> list[Table]:
    """Measure all of it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    facts = [
        *asyncio.run(_streams()),
        *asyncio.run(_rotation()),
        *asyncio.run(_bundle_push()),
    ]
    return [_issuing(), Table("SPIFFE on a node and in a mesh", facts=facts)]


# ---- issuing, in one thread


def _issuing() -> Table:
    now = datetime.now(UTC).replace(microsecond=0)
    issuer, verifier = authority(), LocalSigner(new_key(), "verifier-1")
    ear = plain_ear(spki(new_key().public_key()), expires_at=now + timedelta(hours=1))
    claims = TrothClaims(scheme="psa", tier="measured", component="platform", layer="hardware")
    ear = replace(minimise(ear), troth=claims, issued_at=now)
    node = NodeResult.verify(
        sign_ear(ear, verifier, Dialect.IETF_03, wire="jwt").decode(),
        [VerificationKey(verifier.public_key, "verifier-1")],
        node_id="n0123456789abcdef",
        signer=verifier,
        now=now,
        max_age=timedelta(hours=1),
    )
    web = SpiffeId.decode("spiffe://example.org/web")
    requests = cycle([_csr(new_key()) for _ in range(256)])
    tokens = JwtAuthority(TrustDomain("example.org"), LocalSigner(new_key(), "jwt-1"))

    def issued() -> bytes:
        svid = issuer.issue_workload_svid(
            decode_csr(next(requests)),
            web,
            node=node,
            now=now,
            ttl=timedelta(minutes=10),
            random=os.urandom(16),
        )
        return svid.leaf.public_bytes(Encoding.DER)

    def signatures() -> None:
        """Check that the requester holds the key, sign result and certificate: no way around it."""
        decoded = decode_csr(next(requests))
        verifier.sign(decoded.spki)
        verifier.sign(decoded.spki)

    return measure(
        "Issuing SVIDs, of one core",
        [
            Case("request checked and two signatures", signatures),
            Case(
                "X.509-SVID of a workload: request, result, certificate",
                issued,
                floor="request checked and two signatures",
                aim_per_second=_ISSUED_AIM,
            ),
            Case("one signature", lambda: verifier.sign(b"x" * 200)),
            Case(
                "JWT-SVID",
                lambda: tokens.issue(web, ["a"], now=now, ttl=timedelta(minutes=5)),
                floor="one signature",
            ),
        ],
    )


# ---- streams of one agent


async def _streams() -> list[tuple[str, str]]:
    """Open streams as that many processes would, each over a connection of its own; change all."""
    before = _resident()
    async with (
        agent_side(entry(), calls_per_user=_STREAMS + 1, calls_together=_STREAMS + 1) as side,
        contextlib.AsyncExitStack() as stack,
    ):
        times: list[float] = []
        rounds = [asyncio.Semaphore(0) for _ in range(2)]
        changed = 0.0

        async def follow(client: WorkloadClient) -> None:
            number = 0
            async for _ in client.svids():
                if number == 1:
                    times.append(time.monotonic() - changed)
                rounds[number].release()
                number += 1
                if number == len(rounds):
                    return

        clients = [await stack.enter_async_context(side.client()) for _ in range(_STREAMS)]
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(follow(client))
            await _acquired(rounds[0])
            opened = time.monotonic() - begin
            memory = _resident() - before
            changed = time.monotonic()
            side.server.authorities.append(authority())
            side.tell_bundles()
            await _acquired(rounds[1])
    return [
        (
            f"{_STREAMS:,} processes follow FetchX509SVID on one agent: opened, each attested",
            f"{opened:.1f} s",
        ),
        ("memory for it, the processes' own ends included", f"{memory:.0f} MB"),
        ("each of them told of a changed bundle, each attested again", _spread(times)),
    ]


async def _acquired(semaphore: asyncio.Semaphore) -> None:
    for _ in range(_STREAMS):
        await semaphore.acquire()


# ---- rotation


@contextlib.contextmanager
def _served(here: World, **options: object) -> Iterator[RunningServer]:
    limits = LimitSection(
        requests_per_second=1e4,
        request_burst=10_000,
        total_requests_per_second=1e4,
        total_request_burst=10_000,
    )
    here.options |= {"limits": limits, **options}
    with in_own_thread(here.serve()) as running:
        yield running


async def _rotation() -> list[tuple[str, str]]:
    """Let one agent hold SVIDs of a short life, and look ten times a second for one that ended."""
    lifetimes = LifetimesSection(
        measured=LifetimeSection(result_seconds=3600, svid_seconds=_SVID_SECONDS)
    )
    async with world() as here:
        edge = here.platform("edge")
        with _served(here, lifetimes=lifetimes) as running:
            await asyncio.to_thread(_register, running, _SVIDS)
            client = here.client()
            clock = SystemClock()
            identities = WorkloadIdentities(client, clock=clock)
            joined = await client.join(edge, new_key())
            member = asyncio.create_task(_stay_member(client, edge))
            begin = time.monotonic()
            identities.adopt(joined.bundle)
            running_task = asyncio.create_task(identities.run())
            while not _complete(identities):
                await asyncio.sleep(0.1)
            first = time.monotonic() - begin
            gaps = looks = 0
            serials = [_serials(identities)]
            spent = time.process_time()
            end = time.monotonic() + _ROTATIONS * _SVID_SECONDS
            while time.monotonic() < end:
                await asyncio.sleep(0.1)
                looks += 1
                gaps += not _complete(identities)
                if looks % 50 == 0:
                    serials.append(_serials(identities))
            cpu = (time.process_time() - spent) / (_ROTATIONS * _SVID_SECONDS)
            for task in (running_task, member):
                task.cancel()
            await asyncio.wait([running_task, member])
            await client.close()
    turns = min(len({each.get(at) for each in serials}) for at in serials[0])
    return [
        (
            f"{_SVIDS:,} SVIDs for one agent, keys and requests included",
            f"{first:.1f} s, {_SVIDS / first:,.0f}/s",
        ),
        (
            (
                f"the same with a life of {_SVID_SECONDS} s, for {_ROTATIONS * _SVID_SECONDS} s: "
                "looks that found one missing or ended (aim 0)"
            ),
            (
                f"{gaps} of {looks}; each was issued at least {turns} times; {cpu:.0%} of a core, "
                "agent and server together"
            ),
        ),
    ]


async def _stay_member(client: ServerClient, platform: SimulatedPlatform) -> None:
    """Renew the node's own SVID, whose life is as short as its workloads'."""
    while True:
        await asyncio.sleep(_SVID_SECONDS / 3)
        await client.join(platform, new_key())


def _register(running: RunningServer, count: int) -> None:
    registry = running.context.registry
    at = running.context.clock.now()
    for number in range(count):
        made = WorkloadEntry(
            id=f"w{number}",
            spiffe_id=f"spiffe://{DOMAIN}/w/{number}",
            parent_id=f"spiffe://{DOMAIN}/edge",
            selectors=(Selector.decode(f"unix:uid:{number}"),),
        )
        registry.create_workload_entry(made, actor="benchmark", at=at)


def _complete(identities: WorkloadIdentities) -> bool:
    now = datetime.now(UTC)
    held = identities._held.values()
    return len(held) == _SVIDS and all(
        each.svid is not None and each.svid.not_after > now for each in held
    )


def _serials(identities: WorkloadIdentities) -> dict[str, int]:
    return {
        name: each.svid.leaf.serial_number
        for name, each in identities._held.items()
        if each.svid is not None
    }


# ---- a changed bundle


async def _bundle_push() -> list[tuple[str, str]]:
    """Change a federated bundle, and take the time until each agent has decoded it."""
    async with world() as here:
        platforms = [new_platform(PsaOptions(model=f"m{n}")) for n in range(_AGENTS)]
        for number, platform in enumerate(platforms):
            here.endorse(platform, f"maker-{number}")
            here.entries.append(entry_for(platform, f"edge-{number}"))
        with _served(here) as running:
            agents = [_Agent(here.client()) for _ in platforms]
            for agent, platform in zip(agents, platforms, strict=True):
                await agent.join(platform)
            tasks = [asyncio.create_task(agent.follow()) for agent in agents]
            while not all(agent.seen for agent in agents):
                await asyncio.sleep(0.05)
            times = await _changes(running, agents)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for agent in agents:
                await agent.client.close()
    return [
        (
            (
                f"a changed bundle, from the operator's request to each of {_AGENTS} agents, "
                f"{_CHANGES} changes (aim p99 ≤ 100 ms)"
            ),
            _spread(times),
        )
    ]


async def _changes(running: RunningServer, agents: Sequence[_Agent]) -> list[float]:
    transport = httpx.AsyncHTTPTransport(uds=str(running.admin_socket))
    times: list[float] = []
    async with httpx.AsyncClient(transport=transport, base_url="http://operators") as operator:
        for _ in range(_CHANGES):
            other = authority(TrustDomain("other.example")).bundle()
            for agent in agents:
                agent.seen.clear()
            begin = time.monotonic()
            response = await operator.put(
                "/v1/bundles/other.example",
                content=msgspec.json.encode({"bundle": other.encode_pem().decode()}),
            )
            response.raise_for_status()
            while not all(agent.seen for agent in agents):
                await asyncio.sleep(0.01)
            times += [agent.seen[0] - begin for agent in agents]
            await asyncio.sleep(0.2)
    return times


class _Agent:
    """An agent's ear on the feed, and its identities."""

    def __init__(self, client: ServerClient) -> None:
        self.client = client
        self.seen: list[float] = []
        self._identities = WorkloadIdentities(client, clock=SystemClock())
        client.on_notice = self._notice

    async def join(self, platform: object) -> None:
        joined = await self.client.join(platform, new_key())  # type: ignore[arg-type]
        self._identities.adopt(joined.bundle)

    async def follow(self) -> None:
        async for _ in self.client.feed():
            pass

    def _notice(self, notice: FeedNotice) -> None:
        self._identities.notice(notice)
        if isinstance(notice, Bundles):
            self.seen.append(time.monotonic())


def _spread(times: Sequence[float]) -> str:
    ordered = sorted(each * 1000 for each in times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return (
        f"p50 {statistics.median(ordered):.0f} ms, p99 {p99:.0f} ms, max {ordered[-1]:.0f} ms "
        f"of {len(ordered):,}"
    )


def _resident() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
