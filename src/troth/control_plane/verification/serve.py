# SPDX-License-Identifier: Apache-2.0
"""One process of a Verifier: put together, started, and stopped in order.

Several processes may serve one port, each with an event loop and threads of its own. They share
the registry, the book of sessions, the key of the sessions and the board of the epoch. The first
one also has what there is only one of: preparation, the operators' socket, housekeeping.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from troth.clock import Clock, SystemClock, system_random
from troth.control_plane.configured_files import (
    configured_collateral,
    configured_keys,
    configured_policy,
    provision_configured,
)
from troth.control_plane.key_files import make_private_directory
from troth.control_plane.result_keys import ResultKeys
from troth.control_plane.server.http_server import HttpServer, bind_tcp, bind_unix, own_uids
from troth.control_plane.server.worker import COMPUTING_THREADS, WAITING_THREADS, Worker
from troth.control_plane.verification.apis import ApiNeeds, standard_apis
from troth.control_plane.verification.app import (
    VerifierParts,
    create_verifier_admin_app,
    create_verifier_app,
)
from troth.control_plane.verification.config import VerifierConfig
from troth.control_plane.verification.coserv_routes import CoservUpstream
from troth.control_plane.verification.endorsements import EpochBoard, SharedEndorsements
from troth.control_plane.verification.listeners import FileTls
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.endorsement.repository import Provisioned
from troth.errors import TrothError, UnavailableError
from troth.mesh.registry import Registry
from troth.verifier.background_check import BackgroundCheck
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import DirectEvaluator, RegoEvaluator
from troth.verifier.result import VerifierIdentity
from troth.verifier.session_book import SessionBook
from troth.verifier.verdict_cache import VerdictCache
from troth.verifier.verifier import Verifier

__all__ = ["RunningVerifier", "VerifierPorts", "database_url", "running_verifier", "serve_verifier"]

_LOG = logging.getLogger(__name__)
_OPERATOR_CONNECTIONS: Final = 64
_SWEEP_SECONDS: Final = 1.0
_PRUNE_SECONDS: Final = 10.0
_RESULT_KEYS_FILE: Final = "result-keys.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierPorts:
    """What a process gets from outside.

    Attributes:
        registry: opens the database.
        book, session_key, board: what the processes share.
        evaluator: of the Appraisal Policy.
        background: wraps the Verifier, such as into one that fetches Endorsements.
        upstream: another CoSERV service, or None.
    """

    registry: Callable[[], Registry]
    book: SessionBook
    session_key: bytes = field(repr=False)
    board: EpochBoard
    evaluator: RegoEvaluator = field(default_factory=DirectEvaluator)
    background: Callable[[Verifier], BackgroundCheck] = lambda verifier: verifier
    upstream: CoservUpstream | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningVerifier:
    """A process that serves.

    Attributes:
        url: of the listener.
        admin_socket: of the operators' one.
        result_keys: file with the JWK Set that results verify with.
        parts: for tests and tools in this process.
    """

    url: str
    admin_socket: Path
    result_keys: Path
    parts: VerifierParts

    def ready_line(self) -> str:
        """Return the one line of JSON that says where everything is."""
        return json.dumps(
            {
                "ready": True,
                "url": self.url,
                "admin_socket": str(self.admin_socket),
                "result_keys": str(self.result_keys),
            }
        )


def database_url(config: VerifierConfig) -> str:
    """Return the URL of the database: configured, or SQLite in the data directory."""
    return config.database or f"sqlite:///{config.directory / 'verifier.db'}"


async def serve_verifier(
    config: VerifierConfig,
    ports: VerifierPorts,
    *,
    ready: Callable[[str], None],
    first: bool = True,
    port: int = 0,
) -> None:
    """Serve until cancelled; then stop in order.

    Args:
        config: what to do.
        ports: what it takes.
        ready: is given the ready line, such as `print`.
        first: this process has what there is only one of.
        port: that the processes share; 0 where this is the only one.

    Raises:
        ConfigurationError: something in the configuration cannot be used.
        UnavailableError: the registry or a listener cannot be had.
    """
    async with running_verifier(config, ports, first=first, port=port) as verifier:
        ready(verifier.ready_line())
        await asyncio.Event().wait()


@asynccontextmanager
async def running_verifier(
    config: VerifierConfig,
    ports: VerifierPorts,
    *,
    first: bool = True,
    port: int = 0,
    clock: Clock | None = None,
    random: Callable[[int], bytes] = system_random,
) -> AsyncIterator[RunningVerifier]:
    """Give a process that serves while the block runs; arguments as for `serve_verifier`."""
    clock = clock or SystemClock()
    make_private_directory(config.directory)
    async with AsyncExitStack() as stack:
        parts = await _compose(stack, config, ports, first=first, clock=clock, random=random)
        tls = _tls(config)
        host, configured_port = config.address
        public = HttpServer(
            create_verifier_app(parts),
            bind_tcp(host, port or configured_port, shared=bool(port)),
            tls=tls.context if tls else None,
            max_connections=config.connections,
        )
        servers = [public]
        if first:
            servers.append(
                HttpServer(
                    create_verifier_admin_app(parts),
                    bind_unix(config.admin_path),
                    allowed_uids=own_uids(),
                    max_connections=_OPERATOR_CONNECTIONS,
                )
            )
            stack.callback(config.admin_path.unlink, missing_ok=True)
        stack.push_async_callback(_stopped, servers)
        await asyncio.gather(*(server.start() for server in servers))
        keeping = asyncio.create_task(_keep(config, parts, ports.book, tls, first=first))
        stack.push_async_callback(_cancelled, keeping)
        yield _running(config, public.address, parts)


async def _compose(
    stack: AsyncExitStack,
    config: VerifierConfig,
    ports: VerifierPorts,
    *,
    first: bool,
    clock: Clock,
    random: Callable[[int], bytes],
) -> VerifierParts:
    registry = ports.registry()
    stack.callback(registry.close)
    waiting = config.appraisals_waiting
    waits = bool(config.coserv.upstream or config.collateral_fetch)
    appraising = Worker(
        "Verifier", threads=WAITING_THREADS if waits else COMPUTING_THREADS, max_waiting=waiting
    )
    endorsing = Worker("Endorsements", threads=1, max_waiting=waiting)
    querying = Worker("CoSERV", threads=WAITING_THREADS if waits else 1, max_waiting=waiting)
    for worker in (appraising, endorsing, querying):
        stack.push_async_callback(worker.close)
    if config.allow_simulator or config.allow_test_keys:
        _LOG.warning("insecure: Evidence of simulators or published test keys is accepted")
    endorsements = SharedEndorsements(
        registry, keys=configured_keys(config.corim_keys, key="corim_keys"), board=ports.board
    )
    keys = ResultKeys(
        config.directory,
        now=clock.now(),
        announce=timedelta(seconds=config.result_key_announce_seconds),
        keep=max(config.lifetimes().values()),
    )
    policy = configured_policy(config.policy, key="policy")
    now = clock.now()
    if first:
        await endorsing.run(
            registry.adopt_policy,
            policy_id=policy.id,
            digest=policy.digest,
            actor="configuration",
            at=now,
        )
    await endorsing.run(endorsements.load, now=now)
    if first:
        await endorsing.run(
            provision_configured, endorsements.provision, config.corims, key="corims", now=now
        )

    async def provision(data: bytes, source: str, actor: str) -> Provisioned:
        return await endorsing.run(
            endorsements.provision, data, source=source, actor=actor, now=clock.now()
        )

    metrics = VerificationMetrics()
    apis = standard_apis(
        ApiNeeds(
            sections=config,
            directory=config.directory,
            verifier=ports.background(_verifier(config, ports, endorsements, policy)),
            keys=keys,
            book=ports.book,
            session_key=ports.session_key,
            endorsements=endorsements,
            refresh=endorsements.refresh,
            provision=provision,
            upstream=ports.upstream,
            appraising=appraising,
            querying=querying,
            metrics=metrics,
            clock=clock,
            random=random,
        )
    )
    return VerifierParts(
        apis=apis,
        endorsements=endorsements,
        endorsement_worker=endorsing,
        keys=keys,
        metrics=metrics,
        clock=clock,
        public_metrics=config.public_metrics,
    )


def _verifier(
    config: VerifierConfig,
    ports: VerifierPorts,
    endorsements: SharedEndorsements,
    policy: AppraisalPolicy,
) -> Verifier:
    return Verifier(
        identity=VerifierIdentity.of_this_build(name=config.name),
        endorsements=endorsements,
        policy=policy,
        evaluator=ports.evaluator,
        lifetimes=config.lifetimes(),
        cache=VerdictCache(),
        allow_test_keys=config.allow_test_keys,
        allow_simulator=config.allow_simulator,
        collateral=configured_collateral(config.collateral, key="collateral"),
        vendors=frozenset(config.vendors),
        grace=timedelta(seconds=config.collateral_grace_seconds),
    )


def _tls(config: VerifierConfig) -> FileTls | None:
    if not config.tls_certificate:
        return None
    return FileTls(config.tls_certificate, config.tls_key, client_ca=config.client_ca)


async def _keep(
    config: VerifierConfig,
    parts: VerifierParts,
    book: SessionBook,
    tls: FileTls | None,
    *,
    first: bool,
) -> None:
    """Do what has to be done now and then, until cancelled; what fails is tried again."""
    prune_at = 0.0
    while True:
        now, monotonic = parts.clock.now(), parts.clock.monotonic()
        try:
            if tls is not None:
                tls.reload_if_changed()
            await parts.endorsement_worker.run(_keep_keys, config, parts.keys, now, first=first)
            await parts.endorsement_worker.run(parts.endorsements.look, now)
            if first and monotonic >= prune_at:
                prune_at = monotonic + _PRUNE_SECONDS
                keep = config.challenge_response.kept_results
                await parts.endorsement_worker.run(book.prune, now=now, keep=keep)
        except TrothError as exc:
            _LOG.warning("housekeeping: %s", exc)
        await asyncio.sleep(_SWEEP_SECONDS)


def _keep_keys(config: VerifierConfig, keys: ResultKeys, now: datetime, *, first: bool) -> None:
    """Rotate the result key if it is time; other processes take over what the first one did."""
    seconds = config.result_key_seconds
    rotate_after = timedelta(seconds=seconds) if first and seconds else None
    keys.look(now, rotate_after=rotate_after)
    if first:
        _write_if_changed(
            config.directory / _RESULT_KEYS_FILE, json.dumps(keys.jwk_set(now)) + "\n"
        )


def _running(
    config: VerifierConfig, address: tuple[str, int], parts: VerifierParts
) -> RunningVerifier:
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    path = config.directory / _RESULT_KEYS_FILE
    _write_if_changed(path, json.dumps(parts.keys.jwk_set(parts.clock.now())) + "\n")
    scheme = "https" if config.tls_certificate else "http"
    return RunningVerifier(
        url=f"{scheme}://{shown}:{port}",
        admin_socket=config.admin_path,
        result_keys=path,
        parts=parts,
    )


def _write_if_changed(path: Path, text: str) -> None:
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as exc:
        raise UnavailableError(f"{path} cannot be written: {exc.strerror}") from exc


async def _stopped(servers: Sequence[HttpServer]) -> None:
    await asyncio.gather(*(server.stop() for server in servers))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
