# SPDX-License-Identifier: Apache-2.0
"""`troth verify` where keys are certified by a vendor: collateral, roots, vendors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.cli import Ran, run_cli
from support.kds import AUTHORITY, REPORT, fake_kds
from support.vectors import vectors
from support.vendor_evidence import CHALLENGE
from troth.endorsement.sev_snp_corim import sev_snp_corim
from troth.testing.nitro import SimulatedEnclave
from troth.testing.sev_snp import SimulatedSnpGuest

GUEST = SimulatedSnpGuest()
BARE = SimulatedSnpGuest(authority=GUEST.authority, key=GUEST.key, send_certificates=False)
ENCLAVE = SimulatedEnclave()
AT = "2026-11-25T12:00:00Z"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    collateral = tmp_path / "collateral"
    collateral.mkdir()
    (collateral / "vcek.der").write_bytes(GUEST.certificate.public_bytes(Encoding.DER))
    (collateral / "chain.pem").write_bytes(GUEST.authority.chain())
    (collateral / ".hidden").write_bytes(b"not read")
    (tmp_path / "ark.pem").write_bytes(GUEST.authority.ark.public_bytes(Encoding.PEM))
    (tmp_path / "report").write_bytes(BARE.report(CHALLENGE))
    (tmp_path / "evidence").write_bytes(GUEST.attest(CHALLENGE))
    (tmp_path / "document").write_bytes(ENCLAVE.attest(CHALLENGE))
    (tmp_path / "nitro.der").write_bytes(ENCLAVE.authority.root.public_bytes(Encoding.DER))
    corim = sev_snp_corim(
        corim_id="maker",
        measurement=b"\x11" * 48,
        policy=0x30000,
        minimum_tcb=GUEST.tcb_version.value,
        roots=[GUEST.authority.ark],
    )
    (tmp_path / "guest.corim").write_bytes(corim.encode())
    return tmp_path


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str], files: Path) -> Any:
    def run(name: str, *arguments: object) -> Ran:
        given = ("--at", AT, "--allow-simulator", "--format", "json", "--nonce", CHALLENGE.hex())
        return run_cli(capsys, "verify", files / name, *given, *arguments)

    return run


def report(ran: Ran) -> Any:
    return json.loads(ran.out)


def test_a_report_alone_verifies_with_a_directory_and_a_root(verify: Any, files: Path) -> None:
    ran = verify(
        "report",
        "--collateral",
        files / "collateral",
        "--trust-anchor",
        files / "ark.pem",
        "--reference-values",
        files / "guest.corim",
    )
    assert ran.status == 0, ran.err
    assert report(ran)["status"] == "affirming"
    assert report(ran)["tier"] == "confidential"


def test_the_root_may_come_from_the_corim(verify: Any, files: Path) -> None:
    ran = verify("evidence", "--reference-values", files / "guest.corim")
    assert ran.status == 0, ran.err


def test_what_is_authentic_and_not_described_is_not_affirmed(verify: Any, files: Path) -> None:
    ran = verify("evidence", "--trust-anchor", files / "ark.pem")
    assert ran.status == 1
    assert report(ran)["authentic"] is True


def test_a_missing_certificate_is_told_apart_from_a_refusal(verify: Any, files: Path) -> None:
    ran = verify("report", "--trust-anchor", files / "ark.pem")
    assert ran.status == 2
    assert report(ran)["status"] == "none"
    assert "no VCEK certificate of chip" in ran.err
    assert "Key Distribution Service" in ran.err


def test_a_root_that_is_not_believed_is_refused(verify: Any, files: Path) -> None:
    for more in ((), ("--trust-vendor", "amd"), ("--trust-anchor", files / "nitro.der")):
        ran = verify("evidence", *more)
        assert ran.status == 2
        assert report(ran)["status"] == "contraindicated"
        assert "is a trust anchor" in ran.err


def test_a_document_verifies_with_its_root(verify: Any, files: Path) -> None:
    ran = verify("document", "--trust-anchor", files / "nitro.der", "--scheme", "nitro")
    assert ran.status == 1
    assert report(ran)["scheme"] == "nitro"
    ran = verify("document", "--trust-vendor", "aws")
    assert ran.status == 2
    assert "--trust-vendor aws" in ran.err


def test_the_simulator_is_refused_unless_allowed(
    capsys: pytest.CaptureFixture[str], files: Path
) -> None:
    for name, root in (("evidence", "ark.pem"), ("document", "nitro.der")):
        ran = run_cli(capsys, "verify", files / name, "--at", AT, "--trust-anchor", files / root)
        assert ran.status == 2
        assert "platform simulator" in ran.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--collateral", "none"), "a readable directory"),
        (("--trust-vendor", "intelligence"), "intelligence"),
        (("--fetch-collateral",), "--collateral DIR"),
    ],
)
def test_wrong_usage_is_told(verify: Any, arguments: tuple[str, ...], problem: str) -> None:
    ran = verify("evidence", *arguments)
    assert ran.status == 3
    assert problem in ran.err


def test_only_schemes_with_a_service_are_fetched_for(verify: Any, files: Path) -> None:
    ran = verify("document", "--collateral", files / "collateral", "--fetch-collateral")
    assert ran.status == 3
    assert "Evidence of sev_snp, sgx or tdx" in ran.err


def test_a_directory_with_far_too_much_is_refused(verify: Any, files: Path) -> None:
    for index in range(65):
        (files / "collateral" / str(index)).write_bytes(b"")
    ran = verify("evidence", "--collateral", files / "collateral")
    assert ran.status == 3
    assert "at most 64 files" in ran.err


def test_published_evidence_verifies_by_the_name_of_its_vendor(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    snp, nitro = vectors("sev-snp") / "trustee", vectors("nitro") / "evervault"
    for name in ("test-vcek.der", "milan_ask_ark_asvk.pem"):
        (tmp_path / name).write_bytes((snp / name).read_bytes())
    ran = run_cli(
        capsys,
        "verify",
        snp / "test-report.bin",
        *("--collateral", tmp_path, "--trust-vendor", "amd", "--at", "2024-01-01T00:00:00Z"),
        *("--format", "text"),
    )
    assert ran.status == 1
    assert "authentic, but not as described" in ran.out
    document = nitro / "valid-attestation-doc-bytes"
    given = ("--trust-vendor", "aws", "--at", "2022-10-13T09:00:00Z", "--format", "text")
    assert run_cli(capsys, "verify", document, *given).status == 1
    today = run_cli(capsys, "verify", document, *given[:2])
    assert today.status == 2
    assert "give the time that it is from" in today.err


def test_what_is_missing_is_fetched_when_asked_for_and_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "report").write_bytes(REPORT)
    (tmp_path / "ark.pem").write_bytes(AUTHORITY.ark.public_bytes(Encoding.PEM))
    kept = tmp_path / "kept"
    kept.mkdir()
    given = (
        *("verify", tmp_path / "report", "--trust-anchor", tmp_path / "ark.pem", "--at", AT),
        *("--allow-simulator", "--collateral", kept, "--format", "json"),
    )
    assert run_cli(capsys, *given).status == 2
    with fake_kds() as kds:
        service = ("--fetch-collateral", "--collateral-service", kds.url)
        ran = run_cli(capsys, *given, *service)
        assert ran.status == 1, ran.err
        assert json.loads(ran.out)["claims"]["sev_snp"]["revocation"] == "current"
        assert len(kds.asked) == 3
    assert run_cli(capsys, *given).status == 1


@pytest.mark.parametrize(
    ("name", "label", "claim"),
    [("evidence", "sev_snp", "measurement"), ("document", "nitro", "module_id")],
)
def test_explain_shows_what_the_evidence_says(
    capsys: pytest.CaptureFixture[str], files: Path, name: str, label: str, claim: str
) -> None:
    ran = run_cli(capsys, "explain", files / name, "--format", "json")
    assert ran.status == 0
    assert claim in json.loads(ran.out)["claims"][label]
