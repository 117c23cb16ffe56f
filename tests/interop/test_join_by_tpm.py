# SPDX-License-Identifier: Apache-2.0
"""A machine whose attestation key nobody has registered joins by its TPM's endorsement key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography import x509

from support.server_world import DOMAIN, SERVER_ID, World, new_key, world
from support.swtpm import Swtpm, started_swtpm
from troth.adapters.onboarding import Onboarding
from troth.adapters.registry.sql_registry import SqlRegistry, sqlite_url
from troth.adapters.server_client import RefusedByServerError
from troth.adapters.tpm_device import TpmAttester, TpmSettings
from troth.cli.corim.tpm2 import tpm2_corim
from troth.control_plane.server.activations import Activations
from troth.control_plane.server.config import EntrySection
from troth.control_plane.server.onboarding_config import OnboardingSection
from troth.errors import (
    AuthorizationError,
    ConflictError,
    FreshnessError,
    TrothError,
    UnavailableError,
)
from troth.evidence.tpm2 import SCHEME
from troth.evidence.tpm2.activation import ActivationRequest
from troth.formats.keys import spki

if TYPE_CHECKING:
    from troth.verifier.verifier import EndorsementSource

CLASS = bytes.fromhex("c0ffee01")


@pytest.fixture(scope="module")
def swtpm() -> Iterator[Swtpm]:
    with started_swtpm() as made:
        yield made


@pytest.fixture
def settings(swtpm: Swtpm, tmp_path: Path) -> TpmSettings:
    return TpmSettings(
        state=tmp_path / "ak.json", tcti=swtpm.tcti, registers=(0, 1, 2), event_log=None
    )


@pytest.fixture
def attester(settings: TpmSettings) -> Iterator[TpmAttester]:
    made = TpmAttester(settings)
    yield made
    made.close()


def endorsement(attester: TpmAttester) -> str:
    request = ActivationRequest.decode(attester.activation_request())
    return "ek:" + hashlib.sha256(spki(request.endorsement_key.public_key())).hexdigest()


def corim(attester: TpmAttester) -> bytes:
    """Return the reference values of its kind of machine, without its key."""
    return tpm2_corim(
        SCHEME.decode(attester.attest(b"\x01" * 32)),
        corim_id="machines-of-this-kind",
        class_id=CLASS,
        registers=None,
        leave_out=(),
        keys=[],
        vendor="",
        model="",
        validity=None,
    ).encode()


@pytest.fixture
async def here(attester: TpmAttester) -> AsyncIterator[World]:
    async with world() as made:
        made.options["onboarding"] = OnboardingSection(inventory="required")
        path = made.directory / "kind.cbor"
        path.write_bytes(corim(attester))
        made.corims.append(str(path))
        made.entries = [
            EntrySection(spiffe_id=f"spiffe://{DOMAIN}/edge", selectors=["device:edge-7"])
        ]
        yield made


async def list_device(here: World, attester: TpmAttester) -> None:
    body = {
        "id": "edge-7",
        "identities": [endorsement(attester)],
        "class_id": CLASS.hex(),
    }
    await here.ask("POST", "/v1/devices", 201, json=body)
    await here.ask("POST", "/v1/devices/edge-7/approve")


async def refusal(here: World) -> str:
    (found,) = await here.ask("GET", "/v1/refusals?limit=1")
    return f"{found['stage']}: {found['message']}"


async def join(here: World, attester: Any, *, activate: bool = True) -> Any:
    client = here.client(onboarding=Onboarding(activate=activate))
    try:
        return await client.join(attester, new_key())
    finally:
        await client.close()


async def test_a_listed_tpm_is_activated_and_then_its_key_counts(
    here: World, attester: TpmAttester
) -> None:
    async with here.serve():
        await list_device(here, attester)
        with pytest.raises(TrothError):
            await join(here, attester, activate=False)
        assert (await refusal(here)).startswith("verify: ")
        joined = await join(here, attester)
        assert str(joined.spiffe_id) == f"spiffe://{DOMAIN}/edge"
        again = await join(here, attester, activate=False)  # it is known now
        assert again.node_id == joined.node_id
        outcome = await here.ask("POST", "/v1/devices/edge-7/revoke")
        assert outcome["quarantined"] == [joined.node_id]
        for activate in (True, False):
            with pytest.raises(TrothError):
                await join(here, attester, activate=activate)


async def test_an_endorsement_key_that_is_not_listed_is_not_challenged(
    here: World, attester: TpmAttester
) -> None:
    async with here.serve():
        with pytest.raises(RefusedByServerError):
            await join(here, attester)
        assert "is not in the inventory" in await refusal(here)
        assert (await refusal(here)).startswith("activate: ")


async def test_another_tpm_does_not_open_the_challenge(
    here: World, attester: TpmAttester, tmp_path: Path
) -> None:
    with started_swtpm() as second:
        other = TpmAttester(
            TpmSettings(
                state=tmp_path / "other.json", tcti=second.tcti, registers=(0,), event_log=None
            )
        )

        class Pretending:
            """Shows the endorsement key of the machine that is listed."""

            scheme, media_type = other.scheme, other.media_type
            challenge_size = other.challenge_size
            attest = staticmethod(other.attest)
            activate = staticmethod(other.activate)

            @staticmethod
            def activation_request() -> bytes:
                own = ActivationRequest.decode(other.activation_request())
                listed = ActivationRequest.decode(attester.activation_request())
                return replace(listed, attestation_key=own.attestation_key).encode()

        async with here.serve():
            await list_device(here, attester)
            with pytest.raises(UnavailableError):
                await join(here, Pretending())
            assert await here.ask("GET", "/v1/nodes") == []
        other.close()


async def test_another_key_than_the_activated_one_does_not_count(
    here: World, settings: TpmSettings, attester: TpmAttester, tmp_path: Path
) -> None:
    second = TpmAttester(replace(settings, state=tmp_path / "second.json"))

    class Switching:
        scheme, media_type = attester.scheme, attester.media_type
        challenge_size = attester.challenge_size
        activation_request = staticmethod(attester.activation_request)
        activate = staticmethod(attester.activate)
        attest = staticmethod(second.attest)

    class Naming(Switching):
        @staticmethod
        def activation_request() -> bytes:
            own = ActivationRequest.decode(attester.activation_request())
            return replace(own, attestation_key=second.attestation_key).encode()

    async with here.serve():
        await list_device(here, attester)
        with pytest.raises(TrothError):
            await join(here, Switching())
        assert (await refusal(here)).startswith("verify: ")
        with pytest.raises(UnavailableError):  # the TPM itself refuses: another name
            await join(here, Naming())
    second.close()


async def test_a_secret_opens_one_session_only(here: World, attester: TpmAttester) -> None:
    answers: list[bytes] = []

    class Replaying:
        scheme, media_type = attester.scheme, attester.media_type
        challenge_size = attester.challenge_size
        attest = staticmethod(attester.attest)
        activation_request = staticmethod(attester.activation_request)

        @staticmethod
        def activate(challenge: bytes) -> bytes:
            answers.append(attester.activate(challenge))
            return answers[0]

    async with here.serve():
        await list_device(here, attester)
        await join(here, Replaying())
        with pytest.raises(RefusedByServerError):
            await join(here, Replaying())
        assert "is not the secret" in await refusal(here)


def test_a_certified_endorsement_key_is_enough_where_the_inventory_need_not_have_it(
    swtpm: Swtpm, attester: TpmAttester, tmp_path: Path
) -> None:
    registry = SqlRegistry(sqlite_url(tmp_path / "registry.db"))

    class Roots:
        epoch = ""

        def snapshot(self, now: datetime) -> Any:
            del now
            return self

        def keys(self, scheme: str, **_: bytes) -> tuple[()]:
            del scheme
            return ()

        def certificates(self, scheme: str) -> list[x509.Certificate]:
            del scheme
            return swtpm.roots

    def activations(*, required: bool, max_open: int = 1) -> Activations:
        return Activations(
            registry,
            cast("EndorsementSource", Roots()),
            required=required,
            random=os.urandom,
            max_open=max_open,
        )

    now = datetime.now(UTC)
    request = attester.activation_request()
    with pytest.raises(AuthorizationError, match="not in the inventory"):
        activations(required=True).begin("s1", request, now=now)
    here = activations(required=False)
    challenge = here.begin("s1", request, now=now)
    with pytest.raises(ConflictError, match="challenged already"):
        here.begin("s1", request, now=now)
    with pytest.raises(UnavailableError, match="1 activations"):
        here.begin("s2", request, now=now)
    answer = attester.activate(challenge.encode())
    with pytest.raises(FreshnessError, match="no challenge"):
        here.complete("s2", answer, now=now)
    kept = here.complete("s1", answer, now=now)
    assert registry.activated_key(attester.attestation_key.name) == kept
    with pytest.raises(FreshnessError, match="no challenge"):  # it opens one session once
        here.complete("s1", answer, now=now)
    here.begin("s3", request, now=now)
    later = now + timedelta(minutes=3)
    with pytest.raises(FreshnessError, match="was to be answered"):
        here.complete("s3", b"", now=later)
    here.begin("s4", request, now=now)
    here.begin("s5", request, now=later)  # the other one is over and makes room
    registry.close()


async def test_an_agent_process_joins_by_its_tpm(
    here: World, settings: TpmSettings, attester: TpmAttester
) -> None:
    folder = here.directory
    async with here.serve() as running:
        await list_device(here, attester)
        path = folder / "agent.toml"
        path.write_text(
            f"""\
[node]
name = "edge-7"
[server]
url = "{running.url}"
trust_bundle = "{running.trust_bundle}"
spiffe_id = "{SERVER_ID}"
[attester]
kind = "tpm"
state = "{settings.state}"
tcti = "{settings.tcti}"
registers = [0, 1, 2]
[onboarding]
activate = true
[workload_api]
socket = "{folder}/api.sock"
"""
        )
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "troth", "agent", "--config", str(path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert agent.stdout is not None
            async with asyncio.timeout(30):
                line = await agent.stdout.readline()
            assert line, (await agent.communicate())[1].decode()
            assert json.loads(line)["spiffe_id"] == f"spiffe://{DOMAIN}/edge"
            shown = await here.ask("GET", "/v1/devices/edge-7")
            assert shown["bound"] == f"tpm2:signer:{attester.attestation_key.thumbprint}"
        finally:
            if agent.returncode is None:
                agent.terminate()
            await agent.communicate()
