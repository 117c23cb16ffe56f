# SPDX-License-Identifier: Apache-2.0
"""docs/reference/limits.md says what the code says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from troth.formats import limits
from troth.formats.limits import Limits

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "limits.md"
ROWS = re.findall(r"^\| `([\w.]+)\.(\w+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("module", "name", "value"), ROWS, ids=[row[1] for row in ROWS])
def test_a_documented_limit_has_the_value_of_the_code(module: str, name: str, value: str) -> None:
    actual = getattr(importlib.import_module(module), name)
    if isinstance(actual, Limits):
        parts = ("max_bytes", "max_items", "max_depth")
        actual = " ".join(f"{part}={getattr(actual, part)}" for part in parts)
    assert value == str(actual)


def test_every_limit_of_the_decoders_is_documented() -> None:
    documented = {name for module, name, _ in ROWS if module == "troth.formats.limits"}
    assert documented == set(limits.__all__) - {"Limits"}
