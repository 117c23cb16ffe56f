# SPDX-License-Identifier: Apache-2.0
"""A Verifier that fetches a vendor's documents when Evidence cannot be verified without them.

Theory of operation. Verification asks nobody; it says what is missing. Then the vendor's service is
asked for exactly that, and the Evidence is verified once more with the answer. What was fetched is
kept on disk, so that the next Evidence of the same machine asks nobody, and an outage of the
service is only felt by machines that were never seen. AMD's revocation lists are the exception:
Evidence verifies without them, so they are renewed beforehand, once a day.

Where nothing can be had the appraisal is undecided. Nothing follows about the machine.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path

from troth.adapters.amd_kds import KDS_URL, AmdKds
from troth.adapters.intel_pcs import PCS_URL, IntelPcs
from troth.errors import CollateralError, TrothError, UnavailableError
from troth.evidence import registry
from troth.evidence.collateral_source import CollateralRequest, EndorsementFetcher
from troth.evidence.context import Collateral
from troth.evidence.evidence import Unchecked
from troth.evidence.intel.pcs import requests_for
from troth.evidence.sev_snp.evidence import decode
from troth.evidence.sev_snp.kds import wanted
from troth.verifier.background_check import AUTO
from troth.verifier.conclusion import Judgement
from troth.verifier.result import AttestationResult
from troth.verifier.verifier import Verifier

__all__ = ["FETCHABLE", "CollateralFetchingVerifier", "vendor_fetchers", "with_fetchers"]

FETCHABLE = ("amd", "intel")
"""Vendors whose services are known."""

_LOG = logging.getLogger(__name__)
_SNP = "sev_snp"


@dataclass(frozen=True, kw_only=True)
class CollateralFetchingVerifier(Verifier):
    """A Verifier with services of vendors behind it.

    Attributes:
        fetchers: by vendor, "amd" and "intel"; what is not in here is not fetched.
    """

    fetchers: Mapping[str, EndorsementFetcher] = field(default_factory=dict)

    def appraise(
        self,
        evidence: bytes,
        *,
        now: datetime,
        challenge: bytes | Unchecked,
        scheme: str = AUTO,
        media_type: str = "",
        nonce: bytes | None = None,
        key: bytes | None = None,
        collateral: Collateral | None = None,
        received: datetime | None = None,
        observe: Callable[[Judgement], None] | None = None,
    ) -> AttestationResult:
        """Return what this Evidence is worth; see `Verifier.appraise`.

        Raises:
            CollateralError: a document is missing and cannot be had; nothing is decided.
        """

        def verified(more: Collateral | None) -> AttestationResult:
            return Verifier.appraise(
                self,
                evidence,
                now=now,
                challenge=challenge,
                scheme=scheme,
                media_type=media_type,
                nonce=nonce,
                key=key,
                collateral=_joined(collateral, more),
                received=received,
                observe=observe,
            )

        lists = self._revocation_lists(evidence, scheme, media_type, now)
        try:
            return verified(lists)
        except CollateralError as exc:
            fetched = self._fetched(exc, evidence, now)
        return verified(_joined(lists, fetched))

    def _revocation_lists(
        self, evidence: bytes, scheme: str, media_type: str, now: datetime
    ) -> Collateral | None:
        service = self.fetchers.get("amd")
        if service is None or self._name(evidence, scheme, media_type) != _SNP:
            return None
        # What cannot be had is not missed: the result says that there was no list.
        with contextlib.suppress(TrothError):
            return service.fetch([each for each in _snp(evidence) if each.changes], now=now)
        return None

    def _name(self, evidence: bytes, scheme: str, media_type: str) -> str:
        if scheme != AUTO:
            return scheme
        with contextlib.suppress(TrothError):
            if media_type:
                return registry.by_media_type(media_type, schemes=self.schemes)
            return registry.detect(evidence, schemes=self.schemes)
        return ""

    def _fetched(self, error: CollateralError, evidence: bytes, now: datetime) -> Collateral:
        service = self.fetchers.get(error.vendor)
        if service is None or (error.vendor == "intel" and not error.wanted):
            raise error
        try:
            asked = _snp(evidence) if error.vendor == "amd" else requests_for(error)
            fetched = service.fetch(asked, now=now)
        except UnavailableError as exc:
            _LOG.warning("documents of %s cannot be had: %s", error.vendor, exc)
            raise CollateralError(
                f"{error}; and it cannot be fetched now: {exc}",
                vendor=error.vendor,
                wanted=error.wanted,
                remedy=exc.remedy or error.remedy,
            ) from exc
        except TrothError as exc:
            raise error from exc  # it does not even say what to ask for
        return fetched


def vendor_fetchers(
    vendors: Sequence[str], folder: Path, *, amd_kds: str = "", intel_pcs: str = ""
) -> dict[str, EndorsementFetcher]:
    """Return the services of those vendors that have one.

    Args:
        vendors: whose hardware is believed.
        folder: what is fetched is kept in it.
        amd_kds: address of a cache in the place of AMD's, or "".
        intel_pcs: address of a PCCS in the place of Intel's, or "".
    """
    found: dict[str, EndorsementFetcher] = {}
    if "amd" in vendors:
        found["amd"] = AmdKds(folder, base_url=amd_kds or KDS_URL)
    if "intel" in vendors:
        found["intel"] = IntelPcs(folder, base_url=intel_pcs or PCS_URL)
    return found


def with_fetchers(
    verifier: Verifier, fetchers: Mapping[str, EndorsementFetcher]
) -> CollateralFetchingVerifier:
    """Return the same Verifier with these services behind it."""
    same = {each.name: getattr(verifier, each.name) for each in fields(Verifier)}
    return CollateralFetchingVerifier(**same, fetchers=fetchers)


def _snp(evidence: bytes) -> tuple[CollateralRequest, ...]:
    return wanted(decode(evidence))


def _joined(one: Collateral | None, other: Collateral | None) -> Collateral | None:
    if one is None or other is None:
        return one or other
    return one.with_documents(other.documents)
