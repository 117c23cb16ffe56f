# SPDX-License-Identifier: Apache-2.0
"""The agent's side of `troth server`: join, renew, follow the feed."""

from __future__ import annotations

import asyncio
import random as pseudo_random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from troth.adapters.onboarding import ActivatingAttester, Onboarding
from troth.adapters.pinned_tls import pinned_context
from troth.adapters.server_errors import RefusedByServerError, error_of, translated
from troth.clock import Clock, SystemClock
from troth.errors import (
    BindingError,
    ConfigurationError,
    DecodeError,
    LimitExceededError,
    UnavailableError,
)
from troth.evidence.attester import Attester
from troth.evidence.challenge import derive_challenge
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.keys import spki
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_svid import X509Svid
from troth.mesh.event import (
    MAX_MESSAGE_BYTES,
    Bundles,
    FeedMessage,
    FeedNotice,
    Snapshot,
    decode_message,
)
from troth.mesh.feed_order import Placed, place
from troth.mesh.join_messages import (
    JOIN_LABEL,
    ActivationMessage,
    ActivationReply,
    AppraisalReply,
    AppraisalRequest,
    JoinReply,
    JoinRequest,
    SessionReply,
    SessionRequest,
)
from troth.mesh.member import Service
from troth.mesh.workload_messages import (
    EntriesReply,
    JwtSvidReply,
    JwtSvidRequest,
    SvidBatchReply,
    SvidBatchRequest,
    SvidOutcome,
    SvidRequest,
    WitReply,
    WitRequest,
)

__all__ = ["Joined", "RefusedByServerError", "ServerClient"]

T = TypeVar("T")

