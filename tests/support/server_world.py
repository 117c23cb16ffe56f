# SPDX-License-Identifier: Apache-2.0
"""A real server on a free port, simulated platforms endorsed for it, and clients of both kinds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from troth.adapters.pinned_tls import pinned_context
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.adapters.server_client import ServerClient, _certificate_request
from troth.control_plane.server.config import EntrySection, ServerConfig, VerifierSection
from troth.control_plane.server.serve import RunningServer, database_url, running_server
from troth.endorsement.build import AttestKey, Component, cca_corims, psa_corim
from troth.evidence.challenge import derive_challenge
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedPlatform
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.keys import spki
from troth.identity.spiffe_id import SpiffeId
from troth.identity.x509_svid import X509Svid
from troth.mesh.join_messages import JOIN_LABEL, SessionReply

DOMAIN = "mesh.example"
SERVER_ID = f"spiffe://{DOMAIN}/troth/server"


def new_platform(options: PsaOptions | CcaOptions | None = None) -> SimulatedPlatform:
    return SimulatedPlatform.create(options or PsaOptions(), random=os.urandom)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def corims_for(platform: SimulatedPlatform, name: str, *, keys: bool = True) -> list[bytes]:
    """Return what the platform's maker would publish about it as it is now."""
    reference = platform.reference()
    components = [
        Component(digest=c.digest, signer_id=c.signer_id, name=c.name, version=c.version)
        for c in reference.components
    ]
    anchors = [AttestKey(instance_id=reference.instance_id, key=reference.public_key_pem.encode())]
    common: dict[str, Any] = {
        "corim_id": name,
        "implementation_id": reference.implementation_id,
        "components": components,
        "keys": anchors if keys else [],
    }
    if reference.scheme == "psa":
        return [psa_corim(**common).encode()]
    made = cca_corims(
        **common,
        rim=reference.rim,
        rems=reference.rems,
        rpv=reference.personalization_value,
        config=reference.config,
    )
    return [corim.encode() for corim in made]


def entry_for(platform: SimulatedPlatform, role: str, **fields: Any) -> EntrySection:
    return EntrySection(
        spiffe_id=f"spiffe://{DOMAIN}/{role}",
        selectors=[f"instance:{platform.instance_id.hex()}"],
        **fields,
    )


class World:
    """A directory, what is configured in it, and the running server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.corims: list[str] = []
        self.entries: list[EntrySection] = []
        self.options: dict[str, Any] = {"allow_simulator": True}
        self.running: RunningServer
        self.operator: httpx.AsyncClient

    def endorse(self, platform: SimulatedPlatform, name: str) -> None:
        for number, data in enumerate(corims_for(platform, name)):
            path = self.directory / f"{name}-{number}.cbor"
            path.write_bytes(data)
            self.corims.append(str(path))

    def platform(
        self, role: str = "edge", options: PsaOptions | CcaOptions | None = None, **entry: Any
    ) -> SimulatedPlatform:
        """Make a platform that is endorsed and registered from the start, each of its own model."""
        made = new_platform(replace(options or PsaOptions(), model=role[:8]))
        self.endorse(made, f"maker-of-{role}")
        self.entries.append(entry_for(made, role, **entry))
        return made

    def config(self) -> ServerConfig:
        return ServerConfig(
            **{
                "trust_domain": DOMAIN,
                "data_dir": str(self.directory / "data"),
                "listen": "127.0.0.1:0",
                "verifier": VerifierSection(corims=self.corims),
                "entries": self.entries,
                **self.options,
            }
        )

    @asynccontextmanager
    async def serve(self, **options: Any) -> AsyncIterator[RunningServer]:
        config = self.config()

        def registry() -> SqlRegistry:
            return SqlRegistry(database_url(config))

        async with running_server(config, registry=registry, **options) as running:
            self.running = running
            transport = httpx.AsyncHTTPTransport(uds=str(running.admin_socket))
            async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
                self.operator = client
                yield running

    def client(self, **options: Any) -> ServerClient:
        values: dict[str, Any] = {
            "trust_bundle": self.running.trust_bundle.read_text(),
            "server_id": SERVER_ID,
        }
        return ServerClient(self.running.url, **(values | options))

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Ask as an operator."""
        response = await self.operator.request(method, path, **options)
        assert response.status_code == status, response.text
        return msgspec.json.decode(response.content) if response.content else None

    def web(self, *, identity: X509Svid | None = None) -> httpx.AsyncClient:
        """Return a plain HTTP client for the HTTPS listener."""
        bundle = self.running.trust_bundle.read_text()
        context = pinned_context(bundle, SpiffeId.decode(SERVER_ID), identity=identity)
        return httpx.AsyncClient(base_url=self.running.url, verify=context, trust_env=False)


async def open_session(web: httpx.AsyncClient) -> SessionReply:
    response = await web.post("/v1/join/sessions", json={})
    assert response.status_code == 201, response.text
    return msgspec.json.decode(response.content, type=SessionReply)


def join_body(
    platform: SimulatedPlatform,
    session: SessionReply,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    evidence_key: ec.EllipticCurvePrivateKey | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Return the body of a join request; the Evidence may be about another key than the CSR."""
    key = key or new_key()
    nonce = decode_base64url(session.nonce, format="nonce")
    challenge = derive_challenge(
        JOIN_LABEL, spki((evidence_key or key).public_key()), nonce, platform.challenge_size
    )
    return {
        "csr": encode_base64url(_certificate_request(key)),
        "evidence": encode_base64url(platform.attest(challenge)),
        "media_type": platform.media_type,
    } | fields


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Give a world in a directory with a short path: Unix sockets need one."""
    directory = Path(tempfile.mkdtemp(prefix="troth"))
    try:
        yield World(directory)
    finally:
        shutil.rmtree(directory)
