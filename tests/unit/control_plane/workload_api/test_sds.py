# SPDX-License-Identifier: Apache-2.0
"""SDS by SPIRE's names, as an Envoy that was configured for SPIRE asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from support.workloads import DOMAIN, OTHER, AgentSide, agent_side, entry, foreign_bundle
from troth.control_plane.workload_api.envoy_messages import (
    DISCOVERY,
    SECRET_TYPE,
    SPIFFE_VALIDATOR_TYPE,
    TLS,
)
from troth.control_plane.workload_api.sds import MAX_NAMES
from troth.control_plane.workload_api.sds_secrets import SecretNames
from troth.formats.keys import spki
from troth.identity.x509_svid import X509Svid

SERVICE = "/envoy.service.secret.v3.SecretDiscoveryService"
WEB, JOB = f"spiffe://{DOMAIN}/web", f"spiffe://{DOMAIN}/job"
OWN, FOREIGN = f"spiffe://{DOMAIN}", f"spiffe://{OTHER}"
SECONDS = 5


def request(*names: str, version: tuple[int, int] = (1, 40), **fields: Any) -> Any:
    made = DISCOVERY["DiscoveryRequest"](resource_names=list(names), type_url=SECRET_TYPE, **fields)
    if version:
        number = made.node.user_agent_build_version.version
        number.major_number, number.minor_number = version
    return made


async def fetch(side: AgentSide, message: Any) -> dict[str, Any]:
    channel = Channel(path=str(side.socket))
    try:
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
            channel,
            f"{SERVICE}/FetchSecrets",
            DISCOVERY["DiscoveryRequest"],
            DISCOVERY["DiscoveryResponse"],
        )
        return secrets_in(await method(message))
    finally:
        channel.close()


def secrets_in(response: Any) -> dict[str, Any]:
    assert response.type_url == SECRET_TYPE
    assert {each.type_url for each in response.resources} <= {SECRET_TYPE}
    found = [TLS["Secret"].FromString(each.value) for each in response.resources]
    return {secret.name: secret for secret in found}


@asynccontextmanager
async def conversation(side: AgentSide) -> AsyncIterator[Any]:
    channel = Channel(path=str(side.socket))
    method: StreamStreamMethod[Any, Any] = StreamStreamMethod(
        channel,
        f"{SERVICE}/StreamSecrets",
        DISCOVERY["DiscoveryRequest"],
        DISCOVERY["DiscoveryResponse"],
    )
    try:
        async with method.open() as stream:
            yield stream
            await stream.cancel()
    finally:
        channel.close()


@asynccontextmanager
async def two_domains(**options: Any) -> AsyncIterator[AgentSide]:
    entries = [entry("web", federates_with=(OTHER.name,)), entry("job")]
    async with agent_side(*entries, **options) as side:
        side.server.federated = {OTHER.name: foreign_bundle()}
        side.tell_bundles()
        yield side


def trust_domains(secret: Any) -> dict[str, bytes]:
    validator = secret.validation_context.custom_validator_config
    assert validator.name == "envoy.tls.cert_validator.spiffe"
    assert validator.typed_config.type_url == SPIFFE_VALIDATOR_TYPE
    assert not secret.validation_context.HasField("trusted_ca")
    config = TLS["SPIFFECertValidatorConfig"].FromString(validator.typed_config.value)
    return {each.name: each.trust_bundle.inline_bytes for each in config.trust_domains}


async def test_a_certificate_comes_under_its_spiffe_id_with_its_key() -> None:
    async with two_domains() as side:
        found = await fetch(side, request(JOB))
        assert list(found) == [JOB]
        certificate = found[JOB].tls_certificate
        svid = X509Svid.decode(certificate.certificate_chain.inline_bytes)
        key = load_pem_private_key(certificate.private_key.inline_bytes, None)
        assert str(svid.spiffe_id) == JOB
        assert spki(key.public_key()) == svid.spki  # type: ignore[arg-type]


async def test_default_is_the_first_identity() -> None:
    async with two_domains() as side:
        found = await fetch(side, request("default"))
        chain = found["default"].tls_certificate.certificate_chain.inline_bytes
        assert str(X509Svid.decode(chain).spiffe_id) == WEB


@pytest.mark.parametrize(
    ("name", "domains"),
    [
        ("ROOTCA", [DOMAIN.name]),
        ("ALL", [DOMAIN.name, OTHER.name]),
        (OWN, [DOMAIN.name]),
        (FOREIGN, [OTHER.name]),
    ],
)
async def test_each_trust_domain_is_validated_by_its_own_bundle(
    name: str, domains: list[str]
) -> None:
    async with two_domains() as side:
        found = await fetch(side, request(name))
        trusted = trust_domains(found[name])
        assert sorted(trusted) == domains
        bundles = {DOMAIN.name: side.server.bundle, **side.server.federated}
        for domain, pem in trusted.items():
            assert pem == bundles[domain].encode_pem()


async def test_several_names_come_together() -> None:
    async with two_domains() as side:
        found = await fetch(side, request("default", "ROOTCA", WEB, FOREIGN, ""))
        assert sorted(found) == sorted(["default", "ROOTCA", WEB, FOREIGN])


async def test_without_a_name_everything_comes_that_has_a_name_of_its_own() -> None:
    async with two_domains() as side:
        found = await fetch(side, request())
        assert sorted(found) == sorted([WEB, JOB, OWN, FOREIGN])


@pytest.mark.parametrize(
    "name",
    [
        f"spiffe://{DOMAIN}/other",
        "spiffe://third.example",
        "DEFAULT",
        "rootca",
        "default ",
        "../default",
    ],
)
async def test_one_name_that_one_is_not_entitled_to_refuses_them_all(name: str) -> None:
    async with two_domains() as side:
        with pytest.raises(GRPCError) as caught:
            await fetch(side, request("default", name))
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_a_process_that_is_nobody_gets_nothing_not_even_bundles() -> None:
    async with agent_side(entry("web", "unix:uid:1")) as side:
        for name in ("default", "ROOTCA", "ALL", OWN):
            with pytest.raises(GRPCError) as caught:
                await fetch(side, request(name))
            assert caught.value.status is Status.INVALID_ARGUMENT
        assert await fetch(side, request()) == {}


@pytest.mark.parametrize(
    ("version", "modern"),
    [((1, 17), False), ((1, 16), False), ((0, 99), False), ((1, 18), True), ((2, 0), True)],
)
async def test_an_old_envoy_gets_plain_authorities(
    version: tuple[int, int],
    modern: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async with two_domains() as side:
        found = await fetch(side, request("ROOTCA", version=version))
        context = found["ROOTCA"].validation_context
        assert context.HasField("custom_validator_config") is modern
        if not modern:
            assert context.trusted_ca.inline_bytes == side.server.bundle.encode_pem()
            with pytest.raises(GRPCError):  # one list would let each vouch for the others
                await fetch(side, request("ALL", version=version))


async def test_an_envoy_that_does_not_say_its_version_is_a_new_one() -> None:
    async with two_domains() as side:
        found = await fetch(side, request("ROOTCA", version=()))  # type: ignore[arg-type]
        assert trust_domains(found["ROOTCA"])


@pytest.mark.parametrize(
    ("value", "disabled"),
    [(True, True), ("true", True), ("1", True), (False, False), ("no", False), (1, False)],
)
async def test_an_envoys_metadata_turn_the_validator_off(
    value: Any,
    disabled: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async with two_domains() as side:
        message = request("ROOTCA")
        message.node.metadata.update({"disable_spiffe_cert_validation": value})
        context = (await fetch(side, message))["ROOTCA"].validation_context
        assert context.HasField("trusted_ca") is disabled


async def test_the_agent_turns_the_validator_off_and_an_envoy_on_again() -> None:
    async with two_domains(spiffe_validator=False) as side:
        found = await fetch(side, request("ROOTCA"))
        assert found["ROOTCA"].validation_context.HasField("trusted_ca")
        message = request("ROOTCA")
        message.node.metadata.update({"disable_spiffe_cert_validation": "false"})
        assert trust_domains((await fetch(side, message))["ROOTCA"])


async def test_names_can_be_chosen_and_sds_can_be_left_out() -> None:
    names = SecretNames(svid="mine", bundle="roots", all_bundles="everybody")
    async with two_domains(secret_names=names) as side:
        found = await fetch(side, request("mine", "roots", "everybody"))
        assert sorted(found) == ["everybody", "mine", "roots"]
        with pytest.raises(GRPCError):
            await fetch(side, request("default"))
    async with two_domains(sds=False) as side:
        with pytest.raises(GRPCError):
            await fetch(side, request("default"))


async def test_a_rotation_is_told_at_once_and_an_acknowledgement_by_nothing() -> None:
    async with two_domains() as side, conversation(side) as stream:
        async with asyncio.timeout(SECONDS):
            await stream.send_message(request("default"))
            first = await stream.recv_message()
        await stream.send_message(
            request("default", response_nonce=first.nonce, version_info=first.version_info)
        )
        waiting = asyncio.ensure_future(stream.recv_message())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        side.clock.ahead = timedelta(minutes=21)
        await side.settle()
        async with asyncio.timeout(SECONDS):
            second = await waiting
        assert second.nonce != first.nonce
        assert second.version_info != first.version_info
        before, after = (secrets_in(each)["default"].tls_certificate for each in (first, second))
        assert before.certificate_chain != after.certificate_chain
        assert before.private_key != after.private_key


async def test_an_acknowledgement_needs_no_node_and_may_ask_for_more() -> None:
    async with two_domains() as side, conversation(side) as stream:
        await stream.send_message(request("ROOTCA", version=(1, 16)))
        first = await stream.recv_message()
        more = request("ROOTCA", "default", version=(), response_nonce=first.nonce)  # type: ignore[arg-type]
        await stream.send_message(more)
        async with asyncio.timeout(SECONDS):
            second = secrets_in(await stream.recv_message())
        assert sorted(second) == ["ROOTCA", "default"]
        # The first message's node holds for the whole stream.
        assert second["ROOTCA"].validation_context.HasField("trusted_ca")


async def test_an_answer_to_what_was_replaced_since_is_ignored() -> None:
    async with two_domains() as side, conversation(side) as stream:
        await stream.send_message(request("ROOTCA"))
        await stream.recv_message()
        await stream.send_message(request("nobody", response_nonce="stale"))
        waiting = asyncio.ensure_future(stream.recv_message())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_refusal_by_envoy_does_not_bring_the_same_again() -> None:
    async with two_domains() as side, conversation(side) as stream:
        await stream.send_message(request("ROOTCA"))
        first = await stream.recv_message()
        refusal = request("ROOTCA", response_nonce=first.nonce)
        refusal.error_detail.message = "bad certificate"
        await stream.send_message(refusal)
        waiting = asyncio.ensure_future(stream.recv_message())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        side.tell_bundles()  # the same bundle under another number
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_the_stream_ends_when_the_identity_is_gone() -> None:
    async with two_domains() as side:

        async def until_refused() -> None:
            async with conversation(side) as stream:
                await stream.send_message(request("default"))
                await stream.recv_message()
                side.identities.withdraw()
                await stream.recv_message()

        with pytest.raises(GRPCError) as caught:
            async with asyncio.timeout(SECONDS):
                await until_refused()
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_delta_is_not_implemented_and_other_types_are_not_served() -> None:
    async with two_domains() as side:
        channel = Channel(path=str(side.socket))
        kind = DISCOVERY["DiscoveryRequest"]
        method: StreamStreamMethod[Any, Any] = StreamStreamMethod(
            channel, f"{SERVICE}/DeltaSecrets", kind, kind
        )

        async def delta() -> None:
            async with method.open() as stream:
                await stream.send_message(kind())
                await stream.recv_message()

        with pytest.raises(GRPCError) as caught:
            await delta()
        assert caught.value.status is Status.UNIMPLEMENTED
        channel.close()
        other = request("default")
        other.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
        with pytest.raises(GRPCError) as caught:
            await fetch(side, other)
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_names_have_a_limit() -> None:
    async with two_domains() as side:
        with pytest.raises(GRPCError) as caught:
            await fetch(side, request(*map(str, range(MAX_NAMES + 1))))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
