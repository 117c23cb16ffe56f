# SPDX-License-Identifier: Apache-2.0
"""The standard APIs of a server: the same Verifier as for joins, and never a way to join."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from support.server_world import World, corims_for, join_body, new_platform, open_session, world
from troth.control_plane.verification.sections import (
    CoservSection,
    EmbeddedChallengeResponseSection,
    ProvisionerSection,
    ProvisioningSection,
)
from troth.evidence.simulator import SimulatedPlatform
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.jose import verify_jwt
from troth.formats.keys import load_keys

NONCE = b"n" * 32
NEW = "/challenge-response/v1/newSession"
SUBMIT = "/endorsement-provisioning/v1/submit"
RIM = "application/rim+cbor"
TOKEN = "a-token-of-a-provisioner-that-is-long-enough"


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def verify(
    web: httpx.AsyncClient, platform: SimulatedPlatform, evidence: bytes = b""
) -> dict[str, Any]:
    """Open a session, submit Evidence, and return the claims of the result."""
    opened = await web.post(NEW, params={"nonce": encode_base64url(NONCE)})
    assert opened.status_code == 201, opened.text
    response = await web.post(
        f"/challenge-response/v1/{opened.headers['location']}",
        content=evidence or platform.attest(NONCE),
        headers={"content-type": platform.media_type},
    )
    assert response.status_code == 200, response.text
    document = (await web.get("/.well-known/veraison/verification")).json()
    keys = load_keys(json.dumps({"keys": [document["ear-verification-key"]]}).encode(), source="x")
    return verify_jwt(response.json()["result"], keys)[1]


async def test_evidence_is_verified_and_the_result_names_no_key(here: World) -> None:
    platform = here.platform("edge")
    async with here.serve(), here.web() as web:
        claims = await verify(web, platform)
        assert claims["submods"]["PSA_IOT"]["ear.status"] == "affirming"
        assert "cnf" not in json.dumps(claims)
        assert here.running.context.registry.nodes() == ()


async def test_evidence_for_a_bare_nonce_is_no_evidence_for_a_join(here: World) -> None:
    platform = here.platform("edge")
    async with here.serve(), here.web() as web:
        session = await open_session(web)
        body = join_body(platform, session)
        nonce = decode_base64url(session.nonce, format="nonce")
        body["evidence"] = encode_base64url(platform.attest(nonce))
        response = await web.post(f"/v1/join/sessions/{session.session}", json=body)
        assert response.status_code == 403


async def test_evidence_of_a_join_is_no_evidence_for_a_session(here: World) -> None:
    platform = here.platform("edge")
    async with here.serve(), here.web() as web:
        session = await open_session(web)
        body = join_body(platform, session)
        claims = await verify(web, platform, decode_base64url(body["evidence"], format="x"))
        assert claims["submods"]["PSA_IOT"]["ear.status"] == "contraindicated"


async def test_nobody_provisions_over_the_network_unless_configured(here: World) -> None:
    platform = new_platform()
    (corim,) = corims_for(platform, "maker")
    headers = {"content-type": RIM}
    async with here.serve(), here.web() as web:
        for given in (headers, {**headers, "authorization": f"Bearer {TOKEN}"}):
            response = await web.post(SUBMIT, content=corim, headers=given)
            assert response.status_code == 401
        assert here.running.context.endorsements.held(now=here.running.context.clock.now()) == ()


async def test_a_configured_client_provisions_and_others_do_not(here: World) -> None:
    platform = new_platform()
    (corim,) = corims_for(platform, "maker")
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    here.options["provisioning"] = ProvisioningSection(
        clients=[ProvisionerSection(name="maker", token_sha256=digest)], unsigned=True
    )
    async with here.serve(), here.web() as web:
        headers = {"content-type": RIM, "authorization": f"Bearer {TOKEN}x"}
        assert (await web.post(SUBMIT, content=corim, headers=headers)).status_code == 401
        headers["authorization"] = f"Bearer {TOKEN}"
        response = await web.post(SUBMIT, content=corim, headers=headers)
        assert response.json()["status"] == "success", response.text
        claims = await verify(web, platform)
        assert claims["submods"]["PSA_IOT"]["ear.status"] == "affirming"


async def test_operators_provision_by_the_standard_route_on_their_socket(here: World) -> None:
    platform = new_platform()
    (corim,) = corims_for(platform, "maker")
    async with here.serve():
        response = await here.operator.post(SUBMIT, content=corim, headers={"content-type": RIM})
        assert response.json()["status"] == "success", response.text
        assert [each["id"] for each in await here.ask("GET", "/v1/corims")] == ["maker"]


async def test_what_is_switched_off_is_not_there(here: World) -> None:
    here.options |= {
        "challenge_response": EmbeddedChallengeResponseSection(serve=False),
        "coserv": CoservSection(serve=False),
    }
    async with here.serve(), here.web() as web:
        for method, path in (
            ("POST", NEW),
            ("GET", "/.well-known/veraison/verification"),
            ("GET", "/.well-known/coserv-configuration"),
        ):
            assert (await web.request(method, path)).status_code == 404
        document = (await web.get("/openapi.json")).json()
        assert not [path for path in document["paths"] if "coserv" in path or "newSess" in path]


async def test_strangers_who_verify_cannot_use_up_what_joins_need(here: World) -> None:
    platform = here.platform("edge")
    here.options["challenge_response"] = EmbeddedChallengeResponseSection(
        requests_per_second=0.001, request_burst=2
    )
    async with here.serve(), here.web() as web:
        await verify(web, platform)
        refused = await web.post(NEW)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        session = await open_session(web)
        response = await web.post(
            f"/v1/join/sessions/{session.session}", json=join_body(platform, session)
        )
        assert response.status_code == 200, response.text
