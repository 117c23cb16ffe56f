# SPDX-License-Identifier: Apache-2.0
"""Asks an Envoy program what it is and what it accepts, without letting it serve anything."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from troth.errors import ProxyError

__all__ = ["Trial", "envoy_version", "validate_configuration"]

_SECONDS = 60
_SHOWN = 600
_PREFIX = re.compile(r"^(?:\[[^\]]*\]){2,}\s*(?:\[[^\]]*\]\s*)?")
_NOISE = re.compile(r"error initializing configuration '[^']*': ")


@dataclass(frozen=True, slots=True)
class Trial:
    """What Envoy said to one configuration.

    Attributes:
        accepted: whether `--mode validate` passed.
        reason: why not, or "".
        warnings: what it warned of.
    """

    accepted: bool
    reason: str = ""
    warnings: tuple[str, ...] = ()


def envoy_version(binary: Path) -> str:
    """Return the version of an Envoy program, such as "1.39.3".

    Raises:
        ProxyError: it does not run, or is no Envoy.
    """
    output = _run(binary, "--version").stdout
    found = re.search(r"version:\s*[0-9a-f]+/([0-9]+\.[0-9]+\.[0-9]+\S*?)/", output)
    if found is None:
        raise ProxyError(
            f"{binary} does not say which version of Envoy it is",
            remedy="name the Envoy program itself",
        )
    return found[1]


def validate_configuration(binary: Path, config: Mapping[str, object]) -> Trial:
    """Let Envoy check `config`, as far as it can without starting.

    Raises:
        ProxyError: it does not run or does not come to an end.
    """
    with tempfile.TemporaryDirectory(prefix="troth-") as directory:
        path = Path(directory) / "envoy.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        ran = _run(binary, "--mode", "validate", "--config-path", str(path), "-l", "warning")
    lines = [line for line in (ran.stderr + ran.stdout).splitlines() if line.strip()]
    warnings = tuple(_plain(line) for line in lines if "[warning]" in line)
    if ran.returncode == 0:
        return Trial(accepted=True, warnings=warnings)
    wrong = [_plain(line) for line in lines if "[error]" in line or "[critical]" in line]
    reason = "; ".join(dict.fromkeys(wrong)) or "; ".join(lines[-3:])
    return Trial(accepted=False, reason=reason[:_SHOWN], warnings=warnings)


def _plain(line: str) -> str:
    # Envoy puts blanks of random number into protobuf's messages, so that nobody parses them.
    return _NOISE.sub("", " ".join(_PREFIX.sub("", line).split()))


def _run(binary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [str(binary), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as exc:
        raise ProxyError(f"{binary} does not run: {exc.strerror or exc}") from exc
    except subprocess.TimeoutExpired as exc:
        raise ProxyError(f"{binary} did not come to an end within {_SECONDS} s") from exc
