# SPDX-License-Identifier: Apache-2.0
"""An agent's workload side without a server: real SVIDs, made-up processes, clients for the sockets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from support.x509 import p256
from troth.control_plane.workload_api.endpoint import EndpointOptions, WorkloadEndpoint
from troth.control_plane.workload_api.identities import WorkloadIdentities
from troth.control_plane.workload_api.messages import WORKLOAD, WORKLOAD_SERVICE
from troth.errors import AuthorizationError, TrothError, UnavailableError
from troth.formats.keys import VerificationKey
from troth.formats.signer import LocalSigner
from troth.identity.certificate_request import decode_csr
from troth.identity.jwt_svid import JwtAuthority
from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_authority import X509Authority
from troth.identity.x509_svid import X509Svid
from troth.mesh.event import Bundles
from troth.mesh.workload_messages import (
    MAX_BATCH,
    AgentEntry,
    EntriesReply,
    SvidOutcome,
    SvidRequest,
)

DOMAIN = TrustDomain("example.org")
OTHER = TrustDomain("other.example")
HEADER = {"workload.spiffe.io": "true"}


class StepClock:
    """A clock that a test moves; it begins at the machine's time."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return self.now().timestamp()


def authority(domain: TrustDomain = DOMAIN) -> X509Authority:
    return X509Authority.self_signed(
        domain,
        p256(),
        now=datetime.now(UTC) - timedelta(minutes=1),
        lifetime=timedelta(days=30),
        random=os.urandom(16),
    )


def foreign_bundle() -> TrustBundle:
    signer = LocalSigner(p256(), "foreign")
    return TrustBundle(
        trust_domain=OTHER,
        x509_authorities=[authority(OTHER).certificate],
        jwt_authorities=[VerificationKey(signer.public_key, "foreign")],
    )


def entry(name: str = "web", *selectors: str, **fields: Any) -> AgentEntry:
    values: dict[str, Any] = {
        "id": name,
        "spiffe_id": f"spiffe://{DOMAIN}/{name}",
        "selectors": selectors or (f"unix:uid:{os.getuid()}",),
    }
    return AgentEntry(**(values | fields))


@dataclass
class IssuingServer:
    """Plays the server: issues what is asked for, for as long as it says."""

    clock: StepClock
    ttl: timedelta = timedelta(hours=1)
    entries: list[AgentEntry] = field(default_factory=list)
    federated: dict[str, TrustBundle] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    failure: TrothError | None = None
    revision: int = 1
    batches: list[int] = field(default_factory=list)
    tokens: int = 0

    def __post_init__(self) -> None:
        self.authorities = [authority()]
        self.signers = [LocalSigner(p256(), "jwt-1")]
        self.bundle_revision = 1

    @property
    def bundle(self) -> TrustBundle:
        return TrustBundle(
            trust_domain=DOMAIN,
            x509_authorities=[each.certificate for each in self.authorities],
            jwt_authorities=[VerificationKey(s.public_key, s.key_id) for s in self.signers],
            sequence=self.bundle_revision,
        )

    def bundles_message(self) -> Bundles:
        return Bundles(
            revision=self.bundle_revision,
            own=self.bundle.encode().decode(),
            federated={name: each.encode().decode() for name, each in self.federated.items()},
        )

    async def bundles(self) -> Bundles:
        self._fail()
        return self.bundles_message()

    async def workload_entries(self) -> EntriesReply:
        self._fail()
        return EntriesReply(revision=self.revision, entries=tuple(self.entries))

    async def issue_x509_svids(self, requests: Sequence[SvidRequest]) -> tuple[SvidOutcome, ...]:
        self._fail()
        assert 1 <= len(requests) <= MAX_BATCH
        self.batches.append(len(requests))
        return tuple(map(self._issue, requests))

    async def issue_jwt_svid(self, entry_id: str, audience: Sequence[str]) -> str:
        self._fail()
        self.tokens += 1
        found = next((each for each in self.entries if each.id == entry_id), None)
        if found is None:
            raise AuthorizationError("no such entry")
        made = JwtAuthority(DOMAIN, self.signers[-1]).issue(
            SpiffeId.decode(found.spiffe_id), audience, now=self.clock.now(), ttl=self.ttl
        )
        return made.token

    def issue(self, spiffe_id: str, key: ec.EllipticCurvePrivateKey | None = None) -> X509Svid:
        """Issue an SVID under /troth/… or for a workload, outside of the protocol."""
        key = key or p256()
        issued = self.authorities[-1]._issue(
            key.public_key(),
            SpiffeId.decode(spiffe_id),
            now=self.clock.now(),
            not_after=self.clock.now() + self.ttl,
            random=os.urandom(16),
            dns_names=(),
        )
        return X509Svid(chain=issued.chain, private_key=key)

    def _issue(self, request: SvidRequest) -> SvidOutcome:
        found = next((each for each in self.entries if each.id == request.entry_id), None)
        if found is None or found.id in self.refused:
            return SvidOutcome(entry_id=request.entry_id, error="refused")
        svid = self.authorities[-1]._issue(
            decode_csr(request.csr).public_key,
            SpiffeId.decode(found.spiffe_id),
            now=self.clock.now(),
            not_after=self.clock.now() + self.ttl,
            random=os.urandom(16),
            dns_names=(),
        )
        return SvidOutcome(entry_id=found.id, svid=svid.encode_der())

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class FixedAttestor:
    """Says of each process what a test wrote down; of others that they are this test's user."""

    def __init__(self) -> None:
        self.known: dict[int, set[str]] = {}
        self.asked: list[tuple[int, bool]] = []
        self.failure: UnavailableError | None = None

    def attest(self, pid: int, *, with_digest: bool = False) -> frozenset[Selector]:
        self.asked.append((pid, with_digest))
        if self.failure is not None:
            raise self.failure
        found = self.known.get(pid, {f"unix:uid:{os.getuid()}"})
        return frozenset(map(Selector.decode, found))


