# SPDX-License-Identifier: Apache-2.0
"""A TPM through the commands of tpm2-tools, for machines where tpm2-pytss is not installed.

Slower than the library: each step is a process, and the keys are loaded anew for each quote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from troth.adapters.tpm_driver import (
    EK_CERTIFICATE_INDEX,
    EkAlgorithm,
    EndorsementKey,
    TpmQuote,
    WrappedKey,
    der_of,
)
from troth.errors import ConfigurationError, UnavailableError
from troth.formats.tpm.credential import Credential

__all__ = ["ToolsDriver", "has_tools"]

_DEADLINE_SECONDS: Final = 60.0
_ATTEMPTS: Final = 3
_SRK_ATTRIBUTES: Final = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt"
_AK_ATTRIBUTES: Final = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign"
# Transports without a resource manager, where whoever loads something has to take it out again.
_UNMANAGED: Final = ("swtpm", "mssim")


def has_tools() -> bool:
    """Say whether tpm2-tools are installed."""
    return shutil.which("tpm2") is not None


class ToolsDriver:
    """Implements TpmDriver by running `tpm2`.

    Args:
        tcti: how to reach the TPM, such as "device:/dev/tpmrm0" or "swtpm:path=/run/swtpm.sock".
        ek: which endorsement key.

    Raises:
        ConfigurationError: tpm2-tools are not installed.
    """

    def __init__(self, tcti: str, *, ek: EkAlgorithm = "rsa") -> None:
        binary = shutil.which("tpm2")
        if binary is None:
            raise ConfigurationError(
                source="TPM driver tools", accepted="tpm2-tools on the search path"
            )
        self._binary, self._tcti, self._ek = binary, tcti, ek
        self._environment = {**os.environ, "TPM2TOOLS_TCTI": tcti, "TSS2_LOG": "all+none"}

    @property
    def source(self) -> str:
        """What it talks through to what."""
        return f"{self._tcti}, by tpm2-tools"

    def create_attestation_key(self) -> WrappedKey:
        """Make a new attestation key."""
        with self._workspace() as folder:
            self._storage_key(folder)
            self._run(
                folder,
                "create",
                *("-C", "srk.ctx", "-g", "sha256", "-G", "ecc256:ecdsa-sha256:null"),
                *("-a", _AK_ATTRIBUTES, "-u", "ak.pub", "-r", "ak.priv"),
            )
            return WrappedKey((folder / "ak.pub").read_bytes(), (folder / "ak.priv").read_bytes())

    def endorsement_key(self) -> EndorsementKey:
        """Return the endorsement key and its certificate."""
        with self._workspace() as folder:
            self._run(folder, "createek", "-G", self._ek, "-c", "ek.ctx", "-u", "ek.pub")
            return EndorsementKey((folder / "ek.pub").read_bytes(), self._certificate(folder))

    def quote(self, key: WrappedKey, challenge: bytes, bank: str, registers: list[int]) -> TpmQuote:
        """Quote these registers."""
        selection = f"{bank}:{','.join(map(str, registers))}"
        with self._workspace() as folder:
            self._load(folder, key)
            for attempt in range(_ATTEMPTS):
                try:
                    self._run(
                        folder,
                        "quote",
                        *("-c", "ak.ctx", "-l", selection, "-q", challenge.hex(), "-g", "sha256"),
                        *("-m", "quote", "-s", "signature", "-o", "values", "-F", "values"),
                    )
                    break
                except UnavailableError:
                    # The tool compares what it reads with what was quoted: a register that moved
                    # in between is one more try.
                    if attempt == _ATTEMPTS - 1:
                        raise
            return TpmQuote(
                (folder / "quote").read_bytes(),
                (folder / "signature").read_bytes(),
                (folder / "values").read_bytes(),
            )

    def activate(self, key: WrappedKey, credential: Credential) -> bytes:
        """Return the secret in a credential."""
        with self._workspace() as folder:
            self._load(folder, key)
            self._run(folder, "createek", "-G", self._ek, "-c", "ek.ctx", "-u", "ek.pub")
            (folder / "credential").write_bytes(credential.encode_file())
            self._run(folder, "startauthsession", "--policy-session", "-S", "session.ctx")
            try:
                self._run(folder, "policysecret", "-S", "session.ctx", "-c", "e")
                self._run(
                    folder,
                    "activatecredential",
                    *("-c", "ak.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "secret"),
                    *("-P", "session:session.ctx"),
                )
            finally:
                self._run(folder, "flushcontext", "session.ctx")
            return (folder / "secret").read_bytes()

    def close(self) -> None:
        """Nothing is held between calls."""

    def _storage_key(self, folder: Path) -> None:
        self._run(
            folder,
            "createprimary",
            *("-C", "o", "-g", "sha256", "-G", "ecc256:aes128cfb"),
            *("-a", _SRK_ATTRIBUTES, "-c", "srk.ctx"),
        )

    def _load(self, folder: Path, key: WrappedKey) -> None:
        (folder / "ak.pub").write_bytes(key.public)
        (folder / "ak.priv").write_bytes(key.private)
        self._storage_key(folder)
        self._run(
            folder,
            "load",
            *("-C", "srk.ctx", "-u", "ak.pub", "-r", "ak.priv", "-c", "ak.ctx"),
        )

    def _certificate(self, folder: Path) -> bytes:
        index = f"{EK_CERTIFICATE_INDEX[self._ek]:#x}"
        try:
            self._run(folder, "nvread", index, "-C", index, "-o", "certificate")
        except UnavailableError:  # many TPMs hold none, and credential activation does without
            return b""
        return der_of((folder / "certificate").read_bytes())

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="troth-tpm-") as name:
            yield Path(name)

    def _run(self, folder: Path, command: str, *arguments: str) -> None:
        self._execute(folder, command, *arguments)
        if self._tcti.startswith(_UNMANAGED) and command != "startauthsession":
            self._execute(folder, "flushcontext", "--transient-object")
            if command in {"createek", "quote"}:  # they leave their sessions behind
                self._execute(folder, "flushcontext", "--loaded-session")

    def _execute(self, folder: Path, command: str, *arguments: str) -> None:
        try:
            done = subprocess.run(
                [self._binary, command, *arguments],
                cwd=folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_DEADLINE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise UnavailableError(f"tpm2_{command} on {self._tcti}: {exc}") from exc
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").splitlines()
            reasons = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
            raise UnavailableError(
                f"tpm2_{command} on {self._tcti}: {(reasons or lines or ['failed'])[0]}",
                remedy="See that the TPM is there, that this user may use it (group tss), and "
                "that nobody has set an owner or endorsement password.",
            )
