# SPDX-License-Identifier: Apache-2.0
"""A real TPM in software: swtpm, manufactured anew with an EK certificate, on a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

__all__ = ["Swtpm", "started_swtpm"]

_PROGRAMS = ("swtpm", "swtpm_setup", "swtpm_localca", "tpm2")
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Swtpm:
    """A running one.

    Attributes:
        folder: where its socket and its certification authority are.
        process: the emulator.
    """

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def tcti(self) -> str:
        """How software reaches it."""
        return f"swtpm:path={self.folder}/s"

    @property
    def roots(self) -> list[x509.Certificate]:
        """The certification authority that vouches for its endorsement key."""
        names = ("issuercert.pem", "swtpm-localca-rootca-cert.pem")
        return [
            x509.load_pem_x509_certificate((self.folder / "ca" / name).read_bytes())
            for name in names
        ]

    def run(self, command: str, *arguments: str) -> bytes:
        """Run one of tpm2-tools against it, and take out what the tool left loaded."""
        done = subprocess.run(
            ["tpm2", command, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        for kind in ("--transient-object", "--loaded-session"):
            subprocess.run(
                ["tpm2", "flushcontext", kind],
                env=self.environment,
                capture_output=True,
                timeout=_PATIENCE_SECONDS,
                check=False,
            )
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """For tools that use it."""
        return {**os.environ, "TPM2TOOLS_TCTI": self.tcti, "TSS2_LOG": "all+none"}


@contextmanager
def started_swtpm() -> Iterator[Swtpm]:
    """Start one, or skip the test where swtpm and tpm2-tools are not installed."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (requirements/apt.txt)")
    # Not the test's own folder: a socket's path has room for 107 octets, ".ctrl" included.
    with tempfile.TemporaryDirectory(prefix="swtpm-") as name:
        folder = Path(name)
        _manufacture(folder)
        # A log file: swtpm stops when nobody reads what it writes to a pipe.
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}/state"),
                    *("--server", f"type=unixio,path={folder}/s"),
                    *("--ctrl", f"type=unixio,path={folder}/s.ctrl"),
                    *("--flags", "not-need-init,startup-clear"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_for(folder / "s", process)
            _wait_for(folder / "s.ctrl", process)
            yield Swtpm(folder, process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _manufacture(folder: Path) -> None:
    """Make state, endorsement keys and their certificates under an authority in `folder`."""
    authority = folder / "ca"
    for made in (authority, folder / "state"):
        made.mkdir()
    (folder / "localca.conf").write_text(
        f"statedir = {authority}\n"
        f"signingkey = {authority}/signkey.pem\n"
        f"issuercert = {authority}/issuercert.pem\n"
        f"certserial = {authority}/certserial\n"
    )
    (folder / "localca.options").write_text(
        "--platform-manufacturer test\n--platform-version 1\n--platform-model test\n"
    )
    (folder / "setup.conf").write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
        f"create_certs_tool_config = {folder}/localca.conf\n"
        f"create_certs_tool_options = {folder}/localca.options\n"
    )
    done = subprocess.run(
        [
            *("swtpm_setup", "--tpm2", "--tpmstate", str(folder / "state")),
            *("--config", str(folder / "setup.conf"), "--createek", "--create-ek-cert"),
            *("--pcr-banks", "sha256,sha1", "--overwrite"),
        ],
        capture_output=True,
        timeout=_PATIENCE_SECONDS * 3,
        check=False,
    )
    if done.returncode != 0:
        told = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
        pytest.skip(f"swtpm_setup does not work here: {told[-1] if told else 'no reason given'}")


def _wait_for(socket: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not socket.exists():
        assert process.poll() is None, (socket.parent / "log").read_text()
        assert time.monotonic() < until, f"{socket} did not appear"
        time.sleep(0.01)
