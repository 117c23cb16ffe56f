# SPDX-License-Identifier: Apache-2.0
"""Whole verifications over HTTP: two workers, a load generator beside them on the same cores."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Case, Row, Table
from support.appraisal import corims_of
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedPlatform
from troth.formats.base64url import encode_base64url

__all__ = ["verifier_api"]

_WORKERS = 2
_SECONDS = float(os.environ.get("BENCH_SECONDS", "8"))
_CONNECTIONS = 32
_DEVICES, _NONCES = 20, 25
_AIM_PER_SECOND = 2000.0


def verifier_api() -> list[Table]:
    """Measure PSA and CCA."""
    return [
        _measured("PSA", PsaOptions(), 32, aim=_AIM_PER_SECOND),
        _measured("CCA", CcaOptions(), 64, aim=None),
    ]


def _measured(
    name: str, options: PsaOptions | CcaOptions, size: int, *, aim: float | None
) -> Table:
    directory = Path(tempfile.mkdtemp(prefix="troth"))
    try:
        return _run(name, directory, options, size, aim)
    finally:
        shutil.rmtree(directory)


def _run(
    name: str, directory: Path, options: PsaOptions | CcaOptions, size: int, aim: float | None
) -> Table:
    devices = [SimulatedPlatform.create(options, random=os.urandom) for _ in range(_DEVICES)]
    load = directory / "load.json"
    load.write_bytes(
        msgspec.json.encode([_pair(each, size) for each in devices for _ in range(_NONCES)])
    )
    corims = []
    for number, device in enumerate(devices):
        for part, corim in enumerate(corims_of(device, corim_id=f"maker-{number}")):
            path = directory / f"{number}-{part}.cbor"
            path.write_bytes(corim.encode())
            corims.append(str(path))
    config = directory / "verifier.toml"
    config.write_text(_CONFIG.format(directory=directory, corims=json.dumps(corims)))
    command = [sys.executable, "-m", "troth", "verifier", "--stop-with-stdin", "--log-level"]
    command += ["error", "--config", str(config), "--workers", str(_WORKERS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as verifier:
        try:
            line = verifier.stdout.readline() if verifier.stdout else b""
            url = json.loads(line)["url"]
            workers = _children(verifier.pid)
            return _table(name, url, workers, load, aim)
        finally:
            if verifier.stdin:
                verifier.stdin.close()
            verifier.wait(30)


def _pair(device: SimulatedPlatform, size: int) -> tuple[str, bytes, str]:
    nonce = os.urandom(size)
    return encode_base64url(nonce), device.attest(nonce), device.media_type


def _table(name: str, url: str, workers: list[int], load: Path, aim: float | None) -> Table:
    before, begin = [_cpu_seconds(pid) for pid in workers], time.perf_counter()
    probe = _Probe(url)
    outcome = _generate(url, load)
    latencies = probe.stop()
    elapsed = time.perf_counter() - begin
    busy = [
        (_cpu_seconds(pid) - start) / elapsed * 100
        for pid, start in zip(workers, before, strict=True)
    ]
    case = Case(f"{name}: session and submission", lambda: None, aim_per_second=aim)
    signing, checking = _bare()
    facts = (
        (
            "time of one verification, p50 / p99",
            f"{outcome['p50_ms']:.1f} / {outcome['p99_ms']:.1f} ms",
        ),
        (
            "`/livez` meanwhile, p50 / p99",
            f"{_cut(latencies, 50):.1f} / {_cut(latencies, 99):.1f} ms of {len(latencies)}",
        ),
        ("cores used by the workers", ", ".join(f"{each:.0f} %" for each in busy)),
        (
            "core used by the load generator",
            f"{outcome['cpu_seconds'] / elapsed * 100:.0f} %",
        ),
        ("memory of the workers (PSS)", ", ".join(f"{_memory(pid):.0f} MB" for pid in workers)),
        (
            "the bare signatures alone, ES256, one core",
            f"{checking:,.0f} verified/s, {signing:,.0f} signed/s",
        ),
        ("connections", str(_CONNECTIONS)),
    )
    title = f"Verifier over HTTP, {_WORKERS} workers: {name}"
    return Table(title, (Row(case, outcome["per_second"], None),), facts)


class _Probe:
    """Asks for `/livez` now and then: whether the event loops answer under load."""

    def __init__(self, url: str) -> None:
        self._url, self._stopped, self._took = f"{url}/livez", threading.Event(), []
        self._took: list[float]
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stopped.wait(0.02):
            begin = time.perf_counter()
            with urllib.request.urlopen(self._url) as response:  # noqa: S310 - our own Verifier
                response.read()
            self._took.append((time.perf_counter() - begin) * 1000)

    def stop(self) -> list[float]:
        self._stopped.set()
        self._thread.join()
        return self._took


def _generate(url: str, load: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.http_load", url.rpartition(":")[2]]
    command += [str(_SECONDS), str(_CONNECTIONS), str(load)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run(command, check=True, capture_output=True, env=environment)
    outcome: dict[str, Any] = json.loads(ran.stdout)
    return outcome


def _bare() -> tuple[float, float]:
    """Return signatures and verifications of ES256 a second of one core."""
    key, scheme = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())
    signature, public = key.sign(b"x", scheme), key.public_key()

    def rate(work: Any) -> float:
        begin, count = time.thread_time(), 0
        while (spent := time.thread_time() - begin) < 0.3:
            work()
            count += 1
        return count / spent

    return rate(lambda: key.sign(b"x", scheme)), rate(
        lambda: public.verify(signature, b"x", scheme)
    )


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return (
        next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
    )


def _cut(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else 0.0


_CONFIG = """
data_dir = "{directory}/data"
listen = "127.0.0.1:0"
allow_simulator = true
corims = {corims}

[challenge_response]
requests_per_second = 1000000
request_burst = 1000000
total_requests_per_second = 1000000
total_request_burst = 1000000
"""
