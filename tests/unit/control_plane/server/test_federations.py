# SPDX-License-Identifier: Apache-2.0
"""Bundles of other trust domains: set, fetched by both profiles, kept apart, told to agents."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from support.server_world import DOMAIN, World, new_key, world
from support.waiting import until
from support.x509 import sign, signing
from troth.adapters.bundle_endpoint import HttpsBundleFetcher
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.clock import SystemClock
from troth.control_plane.server.authorities import Authorities, Rollover
from troth.control_plane.server.bundles import ServerBundles
from troth.control_plane.server.config import LifetimeSection, LifetimesSection
from troth.control_plane.server.federations import Federations
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.trust_config import AuthoritiesSection, FederationSection
from troth.control_plane.server.worker import Worker
from troth.errors import ConfigurationError, DecodeError, UnavailableError
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.event import Bundles, EntriesChanged
from troth.mesh.federation import EndpointProfile, Federation

OTHER = "other.example"
HOUR = timedelta(hours=1)


class MovedClock(SystemClock):
    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def served(stack: AsyncExitStack, domain: str = DOMAIN, **options: Any) -> World:
    """Start a server of a trust domain, with a bundle endpoint."""
    made = await stack.enter_async_context(world())
    section = options.pop("federation", FederationSection(listen="127.0.0.1:0"))
    made.options |= {"trust_domain": domain, "federation": section}
    if "authorities" in options:
        made.options["authorities"] = options.pop("authorities")
    options.setdefault("fetcher", HttpsBundleFetcher())
    await stack.enter_async_context(made.serve(**options))
    return made


def by_svid(other: World, **fields: str) -> dict[str, str]:
    return {
        "bundle": other.running.trust_bundle.read_text(),
        "endpoint_url": other.running.bundle_url,
        "profile": "https_spiffe",
        "endpoint_spiffe_id": other.running.spiffe_id,
    } | fields


async def bundle_of(here: World, domain: str) -> TrustBundle:
    shown = await here.operator.get(f"/v1/bundles/{domain}")
    document = json.dumps(shown.json()["bundle"])
    return TrustBundle.decode(document.encode(), trust_domain=TrustDomain(domain))


async def test_two_servers_federate_both_ways_by_their_svids(stack: AsyncExitStack) -> None:
    here, there = await served(stack), await served(stack, OTHER)
    for one, other, domain in ((here, there, OTHER), (there, here, DOMAIN)):
        await one.ask("PUT", f"/v1/bundles/{domain}", json=by_svid(other))
        status = await one.ask("POST", f"/v1/bundles/{domain}/refresh")
        assert status["problem"] == ""
        assert status["sequence"] == 1
        assert status["refresh_hint"] == 60
        assert await bundle_of(one, domain) == other.running.context.bundles.own


async def test_the_endpoint_asks_nobody_for_a_certificate_and_serves_the_bundle_alone(
    stack: AsyncExitStack,
) -> None:
    here = await served(stack)
    bundle = here.running.trust_bundle.read_text()
    async with here.web() as web:
        response = await web.get(here.running.bundle_url)
        assert response.headers["content-type"] == "application/json"
        assert response.headers["cache-control"] == "max-age=60"
        got = TrustBundle.decode(response.content, trust_domain=TrustDomain(DOMAIN))
        assert got.encode_pem().decode() == bundle
        assert len(got.jwt_authorities) == 1
        assert (await web.post(here.running.bundle_url)).status_code == 405
        for path in ("v1/join/sessions", "v1/feed", "v1/bundle"):
            assert (await web.get(here.running.bundle_url + path)).status_code == 404


async def test_an_endpoint_with_another_svid_is_not_believed(stack: AsyncExitStack) -> None:
    here, there = await served(stack), await served(stack, OTHER)
    wrong = by_svid(there, endpoint_spiffe_id=f"spiffe://{OTHER}/troth/other")
    await here.ask("PUT", f"/v1/bundles/{OTHER}", json=wrong)
    before = await bundle_of(here, OTHER)
    await here.ask("POST", f"/v1/bundles/{OTHER}/refresh", 403)
    assert (await here.ask("GET", f"/v1/bundles/{OTHER}"))["problem"]
    assert await bundle_of(here, OTHER) == before


async def test_an_endpoint_under_another_authority_is_not_believed(stack: AsyncExitStack) -> None:
    here, there = await served(stack), await served(stack, OTHER)
    ca = sign(signing(uris=(f"spiffe://{OTHER}",)))
    wrong = by_svid(there, bundle=ca.public_bytes(Encoding.PEM).decode())
    await here.ask("PUT", f"/v1/bundles/{OTHER}", json=wrong)
    await here.ask("POST", f"/v1/bundles/{OTHER}/refresh", 403)
    assert (await bundle_of(here, OTHER)).x509_authorities == (ca,)


def web_certificate(directory: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """Write a certificate that a browser would take for `name`; it is its own authority."""
    key, now = new_key(), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")])
    address = x509.IPAddress(ipaddress.ip_address(name))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "web.pem", directory / "web.key"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, private


async def test_by_https_web_the_name_of_the_host_counts(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    certificate, key = web_certificate(tmp_path)
    section = FederationSection(
        listen="127.0.0.1:0", profile="https_web", certificate=str(certificate), key=str(key)
    )
    there = await served(stack, OTHER, federation=section)
    here = await served(stack, fetcher=HttpsBundleFetcher(certificate))
    url = there.running.bundle_url
    wanted = {"endpoint_url": url, "profile": "https_web"}
    await here.ask("PUT", f"/v1/bundles/{OTHER}", json=wanted)
    await here.ask("POST", f"/v1/bundles/{OTHER}/refresh")
    assert await bundle_of(here, OTHER) == there.running.context.bundles.own
    # The same address under another name is somebody else.
    other_name = wanted | {"endpoint_url": url.replace("127.0.0.1", "localhost")}
    await here.ask("PUT", f"/v1/bundles/{OTHER}", json=other_name)
    await here.ask("POST", f"/v1/bundles/{OTHER}/refresh", 403)


async def test_the_systems_authorities_do_not_know_a_private_one(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    certificate, key = web_certificate(tmp_path)
    section = FederationSection(
        listen="127.0.0.1:0", profile="https_web", certificate=str(certificate), key=str(key)
    )
    there, here = await served(stack, OTHER, federation=section), await served(stack)
    wanted = {"endpoint_url": there.running.bundle_url, "profile": "https_web"}
    await here.ask("PUT", f"/v1/bundles/{OTHER}", json=wanted)
    await here.ask("POST", f"/v1/bundles/{OTHER}/refresh", 403)
    assert (await here.ask("GET", f"/v1/bundles/{OTHER}"))["bundle"] is None


async def test_the_bundle_follows_a_rollover_of_the_other_side_without_a_gap(
    stack: AsyncExitStack,
) -> None:
    """The endpoint's own SVID is issued by the new authority in the end, and still believed.

    OpenSSL looks at the machine's clock, so the lifetimes are short and not the clock moved.
    """
    brief = LifetimeSection(result_seconds=5, svid_seconds=5, connection_seconds=5)
    there = await stack.enter_async_context(world())
    there.options |= {
        "trust_domain": OTHER,
        "federation": FederationSection(listen="127.0.0.1:0"),
        "authorities": AuthoritiesSection(x509_announce_seconds=1),
        "lifetimes": LifetimesSection(
            registered=brief, identified=brief, measured=brief, confidential=brief
        ),
        "server_svid_seconds": 5,
    }
    await stack.enter_async_context(there.serve())
    here = await served(stack)
    await here.ask("PUT", f"/v1/bundles/{OTHER}", json=by_svid(there))
    first = (await bundle_of(here, OTHER)).x509_authorities[0]
    await there.ask("POST", "/v1/authorities/x509/prepare")
    seen = []

    async def fetched_without_the_first() -> bool:
        await here.ask("POST", f"/v1/bundles/{OTHER}/refresh")
        seen.append(await bundle_of(here, OTHER))
        return first not in seen[-1].x509_authorities

    await until(fetched_without_the_first, seconds=30, interval=0.1)
    counts = [len(bundle.x509_authorities) for bundle in seen]
    assert counts == sorted(counts, reverse=True)
    assert set(counts) == {2, 1}
    assert seen[0].sequence == 2
    assert seen[-1].sequence == 3


class Scripted:
    """An endpoint that serves what a test says."""

    def __init__(self) -> None:
        self.answers: list[TrustBundle | Exception] = []
        self.asked = 0

    async def fetch(
        self, federation: Federation, *, endpoint_bundle: TrustBundle | None
    ) -> TrustBundle:
        del federation, endpoint_bundle
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


CA = sign(signing(uris=(f"spiffe://{OTHER}",)))
BUNDLE = TrustBundle(
    trust_domain=TrustDomain(OTHER), x509_authorities=[CA], sequence=5, refresh_hint_seconds=60
)
WEB = {"endpoint_url": "https://other.example/", "profile": "https_web"}


class Setting:
    """Federations without a server around them: nothing happens but what a test does."""

    def __init__(self, directory: Path, *answers: TrustBundle | Exception) -> None:
        rollover = Rollover(announce=HOUR, keep=HOUR)
        self.clock, self.fetcher = MovedClock(), Scripted()
        self.fetcher.answers += answers
        self.registry = SqlRegistry(sqlite_url(directory / "registry.db"))
        self.worker = Worker("registry", threads=1, max_waiting=10)
        authorities = Authorities(
            directory,
            TrustDomain(DOMAIN),
            now=self.clock.now(),
            random=os.urandom,
            x509=rollover,
            jwt=rollover,
        )
        self.bundles = ServerBundles(authorities, now=self.clock.now())
        self.federations = Federations(
            registry=self.registry,
            registry_worker=self.worker,
            bundles=self.bundles,
            fetcher=self.fetcher,
            hub=FeedHub(self.registry, self.worker, heartbeat_seconds=60),
            clock=self.clock,
        )

    @property
    def known(self) -> TrustBundle | None:
        return self.bundles.known(TrustDomain(OTHER))

    @property
    def problem(self) -> str:
        return self.federations.find(TrustDomain(OTHER)).problem

    async def sweep(self, *, after: int) -> int:
        """Sweep so many seconds after the beginning, and say how often the endpoint was asked."""
        self.clock.ahead = timedelta(seconds=after)
        await self.federations.sweep()
        return self.fetcher.asked

    async def __aenter__(self) -> Self:
        federation = Federation(
            trust_domain=TrustDomain(OTHER),
            endpoint_url=WEB["endpoint_url"],
            profile=EndpointProfile.HTTPS_WEB,
        )
        await self.federations.put(federation, actor="operator 0")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.close()
        self.registry.close()


async def test_a_bundle_is_fetched_when_its_interval_is_over_and_not_sooner(
    tmp_path: Path,
) -> None:
    async with Setting(tmp_path, BUNDLE, BUNDLE) as setting:
        assert await setting.sweep(after=0) == 1
        assert setting.known == BUNDLE
        assert await setting.sweep(after=50) == 1
        assert await setting.sweep(after=61) == 2


@pytest.mark.parametrize(
    "failure",
    [
        UnavailableError("no answer"),
        DecodeError("no bundle", format="SPIFFE bundle"),
        replace(BUNDLE, sequence=4, x509_authorities=[]),
    ],
    ids=["down", "garbage", "older"],
)
async def test_what_fails_changes_nothing_and_waits_for_the_next_interval(
    tmp_path: Path, failure: TrustBundle | Exception
) -> None:
    async with Setting(tmp_path, BUNDLE, failure, replace(BUNDLE, sequence=6)) as setting:
        await setting.sweep(after=0)
        assert await setting.sweep(after=61) == 2
        assert setting.problem != ""
        assert setting.known == BUNDLE
        assert await setting.sweep(after=62) == 2
        assert await setting.sweep(after=122) == 3
        assert setting.problem == ""
        assert setting.known == replace(BUNDLE, sequence=6)


async def test_a_trust_domain_that_was_never_reached_is_asked_again_soon(tmp_path: Path) -> None:
    async with Setting(tmp_path, UnavailableError("down"), BUNDLE) as setting:
        assert await setting.sweep(after=0) == 1
        assert setting.known is None
        assert await setting.sweep(after=29) == 1
        assert await setting.sweep(after=31) == 2
        assert setting.known == BUNDLE


async def test_what_an_operator_replaced_during_a_fetch_stays_replaced(tmp_path: Path) -> None:
    async with Setting(tmp_path, BUNDLE) as setting:
        mine = replace(BUNDLE, x509_authorities=[], sequence=9)
        by_hand = Federation(trust_domain=TrustDomain(OTHER), bundle=mine)
        fetch = setting.fetcher.fetch

        async def meanwhile(*args: Any, **kwargs: Any) -> TrustBundle:
            await setting.federations.put(by_hand, actor="operator 0")
            return await fetch(*args, **kwargs)

        setting.fetcher.fetch = meanwhile  # type: ignore[method-assign]
        await setting.sweep(after=0)
        assert setting.known == mine


async def test_agents_are_told_of_bundles_and_entries_as_soon_as_they_change(
    stack: AsyncExitStack,
) -> None:
    made = await stack.enter_async_context(world())
    edge = made.platform("edge")
    await stack.enter_async_context(made.serve())
    client = made.client()
    told: list[Any] = []
    client.on_notice = told.append
    await client.join(edge, new_key())
    feed = client.feed()

    async def read() -> None:
        async for _ in feed:
            pass

    reading = asyncio.create_task(read())
    await until(lambda: {type(each) for each in told} == {Bundles, EntriesChanged})
    told.clear()
    pem = CA.public_bytes(Encoding.PEM).decode()
    await made.ask("PUT", f"/v1/bundles/{OTHER}", json={"bundle": pem})
    await until(lambda: bool(told))
    [bundles] = told
    foreign = TrustBundle.decode(bundles.federated[OTHER].encode(), trust_domain=TrustDomain(OTHER))
    assert foreign.x509_authorities == (CA,)
    told.clear()
    entry = {
        "id": "web",
        "spiffe_id": f"spiffe://{DOMAIN}/web",
        "parent_id": f"spiffe://{DOMAIN}/edge",
        "selectors": ["unix:uid:1"],
        "federates_with": [OTHER],
    }
    await made.ask("POST", "/v1/entries", 201, json=entry)
    await until(lambda: told == [EntriesChanged(revision=1)])
    await made.ask("DELETE", f"/v1/bundles/{OTHER}", 409)
    await made.ask("DELETE", "/v1/entries/web")
    await made.ask("DELETE", f"/v1/bundles/{OTHER}", 204)
    await until(lambda: isinstance(told[-1], Bundles) and told[-1].federated == {})
    reading.cancel()
    await asyncio.wait([reading])
    await feed.aclose()
    await client.close()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"bundle": "{}"}, "bundle"),
        ({"bundle": "-----BEGIN NONSENSE-----"}, "bundle"),
        ({"endpoint_url": "http://a.example/"}, "endpoint_url"),
        ({"profile": "https_spiffe"}, "endpoint_spiffe_id"),
        ({"profile": "https_spiffe", "endpoint_spiffe_id": "x"}, "endpoint_spiffe_id"),
        (
            {"profile": "https_spiffe", "endpoint_spiffe_id": "spiffe://third.example/s"},
            "endpoint_spiffe_id",
        ),
        ({"profile": "https_spiffe", "endpoint_spiffe_id": f"spiffe://{OTHER}/s"}, "bundle"),
    ],
)
async def test_a_wrong_relationship_is_refused_with_the_field(
    stack: AsyncExitStack, change: dict[str, str], field: str
) -> None:
    here = await served(stack, fetcher=None)
    problem = await here.ask("PUT", f"/v1/bundles/{OTHER}", 400, json=WEB | change)
    assert problem["detail"].startswith(f"field {field}: ")
    assert len(await here.ask("GET", "/v1/bundles")) == 1


async def test_our_own_bundle_is_not_an_operators_to_set(stack: AsyncExitStack) -> None:
    here = await served(stack, fetcher=None)
    await here.ask("PUT", f"/v1/bundles/{DOMAIN}", 400, json=WEB)
    await here.ask("DELETE", f"/v1/bundles/{DOMAIN}", 409)
    await here.ask("GET", "/v1/bundles/unknown.example", 409)
    own = await here.ask("GET", f"/v1/bundles/{DOMAIN}")
    assert own["own"] is True
    assert own["sequence"] == 1


async def test_authorities_are_prepared_and_activated_by_operators(stack: AsyncExitStack) -> None:
    here = await served(stack, fetcher=None)
    assert [a["stage"] for a in await here.ask("GET", "/v1/authorities")] == ["active"] * 2
    await here.ask("POST", "/v1/authorities/x509/activate", 409)
    await here.ask("POST", "/v1/authorities/x509/prepare")
    await here.ask("POST", "/v1/authorities/jwt/prepare")
    await here.ask("POST", "/v1/authorities/x509/prepare", 409)
    assert (await here.ask("GET", f"/v1/bundles/{DOMAIN}"))["x509_authorities"] == 2
    await here.ask("POST", "/v1/authorities/x509/activate")
    stages = [(a["kind"], a["stage"]) for a in await here.ask("GET", "/v1/authorities")]
    assert stages == [
        ("x509", "active"),
        ("x509", "old"),
        ("jwt", "active"),
        ("jwt", "prepared"),
    ]
    await here.ask("POST", "/v1/authorities/ssh/prepare", 404)
    await here.ask("POST", "/v1/authorities/x509/forget", 404)
    assert "BEGIN CERTIFICATE" in here.running.trust_bundle.read_text()
    await until(lambda: here.running.trust_bundle.read_text().count("BEGIN") == 2)


def test_the_web_profile_needs_its_files() -> None:
    with pytest.raises(ConfigurationError, match=r"federation\.certificate"):
        FederationSection(listen="127.0.0.1:0", profile="https_web").check()
    with pytest.raises(ConfigurationError, match=r"federation\.key"):
        FederationSection(key="a.pem").check()
    with pytest.raises(ConfigurationError):
        HttpsBundleFetcher(Path("/nonexistent"))
