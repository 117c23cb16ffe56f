# SPDX-License-Identifier: Apache-2.0
"""The node attestor beside SPIRE's server: SPIRE's challenge, answered with Evidence, appraised here.

The agent's SPIFFE ID names the device by what its trust anchor vouches for, never by what the
Evidence's maker could choose: spiffe://TRUST-DOMAIN/spire/agent/troth/SCHEME/KIND/ID. Agents attest
again at each rotation of their SVID, so that a state that no longer passes costs the node its SVID.

It does not see the key that SPIRE certifies: see `node_exchange`.

Source: spiffe/spire-plugin-sdk, spire/plugin/server/nodeattestor/v1 (June 2026).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from troth.clock import Clock
from troth.control_plane.config_file import load_config
from troth.control_plane.key_files import load_or_create_key, make_private_directory
from troth.control_plane.spire.attested_keys import AttestedKey, AttestedKeys
from troth.control_plane.spire.config import ServerAttestorConfig
from troth.control_plane.spire.messages import SERVER_ATTESTOR, SERVER_ATTESTOR_SERVICE
from troth.control_plane.spire.node_exchange import (
    NONCE_SIZE,
    KeyProof,
    challenge_label,
    decode_hello,
    decode_proofs,
    encode_challenge,
)
from troth.control_plane.spire.selectors import agent_id, selector_values
from troth.control_plane.unix_grpc import bounded
from troth.errors import AuthorizationError, DecodeError, TrothError, UnavailableError
from troth.evidence import registry
from troth.evidence.challenge import derive_challenge
from troth.formats.ar4si import TrustTier
from troth.formats.ear import Dialect, minimise, sign_ear
from troth.formats.jwk import thumbprint
from troth.formats.signer import LocalSigner, Signer
from troth.identity.spiffe_id import TrustDomain
from troth.mesh.tier import Tier
from troth.verifier.result import AttestationResult
from troth.verifier.verifier import Verifier

__all__ = ["MAX_WAITING", "RESULT_KEY", "ServerNodeAttestor", "VerifierSource"]

_LOG = logging.getLogger(__name__)

MAX_WAITING: Final = 64
"""Attestations under way at once; more are told to come again."""

RESULT_KEY: Final = "result.key"
"""Name, in the state directory, of the key that signs results; it is made at the first start."""

_ANSWER_SECONDS: Final = 60.0


class VerifierSource(Protocol):
    """Makes the Verifier that a configuration describes, from files as they are now."""

    def __call__(self, config: ServerAttestorConfig, *, now: datetime) -> Verifier:
        """Return it.

        Raises:
            ConfigurationError: a file cannot be read, or is not what it should be.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    config: ServerAttestorConfig
    domain: TrustDomain
    signer: Signer
    keys: AttestedKeys


