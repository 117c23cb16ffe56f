# SPDX-License-Identifier: Apache-2.0
"""docs/reference/policy.md says what the code says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from support.appraisal import case
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.policy_document import TROTH_MEMBERS
from troth.verifier.rego import DirectEvaluator

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "policy.md").read_text("utf-8")
LIMITS = re.findall(r"^\| `(troth[\w.]+)\.(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE)
(EXAMPLE,) = re.findall(r"```rego\n(.*?)```", PAGE, re.DOTALL)
DEBUG_VECTOR = TrustworthinessVector(
    instance_identity=96, executables=2, hardware=2, runtime_opaque=96, storage_opaque=96
)


@pytest.mark.parametrize(("module", "name", "value"), LIMITS, ids=[row[1] for row in LIMITS])
def test_a_documented_limit_has_the_value_of_the_code(module: str, name: str, value: str) -> None:
    assert value == str(getattr(importlib.import_module(module), name))


def test_every_member_of_the_input_is_documented() -> None:
    table = PAGE.partition("## What a policy sees")[2].partition("\n\n`data.reference`")[0]
    documented = {
        name for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }  # fmt: skip
    assert documented == set(TROTH_MEMBERS)


@pytest.mark.parametrize(
    ("version", "lifecycle", "vector", "status"),
    [
        ("2.1.0", "secured", None, TrustTier.AFFIRMING),
        ("2.0.9", "secured", None, TrustTier.WARNING),
        ("2.1.0", "non-rot-debug", DEBUG_VECTOR, TrustTier.WARNING),
        ("2.1.0", "recoverable-rot-debug", DEBUG_VECTOR, TrustTier.CONTRAINDICATED),
    ],
)
def test_the_example_does_what_it_says(
    version: str, lifecycle: str, vector: TrustworthinessVector | None, status: TrustTier
) -> None:
    policy = AppraisalPolicy.from_text(EXAMPLE, name="example.rego")
    assert policy.lint() == []
    claims = {
        "security-lifecycle": lifecycle,
        "software-components": [{"measurement-type": "BL", "version": version}],
    }
    about = case(claims, vector=vector) if vector else case(claims)
    assert policy.apply(about, DirectEvaluator()).status is status
