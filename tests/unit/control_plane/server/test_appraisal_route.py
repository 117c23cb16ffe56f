# SPDX-License-Identifier: Apache-2.0
"""Background checks for members: over the real listener, by the agent's client and by `ServerCheck`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from support.server_world import World, new_key, new_platform, world
from troth.adapters.server_check import ServerCheck
from troth.adapters.server_client import ServerClient
from troth.control_plane.server.config import LimitSection
from troth.errors import (
    AuthorizationError,
    DecodeError,
    FreshnessError,
    SignatureError,
    UnavailableError,
    VerificationError,
)
from troth.evidence.simulator import SimulatedPlatform
from troth.formats.ar4si import TrustTier
from troth.formats.base64url import encode_base64url
from troth.formats.ear import PROFILES, verify_ear
from troth.formats.keys import VerificationKey, load_keys


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def _exactly(challenge: bytes) -> Callable[[int], bytes]:
    return lambda size: challenge[:size]


async def _keys(client: ServerClient) -> Sequence[VerificationKey]:
    return load_keys(await client.result_keys(), source="server")


async def _member(here: World, platform: SimulatedPlatform) -> ServerClient:
    client = here.client()
    await client.join(platform, new_key())
    return client


async def test_a_member_learns_what_a_peers_fresh_evidence_is_worth(here: World) -> None:
    asking, peer = here.platform("edge"), here.platform("cloud")
    async with here.serve():
        client = await _member(here, asking)
        challenge = os.urandom(peer.challenge_size)
        token = await client.appraise(peer.attest(challenge), peer.media_type, challenge=challenge)
        ear = verify_ear(
            token,
            await _keys(client),
            now=datetime.now(UTC),
            max_age=timedelta(minutes=1),
            leeway=timedelta(0),
            profiles=PROFILES,
            require_key=False,
            require_exp=True,
        )
        assert ear.overall_status is TrustTier.AFFIRMING
        # Only who made the challenge knows which key it covers: this EAR must admit nobody.
        assert not ear.keys
        await client.close()


async def test_its_answer_is_no_way_to_become_a_member(here: World) -> None:
    """A peer whose Evidence is affirmed for somebody else is as unknown as before."""
    asking, peer = here.platform("edge"), here.platform("cloud")
    async with here.serve() as running:
        client = await _member(here, asking)
        challenge = os.urandom(peer.challenge_size)
        await client.appraise(peer.attest(challenge), peer.media_type, challenge=challenge)
        ids = [node.spiffe_id.rpartition("/")[2] for node in running.context.registry.nodes()]
        assert ids == ["edge"]
        await client.close()


async def test_who_is_no_member_is_told_nothing(here: World) -> None:
    peer = here.platform("cloud")
    async with here.serve():
        challenge = os.urandom(peer.challenge_size)
        body = {
            "evidence": encode_base64url(peer.attest(challenge)),
            "media_type": peer.media_type,
            "challenge": encode_base64url(challenge),
        }
        async with here.web() as web:
            refused = await web.post("/v1/appraisals", json=body)
        assert refused.status_code in (401, 403)
        assert "ear" not in refused.json()


async def test_an_expelled_member_is_told_nothing(here: World) -> None:
    asking, peer = here.platform("edge"), here.platform("cloud")
    async with here.serve() as running:
        client = await _member(here, asking)
        (node,) = running.context.registry.nodes()
        await here.ask("POST", f"/v1/nodes/{node.id}/expel", json={"why": "test"})
        challenge = os.urandom(peer.challenge_size)
        with pytest.raises(AuthorizationError):
            await client.appraise(peer.attest(challenge), peer.media_type, challenge=challenge)
        await client.close()


async def test_evidence_for_another_challenge_is_refused(here: World) -> None:
    asking, peer = here.platform("edge"), here.platform("cloud")
    async with here.serve():
        client = await _member(here, asking)
        challenge = os.urandom(peer.challenge_size)
        other = challenge[:-1] + bytes([challenge[-1] ^ 1])
        evidence = peer.attest(challenge)
        for wrong in (other, challenge[:-1], b""):
            with pytest.raises((VerificationError, DecodeError)):
                await client.appraise(evidence, peer.media_type, challenge=wrong)
        assert await client.appraise(evidence, peer.media_type, challenge=challenge)
        await client.close()


async def test_evidence_of_an_unknown_platform_is_refused(here: World) -> None:
    asking, stranger = here.platform("edge"), new_platform()
    async with here.serve():
        client = await _member(here, asking)
        challenge = os.urandom(stranger.challenge_size)
        with pytest.raises(VerificationError):
            await client.appraise(
                stranger.attest(challenge), stranger.media_type, challenge=challenge
            )
        await client.close()


@pytest.mark.parametrize(
    "change",
    [{"evidence": "not base64url!"}, {"challenge": 7}, {"media_type": None}, {"more": 1}],
)
async def test_a_wrong_message_gets_its_problem(here: World, change: dict[str, object]) -> None:
    asking = here.platform("edge")
    async with here.serve():
        client = await _member(here, asking)
        good = {"evidence": "AA", "media_type": asking.media_type, "challenge": "AA" * 22}
        async with here.web(identity=None) as web:
            nobody = await web.post("/v1/appraisals", json=good | change)
        assert nobody.status_code in (401, 403)
        response = await _post_as_member(client, good | change)
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        await client.close()


async def test_evidence_beyond_the_bound_is_refused_unread(here: World) -> None:
    asking = here.platform("edge")
    here.options["limits"] = LimitSection(evidence_bytes=8192)
    async with here.serve():
        client = await _member(here, asking)
        body = {"evidence": "A" * 12_000, "media_type": asking.media_type, "challenge": "A" * 43}
        response = await _post_as_member(client, body)
        assert response.status_code == 413
        assert response.json()["code"] == "too_large"
        await client.close()


async def test_one_member_cannot_keep_the_verifier_from_the_others(here: World) -> None:
    greedy, modest, peer = (here.platform(name) for name in ("greedy", "modest", "peer"))
    here.options["limits"] = LimitSection(requests_per_second=0.001, request_burst=4)
    async with here.serve():
        first = await _member(here, greedy)
        challenge = os.urandom(peer.challenge_size)
        evidence = peer.attest(challenge)
        for _ in range(4):
            await first.appraise(evidence, peer.media_type, challenge=challenge)
        with pytest.raises(UnavailableError) as refusal:
            await first.appraise(evidence, peer.media_type, challenge=challenge)
        assert refusal.value.retry_after_seconds
        second = await _member(here, modest)
        assert await second.appraise(evidence, peer.media_type, challenge=challenge)
        await first.close()
        await second.close()


async def test_a_background_check_believes_the_servers_keys_and_no_others(here: World) -> None:
    asking, peer = here.platform("edge"), here.platform("cloud")
    async with here.serve():
        client = await _member(here, asking)
        known = await _keys(client)
        challenge = os.urandom(64)
        evidence = peer.attest(challenge[: peer.challenge_size])
        check = ServerCheck("home", client, lambda: known)
        ear = await check.appraise(
            evidence, peer.media_type, challenge=_exactly(challenge), spki=b""
        )
        assert check.name == "home"
        assert ear.overall_status is TrustTier.AFFIRMING
        for believed in ([], [VerificationKey(new_key().public_key())]):
            stranger = ServerCheck("home", client, lambda believed=believed: believed)  # type: ignore[misc]
            with pytest.raises(SignatureError):
                await stranger.appraise(
                    evidence, peer.media_type, challenge=_exactly(challenge), spki=b""
                )
        await client.close()


class _Replaying:
    """A server that answers with what it said before."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def appraise(self, evidence: bytes, media_type: str, *, challenge: bytes) -> str:
        del evidence, media_type, challenge
        return self._token


class _Later:
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(minutes=5)

    def monotonic(self) -> float:
        return 0.0


async def test_an_answer_of_earlier_is_not_taken_for_now(here: World) -> None:
    asking, peer = here.platform("edge"), here.platform("cloud")
    async with here.serve():
        client = await _member(here, asking)
        known = await _keys(client)
        challenge = os.urandom(64)
        evidence = peer.attest(challenge[: peer.challenge_size])
        token = await client.appraise(
            evidence, peer.media_type, challenge=challenge[: peer.challenge_size]
        )
        check = ServerCheck("home", _Replaying(token), lambda: known, clock=_Later())
        with pytest.raises(FreshnessError):
            await check.appraise(evidence, peer.media_type, challenge=_exactly(challenge), spki=b"")
        await client.close()


async def _post_as_member(client: ServerClient, body: dict[str, object]) -> httpx.Response:
    """Send what the client itself would never write."""
    web = client._client
    assert web is not None
    return await web.post("/v1/appraisals", json=body)
