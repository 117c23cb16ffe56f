# SPDX-License-Identifier: Apache-2.0
"""The wheel carries the gate; the source distribution builds it with a C compiler alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "troth/control_plane/gate/libtroth_gate.so"


def build(source: Path, target: str, directory: Path, **environment: str) -> Path:
    before = set(directory.glob("*"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", directory],
        cwd=source,
        env=os.environ | environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (made,) = set(directory.glob("*")) - before
    return made


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None or shutil.which("make") is None:
        pytest.skip("the gate needs a C compiler (cc) and make to be built")
    directory = tmp_path_factory.mktemp("sdist")
    archive = build(ROOT, "sdist", directory)
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    return directory / archive.name.removesuffix(".tar.gz")


def test_the_source_distribution_has_the_sources_and_no_binary(unpacked: Path) -> None:
    assert (unpacked / "native" / "gate" / "filter.c").exists()
    assert list(unpacked.rglob("*.so")) == []


def test_the_wheel_carries_the_gate_and_names_its_platform(unpacked: Path, tmp_path: Path) -> None:
    wheel = build(unpacked, "wheel", tmp_path)
    assert "-py3-none-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(MODULE).startswith(b"\x7fELF")


def test_a_wheel_without_the_gate_is_possible_and_pure(unpacked: Path, tmp_path: Path) -> None:
    shutil.rmtree(unpacked / "build", ignore_errors=True)
    (unpacked / "src" / MODULE).unlink(missing_ok=True)
    wheel = build(unpacked, "wheel", tmp_path, TROTH_WITHOUT_GATE="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert MODULE not in archive.namelist()