class ServerNodeAttestor:
    """The plugin.

    Args:
        verifier: as above. It is asked at each attestation: a withdrawn Reference Value counts at
            the next one, without a restart.
        clock: time.
        random: gives that many octets.
    """

    def __init__(
        self, verifier: VerifierSource, *, clock: Clock, random: Callable[[int], bytes]
    ) -> None:
        self._verifier, self._clock, self._random = verifier, clock, random
        self._setup: _Setup | None = None
        self._under_way = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="appraisal")

    @property
    def name(self) -> str:
        """Full name of the gRPC service."""
        return SERVER_ATTESTOR_SERVICE

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods, as grpclib asks of a service."""
        return {
            f"/{self.name}/Attest": Handler(
                self._attest,
                Cardinality.STREAM_STREAM,
                SERVER_ATTESTOR["AttestRequest"],
                SERVER_ATTESTOR["AttestResponse"],
            )
        }

    def check(self, path: Path) -> None:
        """Refuse a file that cannot be used: see `PluginService`."""
        self._verifier(load_config(path, ServerAttestorConfig), now=self._clock.now())

    def configure(self, path: Path, trust_domain: TrustDomain) -> None:
        """Take the file: see `PluginService`."""
        config = load_config(path, ServerAttestorConfig)
        self._verifier(config, now=self._clock.now())
        directory = Path(config.state_dir)
        make_private_directory(directory)
        key = load_or_create_key(directory / RESULT_KEY)
        self._setup = _Setup(
            config=config,
            domain=trust_domain,
            signer=LocalSigner(key, thumbprint(key.public_key())),
            keys=AttestedKeys(directory),
        )
        for allowed in ("allow_simulator", "allow_test_keys", "unbound_keys"):
            if getattr(config, allowed):
                _LOG.warning("INSECURE: %s is set in %s", allowed, path)

    async def _attest(self, stream: Stream[Any, Any]) -> None:
        setup = self._setup
        if setup is None:
            raise GRPCError(Status.FAILED_PRECONDITION, "not configured")
        if self._under_way >= MAX_WAITING:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many attestations under way")
        self._under_way += 1
        try:
            await self._exchange(stream, setup)
        except TrothError as exc:
            # The node hears a class; the cause is for the operator, in SPIRE's log.
            _LOG.warning("node attestation refused: %s. %s", exc, exc.remedy)
            raise GRPCError(_status(exc), f"attestation refused: {exc.code}") from exc
        except TimeoutError as exc:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "the answer did not come in time") from exc
        finally:
            self._under_way -= 1

    async def _exchange(self, stream: Stream[Any, Any], setup: _Setup) -> None:
        decode_hello((await _received(stream)).payload)
        nonce = self._random(NONCE_SIZE)
        response = SERVER_ATTESTOR["AttestResponse"]
        await stream.send_message(response(challenge=encode_challenge(nonce)))
        proofs = decode_proofs((await _received(stream)).challenge_response)
        attributes = await asyncio.get_running_loop().run_in_executor(
            self._executor, self._appraised, setup, proofs, nonce
        )
        await stream.send_message(response(agent_attributes=attributes))

    def _appraised(self, setup: _Setup, proofs: tuple[KeyProof, ...], nonce: bytes) -> Any:  # noqa: ANN401 - a class made at run time
        """Return what SPIRE is told about the node, after noting which keys were proved."""
        now = self._clock.now()
        verifier = self._verifier(setup.config, now=now)
        results = [_appraise(verifier, each, setup, nonce, now=now) for each in proofs]
        agents = {agent_id(setup.domain, each) for each in results}
        if len(agents) > 1:
            raise AuthorizationError("the proofs of one agent are of several machines")
        agent = agents.pop()
        keys = [
            AttestedKey(key=each.key, ear=_ear(each, setup.signer))
            for each in results
            if each.key is not None
        ]
        setup.keys.record(agent, keys, now=now, unbound=setup.config.unbound_keys)
        _LOG.info("attested %s: %s", agent, ", ".join(selector_values(results[-1])))
        return SERVER_ATTESTOR["AgentAttributes"](
            spiffe_id=str(agent), selector_values=selector_values(results[-1]), can_reattest=True
        )


def _appraise(
    verifier: Verifier, proof: KeyProof, setup: _Setup, nonce: bytes, *, now: datetime
) -> AttestationResult:
    """Return an acceptable result about one proof.

    Raises:
        DecodeError, VerificationError: as the Verifier's `appraise`.
        AuthorizationError: it is authentic, and not good enough.
    """
    if not proof.key and not setup.config.unbound_keys:
        raise AuthorizationError(
            "the Evidence covers no key of the agent's",
            remedy="Name the agent's keys.json as agent_keys in its node attestor's file; or, "
            "knowing what that gives up, set unbound_keys here.",
        )
    scheme = registry.scheme(
        registry.by_media_type(proof.media_type, schemes=verifier.schemes), schemes=verifier.schemes
    )
    label = challenge_label(setup.domain)
    result = verifier.appraise(
        proof.evidence,
        now=now,
        challenge=derive_challenge(label, proof.covered, nonce, scheme.challenge_size),
        scheme=scheme.name,
        media_type=proof.media_type,
        nonce=nonce,
        key=proof.key or None,
    )
    if result.status is not TrustTier.AFFIRMING:
        against = "; ".join(f"{each.claim}: {each.actual}" for each in result.findings[:4])
        raise AuthorizationError(
            f"{agent_id(setup.domain, result)} is {result.status.word}: {against or 'no findings'}",
            result=result,
        )
    if result.tier < Tier(setup.config.min_tier):
        raise AuthorizationError(
            f"{agent_id(setup.domain, result)} reaches tier {result.tier}, not "
            f"{setup.config.min_tier}",
            result=result,
        )
    return result


def _ear(result: AttestationResult, signer: Signer) -> str:
    token = sign_ear(minimise(result.to_ear()), signer, Dialect.IETF_03, wire="jwt")
    return token.decode("ascii")


async def _received(stream: Stream[Any, Any]) -> Any:  # noqa: ANN401 - a class made at run time
    async with asyncio.timeout(_ANSWER_SECONDS):
        message = await bounded(stream).recv_message()
    if message is None:
        raise DecodeError("the stream ended", format="SPIRE node attestation")
    return message


def _status(exc: TrothError) -> Status:
    if isinstance(exc, UnavailableError):
        return Status.UNAVAILABLE
    if isinstance(exc, DecodeError):
        return Status.INVALID_ARGUMENT
    return Status.PERMISSION_DENIED
