# SPDX-License-Identifier: Apache-2.0
"""The keys that Evidence was shown to cover, between SPIRE's two plugins on one server.

SPIRE attests a node and signs the agent's certificate within one call, on one server: the node
attestor leaves here what it proved, and the credential composer, another process, finds it when it
is shown the key about to be certified. A directory for their user only; one file for each agent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from troth.control_plane.key_files import make_private_directory, write_private
from troth.errors import AuthorizationError, UnavailableError
from troth.identity.spiffe_id import SpiffeId

__all__ = ["FRESH", "AttestedKey", "AttestedKeys"]

FRESH: Final = timedelta(seconds=60)
"""How long after the attestation SPIRE may certify the key; it does within milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedKey:
    """One key, and the signed result about it.

    Attributes:
        key: DER SubjectPublicKeyInfo.
        ear: EAR as a JWT, minimised for certificates; it names the key.
    """

    key: bytes
    ear: str


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    spiffe_id: str
    attested_at: datetime
    keys: list[tuple[bytes, str]]
    unbound: bool


class AttestedKeys:
    """The directory. Both plugins name the same one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "attested"

    def record(
        self, agent: SpiffeId, keys: Sequence[AttestedKey], *, now: datetime, unbound: bool
    ) -> None:
        """Note what was proved for `agent`, instead of what was before.

        Args:
            agent: the agent's SPIFFE ID.
            keys: the proved ones.
            now: time of the attestation.
            unbound: the operator lets this agent use any key.

        Raises:
            UnavailableError: it cannot be written; the attestation must then fail.
        """
        make_private_directory(self._directory)
        stored = _Stored(str(agent), now, [(each.key, each.ear) for each in keys], unbound)
        write_private(self._path(agent), msgspec.json.encode(stored))

    def find(self, agent: SpiffeId, key: bytes, *, now: datetime) -> AttestedKey | None:
        """Return what was proved of `key`; None where the agent may use any key.

        Raises:
            AuthorizationError: the agent has not attested just now, or not with this key.
            UnavailableError: what was noted cannot be read.
        """
        stored = self._read(agent)
        if stored is None or not timedelta(0) <= now - stored.attested_at <= FRESH:
            raise AuthorizationError(
                f"{agent} has not attested within the last {int(FRESH.total_seconds())} s",
                remedy="The node attestor and the credential composer must name one state_dir, "
                "and run beside the same SPIRE server.",
            )
        for known, ear in stored.keys:
            if known == key:
                return AttestedKey(key=known, ear=ear)
        if stored.unbound:
            return None
        raise AuthorizationError(
            f"{agent} asks for a certificate for a key that its Evidence does not cover",
            remedy="Somebody may be using this machine's Evidence for a key elsewhere. Otherwise "
            "name the agent's keys.json as agent_keys in its node attestor's file.",
        )

    def _read(self, agent: SpiffeId) -> _Stored | None:
        try:
            stored = msgspec.json.decode(self._path(agent).read_bytes(), type=_Stored)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as exc:
            raise UnavailableError(f"{self._path(agent)} cannot be read: {exc}") from exc
        return stored if stored.spiffe_id == str(agent) else None

    def _path(self, agent: SpiffeId) -> Path:
        return self._directory / f"{hashlib.sha256(str(agent).encode()).hexdigest()}.json"
