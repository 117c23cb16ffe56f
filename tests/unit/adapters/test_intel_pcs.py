# SPDX-License-Identifier: Apache-2.0
"""Intel's service, and a PCCS, played by a server on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.intel import AUTHORITY, COLLATERAL, tdx_collateral, trust_domain, verify_tdx
from support.vendor_evidence import CHALLENGE, NOW
from troth.adapters.intel_pcs import PCS_URL, ROOT_LIST_URL, IntelPcs
from troth.errors import CollateralError, UnavailableError
from troth.evidence.collateral_source import CollateralRequest
from troth.evidence.context import Collateral
from troth.evidence.intel.pcs import requests_for
from troth.testing.intel_authority import MADE, NEXT_UPDATE

QUOTE = trust_domain().attest(CHALLENGE)
WANTED = CollateralError(
    "none", vendor="intel", wanted={"tee": "tdx", "fmspc": "90c06f000000", "ca": "platform"}
)
REQUESTS = requests_for(WANTED)
TCB, QE, PCK_LIST, ROOT_LIST = REQUESTS
DAY = timedelta(days=1)
CHAIN = quote(
    (
        AUTHORITY.signing.public_bytes(Encoding.PEM) + AUTHORITY.root.public_bytes(Encoding.PEM)
    ).decode()
)


class FixedClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> object:
        raise AssertionError

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class FakePcs:
    """What the service answers, by path, and what it was asked."""

    url: str
    answers: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def serve(self, documents: dict[str, bytes], *, chain: str = CHAIN) -> None:
        self.answers = {
            TCB.path: (200, documents["tcbInfo"], {"TCB-Info-Issuer-Chain": chain}),
            QE.path: (200, documents["qeIdentity"], {"SGX-Enclave-Identity-Issuer-Chain": chain}),
            PCK_LIST.path: (200, documents["pckcrl"], {"SGX-PCK-CRL-Issuer-Chain": chain}),
            ROOT_LIST.path: (200, documents["rootcrl"].hex().encode(), {}),
        }


@pytest.fixture
def pcs() -> Iterator[FakePcs]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.asked.append(self.path)
            status, content, headers = fake.answers.get(self.path, (404, b"", {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    fake = FakePcs(f"http://127.0.0.1:{server.server_port}")
    fake.serve(COLLATERAL)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def client(pcs: FakePcs, clock: FixedClock, tmp_path: Path) -> IntelPcs:
    return IntelPcs(tmp_path / "kept", base_url=pcs.url, clock=clock, timeout_seconds=5.0)


def fetch(client: IntelPcs, now: object = NOW) -> dict[str, bytes]:
    return dict(client.fetch(REQUESTS, now=now).documents)  # type: ignore[arg-type]


def test_what_is_fetched_for_a_quote_verifies_it(client: IntelPcs, pcs: FakePcs) -> None:
    with pytest.raises(CollateralError) as caught:
        verify_tdx(QUOTE, collateral={})
    assert requests_for(caught.value) == REQUESTS
    documents = fetch(client)
    assert pcs.asked == [request.path for request in REQUESTS]
    verify_tdx(QUOTE, collateral=documents)


def test_the_service_is_intels_unless_said_otherwise(tmp_path: Path, pcs: FakePcs) -> None:
    own = IntelPcs(tmp_path)
    assert own.base_url == PCS_URL == "https://api.trustedservices.intel.com"
    assert own.url(TCB) == f"{PCS_URL}/tdx/certification/v4/tcb?fmspc=90c06f000000"
    assert own.url(ROOT_LIST) == ROOT_LIST_URL
    cache = IntelPcs(tmp_path, base_url=pcs.url)
    assert cache.url(ROOT_LIST) == f"{pcs.url}/sgx/certification/v4/rootcacrl"


def test_what_is_kept_verifies_offline(client: IntelPcs, pcs: FakePcs) -> None:
    first = fetch(client)
    pcs.asked.clear()
    assert fetch(client, NOW + timedelta(hours=24)) == first
    assert pcs.asked == []
    kept = {path.name: path.read_bytes() for path in client.directory.iterdir()}
    verify_tdx(QUOTE, collateral=kept)
    gone = IntelPcs(client.directory, base_url="http://127.0.0.1:1")
    assert dict(gone.fetch(REQUESTS, now=NOW).documents) == first


def test_what_is_kept_is_asked_for_again_after_a_day(client: IntelPcs, pcs: FakePcs) -> None:
    fetch(client)
    newer = tdx_collateral(made=NOW)
    pcs.serve(newer)
    pcs.asked.clear()
    fetched = fetch(client, NOW + timedelta(hours=24, seconds=1))
    assert len(pcs.asked) == 4
    assert fetched[PCK_LIST.name] == newer["pckcrl"]


def test_what_has_run_out_is_asked_for_at_once(client: IntelPcs, pcs: FakePcs) -> None:
    early = MADE + timedelta(hours=1)
    pcs.serve(tdx_collateral(next_update=early))
    fetch(client, MADE)
    pcs.serve(COLLATERAL)
    pcs.asked.clear()
    documents = fetch(client, early)
    assert len(pcs.asked) == 4
    verify_tdx(QUOTE, collateral=documents, now=early)


def test_where_the_service_is_down_the_last_state_is_returned(
    client: IntelPcs, pcs: FakePcs, clock: FixedClock
) -> None:
    first = fetch(client)
    pcs.answers.clear()
    clock.seconds += 3600
    documents = fetch(client, NEXT_UPDATE)
    assert documents == first
    with pytest.raises(CollateralError, match="out of date"):
        verify_tdx(QUOTE, collateral=documents, now=NEXT_UPDATE)
    verify_tdx(QUOTE, collateral=documents, now=NEXT_UPDATE, grace=DAY)


def test_a_fetched_document_replaces_one_at_hand_that_has_run_out(client: IntelPcs) -> None:
    stale = Collateral({TCB.name: tdx_collateral(next_update=NOW - DAY)["tcbInfo"]})
    both = stale.with_documents(fetch(client))
    verify_tdx(QUOTE, collateral=dict(both.documents))


def test_a_processor_that_intel_does_not_know_is_said_so(client: IntelPcs, pcs: FakePcs) -> None:
    pcs.answers.clear()
    with pytest.raises(UnavailableError, match=r"FMSPC 90c06f000000 .*answered 404") as caught:
        fetch(client)
    assert "does not know this kind of processor" in caught.value.remedy
    assert not client.directory.exists()


def test_what_can_be_had_is_returned_without_the_rest(client: IntelPcs, pcs: FakePcs) -> None:
    del pcs.answers[QE.path]
    documents = fetch(client)
    assert QE.name not in documents
    with pytest.raises(CollateralError, match="TD_QE"):
        verify_tdx(QUOTE, collateral=documents)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>maintenance</html>",
        b"{}",
        b'{"tcbInfo": {}}',
        AUTHORITY.root.public_bytes(Encoding.PEM),
    ],
)
def test_a_page_that_is_no_document_is_not_kept(
    client: IntelPcs, pcs: FakePcs, content: bytes
) -> None:
    pcs.answers[TCB.path] = (200, content, {"TCB-Info-Issuer-Chain": CHAIN})
    assert TCB.name not in fetch(client)
    assert not (client.directory / TCB.name).exists()


def test_a_damaged_kept_document_is_asked_for_again(client: IntelPcs, pcs: FakePcs) -> None:
    fetch(client)
    (client.directory / TCB.name).write_bytes(b"half")
    pcs.asked.clear()
    assert fetch(client)[TCB.name] != b"half"
    assert pcs.asked == [TCB.path]


def test_an_answer_without_its_signers_certificate_needs_one_at_hand(
    client: IntelPcs, pcs: FakePcs
) -> None:
    pcs.serve(COLLATERAL, chain="")
    documents = fetch(client)
    with pytest.raises(CollateralError, match="Issuer-Chain"):
        verify_tdx(QUOTE, collateral=documents)
    signing = AUTHORITY.signing.public_bytes(Encoding.PEM)
    verify_tdx(QUOTE, collateral={**documents, "signing.pem": signing})


def test_a_header_of_somebody_elses_certificates_gains_nothing(
    client: IntelPcs, pcs: FakePcs
) -> None:
    pcs.serve(
        COLLATERAL, chain=quote("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
    )
    with pytest.raises(CollateralError, match="none of the 0 certificates"):
        verify_tdx(QUOTE, collateral=fetch(client))


def test_a_fleet_of_many_kinds_does_not_flood_the_service(
    client: IntelPcs, pcs: FakePcs, clock: FixedClock
) -> None:
    many = [
        CollateralRequest(name=f"{index}.crl", path=PCK_LIST.path, description="x", changes=True)
        for index in range(40)
    ]
    assert len(client.fetch(many, now=NOW).documents) == len(pcs.asked) == 16
    clock.seconds += 3
    assert len(client.fetch(many, now=NOW).documents) == 19
