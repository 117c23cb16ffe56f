# SPDX-License-Identifier: Apache-2.0
"""The standard APIs put together: for a Verifier alone, and for a server that has one inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from starlette.routing import BaseRoute, Mount

from troth.clock import Clock
from troth.control_plane.key_files import load_or_create_key
from troth.control_plane.openapi import Operation
from troth.control_plane.result_keys import ResultKeys
from troth.control_plane.server.worker import Worker
from troth.control_plane.verification.callers import Provisioners
from troth.control_plane.verification.challenge_response import ChallengeResponse
from troth.control_plane.verification.challenge_response_routes import (
    PREFIX,
    ChallengeResponseRoutes,
)
from troth.control_plane.verification.coserv_routes import (
    CoservRoutes,
    CoservUpstream,
    RepositorySource,
)
from troth.control_plane.verification.discovery import discovery_routes
from troth.control_plane.verification.metrics import VerificationMetrics
from troth.control_plane.verification.operations import api_operations
from troth.control_plane.verification.provisioning import Provision, ProvisioningRoutes
from troth.control_plane.verification.sections import (
    ChallengeResponseSection,
    CoservSection,
    ProvisioningSection,
)
from troth.control_plane.verification.session import SessionTokens
from troth.formats.keys import thumbprint
from troth.formats.signer import LocalSigner
from troth.formats.verification_key import VerificationKey
from troth.verifier.background_check import BackgroundCheck
from troth.verifier.session_book import SessionBook

__all__ = ["ApiNeeds", "ApiSections", "StandardApis", "standard_apis"]

_COSERV_KEY: Final = "coserv.key.pem"


class ApiSections(Protocol):
    """The tables of a configuration that are about the standard APIs."""

    @property
    def challenge_response(self) -> ChallengeResponseSection: ...  # noqa: D102 - named like the table

    @property
    def provisioning(self) -> ProvisioningSection: ...  # noqa: D102 - named like the table

    @property
    def coserv(self) -> CoservSection: ...  # noqa: D102 - named like the table


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiNeeds:
    """What the standard APIs are made of.

    Attributes:
        sections: the configuration.
        directory: where the key of CoSERV answers is kept.
        verifier: appraises.
        keys: sign results.
        book, session_key: sessions.
        endorsements: what is provisioned.
        refresh: takes over Endorsements that another process changed.
        provision: takes a CoRIM in.
        upstream: another CoSERV service, or None.
        appraising, querying: threads for appraisals, and for queries.
        metrics, clock, random: counts, time and randomness.
    """

    sections: ApiSections
    directory: Path
    verifier: BackgroundCheck
    keys: ResultKeys = field(repr=False)
    book: SessionBook
    session_key: bytes = field(repr=False)
    endorsements: RepositorySource
    refresh: Callable[[datetime], None]
    provision: Provision
    upstream: CoservUpstream | None = None
    appraising: Worker
    querying: Worker
    metrics: VerificationMetrics
    clock: Clock
    random: Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardApis:
    """The interfaces, as far as they are served.

    Attributes:
        challenge_response: the verification API, or None.
        discovery: its well-known document, and where it is asked for the JWK Set of result keys.
        provisioning, operators_provisioning: over the network, and for operators.
        coserv: distribution, or None.
    """

    challenge_response: ChallengeResponseRoutes | None
    discovery: tuple[BaseRoute, ...]
    media_types: tuple[str, ...]
    provisioning: ProvisioningRoutes
    operators_provisioning: ProvisioningRoutes
    coserv: CoservRoutes | None

    def routes(self) -> list[BaseRoute]:
        """Return what everybody may ask, but for the verification API itself."""
        return [
            *self.discovery,
            *self.provisioning.routes(),
            *(self.coserv.routes() if self.coserv else ()),
        ]

    def mounted(self) -> list[BaseRoute]:
        """Return all that everybody may ask, as routes of another application."""
        fast = self.challenge_response
        return [*self.routes(), *([Mount(PREFIX, app=fast)] if fast is not None else [])]

    def operations(self) -> list[Operation]:
        """Describe what everybody may ask."""
        return api_operations(
            self.media_types,
            verification=self.challenge_response is not None,
            coserv=self.coserv is not None,
        )


def standard_apis(needs: ApiNeeds) -> StandardApis:
    """Put them together.

    Raises:
        ConfigurationError: a key file cannot be used.
        UnavailableError: a key cannot be written.
    """
    service = _service(needs)
    media_types = tuple(service.media_types) if service else ()
    discovery = discovery_routes(needs.keys, media_types, needs.clock) if service else ()
    return StandardApis(
        challenge_response=_challenge_response(needs, service) if service else None,
        discovery=tuple(discovery),
        media_types=media_types,
        provisioning=_provisioning(needs, operators=False),
        operators_provisioning=_provisioning(needs, operators=True),
        coserv=_coserv(needs) if needs.sections.coserv.serve else None,
    )


def _service(needs: ApiNeeds) -> ChallengeResponse | None:
    section = needs.sections.challenge_response
    if not section.serve:
        return None
    return ChallengeResponse(
        verifier=needs.verifier,
        keys=needs.keys,
        tokens=SessionTokens(
            needs.session_key, lifetime=section.session_lifetime, random=needs.random
        ),
        book=needs.book,
        worker=needs.appraising,
        section=section,
        refresh=needs.refresh,
        clock=needs.clock,
        metrics=needs.metrics,
    )


def _challenge_response(needs: ApiNeeds, service: ChallengeResponse) -> ChallengeResponseRoutes:
    section = needs.sections.challenge_response
    return ChallengeResponseRoutes(
        service,
        limiter=section.limiter(),
        evidence_bytes=section.evidence_bytes,
        dialect=section.default_dialect,
        clock=needs.clock,
        metrics=needs.metrics,
    )


def _provisioning(needs: ApiNeeds, *, operators: bool) -> ProvisioningRoutes:
    section = needs.sections.provisioning
    return ProvisioningRoutes(
        needs.provision,
        provisioners=None if operators else Provisioners(section.clients),
        unsigned=operators or section.unsigned,
        limiter=None if operators else section.limiter(),
        clock=needs.clock,
        metrics=needs.metrics,
    )


def _coserv(needs: ApiNeeds) -> CoservRoutes:
    section = needs.sections.coserv
    key = load_or_create_key(needs.directory / _COSERV_KEY)
    return CoservRoutes(
        needs.endorsements,
        signer=LocalSigner(key, thumbprint(VerificationKey(key.public_key()))),
        lifetime=timedelta(seconds=section.answer_seconds),
        upstream=needs.upstream,
        worker=needs.querying,
        limiter=section.limiter(),
        clock=needs.clock,
        metrics=needs.metrics,
    )
