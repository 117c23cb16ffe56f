# SPDX-License-Identifier: Apache-2.0
"""Our plugins as SPIRE starts them: real processes, the real handshake, a host of our own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from support.evidence import seeded
from support.spire_host import Plugin, hosted
from troth.cli.demo.platforms import CHANGED, CLOUD, EDGE, Platforms
from troth.control_plane.spire.messages import (
    AGENT_ATTESTOR,
    AGENT_ATTESTOR_SERVICE,
    COMPOSER,
    COMPOSER_SERVICE,
    SERVER_ATTESTOR,
    SERVER_ATTESTOR_SERVICE,
)
from troth.formats.cmw import CMW_OID, decode_extension

KIND = "NodeAttestor"
COMPOSER_KIND = "CredentialComposer"


class World:
    """Files for the plugins, and simulated devices."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.platforms = Platforms.create(seeded("spire"))
        self.devices = self.platforms.write_devices(directory)
        self.corims = [str(each) for each in self.platforms.write_corims(directory)]
        self.keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
        self.agent_keys = directory / "keys.json"
        self.write_keys(*self.keys[:2])

    def write_keys(self, *keys: ec.EllipticCurvePrivateKey) -> None:
        entries = {
            f"agent-svid-{letter}": base64.b64encode(
                key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            ).decode()
            for letter, key in zip("AB", keys, strict=False)
        }
        self.agent_keys.write_text(json.dumps({"keys": entries}))

    def spki(self, number: int) -> bytes:
        return (
            self.keys[number]
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )

    def server(self, *lines: str) -> Path:
        path = self.directory / "server.toml"
        written = [f'state_dir = "{self.directory}/state"', f"corims = {self.corims}", *lines]
        path.write_text("\n".join(written))
        return path

    def agent(self, device: str, *, bound: bool = True) -> Path:
        path = self.directory / f"{device}.toml"
        lines = ['kind = "simulator"', f'device = "{self.devices[device]}"']
        if bound:
            lines.append(f'agent_keys = "{self.agent_keys}"')
        path.write_text("\n".join(lines))
        return path

    def composer(self) -> Path:
        path = self.directory / "composer.toml"
        path.write_text(f'state_dir = "{self.directory}/state"')
        return path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def attest(
    server: Plugin, agent: Plugin, *, change: Callable[[bytes], bytes] = lambda octets: octets
) -> Any:
    """Pass messages between the two plugins, as SPIRE does; return what the server concludes."""
    request, reply = SERVER_ATTESTOR["AttestRequest"], SERVER_ATTESTOR["AttestResponse"]
    challenge = AGENT_ATTESTOR["Challenge"]
    answer = AGENT_ATTESTOR["PayloadOrChallengeResponse"]
    async with (
        asyncio.timeout(30),
        agent.stream(f"/{AGENT_ATTESTOR_SERVICE}/AidAttestation", challenge, answer) as aid,
        server.stream(f"/{SERVER_ATTESTOR_SERVICE}/Attest", request, reply) as judge,
    ):
        # The agent's side speaks without being asked.
        await aid.send_request()
        await judge.send_message(request(payload=(await aid.recv_message()).payload))
        asking = await judge.recv_message()
        if asking is None:
            await judge.end()
            await judge.recv_trailing_metadata()
        asked = asking.challenge
        await aid.send_message(challenge(challenge=asked))
        told = change((await aid.recv_message()).challenge_response)
        await judge.send_message(request(challenge_response=told), end=True)
        concluded = await judge.recv_message()
        if concluded is None:
            await judge.recv_trailing_metadata()
        await aid.end()
        return concluded.agent_attributes


async def compose(composer: Plugin, spiffe_id: str, key: bytes) -> Any:
    request = COMPOSER["ComposeAgentX509SVIDRequest"](
        attributes=COMPOSER["X509SVIDAttributes"](dns_sans=["kept"]),
        spiffe_id=spiffe_id,
        public_key=key,
    )
    reply = COMPOSER["ComposeAgentX509SVIDResponse"]
    path = f"/{COMPOSER_SERVICE}/ComposeAgentX509SVID"
    return (await composer.call(path, request, reply)).attributes


