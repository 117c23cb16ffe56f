# SPDX-License-Identifier: Apache-2.0
"""Write the table of settings in docs/reference/verifier.md anew from `VerifierConfig`.

`python -m troth.control_plane.verification.reference docs/reference/verifier.md`; a test compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from troth.control_plane.config_reference import rewrite_reference
from troth.control_plane.verification.config import VerifierConfig

__all__: list[str] = []

if __name__ == "__main__":
    path = Path(sys.argv[1])
    page = rewrite_reference(path.read_text(encoding="utf-8"), VerifierConfig)
    path.write_text(page, encoding="utf-8")
