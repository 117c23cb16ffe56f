# SPDX-License-Identifier: Apache-2.0
"""docs/howto/add-a-scheme.md, followed word for word in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import troth
from troth.evidence.registry import SCHEMES

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/add-a-scheme.md"
_PART = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_adds_a_scheme(tmp_path: Path) -> None:
    copy = tmp_path / "src" / "troth"
    shutil.copytree(troth.__path__[0], copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    parts = _PART.findall(PAGE.read_text())
    assert [kind for kind, _ in parts] == ["sh", "sh", "python", "python", "python"]
    for kind, content in parts:
        if kind == "sh":
            subprocess.run(["sh", "-ec", content], cwd=tmp_path, check=True, timeout=30)
    program = "".join(content for kind, content in parts if kind == "python")
    ran = subprocess.run(
        [sys.executable, "-c", program + "import troth; print(troth.__path__[0])"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(copy)
    assert "acmebox" not in SCHEMES