class WorkloadClient:
    """Calls the Workload API as a process of this test does."""

    def __init__(self, path: Path) -> None:
        self.channel = Channel(path=str(path))

    def stream(self, name: str, request: Any, response: Any) -> UnaryStreamMethod[Any, Any]:
        return UnaryStreamMethod(self.channel, f"/{WORKLOAD_SERVICE}/{name}", request, response)

    async def messages(
        self, name: str, kind: str, *, metadata: dict[str, str] | None = None
    ) -> AsyncIterator[Any]:
        """Yield what a streaming method sends; `kind` is "X509SVID" and the like."""
        request = WORKLOAD[f"{kind}Request"]
        method = self.stream(name, request, WORKLOAD[f"{kind}Response"])
        async with method.open(metadata=HEADER if metadata is None else metadata) as stream:
            await stream.send_message(request(), end=True)
            while (message := await stream.recv_message()) is not None:
                yield message

    def svids(self, **options: Any) -> AsyncIterator[Any]:
        return self.messages("FetchX509SVID", "X509SVID", **options)

    async def call(
        self, name: str, kind: str, *, metadata: dict[str, str] | None = None, **fields: Any
    ) -> Any:
        request = WORKLOAD[f"{kind}Request"]
        path = f"/{WORKLOAD_SERVICE}/{name}"
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
            self.channel, path, request, WORKLOAD[f"{kind}Response"]
        )
        return await method(request(**fields), metadata=HEADER if metadata is None else metadata)

    async def jwt(self, *audience: str, **fields: Any) -> Any:
        return await self.call("FetchJWTSVID", "JWTSVID", audience=list(audience), **fields)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.channel.close()


@dataclass
class AgentSide:
    """A running endpoint with its parts."""

    directory: Path
    clock: StepClock
    server: IssuingServer
    identities: WorkloadIdentities
    attestor: FixedAttestor

    @property
    def socket(self) -> Path:
        return self.directory / "api.sock"

    def client(self) -> WorkloadClient:
        return WorkloadClient(self.socket)

    async def settle(self) -> None:
        """Let the agent do what is due now."""
        await self.identities.step()

    def tell_bundles(self) -> None:
        """Change the bundles' number and push them, as the feed does."""
        self.server.bundle_revision += 1
        self.identities.notice(self.server.bundles_message())


@contextmanager
def short_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tr", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def agent_side(*entries: AgentEntry, **options: Any) -> AsyncIterator[AgentSide]:
    """Give an endpoint of a node that has joined and knows its `entries`."""
    with short_directory() as directory:
        clock = StepClock()
        server = IssuingServer(clock, entries=list(entries))
        identities = WorkloadIdentities(server, clock=clock)
        attestor = FixedAttestor()
        side = AgentSide(directory, clock, server, identities, attestor)
        endpoint = WorkloadEndpoint(
            identities,
            options.pop("attestor", attestor),
            EndpointOptions(socket=side.socket, **options),
            clock=clock,
        )
        await endpoint.start()
        try:
            identities.adopt(server.bundle)
            await side.settle()
            yield side
        finally:
            await endpoint.stop()
