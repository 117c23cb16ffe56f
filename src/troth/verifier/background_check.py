# SPDX-License-Identifier: Apache-2.0
"""The port of whoever appraises Evidence on our behalf: the Verifier here, or one elsewhere.

Source: RFC 9334 section 5.2 (the background-check model).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

from troth.errors import TrothError
from troth.evidence import registry
from troth.verifier.conclusion import Judgement
from troth.verifier.result import AttestationResult

__all__ = ["AUTO", "BackgroundCheck"]

AUTO: Final = "auto"
"""Scheme name that asks for recognition by media type or first octets."""


class BackgroundCheck(Protocol):
    """Appraises Evidence. Methods may block; any thread may call them.

    Attributes:
        schemes: the schemes that it takes.
    """

    @property
    def schemes(self) -> Mapping[str, registry.Loader]: ...  # noqa: D102 - documented above

    def appraise(
        self,
        evidence: bytes,
        *,
        now: datetime,
        challenge: bytes,
        scheme: str = AUTO,
        media_type: str = "",
        nonce: bytes | None = None,
        key: bytes | None = None,
        received: datetime | None = None,
        observe: Callable[[Judgement], None] | None = None,
    ) -> AttestationResult:
        """Return what this Evidence is worth; arguments as for `Verifier.appraise`.

        The challenge was compared with the Evidence's, whoever appraised it. Only a Verifier here
        has something to observe.

        Raises:
            DecodeError, VerificationError: refusals, as of `Verifier.appraise`.
            UnavailableError: nothing follows about the Attester.
        """
        ...

    def failure(
        self, error: TrothError, *, scheme: str, now: datetime, nonce: bytes | None = None
    ) -> AttestationResult:
        """Return the result of an appraisal that did not come about (`failure_result`)."""
        ...
