# SPDX-License-Identifier: Apache-2.0
"""`troth corim create` from guests and enclaves, and what `troth verify` makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.cli import Ran, run_cli
from support.vendor_evidence import CHALLENGE
from troth.testing.nitro import SimulatedEnclave
from troth.testing.sev_snp import SimulatedSnpGuest

GUEST = SimulatedSnpGuest()
ENCLAVE = SimulatedEnclave()
AT = ("--at", "2026-11-25T12:00:00Z")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: run_cli(capsys, *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    roots = {"ark.pem": GUEST.authority.ark, "nitro.pem": ENCLAVE.authority.root}
    for name, root in roots.items():
        (tmp_path / name).write_bytes(root.public_bytes(Encoding.PEM))
    return tmp_path


def create(run: Any, folder: Path, attester: Any, root: str, *more: object) -> Ran:
    (folder / "evidence").write_bytes(attester.attest(CHALLENGE))
    given = ("--evidence", folder / "evidence", "--id", "image-1", "--out-dir", folder)
    return run(
        *("corim", "create", *given, "--key", folder / root, "--allow-simulator", *AT, *more)
    )


def verify(run: Any, folder: Path, attester: Any, root: str) -> Any:
    (folder / "later").write_bytes(attester.attest(CHALLENGE))
    ran = run(
        *("verify", folder / "later", "--nonce", CHALLENGE.hex(), "--trust-anchor", folder / root),
        *("--reference-values", folder / "image-1.cbor", "--allow-simulator", *AT),
        *("--format", "json"),
    )
    return json.loads(ran.out)["status"]


@pytest.mark.parametrize(
    ("nodes", "root"),
    [
        (
            (
                GUEST,
                GUEST.with_fields(report_id=b"\x44" * 32),
                GUEST.with_fields(policy=0x20000),
            ),
            "ark.pem",
        ),
        (
            (
                GUEST.with_fields(vmpl=2, host_data=b"h" * 32, id_key_digest=b"k" * 48),
                GUEST.with_fields(vmpl=2, host_data=b"h" * 32, id_key_digest=b"k" * 48),
                GUEST.with_fields(vmpl=2, host_data=b"i" * 32, id_key_digest=b"k" * 48),
            ),
            "ark.pem",
        ),
        (
            (
                ENCLAVE,
                replace(ENCLAVE, pcrs={**ENCLAVE.pcrs, 3: b"x" * 48, 4: b"y" * 48}),
                replace(ENCLAVE, pcrs={**ENCLAVE.pcrs, 8: b"x" * 48}),
            ),
            "nitro.pem",
        ),
    ],
    ids=["guest", "guest with all", "enclave"],
)
def test_what_a_good_node_runs_is_affirmed_elsewhere_and_nothing_else_is(
    run: Any, folder: Path, nodes: tuple[Any, Any, Any], root: str
) -> None:
    good, same, other = nodes
    ran = create(run, folder, good, root)
    assert ran.status == 0, ran.err
    assert "platform simulator" in ran.err
    assert verify(run, folder, same, root) == "affirming"
    assert verify(run, folder, other, root) == "warning"


def test_an_older_firmware_than_the_good_nodes_is_not_affirmed(run: Any, folder: Path) -> None:
    create(run, folder, GUEST, "ark.pem")
    newer = replace(GUEST, tcb={**GUEST.tcb, "snp": 25})
    older = replace(GUEST, tcb={**GUEST.tcb, "snp": 23})
    assert verify(run, folder, newer, "ark.pem") == "affirming"
    assert verify(run, folder, older, "ark.pem") == "warning"


def test_the_hosts_data_may_be_left_out(run: Any, folder: Path) -> None:
    with_data = GUEST.with_fields(host_data=b"h" * 32)
    assert create(run, folder, with_data, "ark.pem", "--leave-out", "host-data").status == 0
    assert verify(run, folder, GUEST, "ark.pem") == "affirming"


@pytest.mark.parametrize(
    ("attester", "root"),
    [
        (GUEST.with_fields(policy=0xB0000), "ark.pem"),
        (replace(ENCLAVE, pcrs={**ENCLAVE.pcrs, 0: bytes(48)}), "nitro.pem"),
    ],
)
def test_what_can_be_debugged_is_not_made_a_reference(
    run: Any, folder: Path, attester: Any, root: str
) -> None:
    ran = create(run, folder, attester, root)
    assert ran.status == 3
    assert "can be debugged" in ran.err
    assert not (folder / "image-1.cbor").exists()


def test_evidence_is_verified_unless_that_is_waived(run: Any, folder: Path) -> None:
    ran = create(run, folder, GUEST, "nitro.pem")
    assert ran.status == 2
    assert "is a trust anchor" in ran.err
    given = ("corim", "create", "--evidence", folder / "evidence", "--id", "image-1")
    assert run(*given, "--out-dir", folder, "--trust-vendor", "amd", *AT).status == 2
    ran = run(*given, "--out-dir", folder)
    assert ran.status == 3
    assert "--trust-vendor" in ran.err
    ran = run(*given, "--out-dir", folder, "--unverified")
    assert ran.status == 0
    assert "not verified" in ran.err
