# SPDX-License-Identifier: Apache-2.0
"""The Workload API as a client meets it, call by call and refusal by refusal."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from support.workloads import (
    DOMAIN,
    HEADER,
    OTHER,
    agent_side,
    authority,
    entry,
    foreign_bundle,
)
from support.x509 import p256
from troth.control_plane.workload_api import service
from troth.control_plane.workload_api.messages import WORKLOAD
from troth.errors import AuthorizationError, UnavailableError
from troth.formats.keys import load_keys, spki
from troth.formats.signer import LocalSigner
from troth.identity.jwt_svid import JwtAuthority
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid

SECONDS = 5


async def first(messages: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(SECONDS):
        message = await anext(messages)
    await messages.aclose()  # type: ignore[attr-defined]
    return message


async def refused(work: Any) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        await (work if asyncio.iscoroutine(work) else first(work))
    return caught.value


async def test_a_workload_gets_its_svid_key_and_bundle() -> None:
    async with agent_side(entry(hint="main")) as side, side.client() as client:
        response = await first(client.svids())
        [svid] = response.svids
        assert svid.spiffe_id == f"spiffe://{DOMAIN}/web"
        assert svid.hint == "main"
        key = load_der_private_key(svid.x509_svid_key, None)
        held = X509Svid.decode(svid.x509_svid, private_key=key)  # type: ignore[arg-type]
        verify_x509_svid(held, TrustBundleSet([side.server.bundle]), now=side.clock.now())
        assert x509.load_der_x509_certificate(svid.bundle) in side.server.bundle.x509_authorities
        assert not response.crl
        assert not response.federated_bundles


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("FetchX509SVID", "X509SVID"),
        ("FetchX509Bundles", "X509Bundles"),
        ("FetchJWTBundles", "JWTBundles"),
    ],
)
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"workload.spiffe.io": "True"},
        {"workload.spiffe.io": "false"},
        {"workload.spiffe.io": "1"},
        [("workload.spiffe.io", "true"), ("workload.spiffe.io", "true")],
        {"workload.spiffe": "true"},
    ],
    ids=["none", "capital", "false", "one", "twice", "other"],
)
async def test_a_stream_without_the_header_is_refused(name: str, kind: str, metadata: Any) -> None:
    async with agent_side(entry()) as side, side.client() as client:
        error = await refused(client.messages(name, kind, metadata=metadata))
        assert error.status is Status.INVALID_ARGUMENT
        assert not side.attestor.asked


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("FetchJWTSVID", "JWTSVID", {"audience": ["a"]}),
        ("ValidateJWTSVID", "ValidateJWTSVID", {"audience": "a", "svid": "x.y.z"}),
    ],
)
async def test_a_call_without_the_header_is_refused(
    name: str, kind: str, fields: dict[str, Any]
) -> None:
    async with agent_side(entry()) as side, side.client() as client:
        error = await refused(client.call(name, kind, metadata={}, **fields))
        assert error.status is Status.INVALID_ARGUMENT


async def test_a_process_that_is_nobody_is_denied_everywhere() -> None:
    async with agent_side(entry("web", "unix:uid:1")) as side, side.client() as client:
        token = JwtAuthority(DOMAIN, side.server.signers[0]).issue(
            SpiffeId(DOMAIN, "/web"), ["a"], now=side.clock.now(), ttl=timedelta(minutes=1)
        )
        for error in (
            await refused(client.svids()),
            await refused(client.messages("FetchX509Bundles", "X509Bundles")),
            await refused(client.messages("FetchJWTBundles", "JWTBundles")),
            await refused(client.jwt("a")),
            await refused(
                client.call("ValidateJWTSVID", "ValidateJWTSVID", audience="a", svid=token.token)
            ),
        ):
            assert error.status is Status.PERMISSION_DENIED


async def test_before_the_node_is_a_member_everything_is_unavailable() -> None:
    async with agent_side() as side, side.client() as client:
        side.identities._ready = False
        assert (await refused(client.svids())).status is Status.UNAVAILABLE
        assert (await refused(client.jwt("a"))).status is Status.UNAVAILABLE


async def test_a_process_that_cannot_be_attested_is_unavailable() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        side.attestor.failure = UnavailableError("gone")
        error = await refused(client.svids())
        assert (error.status, "gone" in (error.message or "")) == (Status.UNAVAILABLE, False)


async def test_wit_svids_are_not_implemented() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        for name in ("FetchWITSVID", "FetchWITBundles"):
            kind = WORKLOAD["X509SVIDRequest"]
            method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
                client.channel, f"/SpiffeWorkloadAPI/{name}", kind, kind
            )
            with pytest.raises(GRPCError) as caught:
                await method(kind(), metadata={"workload.spiffe.io": "true"})
            assert caught.value.status is Status.UNIMPLEMENTED


async def test_every_identity_comes_in_the_order_of_its_entry_and_hints_are_unique() -> None:
    uid = f"unix:uid:{os.getuid()}"
    entries = [
        entry("b", hint="x"),
        entry("a", uid, hint="x"),
        entry("c", hint="y"),
        entry("d", "unix:uid:1"),
        entry("e"),
        entry("f"),
    ]
    async with agent_side(*entries) as side, side.client() as client:
        response = await first(client.svids())
        assert [svid.spiffe_id[-1] for svid in response.svids] == ["b", "c", "e", "f"]


async def test_an_entry_wants_all_of_its_selectors() -> None:
    uid = f"unix:uid:{os.getuid()}"
    async with (
        agent_side(entry("web", uid, "unix:path:/x"), entry("job", uid)) as side,
        side.client() as client,
    ):
        response = await first(client.svids())
        assert [svid.spiffe_id[-3:] for svid in response.svids] == ["job"]
        side.attestor.known[os.getpid()] = {uid, "unix:path:/x", "unix:gid:7"}
        response = await first(client.svids())
        assert [svid.spiffe_id[-3:] for svid in response.svids] == ["web", "job"]


async def test_the_stream_tells_of_a_rotation_at_once_and_of_nothing_else() -> None:
    other = entry("other", "unix:uid:1")
    async with agent_side(entry(), other) as side, side.client() as client:
        stream = client.svids()
        before = await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        side.server.entries[1] = replace_entry(other, form="2")
        side.server.revision = 2
        side.identities.adopt(side.server.bundle)
        await side.settle()
        assert side.server.batches == [2, 1]
        await asyncio.sleep(0.05)
        assert not waiting.done()
        side.clock.ahead = timedelta(minutes=21)
        await side.settle()
        async with asyncio.timeout(SECONDS):
            after = await waiting
        assert after.svids[0].x509_svid != before.svids[0].x509_svid
        assert after.svids[0].x509_svid_key != before.svids[0].x509_svid_key
        assert after.svids[0].bundle == before.svids[0].bundle
        await stream.aclose()


def replace_entry(old: Any, **fields: Any) -> Any:
    import msgspec  # noqa: PLC0415 - entries are structs

    return msgspec.structs.replace(old, **fields)


async def test_the_stream_tells_of_a_new_authority() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        stream = client.svids()
        before = await anext(stream)

        side.server.authorities.append(authority())
        side.tell_bundles()
        async with asyncio.timeout(SECONDS):
            after = await anext(stream)
        assert after.svids[0].x509_svid == before.svids[0].x509_svid
        assert len(after.svids[0].bundle) > len(before.svids[0].bundle)
        await stream.aclose()


async def test_the_stream_ends_with_a_denial_when_the_identity_is_gone() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        stream = client.svids()
        await anext(stream)
        side.server.entries.clear()
        side.identities.adopt(side.server.bundle)
        await side.settle()
        assert (await refused(stream)).status is Status.PERMISSION_DENIED


async def test_a_node_that_is_expelled_has_no_workloads() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        stream = client.svids()
        await anext(stream)
        token = (await client.jwt("a")).svids[0].svid
        side.identities.withdraw()
        assert (await refused(stream)).status is Status.PERMISSION_DENIED
        assert (await refused(client.svids())).status is Status.PERMISSION_DENIED
        assert (await refused(client.jwt("a"))).status is Status.PERMISSION_DENIED
        side.identities.adopt(side.server.bundle)
        await side.settle()
        assert (await first(client.svids())).svids
        assert (await client.jwt("a")).svids[0].svid != token


async def test_federated_bundles_are_those_that_the_entry_names_and_no_others() -> None:
    async with (
        agent_side(entry(federates_with=(OTHER.name, "unknown.example"))) as side,
        side.client() as client,
    ):
        third = replace(foreign_bundle(), trust_domain=type(OTHER)("third.example"))
        side.server.federated = {OTHER.name: foreign_bundle(), "third.example": third}
        side.tell_bundles()
        response = await first(client.svids())
        assert list(response.federated_bundles) == [f"spiffe://{OTHER}"]
        bundles = await first(client.messages("FetchX509Bundles", "X509Bundles"))
        assert sorted(bundles.bundles) == [f"spiffe://{DOMAIN}", f"spiffe://{OTHER}"]
        x509.load_der_x509_certificate(bundles.bundles[f"spiffe://{OTHER}"])
        jwks = await first(client.messages("FetchJWTBundles", "JWTBundles"))
        assert sorted(jwks.bundles) == [f"spiffe://{DOMAIN}", f"spiffe://{OTHER}"]


async def test_jwt_bundles_hold_jwt_keys_alone() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        response = await first(client.messages("FetchJWTBundles", "JWTBundles"))
        document = json.loads(response.bundles[f"spiffe://{DOMAIN}"])
        assert list(document) == ["keys"]
        assert [(key["kid"], key["use"]) for key in document["keys"]] == [("jwt-1", "jwt-svid")]
        [key] = load_keys(response.bundles[f"spiffe://{DOMAIN}"], source="bundle")
        assert spki(key.material) == spki(side.server.signers[0].public_key)


async def test_a_bundle_stream_does_not_tell_of_rotated_svids() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        stream = client.messages("FetchX509Bundles", "X509Bundles")
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        side.clock.ahead = timedelta(minutes=21)
        await side.settle()
        await asyncio.sleep(0.05)
        assert not waiting.done()
        side.server.federated = {OTHER.name: foreign_bundle()}
        side.tell_bundles()
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_workload_gets_tokens_for_all_its_identities_or_for_one() -> None:
    async with agent_side(entry("a", hint="x"), entry("b")) as side, side.client() as client:
        response = await client.jwt("reports", "billing")
        assert [(svid.spiffe_id[-1], svid.hint) for svid in response.svids] == [
            ("a", "x"),
            ("b", ""),
        ]
        wanted = f"spiffe://{DOMAIN}/b"
        response = await client.jwt("reports", spiffe_id=wanted)
        assert [svid.spiffe_id for svid in response.svids] == [wanted]
        token = response.svids[0].svid
        valid = await client.call(
            "ValidateJWTSVID", "ValidateJWTSVID", audience="reports", svid=token
        )
        assert valid.spiffe_id == wanted
        assert valid.claims["sub"] == wanted
        assert list(valid.claims["aud"]) == ["reports"]
        assert valid.claims["exp"] > side.clock.now().timestamp()


async def test_a_token_is_asked_for_once_in_half_of_its_life() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        one = (await client.jwt("a", "b")).svids[0].svid
        assert (await client.jwt("b", "a")).svids[0].svid == one
        assert side.server.tokens == 1
        assert (await client.jwt("a")).svids[0].svid != one
        side.clock.ahead = timedelta(minutes=31)
        assert (await client.jwt("a", "b")).svids[0].svid != one
        assert side.server.tokens == 3


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"audience": []}, Status.INVALID_ARGUMENT),
        ({"audience": [""]}, Status.INVALID_ARGUMENT),
        ({"audience": ["a"] * 17}, Status.INVALID_ARGUMENT),
        ({"audience": ["a"], "spiffe_id": "web"}, Status.INVALID_ARGUMENT),
        ({"audience": ["a"], "spiffe_id": "spiffe://Example.org/web"}, Status.INVALID_ARGUMENT),
        ({"audience": ["a"], "spiffe_id": "spiffe://example.org/other"}, Status.PERMISSION_DENIED),
        ({"audience": ["a"], "spiffe_id": "spiffe://other.example/web"}, Status.PERMISSION_DENIED),
    ],
)
async def test_a_token_that_one_may_not_have_is_refused(
    fields: dict[str, Any], status: Status
) -> None:
    async with agent_side(entry()) as side, side.client() as client:
        assert (await refused(client.call("FetchJWTSVID", "JWTSVID", **fields))).status is status
        assert side.server.tokens == 0


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UnavailableError("down"), Status.UNAVAILABLE),
        (AuthorizationError("no member"), Status.PERMISSION_DENIED),
    ],
)
async def test_a_server_that_does_not_issue_is_told_apart(failure: Any, status: Status) -> None:
    async with agent_side(entry()) as side, side.client() as client:
        side.server.failure = failure
        assert (await refused(client.jwt("a"))).status is status


async def test_a_token_of_a_federated_domain_is_validated_by_that_domains_keys() -> None:
    async with (
        agent_side(entry(federates_with=(OTHER.name,))) as side,
        side.client() as client,
    ):
        signer = LocalSigner(p256(), "foreign")
        bundle = foreign_bundle()
        keys = [replace(bundle.jwt_authorities[0], material=signer.public_key)]
        side.server.federated = {OTHER.name: replace(bundle, jwt_authorities=keys)}
        side.tell_bundles()

        def token(domain: Any) -> str:
            made = JwtAuthority(domain, signer).issue(
                SpiffeId(domain, "/peer"), ["a"], now=side.clock.now(), ttl=timedelta(minutes=1)
            )
            return made.token

        async def validate(text: str) -> Any:
            return await client.call("ValidateJWTSVID", "ValidateJWTSVID", audience="a", svid=text)

        assert (await validate(token(OTHER))).spiffe_id == f"spiffe://{OTHER}/peer"
        assert (await refused(validate(token(DOMAIN)))).status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "change", ["audience", "empty audience", "signature", "expired", "no token", "header"]
)
async def test_a_token_that_is_not_valid_is_refused(change: str) -> None:
    async with agent_side(entry()) as side, side.client() as client:
        token, audience = (await client.jwt("a")).svids[0].svid, "a"
        if change == "audience":
            audience = "b"
        elif change == "empty audience":
            audience = ""
        elif change == "signature":
            token = token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB")
        elif change == "expired":
            side.clock.ahead = timedelta(hours=2)
        elif change == "no token":
            token = ""
        else:
            token = "e30" + token[token.index(".") :]
        error = await refused(
            client.call("ValidateJWTSVID", "ValidateJWTSVID", audience=audience, svid=token)
        )
        assert error.status is Status.INVALID_ARGUMENT


async def test_there_are_so_many_calls_of_one_user_and_no_more() -> None:
    async with (
        agent_side(entry(), calls_per_user=3) as side,
        side.client() as client,
    ):
        streams = [client.svids() for _ in range(3)]
        for stream in streams:
            await anext(stream)
        assert (await refused(client.svids())).status is Status.RESOURCE_EXHAUSTED
        await streams.pop().aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    streams.append(client.svids())
                    await anext(streams[-1])
                    break
                except GRPCError:
                    streams.pop()
                    await asyncio.sleep(0.01)
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]


async def test_a_request_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "MAX_REQUEST_SECONDS", 0.05)
    async with agent_side(entry()) as side, side.client() as client:
        request = WORKLOAD["X509SVIDRequest"]
        method = client.stream("FetchX509SVID", request, WORKLOAD["X509SVIDResponse"])

        async def silent() -> None:
            async with method.open(metadata=HEADER) as stream:
                await stream.send_request()
                await stream.recv_initial_metadata()

        assert (await refused(silent())).status is Status.DEADLINE_EXCEEDED


async def test_a_request_beyond_the_limit_is_refused() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        error = await refused(
            client.call("ValidateJWTSVID", "ValidateJWTSVID", audience="a", svid="x" * 300_000)
        )
        assert error.status is Status.RESOURCE_EXHAUSTED


async def test_a_digest_is_made_only_where_an_entry_wants_one() -> None:
    async with agent_side(entry()) as side, side.client() as client:
        await first(client.svids())
        assert {with_digest for _, with_digest in side.attestor.asked} == {False}
        side.server.entries.append(entry("x", f"unix:sha256:{'0' * 64}"))
        side.identities.adopt(side.server.bundle)
        await side.settle()
        await first(client.svids())
        assert side.attestor.asked[-1] == (os.getpid(), True)
