# SPDX-License-Identifier: Apache-2.0
"""The Verifiers of other sites, or of ours, that an agent believes by delegations in files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from troth.control_plane.agent.config import AgentConfig, VerifierSection
from troth.errors import ConfigurationError, FreshnessError, TrothError
from troth.formats.keys import load_keys
from troth.mesh.passport import TrustedVerifier
from troth.mesh.verifier_delegation import MAX_DELEGATION_BYTES, verify_delegation

__all__ = ["DelegationFiles"]

_LOG = logging.getLogger(__name__)
_MOST_KEY_BYTES = 65_536


class DelegationFiles:
    """The `[[verifiers]]` with a delegation. Files are read anew each time: delegations are short.

    Args:
        config: the agent's configuration.
        base: directory that relative paths start from.
    """

    def __init__(self, config: AgentConfig, base: Path) -> None:
        self._sections = [section for section in config.verifiers if section.delegation]
        self._site = config.node.site
        self._base = base

    def check(self, *, now: datetime) -> None:
        """Read all of them, at the start, when somebody looks.

        Raises:
            ConfigurationError: a file that is missing or is no delegation, or one for another
                site. One that has run out, or starts later, is no fault.
        """
        for section in self._sections:
            if not section.keys:
                raise ConfigurationError(
                    source="agent configuration",
                    key=f"verifiers.{section.name}.keys",
                    accepted="a file with the keys of those who may delegate",
                )
            try:
                self._read(section, now)
            except FreshnessError:
                continue
            except (TrothError, OSError) as exc:
                raise ConfigurationError(
                    source=section.delegation,
                    key=f"verifiers.{section.name}.delegation",
                    value=str(exc),
                    accepted="a delegation to this Verifier, signed by a key of `keys`",
                ) from exc

    def believed(self, *, now: datetime) -> Sequence[TrustedVerifier]:
        """Return the Verifiers whose delegations are in force. What cannot be read counts not."""
        found = []
        for section in self._sections:
            try:
                found.append(self._read(section, now))
            except (TrothError, OSError) as exc:
                _LOG.warning("Verifier %s is not believed now: %s", section.name, exc)
        return found

    def _read(self, section: VerifierSection, now: datetime) -> TrustedVerifier:
        keys = load_keys(self._octets(section.keys, _MOST_KEY_BYTES), source=section.keys)
        token = self._octets(section.delegation, MAX_DELEGATION_BYTES).strip()
        delegation = verify_delegation(token, keys, now=now)
        if delegation.verifier != section.name:
            raise ConfigurationError(
                source=section.delegation,
                key="sub",
                value=delegation.verifier,
                accepted=f"the Verifier's name in this configuration, {section.name}",
            )
        delegation.require_site(self._site, elsewhere=section.elsewhere)
        return TrustedVerifier.delegated(delegation)

    def _octets(self, name: str, most: int) -> bytes:
        with (self._base / name).open("rb") as file:
            return file.read(most + 1)
