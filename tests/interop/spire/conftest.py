# SPDX-License-Identifier: Apache-2.0
"""These tests are for `make test-interop` alone: they build SPIRE, which takes minutes."""

from __future__ import annotations

import os
import shutil

import pytest

from support.spire import build_spire, versions

if not os.environ.get("TROTH_INTEROP"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _spire() -> None:
    if shutil.which("go") is None:
        pytest.skip("the go command is not installed: SPIRE is built with it")
    build_spire()


def pytest_report_header() -> str:
    return versions() if os.environ.get("TROTH_INTEROP") and shutil.which("go") else ""
