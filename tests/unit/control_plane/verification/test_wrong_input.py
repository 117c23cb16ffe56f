# SPDX-License-Identifier: Apache-2.0
"""Wrong input for each route gives its documented error and changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.appraisal import corims_of
from support.verifier_world import BASE, NEW, SESSION, VerifierWorld, verifier_world
from troth.control_plane.server import http_server, requests
from troth.control_plane.verification.sections import ProvisionerSection, ProvisioningSection
from troth.evidence.simulator import PsaOptions, SimulatedPlatform

PSA = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
(CORIM,) = corims_of(PSA)
NONCE = b"n" * 32
TOKEN = "a-token-of-a-provisioner-that-is-long-enough"
SUBMIT = "/endorsement-provisioning/v1/submit"
PROBLEM = "application/problem+json"
CONCISE = "application/concise-problem-details+cbor"
WELL_KNOWN = "/.well-known/veraison/verification"


@dataclass(frozen=True)
class Case:
    """A wrong request and its answer."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    media_type: str = PROBLEM


BEARER = {"authorization": f"Bearer {TOKEN}"}
RIM = {**BEARER, "content-type": "application/rim+cbor"}
PSA_TYPE = {"content-type": PSA.media_type}

# "SESSION" stands for an open session.
CASES = [
    # newSession
    Case("GET", NEW, 405),
    Case("POST", f"{NEW}?nonceSize=7", 400),
    Case("POST", f"{NEW}?nonceSize=65", 400),
    Case("POST", f"{NEW}?nonceSize=-8", 400),
    Case("POST", f"{NEW}?nonceSize=%D9%A3%D9%A2", 400),  # digits of another script
    Case("POST", f"{NEW}?nonceSize=32&nonceSize=8", 400),
    Case("POST", f"{NEW}?nonce=AAAA", 400),
    Case("POST", f"{NEW}?nonce={'A' * 88}", 400),
    Case("POST", f"{NEW}?nonce=AAAAAAAAAAA%2B", 400),
    Case("POST", f"{NEW}?nonce=AAAAAAAAAAA%2F", 400),
    Case("POST", f"{NEW}?nonce=AAAAAAAAAAAAB", 400),
    Case("POST", f"{NEW}?nonce=AAAAAAAAAAA=====", 400),
    Case("POST", f"{NEW}?nonce=AAAAAAAAAAA&nonceSize=8", 400),
    Case("POST", f"{NEW}?{'x' * 2000}", 413),
    Case("POST", NEW, 406, {"accept": "application/json"}),
    # session
    Case("PUT", f"{BASE}session/SESSION", 405),
    Case("GET", f"{BASE}session/", 400),
    Case("GET", f"{BASE}session/SESSION/more", 400),
    Case("GET", f"{BASE}session/AAAA", 400),
    Case("GET", f"{BASE}session/%00%ff", 400),
    Case("GET", f"{BASE}session/{'A' * 5000}", 400),
    Case("GET", f"{BASE}session/{'A' * 94}", 400),
    Case("GET", f"{BASE}session/7df8ef00-22bc-11ee-be56-0242ac120002", 400),
    Case("GET", f"{BASE}session/SESSION", 406, {"accept": "text/html"}),
    Case("DELETE", f"{BASE}session/AAAA", 400),
    Case("POST", f"{BASE}session/SESSION", 415, {}, b"x"),
    Case("POST", f"{BASE}session/SESSION", 415, {"content-type": "text/plain"}, b"x"),
    Case("POST", f"{BASE}session/SESSION", 400, {"content-type": "nonsense"}, b"x"),
    Case("POST", f"{BASE}session/SESSION", 413, {"content-type": "a/" + "b" * 2000}, b"x"),
    Case("POST", f"{BASE}session/SESSION", 400, PSA_TYPE),
    Case("POST", f"{BASE}session/SESSION", 413, PSA_TYPE, bytes(70_000)),
    Case("POST", f"{BASE}session/SESSION", 406, {**PSA_TYPE, "accept": "text/html"}, b"x"),
    Case("POST", f"{BASE}session/SESSION", 400, {"content-type": "application/cmw+cbor"}, b"\x82"),
    Case("POST", f"{BASE}session/SESSION", 400, {"content-type": "application/cmw+json"}, b"["),
    Case("POST", f"{BASE}other", 404),
    # discovery
    Case("GET", WELL_KNOWN, 406, {"accept": "text/html"}),
    Case("POST", WELL_KNOWN, 405),
    Case("GET", "/.well-known/veraison/provisioning", 406, {"accept": "text/html"}),
    Case(
        "GET", "/.well-known/coserv-configuration", 406, {"accept": "text/html"}, media_type=CONCISE
    ),
    # provisioning
    Case("GET", SUBMIT, 405),
    Case("POST", SUBMIT, 401, {"content-type": "application/rim+cbor"}, CORIM.encode()),
    Case("POST", SUBMIT, 406, {**RIM, "accept": "text/html"}, CORIM.encode()),
    Case("POST", SUBMIT, 415, BEARER, CORIM.encode()),
    Case("POST", SUBMIT, 415, {**BEARER, "content-type": "a/b"}, CORIM.encode()),
    Case("POST", SUBMIT, 400, {**BEARER, "content-type": ";"}, CORIM.encode()),
    Case("POST", SUBMIT, 400, RIM),
    Case("POST", SUBMIT, 413, RIM, bytes(1_100_000)),
    # distribution
    Case("GET", "/coserv/", 404),
    Case("GET", "/coserv/!!", 400, media_type=CONCISE),
    Case("GET", "/coserv/AAAA", 400, media_type=CONCISE),
    Case("GET", "/coserv/AAAA", 406, {"accept": "text/html"}, media_type=CONCISE),
    Case("GET", f"/coserv/{'A' * 9000}", 413, media_type=CONCISE),
    Case("POST", "/coserv/AAAA", 405),
    # the rest
    Case("GET", "/nothing", 404),
    Case("POST", "/livez", 405),
    Case("POST", "/readyz", 405),
    Case("POST", "/.well-known/troth/result-keys", 405),
    Case("POST", "/endorsement-distribution/v1/coserv/AAAA", 405),
    Case("GET", "/metrics", 404),
    Case("GET", "/v1/corims", 404),
    Case("POST", "/v1/result-keys", 404),
]


