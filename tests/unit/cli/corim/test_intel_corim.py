# SPDX-License-Identifier: Apache-2.0
"""`troth corim create` from trust domains and enclaves, and what `troth verify` makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.cli import Ran, run_cli
from support.intel import AUTHORITY, COLLATERAL, SGX_COLLATERAL, enclave, trust_domain
from support.vendor_evidence import CHALLENGE

AT = ("--at", "2026-11-25T12:00:00Z")
OTHER = b"\xee" * 48


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: run_cli(capsys, *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root.pem").write_bytes(AUTHORITY.root.public_bytes(Encoding.PEM))
    for name, documents in (("tdx", COLLATERAL), ("sgx", SGX_COLLATERAL)):
        (tmp_path / name).mkdir()
        for file, data in documents.items():
            (tmp_path / name / file).write_bytes(data)
    return tmp_path


def create(run: Any, folder: Path, attester: Any, *more: object) -> Ran:
    (folder / "evidence").write_bytes(attester.attest(CHALLENGE))
    given = ("--evidence", folder / "evidence", "--id", "image-1", "--out-dir", folder)
    known = ("--key", folder / "root.pem", "--collateral", folder / attester.scheme)
    return run("corim", "create", *given, *known, "--allow-simulator", *AT, *more)


def verify(run: Any, folder: Path, attester: Any) -> Any:
    (folder / "later").write_bytes(attester.attest(CHALLENGE))
    known = ("--trust-anchor", folder / "root.pem", "--collateral", folder / attester.scheme)
    ran = run(
        *("verify", folder / "later", "--nonce", CHALLENGE.hex(), *known, "--allow-simulator"),
        *("--reference-values", folder / "image-1.cbor", *AT, "--format", "json"),
    )
    return json.loads(ran.out)["status"]


@pytest.mark.parametrize(
    ("good", "same", "other"),
    [
        (trust_domain(), trust_domain(version="4"), trust_domain(fields={"rtmr3": OTHER})),
        (
            trust_domain(fields={"mr_config_id": OTHER}),
            trust_domain(fields={"mr_config_id": OTHER}),
            trust_domain(fields={"mr_config_id": b"\x11" * 48}),
        ),
        (enclave(), enclave(fields={"isv_svn": b"\6\0"}), enclave(fields={"isv_svn": b"\4\0"})),
        (enclave(), enclave(), enclave(fields={"mr_enclave": OTHER[:32]})),
    ],
)
def test_what_a_good_node_runs_is_affirmed_elsewhere_and_nothing_else_is(
    run: Any, folder: Path, good: Any, same: Any, other: Any
) -> None:
    ran = create(run, folder, good)
    assert ran.status == 0, ran.err
    assert verify(run, folder, same) == "affirming"
    assert verify(run, folder, other) == "warning"


def test_what_runs_after_boot_may_be_left_out(run: Any, folder: Path) -> None:
    assert create(run, folder, trust_domain(), "--leave-out", "rtmr3").status == 0
    assert verify(run, folder, trust_domain(fields={"rtmr3": OTHER})) == "affirming"
    assert verify(run, folder, trust_domain(fields={"rtmr2": OTHER})) == "warning"


@pytest.mark.parametrize(
    "attester",
    [
        trust_domain(fields={"td_attributes": b"\1\0\0\x10"}),
        enclave(fields={"attributes": b"\7"}),
    ],
)
def test_what_can_be_debugged_is_refused(run: Any, folder: Path, attester: Any) -> None:
    ran = create(run, folder, attester)
    assert ran.status == 3
    assert "can be debugged" in ran.err
    assert not (folder / "image-1.cbor").exists()
