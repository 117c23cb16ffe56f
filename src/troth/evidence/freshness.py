# SPDX-License-Identifier: Apache-2.0
"""The comparison of the challenge in the Evidence with the one that the Verifier expects."""

from __future__ import annotations

import hmac

from troth.errors import ApiMisuseError, FreshnessError
from troth.evidence.evidence import NonceMatched, Unchecked

__all__ = ["EXPECTED_SIZES", "check_freshness"]

EXPECTED_SIZES = range(8, 65)
"""Octets of an EAT nonce (RFC 9711 section 4.1). An empty expectation would match padding."""


def check_freshness(
    actual: bytes, expected: bytes | Unchecked, *, claim: str, zero_pad_to: int = 0
) -> NonceMatched | Unchecked:
    """Return the proof that `actual` is the expected challenge, whole and nothing more.

    Args:
        actual: the challenge in the Evidence, already authenticated.
        expected: the Verifier's challenge, 8 to 64 octets; or why it is not checked.
        claim: name of the claim, for the message.
        zero_pad_to: octets that the scheme pads a shorter challenge to, with zeros at its end.

    Raises:
        FreshnessError: they differ.
        ApiMisuseError: `expected` has a size that no challenge has.
    """
    if isinstance(expected, Unchecked):
        return expected
    if len(expected) not in EXPECTED_SIZES:
        raise ApiMisuseError(f"a challenge of {len(expected)} octets; expected 8 to 64")
    if hmac.compare_digest(actual, expected.ljust(zero_pad_to, b"\0")):
        return NonceMatched(expected)
    if actual.startswith(expected) or expected.startswith(actual):
        difference = (
            f"{len(actual)} octets, {len(expected)} expected; the shorter begins the longer, "
            "but a challenge is compared whole"
        )
    else:
        difference = f"{actual.hex()}, expected {expected.hex()}"
    raise FreshnessError(
        f"{claim} is not the challenge of this request: {difference}",
        remedy="Ask for a new challenge and attest again; each challenge is good for one answer.",
    )
