# SPDX-License-Identifier: Apache-2.0
"""`[onboarding]` of the server's configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["OnboardingSection"]


class OnboardingSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[onboarding]`: how machines come into the inventory, and what it decides."""

    inventory: Annotated[
        Literal["listed", "required"],
        Meta(
            description="`listed`: a machine that is in the inventory has to be approved there; "
            "others are decided by the entries alone. `required`: a machine that is not in the "
            "inventory is refused."
        ),
    ] = "listed"
    claim_roots: Annotated[
        list[str],
        Meta(
            description="PEM files of the roots of claim certificates (IDevID) that are believed."
        ),
    ] = []
    join_token_seconds: Annotated[
        int, Meta(ge=60, le=30 * 86400, description="Life of a join token, if not said otherwise.")
    ] = 3600
