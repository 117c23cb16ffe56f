# SPDX-License-Identifier: Apache-2.0
"""Wrong input for each route of the server gives its documented error and changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from support.server_world import World, join_body, new_key, open_session, world
from troth.adapters.server_client import ServerClient
from troth.control_plane.server.config import LimitSection
from troth.control_plane.server.operations import admin_operations, server_operations
from troth.control_plane.verification.operations import api_operations
from troth.evidence.attester import Attester

PROBLEM = "application/problem+json"
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Case:
    """A wrong request and the status of its answer; "NODE" stands for the member's id."""

    method: str
    path: str
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


# What every route that reads a message refuses.
def messages(method: str, path: str, *, wrong: bytes = b'{"unknown": 1}') -> list[Case]:
    return [
        Case(method, path, 400, b"noise"),
        Case(method, path, 400, b"[]"),
        Case(method, path, 400, b'{"a": 1, "a": 2}'),
        Case(method, path, 400, wrong),
        Case(method, path, 413, b'"' + b"x" * 2_000_000 + b'"'),
    ]


STRANGERS = [
    *messages("POST", "/v1/join/sessions"),
    *messages("POST", "/v1/join/sessions/unknown"),
    Case("GET", "/v1/join/sessions", 405),
    Case("GET", "/v1/join/sessions/unknown", 405),
    Case("GET", "/v1/feed", 403),
    Case("POST", "/v1/feed/ack", 403, b'{"sequence": 1}'),
    Case("GET", "/v1/nodes", 403),
    Case("POST", "/v1/appraisals", 403, b"{}"),
    Case("GET", "/v1/agent/entries", 403),
    Case("POST", "/v1/agent/x509-svids", 403, b"{}"),
    Case("POST", "/v1/agent/jwt-svids", 403, b"{}"),
    Case("POST", "/v1/agent/wits", 403, b"{}"),
    Case("GET", "/v1/agent/bundles", 403),
    Case("GET", "/v1/ltees/nothing/result", 404),
    Case("GET", "/v1/agent/ltees/nothing/proofs", 403),
    Case("GET", "/v1/agent/placements", 403),
    Case("POST", "/v1/bundle", 405),
    Case("POST", "/.well-known/troth/result-keys", 405),
    Case("POST", "/livez", 405),
    Case("POST", "/readyz", 405),
    Case("POST", "/openapi.json", 405),
    # what is the operators' alone
    Case("GET", "/metrics", 404),
    Case("GET", "/v1/corims", 404),
    Case("POST", "/v1/nodes/NODE/expel", 404),
    Case("GET", "/v1/entries", 404),
    Case("GET", "/v1/log", 404),
    Case("POST", "/v1/result-keys", 404),
]
MEMBERS = [
    Case("GET", "/v1/feed?after=x", 400),
    Case("GET", "/v1/feed?after=-1", 400),
    *messages("POST", "/v1/feed/ack"),
    Case("POST", "/v1/feed/ack", 400, b'{"sequence": -1}'),
    Case("POST", "/v1/feed/ack", 400, b'{"sequence": 9223372036854775808}'),
    *messages("POST", "/v1/appraisals"),
    Case("POST", "/v1/appraisals", 400, b'{"evidence": "!", "challenge": "AAAAAAAAAAA"}'),
    *messages("POST", "/v1/agent/x509-svids"),
    *messages("POST", "/v1/agent/jwt-svids"),
    *messages("POST", "/v1/agent/wits"),
    Case("GET", "/v1/agent/ltees/nothing/proofs", 409),
]
OPERATORS = [
    Case("POST", "/v1/corims", 400, b"noise"),
    Case("POST", "/v1/corims", 413, bytes(1_100_000)),
    Case("POST", "/v1/corims?replaces=maker-of-edge", 400, b"noise"),
    Case("DELETE", "/v1/corims", 400),
    Case("DELETE", "/v1/corims?id=nothing", 409),
    Case("DELETE", "/v1/reference-values", 400),
    Case("DELETE", "/v1/reference-values?id=nothing", 409),
    Case("POST", "/endorsement-provisioning/v1/submit", 415, b"x", {}),
    Case("GET", "/v1/nodes/nothing", 409),
    Case("POST", "/v1/nodes/nothing/expel", 409),
    Case("POST", "/v1/nodes/NODE/forgive", 404),
    Case("GET", "/v1/delivery/x", 404),
    Case("GET", "/v1/delivery/1?wait=61", 400),
    *messages("POST", "/v1/entries"),
    Case("GET", "/v1/entries/nothing", 404),
    *messages("PUT", "/v1/entries/nothing"),
    Case("DELETE", "/v1/entries/nothing", 409),
    *messages("POST", "/v1/devices"),
    Case("GET", "/v1/devices/nothing", 409),
    Case("POST", "/v1/devices/nothing/approve", 409),
    Case("POST", "/v1/devices/nothing/revoke", 409),
    Case("POST", "/v1/devices/nothing/token", 409, b"{}"),
    Case("GET", "/v1/ltees/nothing", 409),
    *messages("PUT", "/v1/ltees/nothing"),
    Case("DELETE", "/v1/ltees/nothing", 409),
    Case("GET", "/v1/ltees/nothing/status", 409),
    Case("GET", "/v1/ltees/nothing/result", 409),
    Case("GET", "/v1/placements/nothing", 409),
    *messages("PUT", "/v1/placements/nothing"),
    Case("DELETE", "/v1/placements/nothing", 409),
    Case("PUT", "/v1/placements/nothing/secrets/x", 409, b"value"),
    Case("PUT", "/v1/placements/nothing/secrets/x", 413, bytes(20_000)),
    Case("GET", "/v1/refusals?limit=x", 400),
    Case("GET", "/v1/refusals?limit=1001", 400),
    Case("GET", "/v1/refusals/nothing", 404),
    Case("GET", "/v1/log?after=x", 400),
    Case("POST", "/v1/log/verify", 405),
    Case("POST", "/v1/policy", 405),
    Case("GET", "/v1/policy/records?limit=x", 400),
    Case("GET", "/v1/policy/differences?limit=x", 400),
    Case("POST", "/v1/policy/replay", 400, b"not rego"),
    Case("POST", "/v1/policy/replay", 413, bytes(2_000_000)),
    Case("GET", "/v1/feed?after=x", 400),
    Case("GET", "/v1/bundles/nothing.example", 409),
    *messages("PUT", "/v1/bundles/other.example"),
    Case("DELETE", "/v1/bundles/nothing.example", 409),
    Case("POST", "/v1/bundles/nothing.example/refresh", 409),
    Case("POST", "/v1/authorities/x509/forget", 404),
    Case("POST", "/v1/authorities/nothing/prepare", 404),
    Case("GET", "/v1/result-keys", 405),
    Case("GET", "/v1/nothing", 404),
]
CASES = {"stranger": STRANGERS, "member": MEMBERS, "operator": OPERATORS}


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        plenty = {
            "requests_per_second": 1e6,
            "request_burst": 10**6,
            "total_requests_per_second": 1e6,
            "total_request_burst": 10**6,
        }
        made.options["limits"] = LimitSection(**plenty)
        yield made