_REQUEST_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 0.1
_LAST_BACKOFF_SECONDS = 10.0
_MAX_REPLY_BYTES = MAX_MESSAGE_BYTES  # a snapshot is the largest one


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a node got by joining.

    Attributes:
        node_id, generation, spiffe_id: who it is.
        svid: its X.509-SVID with the private key.
        ear: its Attestation Result as a signed JWT, findings included.
        bundle: the trust bundle.
        expires: when SVID or result runs out.
        refresh_after: when to renew, from now.
    """

    node_id: str
    generation: int
    spiffe_id: SpiffeId
    svid: X509Svid
    ear: str = field(repr=False)
    bundle: TrustBundle
    expires: datetime
    refresh_after: timedelta


class ServerClient:
    """Talks to one server, recognised by its SPIFFE ID under a pinned trust bundle.

    After `join` the client authenticates with the node's SVID. Close it when done.

    Where a trust domain has several servers on one registry, the client keeps to one of them for as
    long as it answers, and goes on at the next one when it does not. A server that says no has
    answered: nobody else is asked.

    Args:
        url: "https://host:port", or those of all servers; the host is an address and proves
            nothing. Which of them is asked first is drawn by lot: it spreads the nodes over them.
        trust_bundle: PEM certificates of the trust domain's authorities.
        server_id: SPIFFE ID of the server.
        heartbeat_seconds: the server's; a feed silent for three times that is dead.
        clock: time.
        onboarding: what a join without an SVID shows to the inventory of devices.

    Attributes:
        on_notice: told what the feed says beside its messages; must not block.
    """

    on_notice: Callable[[FeedNotice], None] | None = None

    _urls: tuple[str, ...] = ()
    # Grows with each change of server; the server's place in `_urls` is what is left of it.
    _turn = 0

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        trust_bundle: str,
        server_id: str,
        heartbeat_seconds: float = 5.0,
        clock: Clock | None = None,
        onboarding: Onboarding | None = None,
    ) -> None:
        self._onboarding = onboarding or Onboarding()
        self._clock = clock or SystemClock()
        self._urls = tuple(each.rstrip("/") for each in ([url] if isinstance(url, str) else url))
        self._turn = pseudo_random.randrange(len(self._urls))  # noqa: S311 - only spreads load
        self._trust_bundle = trust_bundle
        self._server_id = SpiffeId.decode(server_id)
        self._silence_seconds = 3 * heartbeat_seconds
        self._identity: X509Svid | None = None
        self._client = self._connect()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def use_identity(self, identity: X509Svid | None) -> None:
        """Authenticate with this SVID from now on, or with none."""
        self._identity = identity
        old, self._client = self._client, self._connect()
        await old.aclose()

    def believe(self, pem: str) -> None:
        """Recognise the server under these authorities too: they roll over.

        Connections that are open stay. Authorities that are not among them any more are forgotten
        with the next change of our own identity.
        """
        if pem != self._trust_bundle:
            self._trust_bundle = pem
            self._tls.load_verify_locations(cadata=pem)

    async def join(
        self,
        attester: Attester,
        key: ec.EllipticCurvePrivateKey,
        *,
        node_name: str = "",
        services: Sequence[Service] = (),
    ) -> Joined:
        """Join or renew: nonce, Evidence over our key, SVID.

        Args:
            attester: makes the Evidence; runs in a thread.
            key: the node's key, P-256 or P-384; a new one for each join is good practice.
            node_name: label for operators.
            services: what peers can reach through our proxy.

        Raises:
            RefusedByServerError: refused; carries the findings.
            FreshnessError: the session ran out before the Evidence was there; try again.
            ChainError: whoever answers is not the server.
            UnavailableError: no server answers, or not now (`retry_after_seconds`).
        """
        for _ in self._urls[1:]:
            turn = self._turn
            try:
                return await self._join(attester, key, node_name=node_name, services=services)
            except UnavailableError:
                # Also where the answer was lost and the session is used up: a new one, elsewhere.
                await self._go_on(turn)
        return await self._join(attester, key, node_name=node_name, services=services)

    async def _join(
        self,
        attester: Attester,
        key: ec.EllipticCurvePrivateKey,
        *,
        node_name: str,
        services: Sequence[Service],
    ) -> Joined:
        if self._identity is not None and self._identity.not_after <= self._clock.now():
            # The server would turn an SVID away that has ended; joining needs none.
            await self.use_identity(None)
        request = SessionRequest(node_name=node_name)
        session = await self._post_once("/v1/join/sessions", request, SessionReply)
        public = spki(key.public_key())
        nonce = decode_base64url(session.nonce, format="join session nonce")
        challenge = derive_challenge(JOIN_LABEL, public, nonce, attester.challenge_size)
        activation = ""
        if self._identity is None and self._onboarding.activate:
            activation = await self._activate(attester, session.session)
        evidence = await asyncio.to_thread(attester.attest, challenge)
        message = JoinRequest(
            csr=encode_base64url(_certificate_request(key)),
            evidence=encode_base64url(evidence),
            media_type=attester.media_type,
            services=tuple(services),
            activation=activation,
        )
        if self._identity is None:
            message = msgspec.structs.replace(
                message,
                join_token=self._onboarding.join_token,
                claim=self._onboarding.claim(svid_key=public, nonce=nonce),
            )
        reply = await self._post_once(f"/v1/join/sessions/{session.session}", message, JoinReply)
        joined = _joined(reply, key)
        await self.use_identity(joined.svid)
        return joined

    async def _activate(self, attester: Attester, session: str) -> str:
        if not isinstance(attester, ActivatingAttester):
            raise ConfigurationError(
                source="onboarding.activate",
                value=attester.scheme,
                accepted="a TPM; no other Attester has a key to be activated",
            )
        request = ActivationMessage(
            request=encode_base64url(await asyncio.to_thread(attester.activation_request))
        )
        reply = await self._post_once(
            f"/v1/join/sessions/{session}/activation", request, ActivationReply
        )
        challenge = decode_base64url(reply.challenge, format="activation challenge")
        return encode_base64url(await asyncio.to_thread(attester.activate, challenge))

    async def appraise(self, evidence: bytes, media_type: str, *, challenge: bytes) -> str:
        """Have Evidence of a peer appraised by the server's Verifier; return the signed EAR.

        Raises:
            VerificationError, DecodeError: the Evidence is refused.
            AuthorizationError: this node is no member.
            UnavailableError: no answer, or not now.
        """
        message = AppraisalRequest(
            evidence=encode_base64url(evidence),
            media_type=media_type,
            challenge=encode_base64url(challenge),
        )
        return (await self._post("/v1/appraisals", message, AppraisalReply)).ear

    async def nodes(self) -> Snapshot:
        """Return all members as the server sees them now."""
        return await self._call("GET", "/v1/nodes", Snapshot)

    async def workload_entries(self) -> EntriesReply:
        """Return the workloads that this node may run.

        Raises:
            AuthorizationError: this node is no member, or gets no SVIDs now.
            UnavailableError: no answer, or not now.
        """
        return await self._call("GET", "/v1/agent/entries", EntriesReply)

    async def issue_x509_svids(self, requests: Sequence[SvidRequest]) -> tuple[SvidOutcome, ...]:
        """Have X.509-SVIDs issued for workloads of this node; raises as `workload_entries`."""
        message = SvidBatchRequest(requests=tuple(requests))
        return (await self._post("/v1/agent/x509-svids", message, SvidBatchReply)).outcomes

    async def issue_jwt_svid(self, entry_id: str, audience: Sequence[str]) -> str:
        """Have a JWT-SVID issued for a workload of this node; raises as `workload_entries`."""
        message = JwtSvidRequest(entry_id=entry_id, audience=tuple(audience))
        return (await self._post("/v1/agent/jwt-svids", message, JwtSvidReply)).token

    async def issue_wit(
        self, key: ec.EllipticCurvePrivateKey, entry_id: str = ""
    ) -> tuple[str, str]:
        """Have a WIT issued for a key; return it and the Attestation Result for the same key.

        Args:
            key: of the workload; or this node's own, the one of its SVID.
            entry_id: the workload's entry; "" for this node itself.

        Raises:
            BindingError, AuthorizationError, UnavailableError: as `workload_entries`.
        """
        message = WitRequest(entry_id=entry_id, csr=_certificate_request(key))
        reply = await self._post("/v1/agent/wits", message, WitReply)
        return reply.token, reply.result

    async def bundles(self) -> Bundles:
        """Return all trust bundles as they are now; raises as `workload_entries`."""
        return await self._call("GET", "/v1/agent/bundles", Bundles)

    async def result_keys(self) -> bytes:
        """Return the JWK Set that Attestation Results of this server verify with."""
        return (await self._send("GET", "/.well-known/troth/result-keys")).content

    async def bundle(self) -> TrustBundle:
        """Return the trust bundle as it is now."""
        response = await self._send("GET", "/v1/bundle")
        return TrustBundle.decode(response.content, trust_domain=self._server_id.trust_domain)

    async def acknowledge(self, sequence: int) -> None:
        """Tell the server that everything up to event `sequence` is in force here."""
        await self._send("POST", "/v1/feed/ack", {"sequence": sequence})

    async def feed(self, after: int | None = None) -> AsyncIterator[FeedMessage]:
        """Follow the feed over lost connections and restarts of the server, forever.

        Events come in order and once each. Where one was lost, a snapshot comes in its place: it
        replaces everything known before. Heartbeats are passed on, so that the reader knows how
        long ago the server was heard of.

        Args:
            after: last event that is known; None begins with a snapshot.

        Raises:
            AuthorizationError: this node may not read the feed (any more).
            ChainError: whoever answers is not the server.
        """
        known = after
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            first, turn = True, self._turn
            try:
                async for message in self._lines(known):
                    backoff = _FIRST_BACKOFF_SECONDS
                    if isinstance(message, FeedNotice):
                        if self.on_notice is not None:
                            self.on_notice(message)
                        continue
                    placed = place(message, known=known, first=first)
                    first = False
                    if placed is Placed.SKIP:
                        continue
                    if placed is Placed.LOST:
                        known = None
                        break
                    known = message.sequence
                    yield message
            except (UnavailableError, DecodeError):
                # Whatever went wrong on the way: the next connection begins where we are.
                await self._go_on(turn)
            else:
                if known is not None:
                    await self._go_on(turn)  # it is stopping
            await asyncio.sleep(backoff * pseudo_random.uniform(0.5, 1.0))  # noqa: S311 - only spreads load
            backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)

    async def _lines(self, after: int | None) -> AsyncIterator[FeedMessage | FeedNotice]:
        parameters = {} if after is None else {"after": str(after)}
        timeout = httpx.Timeout(_REQUEST_SECONDS, read=self._silence_seconds)
        with translated():
            async with self._client.stream(
                "GET", "/v1/feed", params=parameters, timeout=timeout
            ) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise error_of(response)
                pending = bytearray()
                async for chunk in response.aiter_bytes():
                    pending += chunk
                    *lines, rest = pending.split(b"\n")
                    for line in lines:
                        yield decode_message(bytes(line))
                    pending = rest
                    if len(pending) > MAX_MESSAGE_BYTES:
                        raise LimitExceededError(
                            format="feed message",
                            limit="max_message_bytes",
                            value=MAX_MESSAGE_BYTES,
                        )

    async def _post(self, path: str, message: object, kind: type[T]) -> T:
        return await self._call("POST", path, kind, message)

    async def _post_once(self, path: str, message: object, kind: type[T]) -> T:
        """Post what makes sense to the server alone that was asked before."""
        return _decoded(await self._send_once("POST", path, message), path, kind)

    async def _call(
        self, method: str, path: str, kind: type[T], message: object | None = None
    ) -> T:
        return _decoded(await self._send(method, path, message), path, kind)

    async def _send(self, method: str, path: str, message: object | None = None) -> httpx.Response:
        for _ in self._urls[1:]:
            turn = self._turn
            try:
                return await self._send_once(method, path, message)
            except UnavailableError:
                await self._go_on(turn)
        return await self._send_once(method, path, message)

    async def _send_once(
        self, method: str, path: str, message: object | None = None
    ) -> httpx.Response:
        content = msgspec.json.encode(message) if message is not None else None
        with translated():
            async with self._client.stream(method, path, content=content) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_REPLY_BYTES:
                        raise LimitExceededError(
                            format=f"reply to {path}",
                            limit="max_reply_bytes",
                            value=_MAX_REPLY_BYTES,
                        )
        whole = httpx.Response(response.status_code, headers=response.headers, content=bytes(body))
        if not whole.is_success:
            raise error_of(whole)
        return whole

    async def _go_on(self, turn: int) -> None:
        """Leave the server that did not answer for the next one, unless somebody else just did."""
        if len(self._urls) < 2 or turn != self._turn:
            return
        self._turn += 1
        old, self._client = self._client, self._connect()
        await old.aclose()

    def _connect(self) -> httpx.AsyncClient:
        self._tls = pinned_context(self._trust_bundle, self._server_id, identity=self._identity)
        return httpx.AsyncClient(
            base_url=self._urls[self._turn % len(self._urls)],
            verify=self._tls,
            timeout=httpx.Timeout(_REQUEST_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=False,
        )


def _decoded(response: httpx.Response, path: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DecodeError(str(exc), format=f"reply to {path}") from exc


def _certificate_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    # Without names: the server gives them.
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _joined(reply: JoinReply, key: ec.EllipticCurvePrivateKey) -> Joined:
    spiffe_id = SpiffeId.decode(reply.spiffe_id)
    svid = X509Svid.decode(reply.svid.encode("ascii", "replace"))
    if svid.spki != spki(key.public_key()) or svid.spiffe_id != spiffe_id:
        raise BindingError("the SVID from the server is not for our key or not for our name")
    bundle = TrustBundle.decode(reply.bundle.spiffe.encode(), trust_domain=spiffe_id.trust_domain)
    return Joined(
        node_id=reply.node_id,
        generation=reply.generation,
        spiffe_id=spiffe_id,
        svid=X509Svid(chain=svid.chain, private_key=key),
        ear=reply.ear,
        bundle=bundle,
        expires=reply.expires,
        refresh_after=timedelta(seconds=reply.refresh_after_seconds),
    )
