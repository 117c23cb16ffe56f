# SPDX-License-Identifier: Apache-2.0
"""Write the table of settings in docs/reference/server.md anew from `ServerConfig`.

`python -m troth.control_plane.server.reference docs/reference/server.md`; a test compares.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from troth.control_plane.config_reference import render_reference
from troth.control_plane.server.config import ServerConfig

__all__ = ["rewrite"]

_TABLE = re.compile(r"\| key \| form \| default \| meaning \|\n(?:\|.*\n)+")


def rewrite(page: str) -> str:
    """Return the page with its table of settings replaced."""
    table = render_reference(ServerConfig)
    return _TABLE.sub(lambda _: table, page, count=1)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewrite(path.read_text(encoding="utf-8")), encoding="utf-8")