async def state(here: World) -> tuple[object, ...]:
    paths = ("nodes", "entries", "corims", "reference-values", "refusals", "log", "bundles")
    found = [await here.ask("GET", f"/v1/{path}") for path in (*paths, "authorities", "policy")]
    keys = await here.ask("GET", "/.well-known/troth/result-keys")
    return (*found, keys, sorted(each.name for each in (here.directory / "data").iterdir()))


@pytest.mark.parametrize("who", list(CASES))
async def test_every_wrong_request_is_answered_as_documented(here: World, who: str) -> None:
    platform = here.platform("edge")
    wrong: list[str] = []
    async with here.serve():
        client: ServerClient = here.client()
        attester: Attester = platform
        joined = await client.join(attester, new_key())
        await client.close()
        identity = joined.svid if who == "member" else None
        async with here.web(identity=identity) as web:
            asked: httpx.AsyncClient = here.operator if who == "operator" else web
            before = await state(here)
            for case in CASES[who]:
                path = case.path.replace("NODE", joined.node_id)
                response = await asked.request(
                    case.method, path, content=case.body, headers=dict(case.headers)
                )
                found = response.headers.get("content-type", "")
                if (response.status_code, found) != (case.status, PROBLEM):
                    wrong.append(f"{case.method} {path}: {response.status_code} {response.text}")
                elif response.json()["status"] != case.status or not response.json()["code"]:
                    wrong.append(f"{case.method} {path}: {response.text}")
            assert wrong == []
            assert await state(here) == before
            # And what is right still is.
            session = await open_session(web)
            body = join_body(platform, session)
            again = await web.post(f"/v1/join/sessions/{session.session}", json=body)
            assert again.status_code == 200, again.text


async def test_every_route_that_reads_something_has_a_wrong_request(here: World) -> None:
    async with here.serve() as running:
        public: list[Any] = server_operations(running.context)
    standard = {each.path for each in api_operations((), verification=True, coserv=True)}
    for operations, cases in (
        (public, STRANGERS),
        (admin_operations(), OPERATORS),
    ):
        for operation in operations:
            if operation.path in standard or not (operation.parameters or operation.body):
                continue
            prefix = operation.path.partition("{")[0]
            assert any(case.path.startswith(prefix) for case in cases), operation.path
