# SPDX-License-Identifier: Apache-2.0
"""Settings about vendors' documents, which a server's Verifier and a Verifier alone both have."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

__all__ = ["AmdKdsAddress", "CollateralFetch", "CollateralGrace", "IntelPcsAddress"]

_ADDRESS = r"^(https?://[^\s]+)?$"

CollateralGrace = Annotated[
    int,
    Meta(
        ge=0,
        description="How long after its next update such a document still serves; results show it.",
    ),
]
CollateralFetch = Annotated[
    bool,
    Meta(
        description="Ask `amd` and `intel`, those of them that are among `vendors`, for documents "
        "that are missing; kept in `collateral` below `data_dir`. Strangers' Evidence can cause "
        "such requests, a few a minute."
    ),
]
AmdKdsAddress = Annotated[
    str,
    Meta(
        pattern=_ADDRESS,
        description="Address of AMD's Key Distribution Service, or of a cache; empty for AMD's.",
    ),
]
IntelPcsAddress = Annotated[
    str,
    Meta(
        pattern=_ADDRESS,
        description="Address of Intel's PCS, or of a PCCS; empty for Intel's.",
    ),
]
