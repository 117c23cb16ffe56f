# SPDX-License-Identifier: Apache-2.0
"""The service as a gRPC client sees it; Envoy itself asks it in tests/interop."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from support.attested_world import World
from support.envoy_mesh import envoy_binary
from troth.control_plane.envoy.descriptors import EnvoyDescriptors
from troth.control_plane.ext_authz.decision import CertificateJudge
from troth.control_plane.ext_authz.service import ExtAuthzService
from troth.control_plane.unix_grpc import UnixGrpcServer
from troth.tls.judge import Judge

OK, PERMISSION_DENIED = 0, 7


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def descriptors() -> EnvoyDescriptors:
    return EnvoyDescriptors.load(envoy_binary())


def judge_of(world: World) -> CertificateJudge:
    judge = Judge(world.policy(), world.bundles)
    return CertificateJudge(world.bundles, find=lambda _: judge)


@asynccontextmanager
async def asking(
    descriptors: EnvoyDescriptors, judge: CertificateJudge | None
) -> AsyncIterator[Any]:
    """Give a function that asks about a certificate as Envoy encodes it."""
    directory = Path(tempfile.mkdtemp(prefix="te", dir="/tmp"))
    path = directory / "authz"
    server = UnixGrpcServer([ExtAuthzService(descriptors, lambda: judge)], path)
    request = descriptors.message("envoy.service.auth.v3.CheckRequest")
    response = descriptors.message("envoy.service.auth.v3.CheckResponse")
    await server.start()
    channel = Channel(path=str(path))
    check: Any = UnaryUnaryMethod(
        channel, "/envoy.service.auth.v3.Authorization/Check", request, response
    )

    async def ask(certificate: str, principal: str = "") -> Any:
        message: Any = request()
        message.attributes.source.certificate = certificate
        message.attributes.source.principal = principal
        return await check(message)

    try:
        yield ask
    finally:
        channel.close()
        await server.stop()
        shutil.rmtree(directory)


async def test_an_admitted_caller_is_described_in_dynamic_metadata(
    world: World, descriptors: EnvoyDescriptors
) -> None:
    node = world.join("edge")
    async with asking(descriptors, judge_of(world)) as ask:
        name = str(node.svid.spiffe_id)
        answer = await ask(quote_from_bytes(node.svid.encode_pem()), name)
    assert answer.status.code == OK
    told = {key: value.string_value for key, value in answer.dynamic_metadata.fields.items()}
    assert told["status"] == "attested"
    assert told["binding"] == "credential"
    assert told["tier"] == "measured"
    assert told["spiffe_id"] == name


async def test_a_refused_caller_is_told_nothing(
    world: World, descriptors: EnvoyDescriptors
) -> None:
    plain = world.join("plain", svid_only=True)
    async with asking(descriptors, judge_of(world)) as ask:
        answer = await ask(quote_from_bytes(plain.svid.encode_pem()))
        for certificate in ("", "%", "x" * 200_000):
            assert (await ask(certificate)).status.code == PERMISSION_DENIED
        with pytest.raises(GRPCError, match="longer"):
            await ask("x" * 300_000)
    assert answer.status.code == PERMISSION_DENIED
    assert not answer.status.message
    assert not answer.dynamic_metadata.fields


async def test_a_node_that_is_no_member_refuses_everybody(
    world: World, descriptors: EnvoyDescriptors
) -> None:
    node = world.join("edge")
    async with asking(descriptors, None) as ask:
        answer = await ask(quote_from_bytes(node.svid.encode_pem()))
    assert answer.status.code == PERMISSION_DENIED
