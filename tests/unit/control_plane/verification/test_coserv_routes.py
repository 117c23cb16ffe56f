# SPDX-License-Identifier: Apache-2.0
"""Endorsements handed out, fetched, kept and handed on: with a service up, down, and lying."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.fake_services import in_thread, served
from support.verifier_world import VerifierWorld, submods, verifier_world
from troth.adapters.coserv_client import CoservClient
from troth.adapters.coserv_endorsements import FetchedEndorsements, FetchingVerifier
from troth.clock import SystemClock
from troth.control_plane.verification.sections import CoservSection
from troth.endorsement.coserv import corim_from_answer
from troth.errors import SignatureError, TrothError, UnavailableError, UnsupportedError
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedPlatform
from troth.formats import cbor
from troth.formats.base64url import encode_base64url
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.environment import EnvironmentClass
from troth.formats.coserv import (
    ArtifactType,
    Coserv,
    CoservResults,
    EnvironmentQuery,
    ResultType,
    RimKind,
    RimQuery,
    Selection,
    sign_coserv,
    verify_coserv,
)
from troth.formats.keys import load_keys
from troth.formats.signer import LocalSigner
from troth.formats.verification_key import VerificationKey

PSA = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
CCA = SimulatedPlatform.create(CcaOptions(), random=os.urandom)
PSA_PROFILE = "tag:arm.com,2025:psa#1.0.0"
SIGNED, PLAIN = "application/coserv+cose", "application/coserv+cbor"
CONCISE = "application/concise-problem-details+cbor"
NONCE = b"n" * 32


def values_query(
    platform: SimulatedPlatform = PSA, profile: str = PSA_PROFILE, **options: Any
) -> Coserv:
    named = EnvironmentClass(class_id=Tag(tags.BYTES, platform.reference().implementation_id))
    query = EnvironmentQuery(
        artifact=ArtifactType.REFERENCE_VALUES, classes=(Selection(named),), **options
    )
    return Coserv(profile=profile, query=query)


def keys_query(platform: SimulatedPlatform = PSA) -> Coserv:
    instance = Selection(Tag(tags.UEID, platform.instance_id))
    query = EnvironmentQuery(artifact=ArtifactType.TRUST_ANCHORS, instances=(instance,))
    return Coserv(profile=PSA_PROFILE, query=query)


def path_of(query: Coserv, at: str = "/coserv/") -> str:
    return at + encode_base64url(query.encode())


@pytest.fixture
async def here() -> AsyncIterator[VerifierWorld]:
    async with verifier_world() as made:
        made.endorse(PSA)
        yield made


async def service_keys(here: VerifierWorld) -> list[VerificationKey]:
    document = (await here.web.get("/.well-known/coserv-configuration")).json()
    return [
        key
        for jwk in document["result-verification-key"]
        for key in load_keys(str(jwk).replace("'", '"').encode(), source="discovery")
    ]


async def test_a_query_is_answered_with_what_is_provisioned(here: VerifierWorld) -> None:
    async with here.serve():
        keys = await service_keys(here)
        for query in (values_query(), keys_query(), values_query(result_type=ResultType.BOTH)):
            for at in ("/coserv/", "/endorsement-distribution/v1/coserv/"):
                response = await here.web.get(path_of(query, at), headers={"accept": SIGNED})
                assert response.status_code == 200, response.content
                assert response.headers["content-type"] == f'{SIGNED}; profile="{PSA_PROFILE}"'
                answered = verify_coserv(response.content, keys)
                now = datetime.now(UTC)
                corim = corim_from_answer(answered, query, now=now)
                assert corim.profile_name == PSA_PROFILE
                assert answered.results is not None
                age = int(response.headers["cache-control"].removeprefix("max-age="))
                assert now + timedelta(seconds=age) <= answered.results.expiry
                assert age > 2400


async def test_unsigned_answers_manifests_and_unchanged_ones_can_be_had(
    here: VerifierWorld,
) -> None:
    async with here.serve():
        plain = await here.web.get(path_of(values_query()), headers={"accept": PLAIN})
        assert Coserv.decode(plain.content).results is not None
        (corim,) = (await here.operator.get("/v1/corims")).json()
        rims = Coserv(profile=PSA_PROFILE, query=RimQuery(((RimKind.CORIM, corim["id"]),)))
        answered = Coserv.decode(
            (await here.web.get(path_of(rims), headers={"accept": PLAIN})).content
        )
        assert answered.results is not None
        assert answered.results.rims is not None
        assert corim["id"] in answered.results.rims
        again = await here.web.get(
            path_of(values_query()),
            headers={"accept": PLAIN, "if-none-match": plain.headers["etag"]},
        )
        assert again.status_code == 304


async def test_what_was_withdrawn_is_not_handed_on(here: VerifierWorld) -> None:
    async with here.serve():
        for value in (await here.operator.get("/v1/reference-values")).json():
            await here.operator.delete("/v1/corims", params={"id": value["id"]})
        for query in (values_query(), keys_query()):
            response = await here.web.get(path_of(query), headers={"accept": PLAIN})
            answered = Coserv.decode(response.content)
            assert answered.results is not None
            assert not any(answered.results.quads.values())


async def test_discovery_comes_in_json_and_in_cbor(here: VerifierWorld) -> None:
    at = "/.well-known/coserv-configuration"
    async with here.serve():
        document = (await here.web.get(at)).json()
        assert document["api-endpoints"] == {"CoSERVRequestResponse": "/coserv/{query}"}
        capability = document["capabilities"][0]
        assert capability["media-type"].startswith(f"{SIGNED}; profile=")
        binary = await here.web.get(at, headers={"accept": "application/coserv-discovery+cbor"})
        decoded = cbor.decode(binary.content, format="discovery")
        assert isinstance(decoded, dict)
        assert decoded[3] == document["api-endpoints"]
        assert len(decoded[2]) == len(document["capabilities"])
        assert (await here.web.get(at, headers={"accept": "text/html"})).status_code == 406


async def test_wrong_queries_are_answered_with_concise_problems(here: VerifierWorld) -> None:
    results = Coserv(
        profile=PSA_PROFILE,
        query=values_query().query,
        results=CoservResults(expiry=datetime(2030, 1, 1, tzinfo=UTC)),
    )
    group = Selection(Tag(tags.UEID, b"\x01" * 33))
    groups = EnvironmentQuery(artifact=ArtifactType.REFERENCE_VALUES, groups=(group,))
    other = f'{SIGNED}; profile="tag:arm.com,2025:cca_realm#1.0.0"'
    good = path_of(values_query())
    async with here.serve():
        for path, accept, status in (
            ("/coserv/!!", SIGNED, 400),
            ("/coserv/AAAA", SIGNED, 400),
            (path_of(results), SIGNED, 400),
            (path_of(Coserv(profile=PSA_PROFILE, query=groups)), SIGNED, 400),
            (path_of(values_query(profile="tag:example.org,2026:x")), SIGNED, 406),
            (good, "text/html", 406),
            (good, other, 406),
            ("/coserv/" + "A" * 9000, SIGNED, 413),
        ):
            response = await here.web.get(path, headers={"accept": accept})
            assert response.status_code == status, path[:40]
            assert response.headers["content-type"] == CONCISE
            decoded = cbor.decode(response.content, format="problem")
            assert isinstance(decoded, dict)
            assert decoded.keys() == {-1, -2}


async def test_callers_are_limited(here: VerifierWorld) -> None:
    here.options["coserv"] = CoservSection(requests_per_second=0.01, request_burst=1)
    async with here.serve():
        assert (await here.web.get(path_of(values_query()))).status_code == 200
        limited = await here.web.get(path_of(values_query()))
        assert limited.status_code == 429
        assert int(limited.headers["retry-after"]) > 30


async def test_distribution_can_be_switched_off(here: VerifierWorld) -> None:
    here.options["coserv"] = CoservSection(serve=False)
    async with here.serve():
        assert (await here.web.get(path_of(values_query()))).status_code == 404


class MovedClock(SystemClock):
    def __init__(self) -> None:
        self.moved = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.moved

    def monotonic(self) -> float:
        return super().monotonic() + self.moved.total_seconds()


def client(url: str, keys: list[VerificationKey], directory: Path, **options: Any) -> CoservClient:
    return CoservClient(url, keys=keys, directory=directory, timeout_seconds=2, **options)


async def asked(source: CoservClient, query: Coserv, now: datetime) -> Coserv:
    found: tuple[bytes, Coserv] = await in_thread(source.signed_answer, query, now=now)
    return found[1]


async def test_answers_are_kept_on_disk_until_they_expire(
    here: VerifierWorld, tmp_path: Path
) -> None:
    clock = MovedClock()
    async with here.serve() as running:
        keys = await service_keys(here)
        source = client(running.url, keys, tmp_path, clock=clock)
        first = await asked(source, values_query(), clock.now())
        url = running.url
    source.close()
    assert first.results is not None
    # The service is down. Another process finds what this one kept, and no more than that.
    source = client(url, keys, tmp_path, clock=clock)
    assert await asked(source, values_query(), clock.now()) == first
    with pytest.raises(UnavailableError):
        await asked(source, keys_query(), clock.now())
    clock.moved = first.results.expiry - clock.now() - timedelta(seconds=1)
    assert await asked(source, values_query(), clock.now()) == first
    clock.moved += timedelta(seconds=2)
    with pytest.raises(UnavailableError):
        await asked(source, values_query(), clock.now())
    source.close()


async def test_a_kept_answer_is_no_more_trusted_than_the_network(
    here: VerifierWorld, tmp_path: Path
) -> None:
    async with here.serve() as running:
        keys = await service_keys(here)
        source = client(running.url, keys, tmp_path)
        good = await asked(source, values_query(), datetime.now(UTC))
        (file,) = tmp_path.glob("*.cbor")
        stranger = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
        forged = sign_coserv(good, stranger)
        for data in (b"", b"noise", cbor.encode([2**39, forged])):
            file.write_bytes(data)
            assert await asked(source, values_query(), datetime.now(UTC)) is not None
            assert file.read_bytes() != data
        source.close()


async def test_answers_of_somebody_else_or_to_something_else_are_refused(tmp_path: Path) -> None:
    from starlette.applications import Starlette  # noqa: PLC0415 - for this test alone
    from starlette.responses import JSONResponse, Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    signer, stranger = (
        LocalSigner(ec.generate_private_key(ec.SECP256R1()), name) for name in ("a", "b")
    )
    answers: list[Response] = []
    endpoint = ["/q/{query}"]

    async def answer(_: Any) -> Response:
        return answers.pop(0)

    async def configuration(_: Any) -> Response:
        return JSONResponse({"api-endpoints": {"CoSERVRequestResponse": endpoint[0]}})

    app = Starlette(
        routes=[
            Route("/q/{query}", answer),
            Route("/.well-known/coserv-configuration", configuration),
        ]
    )

    def made(query: Coserv, by: LocalSigner, hours: int = 1) -> Response:
        until = (datetime.now(UTC) + timedelta(hours=hours)).replace(microsecond=0)
        whole = Coserv(
            profile=query.profile, query=query.query, results=CoservResults(expiry=until)
        )
        return Response(sign_coserv(whole, by), media_type=SIGNED)

    asked_for = values_query()
    cases: list[tuple[Response, type[TrothError]]] = [
        (made(asked_for, stranger), SignatureError),
        (made(values_query(CCA), signer), TrothError),
        (made(asked_for, signer, hours=-1), TrothError),
        (Response(b"noise", media_type=SIGNED), TrothError),
        (Response(status_code=404), UnsupportedError),
        (Response(bytes(2_000_000), media_type=SIGNED), TrothError),
    ]
    async with served(app) as url:
        for response, error in cases:
            source = client(url, [VerificationKey(signer.public_key)], tmp_path)
            answers.append(response)
            with pytest.raises(error):
                await asked(source, asked_for, datetime.now(UTC))
            assert list(tmp_path.glob("*.cbor")) == []
            source.close()
        for bad in ("https://elsewhere.example/{query}", "//elsewhere.example/{query}", "/q", ""):
            endpoint[0] = bad
            source = client(url, [VerificationKey(signer.public_key)], tmp_path)
            with pytest.raises(TrothError):
                await asked(source, asked_for, datetime.now(UTC))
            source.close()


async def test_a_verifier_appraises_by_what_another_one_hands_out(
    here: VerifierWorld, tmp_path: Path
) -> None:
    """A site's Verifier that has nothing of its own, and a supply chain's that has everything."""
    here.endorse(CCA, "cca")
    async with here.serve() as upstream, verifier_world() as site:
        keys = await service_keys(here)
        with closing(client(upstream.url, keys, tmp_path)) as source:
            fetched = FetchedEndorsements(source)
            async with site.serve(
                background=lambda verifier: FetchingVerifier(verifier, fetched), upstream=source
            ):
                nonce = b"n" * 64
                for platform, wanted in (
                    (PSA, {"PSA_IOT"}),
                    (CCA, {"CCA_SSD_PLATFORM", "CCA_REALM"}),
                ):
                    claims = await site.verify(platform.attest(nonce), platform.media_type, nonce)
                    assert set(claims["submods"]) == wanted
                    assert {each[0] for each in submods(claims).values()} == {"affirming"}
                # It hands on what it was handed, as it was signed.
                handed = await site.web.get(path_of(values_query()), headers={"accept": SIGNED})
                assert verify_coserv(handed.content, keys).results is not None
                stranger = SimulatedPlatform.create(PsaOptions(model="other"), random=os.urandom)
                claims = await site.verify(stranger.attest(nonce), stranger.media_type, nonce)
                assert submods(claims)["PSA_IOT"][0] == "contraindicated"


async def test_an_upstream_that_is_down_accuses_nobody(tmp_path: Path) -> None:
    async with verifier_world() as site:
        source = client("http://127.0.0.1:9", [], tmp_path)
        fetched = FetchedEndorsements(source)
        async with site.serve(
            background=lambda verifier: FetchingVerifier(verifier, fetched), upstream=source
        ):
            claims = await site.verify(PSA.attest(NONCE), PSA.media_type, NONCE)
            status, vector = submods(claims)["PSA_IOT"]
            assert status == "none"
            assert set(vector.values()) == {-1}
            down = await site.web.get(path_of(values_query()))
            assert down.status_code == 503
            assert down.headers["content-type"] == CONCISE
        source.close()


async def test_what_is_provisioned_here_is_not_asked_for(
    here: VerifierWorld, tmp_path: Path
) -> None:
    source = client("http://127.0.0.1:9", [], tmp_path)
    fetched = FetchedEndorsements(source)
    async with here.serve(background=lambda verifier: FetchingVerifier(verifier, fetched)):
        claims = await here.verify(PSA.attest(NONCE), PSA.media_type, NONCE)
        assert submods(claims)["PSA_IOT"][0] == "affirming"
    source.close()