@pytest.fixture
async def here() -> AsyncIterator[VerifierWorld]:
    async with verifier_world() as made:
        client = ProvisionerSection(
            name="ci", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest()
        )
        made.options["provisioning"] = ProvisioningSection(
            clients=[client], unsigned=True, request_burst=1000
        )
        yield made


async def test_every_wrong_request_is_answered_as_documented(here: VerifierWorld) -> None:
    wrong: list[str] = []
    async with here.serve():
        session = await here.open(NONCE)
        identifier = session["id"].removeprefix("session/")
        before = await state(here, session)
        for case in CASES:
            path = case.path.replace("SESSION", identifier)
            response = await here.web.request(
                case.method, path, headers=dict(case.headers), content=case.body
            )
            found = response.headers.get("content-type", "")
            if (response.status_code, found) != (case.status, case.media_type):
                wrong.append(f"{case.method} {path[:60]}: {response.status_code} {found}")
            elif found == PROBLEM:
                document = response.json()
                if document["status"] != case.status or not document["code"]:
                    wrong.append(f"{case.method} {path[:60]}: {document}")
        assert wrong == []
        assert await state(here, session) == before
        # The session that all of this was sent to is as good as new.
        response = await here.submit(session, PSA.attest(NONCE), PSA.media_type)
        assert response.status_code == 200


async def state(here: VerifierWorld, session: dict[str, Any]) -> tuple[object, ...]:
    return (
        (await here.operator.get("/v1/corims")).json(),
        (await here.operator.get("/v1/reference-values")).json(),
        (await here.web.get("/.well-known/troth/result-keys")).json(),
        (await here.web.get(BASE + session["id"], headers={"accept": SESSION})).json(),
        sorted(each.name for each in (here.directory / "data").iterdir()),
    )


OPERATORS_CASES = [
    Case("POST", "/v1/corims", 400, {}, b"noise"),
    Case("POST", "/v1/corims", 400, {}, b""),
    Case("POST", "/v1/corims", 413, {}, bytes(1_100_000)),
    Case("DELETE", "/v1/corims", 400),
    Case("DELETE", "/v1/corims?id=", 400),
    Case("DELETE", "/v1/corims?id=nothing", 409),
    Case("DELETE", "/v1/reference-values?id=nothing", 409),
    Case("PUT", "/v1/corims", 405),
    Case("GET", "/v1/result-keys", 405),
    Case("GET", "/v1/nodes", 404),
    Case("POST", SUBMIT, 415, {}, b"x"),
]


async def test_operators_are_told_what_is_wrong_too(here: VerifierWorld) -> None:
    wrong: list[str] = []
    async with here.serve():
        session = await here.open(NONCE)
        before = await state(here, session)
        for case in OPERATORS_CASES:
            response = await here.operator.request(
                case.method, case.path, headers=dict(case.headers), content=case.body
            )
            found = response.headers.get("content-type", "")
            if (response.status_code, found) != (case.status, PROBLEM):
                wrong.append(f"{case.method} {case.path}: {response.status_code} {response.text}")
        assert wrong == []
        assert await state(here, session) == before


async def test_a_body_that_does_not_come_is_not_waited_for(
    here: VerifierWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_BODY_SECONDS", 0.2)
    async with here.serve():
        session = await here.open(NONCE)
        host, port = here.running.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST {BASE}{session['id']} HTTP/1.1\r\nHost: v\r\nContent-Length: 100\r\n"
            f"Content-Type: {PSA.media_type}\r\n\r\n"
        )
        writer.write(head.encode() + b"x" * 10)
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n")
        assert b" 400 " in answer
        writer.transport.abort()
        assert (await here.web.get(BASE + session["id"])).json()["status"] == "waiting"


async def test_a_connection_that_says_nothing_is_ended(
    here: VerifierWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_SILENCE_SECONDS", 0.2)
    async with here.serve():
        host, port = here.running.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


def test_every_route_has_a_wrong_request() -> None:
    from troth.control_plane.verification.operations import (  # noqa: PLC0415 - for this test alone
        api_operations,
        verifier_operations,
    )

    described = verifier_operations(
        api_operations((), verification=True, coserv=True), metrics=False
    )
    asked = {(case.method, case.path.partition("?")[0]) for case in CASES}
    for operation in described:
        prefix = operation.path.partition("{")[0]
        assert any(path.startswith(prefix) for _, path in asked), operation.path
