# SPDX-License-Identifier: Apache-2.0
"""The finding for claims that no Reference Value speaks about."""

from __future__ import annotations

from collections.abc import Sequence

from troth.endorsement.reference_value import ReferenceValue
from troth.verifier.finding import Finding

__all__ = ["no_reference_values"]


def no_reference_values(
    what: str, *, claim: str, environment: str, lapsed: Sequence[ReferenceValue], submod: str
) -> Finding:
    """Return the finding that nothing says what is acceptable.

    Args:
        what: measurement key of the missing values.
        claim: the claim that could not be compared.
        environment: whom they would be about, in words.
        lapsed: values for this environment that are not yet or no more in force.
        submod: label of the claims set.
    """
    if lapsed:
        actual = f"{len(lapsed)} for this environment, none in force now (first: {lapsed[0].id})"
        remedy = "Provision a CoRIM whose validity includes today, or correct the clock."
    else:
        actual = "none provisioned"
        remedy = f"Provision a CoRIM with {what} values for {environment}."
    return Finding(
        claim=claim,
        expected=f"Reference Values ({what}) for {environment}",
        actual=actual,
        rule="no Reference Values, no affirmation (RFC 9334 section 8.3)",
        remedy=remedy,
        submod=submod,
        severity="warning",
    )
