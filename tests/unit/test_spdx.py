# SPDX-License-Identifier: Apache-2.0
"""Every source file says its licence in its first line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LICENCE = "SPDX-License-Identifier: Apache-2.0"

# How a comment begins, by suffix or by whole name.
COMMENTS = {
    ".py": "# ",
    ".pyi": "# ",
    ".sh": "# ",
    ".toml": "# ",
    ".ini": "# ",
    ".cfg": "# ",
    ".mk": "# ",
    ".rego": "# ",
    ".yaml": "# ",
    ".yml": "# ",
    ".service": "# ",
    ".c": "// ",
    ".h": "// ",
    ".js": "// ",
    ".proto": "// ",
    ".css": "/* ",
    ".sql": "-- ",
    "Makefile": "# ",
    "Dockerfile": "# ",
    "Containerfile": "# ",
    ".importlinter": "# ",
}
"""Markdown, HTML templates, licences, locks and data carry none: nobody runs them as a source."""


def sources() -> list[Path]:
    """Return the files that belong to the project: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:  # an unpacked source archive
        folders = (ROOT / folder for folder in ("src", "tests", "native"))
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def comment_start(path: Path, first: str) -> str | None:
    """Return how a comment begins in this file, or None where it is no source file."""
    if first.startswith("#!"):
        return "# "
    return COMMENTS.get(path.name) or COMMENTS.get(path.suffix)


def headless(path: Path) -> bool:
    """Say whether this is a source file without the licence line."""
    with path.open("rb") as file:
        head = file.read(400).decode("utf-8", "replace").splitlines()
    first = head[0] if head else ""
    start = comment_start(path, first)
    if start is None:
        return False
    if first.startswith("#!"):  # the kernel needs this line to be the first
        first = head[1] if len(head) > 1 else ""
    return not re.fullmatch(re.escape(start + LICENCE) + r"( \*/)?", first)


def test_every_source_file_starts_with_its_licence() -> None:
    checked = sources()
    assert len([path for path in checked if path.suffix == ".py"]) > 20
    missing = sorted(str(path.relative_to(ROOT)) for path in checked if headless(path))
    assert missing == [], f"these do not begin with '{LICENCE}' in a comment"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.py", f"# {LICENCE}\n", False),
        ("a.py", "", True),
        ("a.py", f'"""Doc."""\n# {LICENCE}\n', True),
        ("a.py", f"#!/usr/bin/env python3\n# {LICENCE}\n", False),
        ("run", f"#!/bin/sh\n# {LICENCE}\n", False),
        ("run", "#!/bin/sh\necho\n", True),
        ("a.c", f"// {LICENCE}\n", False),
        ("a.c", f"# {LICENCE}\n", True),
        ("a.css", f"/* {LICENCE} */\n", False),
        ("a.py", "# SPDX-License-Identifier: MIT\n", True),
        ("notes.md", "# Notes\n", False),
    ],
)
def test_the_check_tells_a_licence_line_from_its_absence(
    tmp_path: Path, name: str, content: str, *, expected: bool
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert headless(path) is expected
