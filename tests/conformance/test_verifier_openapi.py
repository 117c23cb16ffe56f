# SPDX-License-Identifier: Apache-2.0
"""The Verifier does what its OpenAPI document says, for requests that schemathesis thinks up.

Their number is bounded and the same in each run; `SCHEMATHESIS_EXAMPLES` asks for more.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis.core.failures import FailureGroup
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from support.fake_services import served
from support.schemathesis_runs import TOKEN, check_operation
from support.server_thread import in_own_thread
from support.verifier_world import VerifierWorld, verifier_world
from troth.control_plane.openapi import Answer, Operation, openapi_route
from troth.control_plane.verification.app import create_verifier_admin_app
from troth.control_plane.verification.sections import (
    ChallengeResponseSection,
    CoservSection,
    ProvisionerSection,
    ProvisioningSection,
)
from troth.evidence.simulator import PsaOptions, SimulatedPlatform

PLENTY: dict[str, Any] = {
    "requests_per_second": 1e6,
    "request_burst": 10**6,
    "total_requests_per_second": 1e6,
    "total_request_burst": 10**6,
}


@asynccontextmanager
async def _verifier() -> AsyncIterator[VerifierWorld]:
    """Serve both applications; operators are asked by plain HTTP as well."""
    async with verifier_world() as world:
        world.endorse(SimulatedPlatform.create(PsaOptions(), random=os.urandom))
        client = ProvisionerSection(
            name="schemathesis", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest()
        )
        world.options |= {
            "challenge_response": ChallengeResponseSection(**PLENTY),
            "coserv": CoservSection(**PLENTY),
            "provisioning": ProvisioningSection(clients=[client], **PLENTY),
            "public_metrics": True,
        }
        async with (
            world.serve() as running,
            served(create_verifier_admin_app(running.parts)) as world.operators_url,
        ):
            yield world


@pytest.fixture(scope="module")
def world() -> Iterator[VerifierWorld]:
    with in_own_thread(_verifier()) as running:
        yield running


@pytest.fixture(scope="module")
def described(world: VerifierWorld) -> Any:
    return schemathesis.openapi.from_url(f"{world.running.url}/openapi.json")


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda each: each.value)
def test_every_answer_is_one_that_the_document_names(
    described: Any, mode: schemathesis.GenerationMode
) -> None:
    operations = {each.ok().label: each.ok() for each in described.get_all_operations()}
    # Its own source is nothing that schemathesis asks for.
    expected = {f"{method} {path}" for method, path in SERVED} - {"GET /openapi.json"}
    assert operations.keys() == expected
    for operation in operations.values():
        check_operation(operation, mode)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda each: each.value)
def test_so_it_is_for_operators(world: VerifierWorld, mode: schemathesis.GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"{world.operators_url}/openapi.json")
    operations = {each.ok().label: each.ok() for each in document.get_all_operations()}
    assert {f"{method} {path}" for method, path in OPERATORS} == operations.keys()
    for operation in operations.values():
        check_operation(operation, mode)


def test_an_answer_that_the_document_does_not_name_is_noticed() -> None:
    operation = Operation(
        method="GET",
        path="/answer",
        words="",
        tag="x",
        answers=(Answer(status=204),),
    )

    async def answer(_: Any) -> PlainTextResponse:
        return PlainTextResponse("surprise", status_code=418)

    app = Starlette(routes=[Route("/answer", answer), openapi_route("Planted", [operation])])
    with in_own_thread(served(app)) as url:
        document = schemathesis.openapi.from_url(f"{url}/openapi.json")
        (found,) = [each.ok() for each in document.get_all_operations()]
        with pytest.raises(FailureGroup, match="Undocumented"):
            check_operation(found, schemathesis.GenerationMode.POSITIVE)


def test_the_document_describes_every_route_and_no_other(world: VerifierWorld) -> None:
    document = httpx.get(f"{world.running.url}/openapi.json").json()
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert described == SERVED


OPERATORS = {
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("POST", "/endorsement-provisioning/v1/submit"),
    ("GET", "/.well-known/veraison/provisioning"),
    ("GET", "/v1/corims"),
    ("POST", "/v1/corims"),
    ("DELETE", "/v1/corims"),
    ("GET", "/v1/reference-values"),
    ("DELETE", "/v1/reference-values"),
    ("GET", "/.well-known/troth/result-keys"),
    ("POST", "/v1/result-keys"),
}
SERVED = {
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("POST", "/challenge-response/v1/newSession"),
    ("GET", "/challenge-response/v1/session/{session}"),
    ("POST", "/challenge-response/v1/session/{session}"),
    ("DELETE", "/challenge-response/v1/session/{session}"),
    ("GET", "/.well-known/veraison/verification"),
    ("GET", "/.well-known/veraison/provisioning"),
    ("POST", "/endorsement-provisioning/v1/submit"),
    ("GET", "/coserv/{query}"),
    ("GET", "/endorsement-distribution/v1/coserv/{query}"),
    ("GET", "/.well-known/coserv-configuration"),
    ("GET", "/.well-known/troth/result-keys"),
}
