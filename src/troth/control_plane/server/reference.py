# SPDX-License-Identifier: Apache-2.0
"""Write the table of settings in docs/reference/server.md anew from `ServerConfig`.

`python -m troth.control_plane.server.reference docs/reference/server.md`; a test compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from troth.control_plane.config_reference import rewrite_reference
from troth.control_plane.server.config import ServerConfig

__all__: list[str] = []

if __name__ == "__main__":
    path = Path(sys.argv[1])
    page = rewrite_reference(path.read_text(encoding="utf-8"), ServerConfig)
    path.write_text(page, encoding="utf-8")
