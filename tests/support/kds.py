# SPDX-License-Identifier: Apache-2.0
"""AMD's Key Distribution Service, played by a server on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

from cryptography.hazmat.primitives.serialization import Encoding

from support.vendor_evidence import CHALLENGE, NOW
from troth.evidence.collateral_source import CollateralRequest
from troth.evidence.sev_snp.evidence import decode
from troth.evidence.sev_snp.kds import wanted
from troth.testing.sev_snp import SimulatedSnpGuest

GUEST = SimulatedSnpGuest(send_certificates=False)
AUTHORITY = GUEST.authority
REPORT = GUEST.report(CHALLENGE)
REQUESTS = wanted(decode(REPORT))
VCEK, CHAIN, CRL = REQUESTS
DAY = timedelta(days=1)


@dataclass
class FakeKds:
    """What the service answers, by path, and what it was asked."""

    url: str
    answers: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def serve(self, request: CollateralRequest, content: bytes) -> None:
        self.answers[request.path] = (200, content, {})

    def refuse(self, request: CollateralRequest, status: int, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[request.path] = (status, b"<html>no</html>", named)


@contextmanager
def fake_kds() -> Iterator[FakeKds]:
    """Serve what a guest's chip needs, on the loopback interface."""

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
    fake = FakeKds(f"http://127.0.0.1:{server.server_port}")
    fake.serve(VCEK, GUEST.certificate.public_bytes(Encoding.DER))
    fake.serve(CHAIN, AUTHORITY.chain())
    fake.serve(CRL, AUTHORITY.revocations(made=NOW - DAY, next_update=NOW + DAY))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
