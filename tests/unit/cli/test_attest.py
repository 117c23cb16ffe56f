# SPDX-License-Identifier: Apache-2.0
"""`troth attest`: what it finds, and Evidence that troth verify takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.cli import run_cli
from troth.adapters import attesters
from troth.adapters.parsec import ENDPOINT_VARIABLE
from troth.evidence.simulator import PsaOptions, SimulatedPlatform, to_json

PLATFORM = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
NONCE = "ab" * PLATFORM.challenge_size


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a device file, on a machine without hardware of its own."""
    real = attesters.detect_hardware
    nowhere = tmp_path / "root"
    monkeypatch.setattr(attesters, "detect_hardware", lambda **_: real(root=nowhere))
    monkeypatch.setenv(ENDPOINT_VARIABLE, f"unix:{tmp_path}/none")
    path = tmp_path / "device.json"
    path.write_text(to_json(PLATFORM))
    return path


def test_evidence_is_written_that_the_verifier_takes(
    capsys: pytest.CaptureFixture[str], device: Path, tmp_path: Path
) -> None:
    path = tmp_path / "evidence"
    arguments = ["--attester", "simulator", "--device", device, "--nonce", NONCE, "-o", path]
    ran = run_cli(capsys, "attest", *arguments)
    assert (ran.status, ran.out) == (0, "")
    assert f"octets of psa Evidence, media type {PLATFORM.media_type}" in ran.err
    assert "INSECURE" in ran.err
    key = tmp_path / "iak.pem"
    key.write_text(PLATFORM.reference().public_key_pem)
    verified = run_cli(
        capsys, "verify", path, "--nonce", NONCE, "--trust-anchor", key, "--allow-simulator"
    )
    assert json.loads(verified.out)["authentic"]
    again = run_cli(capsys, "attest", *arguments)
    assert again.status == 3


def test_what_is_found_is_explained(capsys: pytest.CaptureFixture[str], device: Path) -> None:
    ran = run_cli(capsys, "attest", "--explain", "--device", device)
    assert ran.status == 0
    report = json.loads(ran.out)
    assert report["auto"] is None
    found = {each["kind"]: each for each in report["attesters"]}
    assert [kind for kind, each in found.items() if each["usable"]] == ["simulator"]
    assert found["simulator"]["challenge_octets"] == PLATFORM.challenge_size
    assert found["simulator"]["shows"].startswith("nothing")
    text = run_cli(capsys, "attest", "--explain", "--device", device, "--format", "text").out
    assert "tsm: not usable" in text
    assert "simulator: usable, psa" in text
    assert "auto finds nothing" in text


def test_a_machine_with_nothing_has_status_1(
    capsys: pytest.CaptureFixture[str], device: Path
) -> None:
    device.unlink()
    assert run_cli(capsys, "attest", "--explain").status == 1


def test_auto_does_not_take_the_simulator(
    capsys: pytest.CaptureFixture[str], device: Path, tmp_path: Path
) -> None:
    ran = run_cli(
        capsys, "attest", "--device", device, "--nonce", NONCE, "-o", tmp_path / "evidence"
    )
    assert ran.status == 2
    assert "no hardware that makes Evidence" in ran.err
    assert not (tmp_path / "evidence").exists()


def test_another_scheme_than_asked_for_is_not_made(
    capsys: pytest.CaptureFixture[str], device: Path, tmp_path: Path
) -> None:
    arguments = ["--attester", "simulator", "--device", device, "--nonce", NONCE]
    ran = run_cli(capsys, "attest", *arguments, "--scheme", "cca", "-o", tmp_path / "evidence")
    assert ran.status == 2
    assert "psa Evidence, not cca" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--nonce", NONCE],
        ["--explain", "--nonce", NONCE],
        ["--nonce", "abc", "-o", "never"],
        ["--attester", "simulator", "--nonce", "abcd", "-o", "never"],
        ["--attester", "sgx", "--nonce", NONCE, "-o", "never"],
        ["--registers", "24", "--explain"],
        ["--registers", "a", "--explain"],
    ],
)
def test_wrong_arguments_have_status_3(
    capsys: pytest.CaptureFixture[str], device: Path, arguments: list[str]
) -> None:
    assert run_cli(capsys, "attest", "--device", device, *arguments).status == 3
    assert not Path("never").exists()
