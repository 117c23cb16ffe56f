# SPDX-License-Identifier: Apache-2.0
"""Other projects' services, as their documents describe them, for our clients to talk to.

Each says on purpose one thing wrong when it is told to.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from troth.control_plane.server.http_server import HttpServer, bind_tcp
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.base64url import decode_base64url
from troth.formats.ear import Dialect, Ear, EarSubmod, VerifierId, sign_ear
from troth.formats.jwk import required_members
from troth.formats.signer import LocalSigner

GOOD = {
    "instance-identity": 2,
    "executables": 2,
    "hardware": 2,
    "runtime-opaque": 2,
    "storage-opaque": 2,
}


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application on a free port of loopback; give its URL."""
    server = HttpServer(app, bind_tcp("127.0.0.1", 0))
    await server.start()
    host, port = server.address
    try:
        yield f"http://{host}:{port}"
    finally:
        await server.stop()


class ForeignVerifier:
    """What the fakes have in common: a key, and what they conclude."""

    def __init__(self) -> None:
        self.signer = LocalSigner(ec.generate_private_key(ec.SECP256R1()), "foreign")
        self.vectors: dict[str, dict[str, int]] = {}
        self.extensions: dict[str | int, object] = {}
        self.nonce: bytes | None = None
        self.issued = datetime.now(UTC).replace(microsecond=0)
        self.lifetime: timedelta | None = None
        self.profile_dialect = Dialect.VERAISON
        self.submitted: list[dict[str, Any]] = []

    def ear(self) -> str:
        submods = {}
        for label, values in self.vectors.items():
            vector = TrustworthinessVector.from_json(values)
            submods[label] = EarSubmod(
                status=vector.worst if values else TrustTier.NONE,
                vector=vector,
                policy_ids=("policy:foreign",),
                extensions=self.extensions,
            )
        ear = Ear(
            submods=submods,
            issued_at=self.issued,
            verifier_id=VerifierId("https://foreign.example", "v1"),
            nonce=self.nonce,
            expires_at=self.issued + self.lifetime if self.lifetime else None,
        )
        return sign_ear(ear, self.signer, self.profile_dialect, wire="jwt").decode()

    def jwk(self) -> dict[str, str]:
        return {**required_members(self.signer.public_key), "alg": "ES256", "kid": "foreign"}


class FakeVeraison(ForeignVerifier):
    """`/challenge-response/v1` as veraison/docs describes it."""

    MEDIA_TYPE = "application/vnd.veraison.challenge-response-session+json"

    def __init__(self) -> None:
        super().__init__()
        self.vectors = {"PSA_IOT": GOOD}
        self.accept = ["application/psa-attestation-token"]
        self.polls = 0
        self.fail_with = 0
        self.location: Callable[[str], str] = lambda identifier: f"session/{identifier}"
        self.status = "complete"
        self.sessions: dict[str, bytes] = {}
        self.deleted: list[str] = []

    def app(self) -> Starlette:
        path = "/challenge-response/v1/session/{id}"
        return Starlette(
            routes=[
                Route("/challenge-response/v1/newSession", self._new, methods=["POST"]),
                Route(path, self._submit, methods=["POST"]),
                Route(path, self._get, methods=["GET"]),
                Route(path, self._delete, methods=["DELETE"]),
                Route("/.well-known/veraison/verification", self._discovery),
            ]
        )

    def _document(self, nonce: bytes, status: str, **members: object) -> dict[str, object]:
        text = base64.urlsafe_b64encode(nonce).rstrip(b"=").decode()
        return {
            "status": status,
            "nonce": text,
            "expiry": "2030-10-12T07:20:50.52Z",
            "accept": self.accept,
            **members,
        }

    def _answer(self, document: dict[str, object], status: int, **headers: str) -> Response:
        return Response(
            json.dumps(document), status_code=status, headers=headers, media_type=self.MEDIA_TYPE
        )

    async def _new(self, request: Request) -> Response:
        nonce = decode_base64url(request.query_params["nonce"].rstrip("="), format="nonce")
        identifier = f"7df8c1e0-0000-11ee-be56-{len(self.sessions):012x}"
        self.sessions[identifier] = nonce
        return self._answer(
            self._document(nonce, "waiting"), 201, Location=self.location(identifier)
        )

    async def _submit(self, request: Request) -> Response:
        media_type = request.headers["content-type"]
        self.submitted.append({"evidence": await request.body(), "media_type": media_type})
        if self.fail_with:
            problem = {"title": "x", "status": self.fail_with, "detail": "on purpose"}
            return JSONResponse(
                problem, status_code=self.fail_with, media_type="application/problem+json"
            )
        nonce = self.sessions[request.path_params["id"]]
        if self.polls:
            return self._answer(self._document(nonce, "processing"), 202)
        return self._answer(self._outcome(nonce), 200)

    def _outcome(self, nonce: bytes) -> dict[str, object]:
        members: dict[str, object] = {"result": self.ear()} if self.status == "complete" else {}
        return self._document(nonce, self.status, **members)

    async def _get(self, request: Request) -> Response:
        nonce = self.sessions[request.path_params["id"]]
        self.polls -= 1
        if self.polls > 0:
            return self._answer(self._document(nonce, "processing"), 200)
        return self._answer(self._outcome(nonce), 200)

    async def _delete(self, request: Request) -> Response:
        self.deleted.append(request.path_params["id"])
        return Response(status_code=204)

    async def _discovery(self, _: Request) -> Response:
        document = {
            "ear-verification-key": self.jwk(),
            "media-types": self.accept,
            "version": "commit-cb11fa0",
            "service-state": "READY",
            "api-endpoints": {"newChallengeResponseSession": "/challenge-response/v1/newSession"},
        }
        return Response(json.dumps(document), media_type="application/vnd.veraison.discovery+json")


class FakeTrustee(ForeignVerifier):
    """The RESTful Attestation Service as confidential-containers/trustee describes it."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = {"cpu0": GOOD}
        self.refuse = ""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/attestation", self._attestation, methods=["POST"]),
                Route("/.well-known/jwks.json", self._jwks),
            ]
        )

    async def _attestation(self, request: Request) -> Response:
        body = await request.json()
        (asked,) = body["verification_requests"]
        evidence = json.loads(decode_base64url(asked["evidence"], format="evidence"))
        self.submitted.append(
            {
                "tee": asked["tee"],
                "evidence": bytes(evidence["token"]),
                "raw": decode_base64url(asked["runtime_data"]["raw"], format="raw"),
                "policy_ids": body["policy_ids"],
            }
        )
        if self.refuse:
            text = f"An internal error occured: \n0: attestation report evaluate\n1: {self.refuse}"
            return PlainTextResponse(text, status_code=500)
        return PlainTextResponse(self.ear())

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse({"keys": [self.jwk()]})


async def in_thread(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a client's blocking call while the fake serves on this loop."""
    return await asyncio.to_thread(call, *args, **options)
