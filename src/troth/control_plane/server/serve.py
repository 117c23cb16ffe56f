# SPDX-License-Identifier: Apache-2.0
"""The server as a whole: put together, started, and stopped in order."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from troth import __version__
from troth.clock import Clock, SystemClock, system_random
from troth.control_plane.configured_files import configured_collateral
from troth.control_plane.server.activated_anchors import ActivatedAnchors
from troth.control_plane.server.admin_api import create_admin_app
from troth.control_plane.server.api import create_app
from troth.control_plane.server.appraisal import EvidenceAppraiser
from troth.control_plane.server.appraisal_recorder import AppraisalRecorder
from troth.control_plane.server.bundle_endpoint import EndpointTls, bundle_app
from troth.control_plane.server.bundles import ServerBundles
from troth.control_plane.server.config import ServerConfig, parse_listen
from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.endorsement_set import EndorsementSet
from troth.control_plane.server.entry_routes import member_spiffe_id
from troth.control_plane.server.federations import BundleFetcher, Federations
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.housekeeping import Housekeeping
from troth.control_plane.server.http_server import HttpServer, bind_tcp, bind_unix, own_uids
from troth.control_plane.server.inventory import Inventory
from troth.control_plane.server.issuer import SERVER_PATH, SvidIssuer
from troth.control_plane.server.join import JoinService
from troth.control_plane.server.keys import ServerKeys, load_or_create_keys
from troth.control_plane.server.logical_tees import LogicalTees
from troth.control_plane.server.members import Members
from troth.control_plane.server.metrics import ServerMetrics
from troth.control_plane.server.operators import Operators
from troth.control_plane.server.placements import Placements
from troth.control_plane.server.policy_routes import PolicyDesk
from troth.control_plane.server.policy_set import load_policies
from troth.control_plane.server.rate_limit import Rate, RateLimiter
from troth.control_plane.server.standard_routes import EmbeddedApis, embedded_apis
from troth.control_plane.server.tls import SVID_FILE, ServerTls
from troth.control_plane.server.trust_upkeep import TrustUpkeep
from troth.control_plane.server.worker import COMPUTING_THREADS, WAITING_THREADS, Worker
from troth.control_plane.server.workloads import Workloads
from troth.control_plane.verification.coserv_routes import CoservUpstream
from troth.errors import ConfigurationError, ConflictError, TrothError, UnavailableError
from troth.formats.keys import load_keys
from troth.formats.verification_key import VerificationKey
from troth.identity.spiffe_id import TrustDomain
from troth.mesh.registry import Registry
from troth.verifier.background_check import BackgroundCheck
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import DirectEvaluator, RegoEvaluator
from troth.verifier.result import VerifierIdentity
from troth.verifier.verdict_cache import VerdictCache
from troth.verifier.verifier import Verifier

__all__ = ["RunningServer", "database_url", "running_server", "serve"]

_LOG = logging.getLogger(__name__)
_OPERATOR_CONNECTIONS = 64
_REPLAYS_WAITING = 4
_AGGREGATES_WAITING = 16
_BUNDLE_FILE = "bundle.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that serves.

    Attributes:
        url: of the HTTPS listener.
        bundle_url: of the bundle endpoint, or "".
        admin_socket: of the operators' one.
        spiffe_id: of the server.
        trust_bundle: PEM file with the authority; agents pin it.
        context: the parts, for tests and tools in this process.
    """

    url: str
    bundle_url: str
    admin_socket: Path
    spiffe_id: str
    trust_bundle: Path
    context: ServerContext

    def ready_line(self) -> str:
        """Return the one line of JSON that says where everything is."""
        return json.dumps(
            {
                "ready": True,
                "url": self.url,
                **({"bundle_url": self.bundle_url} if self.bundle_url else {}),
                "admin_socket": str(self.admin_socket),
                "spiffe_id": self.spiffe_id,
                "trust_bundle": str(self.trust_bundle),
                "result_keys": str(self.trust_bundle.with_name("result-keys.json")),
            }
        )


def database_url(config: ServerConfig) -> str:
    """Return the URL of the registry's database: configured, or SQLite in the data directory."""
    return config.database or f"sqlite:///{config.directory / 'registry.db'}"


