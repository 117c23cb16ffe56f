# SPDX-License-Identifier: Apache-2.0
"""Services of others that a server or Verifier makes use of, put together from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from troth.adapters.bounded_http import tls_context
from troth.adapters.collateral_fetching import vendor_fetchers, with_fetchers
from troth.adapters.coserv_client import CoservClient
from troth.adapters.coserv_endorsements import FetchedEndorsements, FetchingVerifier
from troth.adapters.remote_verifiers.remote_verifier import AttestationService, RemoteVerifier
from troth.adapters.remote_verifiers.trustee import TrusteeService
from troth.adapters.remote_verifiers.veraison import VeraisonService
from troth.control_plane.configured_files import configured_keys
from troth.control_plane.server.remote_config import RemoteSection
from troth.control_plane.verification.sections import CoservSection
from troth.evidence.collateral_source import EndorsementFetcher
from troth.verifier.background_check import BackgroundCheck
from troth.verifier.verifier import Verifier

__all__ = ["coserv_upstream", "fetching", "remote_verifier", "vendor_services"]


def coserv_upstream(
    stack: ExitStack, section: CoservSection, directory: Path
) -> CoservClient | None:
    """Return a client of the CoSERV service that is configured, or None; `stack` closes it.

    Args:
        stack: closes the client.
        section: of the configuration.
        directory: `data_dir`; answers are kept in it.

    Raises:
        ConfigurationError: a file that it names cannot be used.
    """
    if not section.upstream:
        return None
    client = CoservClient(
        section.upstream,
        keys=configured_keys(section.upstream_keys, key="coserv.upstream_keys"),
        directory=directory / "coserv",
        tls=tls_context(section.upstream_ca, key="coserv.upstream_ca"),
        timeout_seconds=section.upstream_seconds,
        max_kept=section.cached_answers,
    )
    stack.callback(client.close)
    return client


def fetching(
    upstream: CoservClient | None,
    *,
    collateral: Mapping[str, EndorsementFetcher] = MappingProxyType({}),
) -> Callable[[Verifier], BackgroundCheck]:
    """Return what lets a Verifier fetch what it misses; without anybody to ask it stays as it is.

    Args:
        upstream: is asked for Reference Values and keys, or None.
        collateral: services of vendors, as `vendor_services` gives them.
    """
    fetched = FetchedEndorsements(upstream) if upstream is not None else None

    def equipped(verifier: Verifier) -> BackgroundCheck:
        able = with_fetchers(verifier, collateral) if collateral else verifier
        return FetchingVerifier(able, fetched) if fetched is not None else able

    return equipped


class CollateralSettings(Protocol):
    """What a configuration says about documents of vendors; the server's and the Verifier's do."""

    @property
    def collateral_fetch(self) -> bool: ...
    @property
    def vendors(self) -> list[str]: ...
    @property
    def amd_kds(self) -> str: ...
    @property
    def intel_pcs(self) -> str: ...


def vendor_services(
    section: CollateralSettings, directory: Path
) -> Mapping[str, EndorsementFetcher]:
    """Return the services of vendors that missing documents are asked for; none unless configured.

    Args:
        section: of the configuration.
        directory: `data_dir`; what is fetched is kept in it.
    """
    if not section.collateral_fetch:
        return {}
    return vendor_fetchers(
        section.vendors,
        directory / "collateral",
        amd_kds=section.amd_kds,
        intel_pcs=section.intel_pcs,
    )


def remote_verifier(
    stack: ExitStack, section: RemoteSection
) -> Callable[[Verifier], BackgroundCheck] | None:
    """Return what puts the configured Verifier in the place of ours, or None; `stack` closes it.

    Args:
        stack: closes its connections.
        section: of the configuration.

    Raises:
        ConfigurationError: a file that it names cannot be used.
    """
    if not section.kind:
        return None
    service = _service(section)
    stack.callback(service.close)
    keys = configured_keys(section.result_keys, key="verifier.remote.result_keys")
    seconds = section.result_seconds

    def instead(verifier: Verifier) -> BackgroundCheck:
        return RemoteVerifier(
            service,
            keys=keys,
            discover=section.discover_result_keys,
            identity=verifier.identity,
            lifetimes=verifier.lifetimes,
            lifetime_without_exp=timedelta(seconds=seconds) if seconds else None,
            allow_simulator=verifier.allow_simulator,
        )

    return instead


def _service(section: RemoteSection) -> AttestationService:
    tls = tls_context(section.ca, key="verifier.remote.ca")
    if section.kind == "trustee":
        return TrusteeService(
            section.url,
            tls=tls,
            policies=section.policies,
            timeout_seconds=section.timeout_seconds,
        )
    return VeraisonService(section.url, tls=tls, timeout_seconds=section.timeout_seconds)
