# SPDX-License-Identifier: Apache-2.0
"""Requests that schemathesis thinks up, in a number that is bounded and the same in each run."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi import checks

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12"))
"""Of each kind for each operation."""

TOKEN = "a-token-that-schemathesis-sends-with-its-requests"

# What a schema cannot say: that a session's id carries a MAC, that a query is CBOR, that of two
# parameters one is allowed, that Evidence is Evidence. The tests of each route say it.
_EXCLUDED: list[Any] = [
    checks.positive_data_acceptance,
    checks.negative_data_rejection,
]


def check_operation(operation: Any, mode: schemathesis.GenerationMode, **options: Any) -> None:
    """Send requests of one kind to one operation, and compare the answers with its description.

    Raises:
        schemathesis.errors.CheckFailed: naming each way in which they differ.
    """
    for body in operation.body:
        # All our bodies but JSON are octets.
        if not body.media_type.endswith("json"):
            schemathesis.serializer.alias(body.media_type, "application/octet-stream")
    strategy = operation.as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=_EXCLUDED, **options
        )

    try:
        send()
    except Unsatisfiable:
        # An operation without parameters and body has nothing that could be wrong.
        if mode is schemathesis.GenerationMode.POSITIVE:
            raise