async def serve(
    config: ServerConfig,
    *,
    registry: Callable[[], Registry],
    ready: Callable[[str], None],
    stop: asyncio.Event,
    evaluator: RegoEvaluator | None = None,
    fetcher: BundleFetcher | None = None,
    background: Callable[[Verifier], BackgroundCheck] | None = None,
    upstream: CoservUpstream | None = None,
) -> None:
    """Serve until `stop` is set or the task is cancelled; then stop in order.

    Args:
        config: what to do.
        registry: opens the database; called once, after the data directory is there.
        ready: is given the ready line, such as `print`.
        stop: ends the server.
        evaluator: of the Appraisal Policy; by default in this process, without a time limit.
        fetcher: fetches bundles of other trust domains; without, operators set them.
        background: wraps the Verifier or takes its place; by default it is used as it is.
        upstream: another CoSERV service, or None.

    Raises:
        ConfigurationError: something in the configuration cannot be used.
        UnavailableError: the registry or a listener cannot be had.
    """
    async with running_server(
        config,
        registry=registry,
        evaluator=evaluator,
        fetcher=fetcher,
        background=background,
        upstream=upstream,
    ) as server:
        line = server.ready_line()
        if config.ready_file:
            _write(Path(config.ready_file), line + "\n")
        ready(line)
        await stop.wait()


@asynccontextmanager
async def running_server(
    config: ServerConfig,
    *,
    registry: Callable[[], Registry],
    evaluator: RegoEvaluator | None = None,
    fetcher: BundleFetcher | None = None,
    background: Callable[[Verifier], BackgroundCheck] | None = None,
    upstream: CoservUpstream | None = None,
    clock: Clock | None = None,
    random: Callable[[int], bytes] = system_random,
) -> AsyncIterator[RunningServer]:
    """Give a server that serves while the block runs; arguments as for `serve`."""
    clock = clock or SystemClock()
    host, port = config.address
    config.federation.check()
    keys = _keys(config, now=clock.now(), random=random)
    async with AsyncExitStack() as stack:
        opened = registry()
        stack.callback(opened.close)
        context, housekeeping, tls = await _compose(
            stack,
            config,
            opened,
            keys=keys,
            evaluator=evaluator or DirectEvaluator(),
            fetcher=fetcher,
            background=background,
            upstream=upstream,
            clock=clock,
            random=random,
        )
        listener = bind_tcp(host, port)
        public = HttpServer(
            create_app(context),
            listener,
            tls=tls.context,
            max_connections=config.limits.connections,
        )
        admin = HttpServer(
            create_admin_app(context),
            bind_unix(config.admin_path),
            allowed_uids=own_uids(),
            max_connections=_OPERATOR_CONNECTIONS,
        )
        endpoint, endpoint_tls = _bundle_endpoint(config, context)
        servers = [public, admin, *([endpoint] if endpoint else [])]
        stack.callback(config.admin_path.unlink, missing_ok=True)
        stack.push_async_callback(_stopped, *servers)
        # Streams end first, so that the listeners have nothing to wait for.
        stack.callback(context.hub.close)
        upkeep = _upkeep(config, context, tls, endpoint_tls)
        await upkeep.look()
        await asyncio.gather(*(server.start() for server in servers))
        for work in (housekeeping.run(), upkeep.run()):
            stack.push_async_callback(_cancelled, asyncio.create_task(work))
        yield _running(config, public.address, context, endpoint)


