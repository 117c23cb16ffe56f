# SPDX-License-Identifier: Apache-2.0
"""The node attestor beside SPIRE's agent: it answers the server's challenge with Evidence.

SPIRE's agent makes its next key before it attests, and its key manager "disk" writes it to
`keys.json`. The Evidence covers every key there, one piece each, so that the server can refuse to
certify any other. Only the public halves are used.

Source: spiffe/spire-plugin-sdk, spire/plugin/agent/nodeattestor/v1; spiffe/spire 1.15,
pkg/agent/plugin/keymanager/disk.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from troth.control_plane.config_file import load_config
from troth.control_plane.spire.config import AgentAttestorConfig
from troth.control_plane.spire.messages import AGENT_ATTESTOR, AGENT_ATTESTOR_SERVICE
from troth.control_plane.spire.node_exchange import (
    MAX_PROOFS,
    KeyProof,
    challenge_label,
    decode_challenge,
    encode_hello,
    encode_proofs,
)
from troth.control_plane.unix_grpc import bounded
from troth.errors import TrothError, UnavailableError
from troth.evidence.attester import Attester
from troth.evidence.challenge import derive_challenge
from troth.formats.signer import load_private_key
from troth.identity.spiffe_id import TrustDomain

__all__ = ["AgentNodeAttestor", "agent_public_keys"]

_LOG = logging.getLogger(__name__)
_KEY_PREFIX: Final = "agent-svid-"
_MAX_FILE: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    config: AgentAttestorConfig
    domain: TrustDomain
    attester: Attester


class AgentNodeAttestor:
    """The plugin.

    Args:
        attester: opens the Attester that a configuration names.
    """

    def __init__(self, attester: Callable[[AgentAttestorConfig], Attester]) -> None:
        self._open = attester
        self._setup: _Setup | None = None

    @property
    def name(self) -> str:
        """Full name of the gRPC service."""
        return AGENT_ATTESTOR_SERVICE

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods, as grpclib asks of a service."""
        return {
            f"/{self.name}/AidAttestation": Handler(
                self._aid,
                Cardinality.STREAM_STREAM,
                AGENT_ATTESTOR["Challenge"],
                AGENT_ATTESTOR["PayloadOrChallengeResponse"],
            )
        }

    def check(self, path: Path) -> None:
        """Refuse a file that cannot be used: see `PluginService`. The device is not opened."""
        load_config(path, AgentAttestorConfig)

    def configure(self, path: Path, trust_domain: TrustDomain) -> None:
        """Take the file: see `PluginService`."""
        config = load_config(path, AgentAttestorConfig)
        attester = self._open(config)
        for reason in attester.describe().insecure:
            _LOG.warning("INSECURE: %s", reason)
        if not config.agent_keys:
            _LOG.warning("agent_keys is not set: the Evidence will cover no key of the agent's")
        self._setup = _Setup(config=config, domain=trust_domain, attester=attester)

    async def _aid(self, stream: Stream[Any, Any]) -> None:
        setup = self._setup
        if setup is None:
            raise GRPCError(Status.FAILED_PRECONDITION, "not configured")
        message = AGENT_ATTESTOR["PayloadOrChallengeResponse"]
        await stream.send_message(message(payload=encode_hello()))
        request = await bounded(stream).recv_message()
        if request is None:
            return
        try:
            nonce = decode_challenge(request.challenge)
            # A device may take its time.
            proofs = await asyncio.to_thread(_proofs, setup, nonce)
        except TrothError as exc:
            raise GRPCError(Status.UNAVAILABLE, f"no Evidence: {exc}") from exc
        await stream.send_message(message(challenge_response=encode_proofs(proofs)))


def _proofs(setup: _Setup, nonce: bytes) -> list[KeyProof]:
    path = setup.config.agent_keys
    keys: Sequence[bytes] = agent_public_keys(Path(path)) if path else (b"",)
    return [_proof(setup, key, nonce) for key in keys]


def _proof(setup: _Setup, key: bytes, nonce: bytes) -> KeyProof:
    attester = setup.attester
    covered = KeyProof(media_type=attester.media_type, evidence=b"", key=key).covered
    challenge = derive_challenge(
        challenge_label(setup.domain), covered, nonce, attester.challenge_size
    )
    return KeyProof(media_type=attester.media_type, evidence=attester.attest(challenge), key=key)


def agent_public_keys(path: Path) -> list[bytes]:
    """Return the public keys (DER SubjectPublicKeyInfo) that a SPIRE agent's key manager keeps.

    Args:
        path: `keys.json` of the key manager "disk".

    Raises:
        UnavailableError: it cannot be read, or holds no key of an agent's.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        entries = json.loads(data[:_MAX_FILE])["keys"]
        pairs = [
            load_private_key(base64.b64decode(text, validate=True), source=str(path)).public_key()
            for name, text in sorted(entries.items())
            if name.startswith(_KEY_PREFIX)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TrothError) as exc:
        raise UnavailableError(
            f"{path} is not the keys.json of a SPIRE agent ({exc})",
            remedy='agent_keys names keys.json in the directory of KeyManager "disk".',
        ) from exc
    if not 1 <= len(pairs) <= MAX_PROOFS:
        raise UnavailableError(f"{path} holds {len(pairs)} keys of an agent's")
    return [each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in pairs]
