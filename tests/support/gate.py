# SPDX-License-Identifier: Apache-2.0
"""The gate's module, for tests that cannot do without it."""

from __future__ import annotations

import pytest

from troth.control_plane.gate import MODULE_PATH

__all__ = ["GATED", "need_gate"]

_WHY = "the gate's module is not built here: `make gate`"

GATED = pytest.mark.skipif(not MODULE_PATH.is_file(), reason=_WHY)
"""Marks a test that needs it."""


def need_gate() -> None:
    """Skip the test where the module is not built."""
    if not MODULE_PATH.is_file():
        pytest.skip(_WHY)
