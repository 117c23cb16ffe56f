# SPDX-License-Identifier: Apache-2.0
"""The agent's `[onboarding]`, with the files that it names."""

from __future__ import annotations

from pathlib import Path

from troth.adapters.onboarding import Onboarding, read_claim, read_join_token
from troth.control_plane.agent.config import OnboardingSection
from troth.errors import ConfigurationError

__all__ = ["onboarding_of"]


def onboarding_of(section: OnboardingSection, folder: Path) -> Onboarding:
    """Read what the section names; relative names start at `folder`.

    Raises:
        ConfigurationError: a file cannot be used, or a certificate comes without its key.
    """
    if bool(section.claim_certificate) != bool(section.claim_key):
        raise ConfigurationError(
            source="agent configuration",
            key="onboarding.claim_certificate",
            accepted="both claim_certificate and claim_key, or neither",
        )
    token = read_join_token(folder / section.join_token_file) if section.join_token_file else ""
    if not section.claim_certificate:
        return Onboarding(activate=section.activate, join_token=token)
    chain, key = read_claim(folder / section.claim_certificate, folder / section.claim_key)
    return Onboarding(
        activate=section.activate, join_token=token, claim_certificates=chain, claim_key=key
    )
