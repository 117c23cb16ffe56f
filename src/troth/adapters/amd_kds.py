# SPDX-License-Identifier: Apache-2.0
"""AMD's Key Distribution Service: certificates of chips, their chains, and revocation lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import httpx

from troth.adapters.vendor_service import VendorService
from troth.evidence.certificates import VendorDocuments
from troth.evidence.collateral_source import CollateralRequest

__all__ = ["KDS_URL", "AmdKds"]

KDS_URL: Final = "https://kdsintf.amd.com"


@dataclass
class AmdKds(VendorService):
    """Fetches AMD's certificates and lists (`sev_snp.kds.wanted`) and keeps them."""

    base_url: str = KDS_URL

    # A chip's certificate, its chain and list, and one more; then what AMD allows for one chip.
    burst: ClassVar[int] = 4
    seconds_between: ClassVar[float] = 10.0
    refused_remedy: ClassVar[str] = (
        "AMD does not know this chip at this TCB version: the host reports one that it does not "
        "run, or the product line is another one."
    )

    def read(self, response: httpx.Response, content: bytes, request: CollateralRequest) -> bytes:
        """Return the answer, if it holds a certificate or a list."""
        del response
        VendorDocuments().add(content, source=request.name, in_evidence=False)
        return content
