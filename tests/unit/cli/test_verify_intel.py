# SPDX-License-Identifier: Apache-2.0
"""`troth verify` for SGX and TDX: collateral from a directory or a service, Intel's root, a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.cli import Ran, run_cli
from support.intel import (
    AUTHORITY,
    COLLATERAL,
    SGX_COLLATERAL,
    enclave,
    of_2023,
    of_2026,
    of_sgx,
    sgx_quote,
    tdx_collateral,
    trust_domain,
)
from support.vectors import vectors
from support.vendor_evidence import CHALLENGE
from troth.endorsement.intel_corim import sgx_corim, tdx_corim
from troth.evidence import sgx, tdx

AT = "2026-11-25T12:00:00Z"
QUOTE, SGX_QUOTE = trust_domain().attest(CHALLENGE), enclave().attest(CHALLENGE)


def write(folder: Path, documents: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in documents.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write(tmp_path / "collateral", COLLATERAL)
    write(tmp_path / "sgx-collateral", SGX_COLLATERAL)
    (tmp_path / "quote").write_bytes(QUOTE)
    (tmp_path / "sgx-quote").write_bytes(SGX_QUOTE)
    (tmp_path / "root.pem").write_bytes(AUTHORITY.root.public_bytes(Encoding.PEM))
    report = tdx.SCHEME.decode(QUOTE).report
    described = tdx_corim(
        corim_id="maker",
        mr_td=report.mr_td,
        rtmrs=(report.rtmr0, report.rtmr1, report.rtmr2, report.rtmr3),
        roots=[AUTHORITY.root],
    )
    (tmp_path / "tdx.corim").write_bytes(described.encode())
    own = sgx.SCHEME.decode(SGX_QUOTE).report
    described = sgx_corim(corim_id="maker", mr_enclave=own.mr_enclave, roots=[AUTHORITY.root])
    (tmp_path / "sgx.corim").write_bytes(described.encode())
    return tmp_path


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str], files: Path) -> Any:
    def run(name: str, *arguments: object, at: str = AT) -> Ran:
        given = ("--at", at, "--format", "json")
        path = name if name.startswith("/") else files / name
        return run_cli(capsys, "verify", path, *given, *arguments)

    return run


def report(ran: Ran) -> Any:
    return json.loads(ran.out)


SIMULATED = ("--allow-simulator", "--nonce", CHALLENGE.hex())


@pytest.mark.parametrize(
    ("name", "scheme", "collateral"),
    [("quote", "tdx", "collateral"), ("sgx-quote", "sgx", "sgx-collateral")],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_described_quote_is_affirmed_offline(
    verify: Any, files: Path, *, name: str, scheme: str, collateral: str, named: bool
) -> None:
    ran = verify(
        name,
        *SIMULATED,
        *(("--scheme", scheme) if named else ()),
        "--collateral",
        files / collateral,
        "--reference-values",
        files / f"{scheme}.corim",
    )
    assert ran.status == 0, ran.err
    assert (report(ran)["scheme"], report(ran)["status"]) == (scheme, "affirming")
    assert report(ran)["tier"] == "confidential"
    assert report(ran)["claims"][scheme]["tcb_status"] == "UpToDate"


def test_without_reference_values_it_is_authentic_and_not_affirmed(
    verify: Any, files: Path
) -> None:
    given = ("--collateral", files / "collateral", "--trust-anchor", files / "root.pem")
    ran = verify("quote", *SIMULATED, *given)
    assert ran.status == 1
    assert (report(ran)["authentic"], report(ran)["status"]) == (True, "warning")


def test_missing_collateral_is_told_apart_from_a_refusal(verify: Any, files: Path) -> None:
    ran = verify("quote", *SIMULATED, "--trust-anchor", files / "root.pem")
    assert ran.status == 2
    assert report(ran)["status"] == "none"
    assert "undecided: no collateral for platforms of FMSPC 90c06f000000" in ran.err
    forged = bytearray(QUOTE)
    forged[300] ^= 1
    (files / "forged").write_bytes(forged)
    ran = verify("forged", *SIMULATED, "--trust-anchor", files / "root.pem")
    assert ran.status == 2
    assert report(ran)["status"] == "contraindicated"
    assert "refused" in ran.err


def test_old_collateral_serves_within_a_grace(verify: Any, files: Path) -> None:
    given = (
        *SIMULATED,
        "--collateral",
        files / "collateral",
        "--reference-values",
        files / "tdx.corim",
    )
    late = "2026-12-21T00:00:00Z"
    ran = verify("quote", *given, at=late)
    assert (ran.status, report(ran)["status"]) == (2, "none")
    assert "the TCB info ran out 2026-12-20" in ran.err
    ran = verify("quote", *given, "--collateral-grace", 25, at=late)
    assert ran.status == 0, ran.err
    assert any(each["claim"] == "collateral_stale" for each in report(ran)["findings"])
    assert verify("quote", *given, "--collateral-grace", 24, at=late).status == 2


@pytest.mark.parametrize("nonce", [CHALLENGE[:32].hex(), bytes(64).hex(), CHALLENGE[:-1].hex()])
def test_another_nonce_is_refused(verify: Any, files: Path, nonce: str) -> None:
    given = ("--collateral", files / "collateral", "--trust-anchor", files / "root.pem")
    ran = verify("quote", "--allow-simulator", "--nonce", nonce, *given)
    assert ran.status == 2
    assert "report_data" in ran.err


def test_the_simulator_is_refused_unless_allowed(verify: Any, files: Path) -> None:
    given = ("--collateral", files / "collateral", "--trust-anchor", files / "root.pem")
    ran = verify("quote", *given)
    assert ran.status == 2
    assert "platform simulator" in ran.err


def test_real_quotes_verify_at_their_date(verify: Any, tmp_path: Path) -> None:
    folder = vectors("tdx") / "go-tdx-guest"
    ran = verify(
        str(folder / "quote_v5_sample.dat"),
        "--trust-vendor",
        "intel",
        "--collateral",
        write(tmp_path / "2026", of_2026()),
        at="2026-02-25T00:00:00Z",
    )
    assert ran.status == 1, ran.err
    assert report(ran)["claims"]["tdx"]["tcb_status"] == "UpToDate"
    (tmp_path / "real-sgx").write_bytes(sgx_quote())
    ran = verify(
        "real-sgx",
        "--trust-vendor",
        "intel",
        "--collateral",
        write(tmp_path / "2025", of_sgx()),
        at="2025-06-25T00:00:00Z",
    )
    assert ran.status == 1, ran.err
    assert report(ran)["insecure"] == []


def test_a_refused_platform_says_which_component_is_behind(
    verify: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = (vectors("tdx") / "go-tdx-guest" / "tdx_prod_quote_SPR_E4.dat").read_bytes()
    (tmp_path / "early").write_bytes(data[:4935])
    collateral = write(tmp_path / "2023", of_2023())
    given = ("--trust-vendor", "intel", "--collateral", collateral)
    ran = verify("early", *given, at="2023-07-01T00:00:00Z")
    assert ran.status == 1
    assert report(ran)["status"] == "contraindicated"
    (tmp_path / "verdict.json").write_text(ran.out)
    explained = run_cli(capsys, "explain", tmp_path / "verdict.json")
    for words in ("SEAMLDR ACM", "at least 3", "Early Microcode Update", "Update the machine"):
        assert words in explained.out, explained.out


@pytest.fixture
def service() -> Iterator[tuple[str, list[str]]]:
    """Play a PCCS on the loopback interface."""
    chain = quote(AUTHORITY.signing.public_bytes(Encoding.PEM).decode())
    documents = tdx_collateral()
    answers = {
        "/tdx/certification/v4/tcb?fmspc=90c06f000000": documents["tcbInfo"],
        "/tdx/certification/v4/qe/identity": documents["qeIdentity"],
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der": documents["pckcrl"],
        "/sgx/certification/v4/rootcacrl": documents["rootcrl"].hex().encode(),
    }
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = answers.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("TCB-Info-Issuer-Chain", chain)
            self.send_header("content-length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_missing_is_fetched_when_asked_and_kept(
    verify: Any, files: Path, service: tuple[str, list[str]]
) -> None:
    url, asked = service
    kept = files / "kept"
    kept.mkdir()
    given = (*SIMULATED, "--collateral", kept, "--reference-values", files / "tdx.corim")
    assert verify("quote", *given).status == 2
    assert asked == []
    fetch = ("--fetch-collateral", "--collateral-service", url)
    ran = verify("quote", *given, *fetch)
    assert ran.status == 0, ran.err
    assert len(asked) == len(list(kept.iterdir())) == 4
    assert verify("quote", *given).status == 0
    assert verify("quote", *given, *fetch).status == 0
    assert len(asked) == 4


def test_nothing_is_fetched_for_a_stranger(
    verify: Any, files: Path, service: tuple[str, list[str]]
) -> None:
    url, asked = service
    fetch = ("--fetch-collateral", "--collateral-service", url, "--collateral", files / "kept")
    (files / "kept").mkdir()
    forged = bytearray(QUOTE)
    forged[300] ^= 1
    (files / "forged").write_bytes(forged)
    assert verify("forged", *SIMULATED, *fetch, "--trust-anchor", files / "root.pem").status == 2
    assert verify("quote", *SIMULATED, *fetch, "--trust-vendor", "intel").status == 2
    assert asked == []


def test_a_service_goes_with_fetching(verify: Any) -> None:
    ran = verify("quote", "--collateral-service", "http://127.0.0.1:1")
    assert ran.status == 3
    assert "--fetch-collateral beside it" in ran.err
