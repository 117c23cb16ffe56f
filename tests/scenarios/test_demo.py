# SPDX-License-Identifier: Apache-2.0
"""The demo as its user runs it: a process of its own, from a directory with a space in its name."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from support.gate import GATED
from support.waiting import until

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(150)]


def children_of(marker: str) -> list[str]:
    """Command lines of processes that carry `marker` in their arguments or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if (
                marker.encode() in text
                and (entry / "stat").read_text().split(")")[-1].split()[0] != "Z"
            ):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


async def start(directory: Path, marker: str, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "troth", "demo", "--report-dir", str(directory), *options),
        cwd=directory,
        env={**os.environ, "TROTH_DEMO_MARK": marker},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def views(direction: dict[str, Any]) -> list[dict[str, Any]]:
    return [direction["client_saw"], direction["server_saw"]]


@GATED
async def test_everything_happens_and_the_report_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "a report"
    directory.mkdir()
    process = await start(directory, marker := f"demo-{os.getpid()}-whole")
    out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()
    report = json.loads((directory / "report.json").read_text())
    assert report["passed"] is True
    called, back, mixed, rescued = report["directions"]
    assert {view["binding"] for d in (called, back) for view in views(d)} == {"key"}
    assert [view["scheme"] for view in views(called)] == ["psa", "cca"]
    assert [view["scheme"] for view in views(back)] == ["cca", "psa"]
    for pair in (mixed, rescued):
        state, identity = views(pair)
        assert (state["status"], state["binding"]) == ("affirming", "key")
        assert (identity["status"], identity["tier"]) == ("none", "")
        assert identity["spiffe_id"] == "spiffe://demo.example/node/cloud"
    assert rescued["client_saw"]["fresh"] is True
    assert rescued["client_saw"]["result_age_seconds"] < 8
    finding = report["refusals"][0]["findings"][0]
    assert "bad0" in finding["actual"]
    assert all(finding[name] for name in ("claim", "expected", "rule", "remedy"))
    assert {end["what"] for end in report["withdrawal"]["ends"]} == {
        "HTTP stream",
        "raw TCP",
        "pooled TLS connection",
    }
    assert "platform simulator" in (directory / "report.html").read_text()
    assert children_of(marker) == []


async def test_without_the_gate_certificates_alone_carry_results(tmp_path: Path) -> None:
    process = await start(tmp_path, f"demo-{os.getpid()}-plain", "--no-gate")
    out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["directions"]) == 2
    assert {v["binding"] for d in report["directions"] for v in views(d)} == {"credential"}


@GATED
@pytest.mark.parametrize("words", ["starting", "two nodes attest", "cloud calls edge"])
async def test_ctrl_c_leaves_no_process_behind(tmp_path: Path, words: str) -> None:
    marker = f"demo-{os.getpid()}-{words.replace(' ', '-')}"
    process = await start(tmp_path, marker)
    assert process.stdout is not None
    while words not in (line := (await process.stdout.readline()).decode()):
        assert line, "the demo ended before it came so far"
    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)  # people press it twice
    _, err = await process.communicate()
    # The second may come when everything is over and Python itself is about to end.
    assert process.returncode in (130, -signal.SIGINT)
    assert process.returncode < 0 or b"Traceback" not in err
    await until(lambda: not children_of(marker), seconds=10, interval=0.1)


@GATED
async def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    marker = f"demo-{os.getpid()}-killed"
    process = await start(tmp_path, marker)
    assert process.stdout is not None
    while "cloud calls edge" not in (line := (await process.stdout.readline()).decode()):
        assert line, "the demo ended before it came so far"
    process.kill()
    await process.communicate()
    await until(lambda: not children_of(marker), seconds=20, interval=0.1)
