# SPDX-License-Identifier: Apache-2.0
"""The gate outside Envoy: its interface, its size, its parsers, and a host with sanitizers."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from native.check_abi import Interface, embedded_types, problems
from native.stock_envoy import GATE_SOURCE

SOURCES = sorted([*GATE_SOURCE.glob("*.c"), *GATE_SOURCE.glob("*.h")])
FUZZ_ITERATIONS = os.environ.get("TROTH_GATE_FUZZ_ITERATIONS", "60000")
HOST_PAIRS = os.environ.get("TROTH_GATE_HOST_PAIRS", "1500")
SANITIZERS = {"address": "address,undefined", "thread": "thread"}


def build(target: Path, sanitizer: str, *sources: str) -> Path:
    """Compile a test program with a sanitizer; skip where the compiler has none."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here (cc)")
    flags = [f"-fsanitize={SANITIZERS[sanitizer]}", "-fno-sanitize-recover=all", "-g", "-O1"]
    probe = subprocess.run(
        ["cc", *flags, "-x", "c", "-", "-o", target],
        input=b"int main(void) { return 0; }",
        capture_output=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip(f"this compiler has no {sanitizer} sanitizer")
    warnings = ["-Wall", "-Wextra", "-Werror"]
    files = [GATE_SOURCE / name for name in sources]
    subprocess.run(
        ["cc", "-std=c11", "-D_GNU_SOURCE", "-pthread", *flags, *warnings, *files, "-o", target],
        check=True,
        timeout=120,
    )
    return target


def run(*command: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1 second_deadlock_stack=1"}
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=7200,
        env=environment,
        check=False,
    )


def test_hooks_and_callbacks_are_those_of_the_envoy_binary(envoy_binary: Path) -> None:
    assert problems(envoy_binary) == []


def test_a_hook_of_another_type_or_a_missing_callback_is_found(envoy_binary: Path) -> None:
    interface = Interface()
    interface.hooks["network_filter_read"] = "void (*)(void *, long)"
    interface.hooks["network_filter_no_such_hook"] = "void (*)(const void *)"
    interface.callbacks.add("envoy_dynamic_module_callback_no_such_callback")
    found = " ".join(problems(envoy_binary, interface))
    assert "no_such_callback is not exported" in found
    assert "no hook network_filter_no_such_hook" in found
    with (
        envoy_binary.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        if not embedded_types(mapped):
            pytest.skip("this Envoy does not embed the types of its hooks; 1.40 and later do")
    assert "hook network_filter_read: no hook has the type" in found


def test_the_module_needs_libc_alone_and_exports_hooks_alone(gate_module: Path) -> None:
    dynamic = run("readelf", "--dynamic", gate_module).stdout
    assert set(re.findall(r"NEEDED.*\[(.+)\]", dynamic)) <= {"libc.so.6", "libpthread.so.0"}
    assert "NODELETE" in dynamic  # its thread outlives any configuration
    defined = run("nm", "--dynamic", "--defined-only", gate_module).stdout.split()[2::3]
    assert {f"envoy_dynamic_module_on_{name}" for name in Interface().hooks} == set(defined)


def test_the_gate_is_small() -> None:
    code = [
        line
        for path in SOURCES
        for line in path.read_text().splitlines()
        if line.strip() and not line.strip().startswith("//")
    ]
    assert len(code) < 1000


def test_every_source_names_its_licence() -> None:
    for path in [*SOURCES, *GATE_SOURCE.glob("test/*.c")]:
        assert path.read_text().startswith("// SPDX-License-Identifier: Apache-2.0\n"), path


def test_damaged_frames_and_records_are_refused_within_bounds(tmp_path: Path) -> None:
    fuzz = build(tmp_path / "fuzz", "address", "test/fuzz.c", "protocol.c")
    outcome = run(fuzz, 1, FUZZ_ITERATIONS)
    assert outcome.returncode == 0, outcome.stderr[-4000:]


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_the_gate_survives_a_hostile_host(tmp_path: Path, sanitizer: str) -> None:
    sources = ("test/host.c", "protocol.c", "link.c", "filter.c")
    host = build(tmp_path / "host", sanitizer, *sources)
    seed = os.environ.get("TROTH_GATE_SEED", "1")
    outcome = run(host, seed, HOST_PAIRS, 4)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr[-8000:]
    # Envoy's trap: commit may be the last to hold a filter, and then destroys it on our thread.
    destroyed = int(outcome.stdout.split("destroyed-off-thread ")[1])
    assert destroyed > 0
