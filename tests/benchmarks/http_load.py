# SPDX-License-Identifier: Apache-2.0
"""A load generator of its own: one process, plain sockets, as little work as possible per request.

`python -m benchmarks.http_load PORT SECONDS CONNECTIONS FILE` reads (nonce, Evidence) pairs from
FILE and runs whole verifications, session and submission, on each connection one after the other.
It prints one line of JSON. A library client would take a core for itself.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import msgspec

_PREFIX = "/challenge-response/v1"


class _Connection:
    """One connection and where it is in its verification."""

    def __init__(self, port: int, pairs: Iterator[tuple[bytes, bytes]]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs = pairs
        self._received = self._submission = b""
        self.begun = 0.0

    def begin(self) -> None:
        request, self._submission = next(self._pairs)
        self.begun = time.perf_counter()
        self.socket.sendall(request)

    def readable(self) -> bool:
        """Read what is there; say whether a verification is complete."""
        self._received += self.socket.recv(65536)
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._received[:end]
        size = int(_header(head, b"content-length"))
        if len(self._received) < end + 4 + size:
            return False
        body, self._received = self._received[end + 4 :], b""
        if head.startswith(b"HTTP/1.1 201"):
            self.socket.sendall(self._submission.replace(b"SESSION", _header(head, b"location"), 1))
            return False
        if not head.startswith(b"HTTP/1.1 200") or b'"complete"' not in body[:32]:
            raise SystemExit(f"not verified: {head[:64]!r} {body[:300]!r}")
        return True


def _header(head: bytes, name: bytes) -> bytes:
    # The server writes names in lower case.
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


def main() -> None:
    """Run, and print what was measured."""
    port, seconds, connections = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    pairs = cycle(_requests(Path(sys.argv[4])))
    selector = selectors.DefaultSelector()
    open_ones = [_Connection(port, pairs) for _ in range(connections)]
    for each in open_ones:
        selector.register(each.socket, selectors.EVENT_READ, each)
    took: list[float] = []
    warm = time.perf_counter() + min(1.0, seconds / 4)
    for each in open_ones:
        each.begin()
    begin = end = time.perf_counter()
    counted_from = 0
    while (now := time.perf_counter()) < begin + seconds:
        if now < warm:
            counted_from = len(took)
            end = now
        for key, _ in selector.select(timeout=1.0):
            if key.data.readable():
                took.append(time.perf_counter() - key.data.begun)
                key.data.begin()
    took = took[counted_from:]
    elapsed = time.perf_counter() - end
    cuts = statistics.quantiles(took, n=100)
    sys.stdout.write(
        json.dumps(
            {
                "per_second": len(took) / elapsed,
                "p50_ms": cuts[49] * 1000,
                "p99_ms": cuts[98] * 1000,
                "count": len(took),
                "cpu_seconds": time.process_time(),
            }
        )
    )


def _requests(path: Path) -> list[tuple[bytes, bytes]]:
    """Return the two requests of each verification; the second lacks its session."""
    found = msgspec.json.decode(path.read_bytes(), type=list[tuple[str, bytes, str]])
    requests = []
    for nonce, evidence, media_type in found:
        first = f"POST {_PREFIX}/newSession?nonce={nonce} HTTP/1.1\r\nHost: v\r\n\r\n"
        second = (
            f"POST {_PREFIX}/SESSION HTTP/1.1\r\nHost: v\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {len(evidence)}\r\n\r\n"
        )
        requests.append((first.encode(), second.encode() + evidence))
    return requests


if __name__ == "__main__":
    main()
