# SPDX-License-Identifier: Apache-2.0
"""Intel's Provisioning Certification Service (PCS), or a cache of it (PCCS) on premises.

TCB info and identities are signed by a certificate that the service sends in a header. It is kept
in the same document, as one more member beside the signed one, which stays as it came.

Source: Intel PCS API version 4; PCCS API.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final
from urllib.parse import unquote

import httpx

from troth.adapters.vendor_service import VendorService
from troth.errors import DecodeError
from troth.evidence.collateral_source import CollateralRequest
from troth.evidence.context import Collateral
from troth.evidence.intel.documents import CHAIN_MEMBER, IntelDocuments
from troth.evidence.intel.pcs import ROOT_LIST

__all__ = ["PCS_URL", "ROOT_LIST_URL", "IntelPcs"]

PCS_URL: Final = "https://api.trustedservices.intel.com"
ROOT_LIST_URL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
"""Intel keeps the root's revocation list elsewhere; a PCCS has it under its own address."""

_CHAIN_HEADERS: Final = (
    "TCB-Info-Issuer-Chain",
    "SGX-TCB-Info-Issuer-Chain",
    "SGX-Enclave-Identity-Issuer-Chain",
)


@dataclass
class IntelPcs(VendorService):
    """Fetches collateral (`evidence.intel.pcs.requests_for`) and keeps it.

    What is kept serves until it runs out, as it says itself, but no longer than `refresh`.
    """

    base_url: str = PCS_URL

    burst: ClassVar[int] = 16
    seconds_between: ClassVar[float] = 1.0
    refused_remedy: ClassVar[str] = (
        "Intel does not know this kind of processor, or not for this use: it may be a "
        "pre-production part, or the address is not that of a PCS or PCCS."
    )

    def url(self, request: CollateralRequest) -> str:
        """Return where to ask; Intel keeps the root's revocation list elsewhere."""
        if request.name == ROOT_LIST and self.base_url == PCS_URL:
            return ROOT_LIST_URL
        return super().url(request)

    def serves(
        self, kept: bytes, kept_at: datetime, request: CollateralRequest, now: datetime
    ) -> bool:
        """Say whether a kept document is fresh enough and has not run out."""
        try:
            ends = _next_update(kept, name=request.name)
        except DecodeError:
            return False  # somebody has damaged it
        return ends > now and super().serves(kept, kept_at, request, now)

    def read(self, response: httpx.Response, content: bytes, request: CollateralRequest) -> bytes:
        """Return the answer with the certificates that came in its header."""
        chain = next(
            (response.headers[name] for name in _CHAIN_HEADERS if name in response.headers), ""
        )
        if chain and content.rstrip().endswith(b"}"):
            member = f',"{CHAIN_MEMBER}":{json.dumps(unquote(chain))}}}'
            content = content.rstrip()[:-1] + member.encode()
        _next_update(content, name=request.name)
        return content


def _next_update(content: bytes, *, name: str) -> datetime:
    """Return when a document runs out.

    Raises:
        DecodeError: it is none of Intel's that does.
    """
    found = IntelDocuments.of(Collateral({name: content}))
    ends = [each.content.next_update for each in found.tcb_infos]
    ends += [each.content.next_update for each in found.identities]
    ends += [each.next_update for each in found.revocation_lists]
    if not ends:
        why = f": {found.unreadable[0]}" if found.unreadable else ""
        raise DecodeError(f"no TCB info, identity or revocation list{why}", format=name)
    return min(ends)
