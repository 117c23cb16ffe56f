# SPDX-License-Identifier: Apache-2.0
"""Files that a configuration names: keys, policies, CoRIMs, documents of vendors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from troth.control_plane.collateral_directory import CollateralDirectory
from troth.endorsement.repository import Provisioned
from troth.errors import ConfigurationError, ConflictError, TrothError, UnavailableError
from troth.evidence.context import Collateral, CollateralSource
from troth.formats.keys import load_keys
from troth.formats.verification_key import VerificationKey
from troth.verifier.policy import AppraisalPolicy

__all__ = [
    "configured_collateral",
    "configured_keys",
    "configured_policy",
    "provision_configured",
    "read_configured",
]

_LOG = logging.getLogger(__name__)


class _ProvisionFile(Protocol):
    def __call__(self, data: bytes, *, source: str, actor: str, now: datetime) -> Provisioned: ...


def read_configured(name: str, *, key: str) -> bytes:
    """Return what stands in a file.

    Args:
        name: its path.
        key: the setting that names it, for the message.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return Path(name).read_bytes()
    except OSError as exc:
        raise ConfigurationError(
            source="configuration",
            key=key,
            value=name,
            accepted=f"a readable file ({exc.strerror})",
        ) from exc


def configured_keys(names: Sequence[str], *, key: str) -> list[VerificationKey]:
    """Return the keys in these files; raises as `read_configured`, and for what is no key."""
    keys: list[VerificationKey] = []
    for name in names:
        data = read_configured(name, key=key)
        try:
            keys += load_keys(data, source=name)
        except TrothError as exc:
            raise ConfigurationError(source=name, accepted=f"keys ({exc})") from exc
    return keys


def configured_policy(name: str, *, key: str) -> AppraisalPolicy:
    """Return the policy in this file, or the built-in one for "".

    Raises:
        ConfigurationError: it cannot be read, is not Rego, or has defects; all are named.
    """
    if not name:
        return AppraisalPolicy.default()
    try:
        text = read_configured(name, key=key).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(source=name, accepted="Rego in UTF-8") from exc
    policy = AppraisalPolicy.from_text(text, name=Path(name).name)
    if defects := policy.lint():
        raise ConfigurationError(
            source=name, accepted="; ".join(f"{each.actual} ({each.rule})" for each in defects)
        )
    return policy


def configured_collateral(name: str, *, key: str) -> CollateralSource:
    """Return the documents in this directory, or none for "". It is read again when it changes.

    Raises:
        ConfigurationError: it cannot be read, or holds too much.
    """
    return CollateralDirectory(Path(name), key=key) if name else Collateral()


def provision_configured(
    provision: _ProvisionFile, names: Sequence[str], *, key: str, now: datetime
) -> None:
    """Provision the CoRIMs in these files; what an operator has withdrawn since stays withdrawn.

    Raises:
        ConfigurationError: one cannot be read, or cannot be believed.
        UnavailableError: the registry cannot be written.
    """
    for name in names:
        data = read_configured(name, key=key)
        try:
            provision(data, source=name, actor="configuration", now=now)
        except ConflictError as exc:
            # Withdrawn since by an operator, who has the last word.
            _LOG.warning("%s is not provisioned: %s", name, exc)
        except UnavailableError:
            raise
        except TrothError as exc:
            raise ConfigurationError(
                source=name, accepted=f"a CoRIM that can be believed ({exc})"
            ) from exc