async def test_a_node_attests_and_only_its_proved_keys_are_certified(world: World) -> None:
    async with (
        hosted(KIND, "troth-nodeattestor", "server") as server,
        hosted(KIND, "troth-nodeattestor", "agent") as agent,
        hosted(COMPOSER_KIND, "troth-credentialcomposer") as composer,
    ):
        await server.configure(world.server("allow_simulator = true"))
        await agent.configure(world.agent(CLOUD))
        await composer.configure(world.composer())
        attributes = await attest(server, agent)
        assert attributes.can_reattest
        device = world.platforms.by_name[CLOUD]
        assert attributes.spiffe_id.startswith("spiffe://spire.example/spire/agent/troth/cca/")
        selectors = set(attributes.selector_values)
        assert {
            "tier:confidential",
            "tier-at-least:measured",
            "scheme:cca",
            f"instance:{device.instance_id.hex()}",
            "insecure:true",
        } <= selectors
        assert any(each.startswith("policy:") for each in selectors)

        for number in (0, 1):
            made = await compose(composer, attributes.spiffe_id, world.spki(number))
            (extension,) = made.extra_extensions
            assert (extension.oid, extension.critical) == (CMW_OID.dotted_string, False)
            assert decode_extension(extension.value).media_type == "application/eat+jwt"
            assert list(made.dns_sans) == ["kept"]
        with pytest.raises(GRPCError) as refused:
            await compose(composer, attributes.spiffe_id, world.spki(2))
        assert refused.value.status is Status.PERMISSION_DENIED
        elsewhere = "spiffe://spire.example/spire/agent/join_token/x"
        assert not (await compose(composer, elsewhere, world.spki(2))).extra_extensions
        with pytest.raises(GRPCError):
            await compose(composer, f"{attributes.spiffe_id}0", world.spki(0))
        for plugin in (server, agent, composer):
            assert await plugin.shut_down() == 0
            assert not Path(plugin.line.split("|")[3]).parent.exists()


async def test_a_changed_device_a_foreign_answer_and_an_unproved_key_are_refused(
    world: World,
) -> None:
    async with (
        hosted(KIND, "troth-nodeattestor", "server") as server,
        hosted(KIND, "troth-nodeattestor", "agent") as agent,
    ):
        await agent.configure(world.agent(EDGE))
        await server.configure(world.server("allow_simulator = true"))
        assert "scheme:psa" in (await attest(server, agent)).selector_values

        await server.configure(world.server('min_tier = "confidential"', "allow_simulator = true"))
        assert await _refusal(server, agent) == "attestation refused: refused"
        await server.configure(world.server())
        assert await _refusal(server, agent) == "attestation refused: not_authentic"
        await server.configure(world.server("allow_simulator = true"))

        def another_key(answer: bytes) -> bytes:
            proofs = json.loads(answer)
            key = base64.urlsafe_b64encode(world.spki(2)).decode().rstrip("=")
            proofs["proofs"][0]["key"] = key
            return json.dumps(proofs).encode()

        assert await _refusal(server, agent, another_key) == "attestation refused: not_fresh"
        assert (
            await _refusal(server, agent, lambda octets: octets[:-1])
            == "attestation refused: malformed"
        )

        await agent.configure(world.agent(CHANGED))
        assert await _refusal(server, agent) == "attestation refused: refused"

        await agent.configure(world.agent(EDGE, bound=False))
        assert await _refusal(server, agent) == "attestation refused: refused"
        await server.configure(world.server("allow_simulator = true", "unbound_keys = true"))
        assert "scheme:psa" in (await attest(server, agent)).selector_values


async def _refusal(
    server: Plugin, agent: Plugin, change: Callable[[bytes], bytes] = lambda octets: octets
) -> str:
    with pytest.raises(GRPCError) as refused:
        await attest(server, agent, change=change)
    return str(refused.value.message)


async def test_a_reference_value_withdrawn_counts_at_the_next_attestation(world: World) -> None:
    async with (
        hosted(KIND, "troth-nodeattestor", "server") as server,
        hosted(KIND, "troth-nodeattestor", "agent") as agent,
    ):
        await agent.configure(world.agent(EDGE))
        await server.configure(world.server("allow_simulator = true"))
        await attest(server, agent)
        for path in world.corims[:-1]:
            shutil.copy(world.corims[-1], path)
        assert "attestation refused" in await _refusal(server, agent)


async def test_configuration_is_checked_in_words(world: World) -> None:
    async with hosted(KIND, "troth-nodeattestor", "server") as server:
        with pytest.raises(GRPCError) as early:
            await server.configure(world.directory / "absent.toml")
        assert early.value.status is Status.INVALID_ARGUMENT
        good = world.server()
        assert await server.validate(f'config = "{good}"') == []
        (note,) = await server.validate(f'config = "{world.server("polcy = 1")}"')
        assert "polcy" in note
        (note,) = await server.validate('mode = "x"')
        assert "config =" in note


async def test_before_it_is_configured_a_plugin_attests_nobody(world: World) -> None:
    async with (
        hosted(KIND, "troth-nodeattestor", "server") as server,
        hosted(KIND, "troth-nodeattestor", "agent") as agent,
    ):
        await agent.configure(world.agent(EDGE))
        with pytest.raises(GRPCError) as refused:
            await attest(server, agent)
        assert refused.value.status is Status.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "command",
    [
        ["troth-nodeattestor", "server"],
        ["troth-nodeattestor", "agent"],
        ["troth-credentialcomposer"],
    ],
)
def test_only_spire_starts_a_plugin(command: list[str]) -> None:
    program = str(Path(sys.executable).parent / command[0])
    environment = {name: value for name, value in os.environ.items() if "Attestor" not in name}
    ran = subprocess.run(
        [program, *command[1:]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "to be started by SPIRE" in ran.stderr
