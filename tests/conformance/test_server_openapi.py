# SPDX-License-Identifier: Apache-2.0
"""The server's two applications do what their OpenAPI documents say; see test_verifier_openapi."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import schemathesis
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from support.fake_services import served
from support.schemathesis_runs import TOKEN, check_operation
from support.server_thread import in_own_thread
from support.server_world import world
from troth.control_plane.server.admin_api import create_admin_app
from troth.control_plane.server.api import create_app
from troth.control_plane.server.config import LimitSection
from troth.control_plane.verification.sections import (
    CoservSection,
    EmbeddedChallengeResponseSection,
    ProvisionerSection,
    ProvisioningSection,
)

PLENTY: dict[str, Any] = {
    "requests_per_second": 1e6,
    "request_burst": 10**6,
    "total_requests_per_second": 1e6,
    "total_request_burst": 10**6,
}
ENDLESS = {"GET /v1/feed"}
"""An answer that never ends; the feed's own tests read it."""
FAST = "/challenge-response/v1"


@asynccontextmanager
async def _served() -> AsyncIterator[dict[str, tuple[str, Starlette]]]:
    """Serve both applications by plain HTTP, so that nothing but they is tested."""
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(world())
        here.platform("edge")
        client = ProvisionerSection(
            name="schemathesis", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest()
        )
        here.options |= {
            "challenge_response": EmbeddedChallengeResponseSection(**PLENTY),
            "coserv": CoservSection(**PLENTY),
            "provisioning": ProvisioningSection(clients=[client], **PLENTY),
            "limits": LimitSection(**PLENTY),
            "public_metrics": True,
        }
        running = await stack.enter_async_context(here.serve())
        apps = {
            "nodes": create_app(running.context),
            "operators": create_admin_app(running.context),
        }
        yield {
            name: (await stack.enter_async_context(served(app)), app) for name, app in apps.items()
        }


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, tuple[str, Starlette]]]:
    with in_own_thread(_served()) as running:
        yield running


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda each: each.value)
@pytest.mark.parametrize("name", ["nodes", "operators"])
def test_every_answer_is_one_that_the_document_names(
    both: dict[str, tuple[str, Starlette]], name: str, mode: schemathesis.GenerationMode
) -> None:
    url, _ = both[name]
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = {each.ok().label: each.ok() for each in document.get_all_operations()}
    assert len(operations) > 10
    for label, operation in operations.items():
        if label not in ENDLESS:
            check_operation(operation, mode)


@pytest.mark.parametrize("name", ["nodes", "operators"])
def test_the_document_describes_every_route_and_no_other(
    both: dict[str, tuple[str, Starlette]], name: str
) -> None:
    url, app = both[name]
    document = httpx.get(f"{url}/openapi.json").json()
    described = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if not path.startswith(FAST)
    }
    assert described == set(_routes(app))


def _routes(app: Starlette) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, Mount):
            assert route.path == FAST
            continue
        assert isinstance(route, Route)
        path = route.path.replace(":int}", "}").replace(":path}", "}")
        for method in (route.methods or set()) - {"HEAD"}:
            yield method, path