async def _compose(
    stack: AsyncExitStack,
    config: ServerConfig,
    registry: Registry,
    *,
    keys: ServerKeys,
    evaluator: RegoEvaluator,
    fetcher: BundleFetcher | None,
    background: Callable[[Verifier], BackgroundCheck] | None,
    upstream: CoservUpstream | None,
    clock: Clock,
    random: Callable[[int], bytes],
) -> tuple[ServerContext, Housekeeping, ServerTls]:
    limits, lifetimes = config.limits, config.tier_lifetimes()
    waiting = limits.appraisals_waiting
    registry_worker = Worker("registry", threads=1, max_waiting=waiting)
    waits = bool(
        config.verifier.remote.kind or config.coserv.upstream or config.verifier.collateral_fetch
    )
    appraisal_worker = Worker(
        "Verifier", threads=WAITING_THREADS if waits else COMPUTING_THREADS, max_waiting=waiting
    )
    stack.push_async_callback(registry_worker.close)
    stack.push_async_callback(appraisal_worker.close)
    policies = load_policies(config.verifier)
    insecure = config.allow_simulator or config.allow_test_keys
    if insecure:
        _LOG.warning("insecure: Evidence of simulators or published test keys is accepted")
    if policies.audits:
        _LOG.warning("insecure: policy %s is not enforced (mode audit)", config.verifier.policy)
    bundles = ServerBundles(keys.authorities, now=clock.now())
    issuer = SvidIssuer(
        keys, bundles=bundles, random=random, allow_insecure=insecure or policies.audits
    )
    endorsements = EndorsementSet(registry, keys=_corim_keys(config.verifier.corim_keys))
    await registry_worker.run(_prepare, config, registry, endorsements, policies.enforced, clock)
    await registry_worker.run(bundles.load, registry, clock.now())
    verifier = Verifier(
        identity=VerifierIdentity(developer="Troth", build=__version__, name=config.verifier.name),
        endorsements=ActivatedAnchors(endorsements, registry),
        policy=policies.enforced,
        candidate=policies.candidate,
        mark_candidate=policies.audits,
        evaluator=evaluator,
        lifetimes={tier: each.result for tier, each in lifetimes.items()},
        cache=VerdictCache(),
        allow_test_keys=config.allow_test_keys,
        allow_simulator=config.allow_simulator,
        collateral=configured_collateral(config.verifier.collateral, key="verifier.collateral"),
        vendors=frozenset(config.verifier.vendors),
        grace=timedelta(seconds=config.verifier.collateral_grace_seconds),
    )
    checking = background(verifier) if background is not None else verifier
    appraiser = EvidenceAppraiser(checking, endorsements, keys.results)
    hub = FeedHub(registry, registry_worker, heartbeat_seconds=config.heartbeat_seconds)
    metrics = ServerMetrics()
    recorder = _recorder(config, registry, metrics)
    stack.push_async_callback(_written, registry_worker, recorder)
    admission = asyncio.Lock()
    inventory = Inventory(
        registry,
        registry_worker,
        section=config.onboarding,
        endorsements=endorsements,
        random=random,
        max_activations=limits.open_sessions,
    )
    joins = JoinService(
        registry=registry,
        registry_worker=registry_worker,
        appraiser=appraiser,
        appraisal_worker=appraisal_worker,
        issuer=issuer,
        hub=hub,
        admission=admission,
        clock=clock,
        random=random,
        lifetimes=lifetimes,
        limits=limits,
        degraded_grace=timedelta(seconds=config.degraded_grace_seconds),
        disclose_findings=config.disclose_findings,
        recorder=recorder,
        endorsements=endorsements,
        inventory=inventory,
    )
    operators = Operators(
        registry=registry,
        registry_worker=registry_worker,
        endorsements=endorsements,
        appraiser=appraiser,
        appraisal_worker=appraisal_worker,
        hub=hub,
        admission=admission,
        clock=clock,
    )
    standard = embedded_apis(
        config,
        verifier=checking,
        keys=keys,
        endorsements=endorsements,
        operators=operators,
        upstream=upstream,
        registry=metrics.registry,
        clock=clock,
        random=random,
    )
    stack.push_async_callback(standard.close)
    members = Members(registry, registry_worker, bundles=bundles, clock=clock)
    federations = Federations(
        registry=registry,
        registry_worker=registry_worker,
        bundles=bundles,
        fetcher=fetcher,
        hub=hub,
        clock=clock,
    )
    workloads = Workloads(
        registry=registry,
        registry_worker=registry_worker,
        issuer=issuer,
        issuing_worker=appraisal_worker,
        bundles=bundles,
        hub=hub,
        clock=clock,
        lifetimes=lifetimes,
        jwt_lifetime=timedelta(seconds=config.authorities.jwt_svid_seconds),
    )
    tls = ServerTls(
        keys,
        issuer,
        directory=config.directory,
        lifetime=timedelta(seconds=config.server_svid_seconds),
        now=clock.now(),
    )
    housekeeping = Housekeeping(
        registry=registry,
        registry_worker=registry_worker,
        hub=hub,
        admission=admission,
        clock=clock,
        limits=limits,
        keep_keys=_key_keeper(config, keys, tls, standard),
        recorder=recorder,
        endorsements=endorsements,
    )
    replays = Worker("policy replay", threads=1, max_waiting=_REPLAYS_WAITING)
    stack.push_async_callback(replays.close)
    context = ServerContext(
        config=config,
        clock=clock,
        registry=registry,
        registry_worker=registry_worker,
        appraiser=appraiser,
        appraisal_worker=appraisal_worker,
        endorsements=endorsements,
        hub=hub,
        issuer=issuer,
        keys=keys,
        joins=joins,
        inventory=inventory,
        admission=admission,
        members=members,
        operators=operators,
        standard=standard,
        bundles=bundles,
        federations=federations,
        workloads=workloads,
        logical_tees=_logical_tees(
            stack, config, registry, registry_worker, keys=keys, clock=clock
        ),
        placements=Placements(registry=registry, registry_worker=registry_worker, clock=clock),
        policies=PolicyDesk(
            registry=registry,
            registry_worker=registry_worker,
            replays=replays,
            evaluator=evaluator,
            overview=policies.overview(recording=limits.kept_appraisals > 0),
            clock=clock,
        ),
        limiter=RateLimiter(
            each=Rate(limits.requests_per_second, limits.request_burst),
            together=Rate(limits.total_requests_per_second, limits.total_request_burst),
        ),
        metrics=metrics,
    )
    return context, housekeeping, tls


