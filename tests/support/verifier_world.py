# SPDX-License-Identifier: Apache-2.0
"""A real Verifier on a free port, with what it was told, and clients of both kinds."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from support.appraisal import corims_of
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.adapters.verifier_share import VerifierShare
from troth.clock import Clock
from troth.control_plane.verification.config import VerifierConfig
from troth.control_plane.verification.serve import (
    RunningVerifier,
    VerifierPorts,
    database_url,
    running_verifier,
)
from troth.evidence.simulator import SimulatedPlatform
from troth.formats.base64url import encode_base64url
from troth.formats.jose import verify_jwt
from troth.formats.keys import load_keys

SESSION = "application/vnd.veraison.challenge-response-session+json"
NEW = "/challenge-response/v1/newSession"
BASE = "/challenge-response/v1/"


class VerifierWorld:
    """A directory, what is configured in it, and the running Verifier."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.options: dict[str, Any] = {"allow_simulator": True}
        self.corims: list[str] = []
        self.running: RunningVerifier
        self.web: httpx.AsyncClient
        self.operator: httpx.AsyncClient
        self.share: VerifierShare
        self.operators_url: str

    def endorse(self, platform: SimulatedPlatform, name: str = "maker") -> None:
        """Have the platform's values and key provisioned at the start."""
        for number, corim in enumerate(corims_of(platform, corim_id=name)):
            path = self.directory / f"{name}-{number}.cbor"
            path.write_bytes(corim.encode())
            self.corims.append(str(path))

    def config(self) -> VerifierConfig:
        made = VerifierConfig(
            **{
                "data_dir": str(self.directory / "data"),
                "listen": "127.0.0.1:0",
                "corims": self.corims,
                **self.options,
            }
        )
        made.check()
        return made

    @asynccontextmanager
    async def serve(
        self, *, clock: Clock | None = None, **ports: Any
    ) -> AsyncIterator[RunningVerifier]:
        config = self.config()
        self.share = VerifierShare.create(config.directory)
        given: dict[str, Any] = {
            "registry": lambda: SqlRegistry(database_url(config)),
            "book": self.share.book,
            "session_key": self.share.session_key,
            "board": self.share.board,
        }
        try:
            async with running_verifier(
                config, VerifierPorts(**{**given, **ports}), clock=clock
            ) as running:
                self.running = running
                uds = httpx.AsyncHTTPTransport(uds=str(running.admin_socket))
                async with (
                    httpx.AsyncClient(base_url=running.url, trust_env=False) as self.web,
                    httpx.AsyncClient(transport=uds, base_url="http://admin") as self.operator,
                ):
                    yield running
        finally:
            self.share.close()

    async def open(self, nonce: bytes | None = None, **query: Any) -> dict[str, Any]:
        """Open a session; the answer with its location as "id"."""
        if nonce is not None:
            query["nonce"] = encode_base64url(nonce)
        response = await self.web.post(NEW, params=query)
        assert response.status_code == 201, response.text
        return {**response.json(), "id": response.headers["location"]}

    async def submit(
        self, session: dict[str, Any], evidence: bytes, media_type: str, **headers: str
    ) -> httpx.Response:
        return await self.web.post(
            BASE + session["id"],
            content=evidence,
            headers={"content-type": media_type, **headers},
        )

    async def verify(self, evidence: bytes, media_type: str, nonce: bytes) -> dict[str, Any]:
        """Go the whole way and return the claims of the result."""
        session = await self.open(nonce)
        response = await self.submit(session, evidence, media_type)
        assert response.status_code == 200, response.text
        assert response.json()["status"] == "complete"
        return await self.claims(response.json()["result"])

    async def claims(self, result: str) -> dict[str, Any]:
        """Verify a result under the published key and return its claims."""
        document = (await self.web.get("/.well-known/veraison/verification")).json()
        key = json.dumps({"keys": [document["ear-verification-key"]]}).encode()
        return verify_jwt(result, load_keys(key, source="discovery"))[1]


def octets(text: str) -> bytes:
    """Decode base64 as Veraison's JSON has it."""
    return base64.b64decode(text)


def submods(claims: dict[str, Any]) -> dict[str, tuple[str, dict[str, int]]]:
    """Return status and vector of each submod, without claims of value 0."""
    return {
        label: (
            submod["ear.status"],
            {
                name: value
                for name, value in submod.get("ear.trustworthiness-vector", {}).items()
                if value
            },
        )
        for label, submod in claims["submods"].items()
    }


def media_types(session: dict[str, Any]) -> Sequence[str]:
    accepted: Sequence[str] = session["accept"]
    return accepted


@asynccontextmanager
async def verifier_world() -> AsyncIterator[VerifierWorld]:
    """Give a world in a directory with a short path: Unix sockets need one."""
    directory = Path(tempfile.mkdtemp(prefix="troth"))
    try:
        yield VerifierWorld(directory)
    finally:
        shutil.rmtree(directory)
