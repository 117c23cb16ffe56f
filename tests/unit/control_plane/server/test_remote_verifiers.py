# SPDX-License-Identifier: Apache-2.0
"""Joins that another Verifier decides on: what its word is enough for, and what it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.fake_services import GOOD, FakeTrustee, FakeVeraison, ForeignVerifier, served
from support.server_world import World, entry_for, join_body, new_key, new_platform, open_session
from support.server_world import world as server_world
from support.verifier_world import verifier_world
from troth.cli.other_services import remote_verifier
from troth.control_plane.server.config import VerifierSection
from troth.control_plane.server.remote_config import RemoteSection
from troth.errors import ConfigurationError
from troth.evidence.simulator import CcaOptions, SimulatedPlatform
from troth.formats.ear import PROFILES, verify_ear
from troth.formats.keys import load_keys
from troth.identity.x509_svid import X509Svid
from troth.mesh.join_messages import JoinReply

HOUR = timedelta(hours=1)


@asynccontextmanager
async def standing_in(
    other: ForeignVerifier, kind: Any, platform: SimulatedPlatform, **remote: Any
) -> AsyncIterator[tuple[World, httpx.AsyncClient]]:
    """Serve with the fake in place of the embedded Verifier; give the world and a client."""
    async with server_world() as here, served(other.app()) as url:
        key = here.directory / "foreign.pem"
        public = other.signer.public_key
        key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        given = {"kind": kind, "url": url, "result_keys": [str(key)], **remote}
        here.options["verifier"] = VerifierSection(remote=RemoteSection(**given))
        here.entries.append(entry_for(platform, "edge"))
        with ExitStack() as stack:
            instead = remote_verifier(stack, here.config().verifier.remote)
            async with here.serve(background=instead), here.web() as web:
                yield here, web


async def join(web: httpx.AsyncClient, platform: SimulatedPlatform, **body: Any) -> httpx.Response:
    session = await open_session(web)
    return await web.post(
        f"/v1/join/sessions/{session.session}", json=join_body(platform, session, **body)
    )


def code(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["code"])


@pytest.mark.parametrize(
    ("kind", "other", "platform"),
    [
        ("veraison", FakeVeraison, new_platform()),
        ("trustee", FakeTrustee, new_platform(CcaOptions())),
    ],
)
async def test_its_word_makes_a_node_a_member_under_a_result_of_ours_that_names_the_key(
    kind: str, other: type[ForeignVerifier], platform: SimulatedPlatform
) -> None:
    there = other()
    there.lifetime = HOUR
    async with standing_in(there, kind, platform) as (here, web):
        response = await join(web, platform)
        assert response.status_code == 200, response.text
        reply = JoinReply(**response.json())
        svid = X509Svid.decode(reply.svid.encode())
        keys = load_keys((await web.get("/.well-known/troth/result-keys")).content, source="x")
        ear = verify_ear(
            reply.ear,
            keys,
            now=datetime.now(UTC),
            max_age=timedelta(minutes=1),
            leeway=timedelta(0),
            profiles=PROFILES,
            require_key=True,
            require_exp=True,
        )
        assert ear.keys == (svid.spki,)
        assert ear.expires_at is not None
        assert svid.not_after <= ear.expires_at <= there.issued + HOUR
        (node,) = here.running.context.registry.nodes()
        assert node.spiffe_id.endswith("/edge")


async def test_our_own_verifier_may_be_the_other_one() -> None:
    platform = new_platform()
    async with verifier_world() as there:
        there.endorse(platform)
        async with there.serve():
            here_is = RemoteSection(
                kind="veraison",
                url=there.running.url,
                result_keys=[str(there.directory / "data" / "result-keys.json")],
            )
            async with server_world() as here:
                here.options["verifier"] = VerifierSection(remote=here_is)
                here.entries.append(entry_for(platform, "edge"))
                with ExitStack() as stack:
                    instead = remote_verifier(stack, here_is)
                    async with here.serve(background=instead), here.web() as web:
                        response = await join(web, platform)
                        assert response.status_code == 200, response.text
                        response = await join(web, new_platform())
                        assert code(response, 403) == "not_authentic"


async def test_evidence_about_another_key_is_refused_before_anybody_else_sees_it() -> None:
    there, platform = FakeVeraison(), new_platform()
    there.lifetime = HOUR
    async with standing_in(there, "veraison", platform) as (_, web):
        response = await join(web, platform, key=new_key(), evidence_key=new_key())
        assert code(response, 403) == "not_fresh"
        assert there.submitted == []


async def test_a_verdict_against_the_device_makes_nobody_a_member() -> None:
    there, platform = FakeVeraison(), new_platform()
    there.lifetime = HOUR
    there.vectors = {"PSA_IOT": {**GOOD, "executables": 33}}
    async with standing_in(there, "veraison", platform) as (here, web):
        assert code(await join(web, platform), 403) == "refused"
        (node,) = here.running.context.registry.nodes()
        assert (str(node.state), node.svid) == ("registered", None)


async def test_a_result_without_an_end_yields_no_svid() -> None:
    there, platform = FakeVeraison(), new_platform()
    there.lifetime = None
    async with standing_in(there, "veraison", platform) as (here, web):
        assert code(await join(web, platform), 415) == "unsupported"
        assert here.running.context.registry.nodes() == ()


async def test_a_result_without_an_end_lasts_as_long_as_configured() -> None:
    there, platform = FakeVeraison(), new_platform()
    there.lifetime = None
    async with standing_in(there, "veraison", platform, result_seconds=600) as (_, web):
        response = await join(web, platform)
        assert response.status_code == 200, response.text
        svid = X509Svid.decode(JoinReply(**response.json()).svid.encode())
        assert svid.not_after <= there.issued + timedelta(seconds=660)


async def test_a_result_under_a_key_that_is_not_configured_says_nothing_about_the_node() -> None:
    there, platform = FakeVeraison(), new_platform()
    there.lifetime = HOUR
    async with standing_in(there, "veraison", platform) as (here, web):
        there.signer = FakeVeraison().signer
        assert code(await join(web, platform), 503) == "unavailable"
        assert here.running.context.registry.nodes() == ()


async def test_while_it_is_down_nobody_joins_and_agents_are_told_to_come_again() -> None:
    there, platform = FakeVeraison(), new_platform()
    there.fail_with = 500
    async with standing_in(there, "veraison", platform) as (_, web):
        assert code(await join(web, platform), 503) == "unavailable"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"kind": ""}, "kind"),
        ({"url": ""}, "url"),
        ({"url": "http://192.0.2.1:8080"}, "url"),
        ({"result_keys": []}, "result_keys"),
        ({"discover_result_keys": True}, "discover_result_keys"),
        ({"discover_result_keys": True, "url": "http://127.0.0.1:1", "ca": "x"}, "discover"),
        ({"policies": ["default"]}, "policies"),
    ],
)
def test_settings_that_would_believe_anybody_are_refused(changes: dict[str, Any], key: str) -> None:
    good = {"kind": "veraison", "url": "https://192.0.2.1:8080", "result_keys": ["keys.pem"]}
    RemoteSection(**good).check()
    with pytest.raises(ConfigurationError, match=rf"verifier\.remote\.{key}"):
        RemoteSection(**{**good, **changes}).check()


def test_without_a_remote_verifier_the_embedded_one_stays() -> None:
    with ExitStack() as stack:
        assert remote_verifier(stack, RemoteSection()) is None


def test_a_key_file_that_is_not_there_stops_the_start() -> None:
    section = RemoteSection(
        kind="trustee", url="http://127.0.0.1:1", result_keys=[str(Path("/nowhere/keys.pem"))]
    )
    with ExitStack() as stack, pytest.raises(ConfigurationError, match="result_keys"):
        remote_verifier(stack, section)