def _logical_tees(
    stack: AsyncExitStack,
    config: ServerConfig,
    registry: Registry,
    registry_worker: Worker,
    *,
    keys: ServerKeys,
    clock: Clock,
) -> LogicalTees:
    worker = Worker("aggregated results", threads=1, max_waiting=_AGGREGATES_WAITING)
    stack.push_async_callback(worker.close)
    return LogicalTees(
        registry=registry,
        registry_worker=registry_worker,
        worker=worker,
        keys=keys.results,
        identity=VerifierIdentity.of_this_build(name=config.verifier.name),
        trust_domain=_trust_domain(config),
        clock=clock,
    )


def _recorder(
    config: ServerConfig, registry: Registry, metrics: ServerMetrics
) -> AppraisalRecorder:
    return AppraisalRecorder(
        registry,
        keep=config.limits.kept_appraisals > 0,
        on_difference=lambda change: metrics.policy_audits.labels(change.value).inc(),
        on_lost=metrics.unrecorded.inc,
    )


async def _written(worker: Worker, recorder: AppraisalRecorder) -> None:
    """Write what was noted since the last sweep, before the registry is closed."""
    try:
        await worker.run(recorder.write)
    except UnavailableError as exc:
        _LOG.warning("the last appraisals are not on record: %s", exc)


def _prepare(
    config: ServerConfig,
    registry: Registry,
    endorsements: EndorsementSet,
    policy: AppraisalPolicy,
    clock: Clock,
) -> None:
    """Bring what the files say into the registry, and read back what is in force."""
    now = clock.now()
    registry.adopt_policy(policy_id=policy.id, digest=policy.digest, actor="configuration", at=now)
    endorsements.load(now=now)
    for name in config.verifier.corims:
        try:
            endorsements.provision(
                _read(name, "verifier.corims"), source=name, actor="configuration", now=now
            )
        except ConflictError as exc:
            # Withdrawn since by an operator, who has the last word.
            _LOG.warning("%s is not provisioned: %s", name, exc)
        except UnavailableError:
            raise
        except TrothError as exc:
            raise ConfigurationError(
                source=name, accepted=f"a CoRIM that can be believed ({exc})"
            ) from exc
    present = {entry.id for entry in registry.entries()}
    for entry in config.registration_entries():
        try:
            member_spiffe_id(entry.spiffe_id, TrustDomain(config.trust_domain))
        except TrothError as exc:
            raise ConfigurationError(
                source="server configuration",
                key="entries.spiffe_id",
                value=entry.spiffe_id,
                accepted=f"a member's SPIFFE ID ({exc})",
            ) from exc
        if entry.id not in present:
            registry.create_entry(entry, actor="configuration", at=now)


