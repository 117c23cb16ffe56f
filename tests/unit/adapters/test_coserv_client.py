# SPDX-License-Identifier: Apache-2.0
"""What the client of CoSERV services keeps, for how long, and how much of it and of its asking.

That it believes nothing but signed answers to its own question is in the tests of the service.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from support.appraisal import corims_of
from support.fake_services import in_thread, served
from troth.adapters import coserv_endorsements
from troth.adapters.coserv_client import CoservClient
from troth.adapters.coserv_endorsements import FetchedEndorsements, _Need
from troth.endorsement.coserv import answer
from troth.endorsement.store import EndorsementStore
from troth.errors import SignatureError, UnavailableError, UnsupportedError
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.formats.base64url import decode_base64url
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.environment import EnvironmentClass
from troth.formats.corim.key_material import key_tag
from troth.formats.coserv import ArtifactType, Coserv, EnvironmentQuery, Selection, sign_coserv
from troth.formats.signer import LocalSigner
from troth.formats.verification_key import VerificationKey

NOW = datetime.now(UTC)
PLATFORMS = [SimulatedPlatform.create(PsaOptions(model=f"m{n}"), random=os.urandom) for n in "123"]
PROFILE = "tag:arm.com,2025:psa#1.0.0"
SIGNED = "application/coserv+cose"


def query(platform: SimulatedPlatform) -> Coserv:
    named = EnvironmentClass(class_id=Tag(tags.BYTES, platform.reference().implementation_id))
    asked = EnvironmentQuery(artifact=ArtifactType.REFERENCE_VALUES, classes=(Selection(named),))
    return Coserv(profile=PROFILE, query=asked)


class Service:
    """A service that knows `PLATFORMS`, signs, and counts what it is asked."""

    def __init__(self) -> None:
        self.signer = LocalSigner(ec.generate_private_key(ec.SECP256R1()), "service")
        self.store = EndorsementStore()
        for number, platform in enumerate(PLATFORMS):
            for corim in corims_of(platform, corim_id=f"maker-{number}"):
                self.store.provision(corim, now=NOW, source="test")
        self.caching = ""
        self.status = 200
        self.asked = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/q/{query}", self._query),
                Route("/.well-known/coserv-configuration", self._configuration),
            ]
        )

    async def _configuration(self, _: Request) -> Response:
        return JSONResponse({"api-endpoints": {"CoSERVRequestResponse": "/q/{query}"}})

    async def _query(self, request: Request) -> Response:
        self.asked += 1
        if self.status != 200:
            return Response(status_code=self.status)
        found = answer(
            Coserv.decode(decode_base64url(request.path_params["query"], format="query")),
            self.store,
            now=NOW,
            lifetime=timedelta(hours=1),
            authorities=(key_tag(self.signer.public_key),),
        )
        headers = {"Cache-Control": self.caching} if self.caching else {}
        return Response(sign_coserv(found, self.signer), media_type=SIGNED, headers=headers)


class Client:
    """The client, and the service behind it."""

    def __init__(self, service: Service, url: str, directory: Path) -> None:
        self.service, self.url, self.directory = service, url, directory
        self.keys = [VerificationKey(service.signer.public_key)]

    def made(self, **options: Any) -> CoservClient:
        return CoservClient(self.url, keys=self.keys, directory=self.directory, **options)

    async def ask(self, client: CoservClient, number: int, later: float = 0) -> Coserv:
        when = NOW + timedelta(seconds=later)
        _, found = await in_thread(client.signed_answer, query(PLATFORMS[number]), now=when)
        assert isinstance(found, Coserv)
        return found


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Client]:
    service = Service()
    async with served(service.app()) as url:
        yield Client(service, url, tmp_path / "kept")


@pytest.mark.parametrize(
    ("caching", "later", "asked"),
    [
        ("", 3500, 1),
        ("max-age=60", 59, 1),
        ("max-age=60", 61, 2),
        ("public, max-age=60", 59, 1),
        ("max-age=999999", 3500, 1),
        ("max-age=0", 0, 2),
        ("no-cache", 0, 2),
        ("no-store, max-age=60", 0, 2),
    ],
)
async def test_an_answer_is_used_without_asking_as_long_as_the_service_allows(
    here: Client, caching: str, later: float, asked: int
) -> None:
    here.service.caching = caching
    client = here.made()
    first = await here.ask(client, 0)
    assert await here.ask(client, 0, later) == first
    assert here.service.asked == asked
    client.close()


@pytest.mark.parametrize("status", [500, 503])
async def test_an_earlier_answer_serves_while_the_service_is_broken(
    here: Client, status: int
) -> None:
    here.service.caching = "no-cache"
    client = here.made()
    first = await here.ask(client, 0)
    here.service.status = status
    assert await here.ask(client, 0, 10) == first
    with pytest.raises(UnavailableError):
        await here.ask(client, 1, 10)
    client.close()


async def test_an_earlier_answer_serves_while_somebody_else_answers(here: Client) -> None:
    here.service.caching = "no-cache"
    client = here.made()
    first = await here.ask(client, 0)
    here.service.signer = LocalSigner(ec.generate_private_key(ec.SECP256R1()), "stranger")
    assert await here.ask(client, 0, 10) == first
    with pytest.raises(SignatureError):
        await here.ask(client, 1, 10)
    client.close()


async def test_a_service_that_answers_such_queries_no_more_is_believed(here: Client) -> None:
    here.service.caching = "no-cache"
    client = here.made()
    await here.ask(client, 0)
    here.service.status = 406
    with pytest.raises(UnsupportedError):
        await here.ask(client, 0, 10)
    client.close()


async def test_a_service_that_did_not_answer_is_left_alone_for_a_while(here: Client) -> None:
    client = here.made()
    here.service.status = 503
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await here.ask(client, 0)
    assert here.service.asked == 1
    client.close()


async def test_no_more_answers_are_kept_than_configured(here: Client) -> None:
    for number in range(3):
        client = here.made(max_kept=2)  # each sweeps with the first that it writes
        await here.ask(client, number)
        client.close()
    assert len(list(here.directory.glob("*.cbor"))) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in here.directory.iterdir())


async def test_an_answer_that_must_not_be_kept_is_not(here: Client) -> None:
    here.service.caching = "no-store"
    client = here.made()
    await here.ask(client, 0)
    assert list(here.directory.iterdir()) == []
    here.service.caching = "no-cache"
    await here.ask(client, 0)
    assert len(list(here.directory.iterdir())) == 1
    client.close()


async def test_answers_that_say_nothing_take_no_place(here: Client) -> None:
    stranger = SimulatedPlatform.create(PsaOptions(model="unknown"), random=os.urandom)
    client = here.made()
    _, found = await in_thread(client.signed_answer, query(stranger), now=NOW)
    assert found.results is not None
    assert list(here.directory.iterdir()) == []
    client.close()


async def test_evidence_cannot_make_us_ask_without_end(
    here: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coserv_endorsements, "MAX_FETCHES_PER_SECOND", 2)
    client = here.made()
    fetched = FetchedEndorsements(client)

    def need(number: int) -> _Need:
        class_id = PLATFORMS[number].reference().implementation_id
        return _Need("psa", ArtifactType.REFERENCE_VALUES, class_id)

    for number in range(2):
        await in_thread(fetched.fetch, need(number), NOW)
    with pytest.raises(UnavailableError, match="MAX_FETCHES_PER_SECOND"):
        await in_thread(fetched.fetch, need(2), NOW)
    await in_thread(fetched.fetch, need(2), NOW + timedelta(seconds=1))
    assert len(fetched.snapshot(NOW).find("psa", class_id=need(2).identifier)) > 0
    client.close()
