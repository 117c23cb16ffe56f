# SPDX-License-Identifier: Apache-2.0
"""`troth attest` on a TPM that is not ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import run_cli
from support.swtpm import started_swtpm

NONCE = "ab" * 32


def test_a_tpm_is_explained_and_then_attests_with_a_key_that_it_keeps(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = tmp_path / "ak.json"
    with started_swtpm() as swtpm:
        options = ["--tcti", swtpm.tcti, "--state", state]
        explained = run_cli(capsys, "attest", "--explain", *options)
        assert not state.exists()
        for name in ("first", "second"):
            ran = run_cli(
                capsys,
                *("attest", "--attester", "tpm", *options, "--registers", "0,1,2"),
                *("--nonce", NONCE, "-o", tmp_path / name),
            )
            assert ran.status == 0, ran.err
    found = {each["kind"]: each for each in json.loads(explained.out)["attesters"]}
    assert (found["tpm"]["usable"], found["tpm"]["scheme"]) == (True, "tpm2")
    key = json.loads(state.read_text())["public"]
    assert all(bytes.fromhex(key)[2:] in (tmp_path / n).read_bytes() for n in ("first", "second"))
    parts = json.loads(run_cli(capsys, "explain", tmp_path / "first").out)
    assert parts["kind"] == "evidence"