def _keys(config: ServerConfig, *, now: datetime, random: Callable[[int], bytes]) -> ServerKeys:
    lifetimes = config.tier_lifetimes().values()
    results_last = max(each.result for each in lifetimes)
    svids_last = max(
        timedelta(seconds=config.server_svid_seconds), *(each.svid for each in lifetimes)
    )
    return load_or_create_keys(
        config.directory,
        _trust_domain(config),
        now=now,
        random=random,
        results_last=results_last,
        announce=timedelta(seconds=config.result_key_announce_seconds),
        x509=config.authorities.x509(svids_last),
        # No token outlives the result of its node.
        jwt=config.authorities.jwt(results_last),
    )


def _bundle_endpoint(
    config: ServerConfig, context: ServerContext
) -> tuple[HttpServer | None, EndpointTls | None]:
    section = config.federation
    if not section.listen:
        return None, None
    if section.profile == "https_web":
        tls = EndpointTls(Path(section.certificate), Path(section.key))
    else:
        tls = EndpointTls(config.directory / SVID_FILE)
    host, port = parse_listen(section.listen, key="federation.listen")
    server = HttpServer(
        bundle_app(lambda: context.bundles.own),
        bind_tcp(host, port),
        tls=tls.context,
        max_connections=config.limits.connections,
    )
    return server, tls


def _upkeep(
    config: ServerConfig, context: ServerContext, tls: ServerTls, endpoint: EndpointTls | None
) -> TrustUpkeep:
    return TrustUpkeep(
        authorities=context.keys.authorities,
        worker=context.registry_worker,
        bundles=context.bundles,
        federations=context.federations,
        workloads=context.workloads,
        tls=tls,
        endpoint=endpoint,
        write_bundle=lambda pem: _write(config.directory / _BUNDLE_FILE, pem),
        clock=context.clock,
    )


def _url(address: tuple[str, int]) -> str:
    host, port = address
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _running(
    config: ServerConfig,
    address: tuple[str, int],
    context: ServerContext,
    endpoint: HttpServer | None,
) -> RunningServer:
    bundle = config.directory / _BUNDLE_FILE
    _write_result_keys(config, context.keys, context.clock.now())
    return RunningServer(
        url=_url(address),
        bundle_url=_url(endpoint.address) + "/" if endpoint else "",
        admin_socket=config.admin_path,
        spiffe_id=f"spiffe://{config.trust_domain}{SERVER_PATH}",
        trust_bundle=bundle,
        context=context,
    )


def _write_result_keys(config: ServerConfig, keys: ServerKeys, now: datetime) -> None:
    path = config.directory / "result-keys.json"
    _write(path, json.dumps(keys.results.jwk_set(now)) + "\n")


def _key_keeper(
    config: ServerConfig, keys: ServerKeys, tls: ServerTls, standard: EmbeddedApis
) -> Callable[[datetime], None]:
    """Return what renews and rotates the server's keys, and forgets sessions, when it is time."""
    seconds = config.result_key_seconds
    rotate_after = timedelta(seconds=seconds) if seconds else None
    written: dict[str, object] = {}

    def keep(now: datetime) -> None:
        nonlocal written
        tls.renew_if_due(now)
        standard.prune(now)
        keys.results.look(now, rotate_after=rotate_after)
        # An operator or the mere time may have changed them as well.
        if (published := keys.results.jwk_set(now)) != written:
            _write_result_keys(config, keys, now)
            written = published

    return keep


async def _stopped(*servers: HttpServer) -> None:
    await asyncio.gather(*(server.stop() for server in servers))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _trust_domain(config: ServerConfig) -> TrustDomain:
    try:
        return TrustDomain(config.trust_domain)
    except TrothError as exc:
        raise ConfigurationError(
            source="server configuration",
            key="trust_domain",
            value=config.trust_domain,
            accepted="a trust domain such as example.org",
        ) from exc


def _corim_keys(names: Sequence[str]) -> list[VerificationKey]:
    keys: list[VerificationKey] = []
    for name in names:
        data = _read(name, "verifier.corim_keys")
        try:
            keys += load_keys(data, source=name)
        except TrothError as exc:
            raise ConfigurationError(source=name, accepted=f"keys ({exc})") from exc
    return keys


def _read(name: str, key: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as exc:
        raise ConfigurationError(
            source="server configuration",
            key=key,
            value=name,
            accepted=f"a readable file ({exc.strerror})",
        ) from exc


def _write(path: Path, text: str) -> None:
    try:
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as exc:
        raise UnavailableError(f"{path} cannot be written: {exc.strerror}") from exc
