# SPDX-License-Identifier: Apache-2.0
"""Where the shared test vectors are: $TROTH_VECTORS, else ../shared/vectors beside the checkout.

They are read in place and never copied into the repository. Each folder's SOURCES.md says where
its files come from, under which licence, and what a Verifier should conclude.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


def vectors(scheme: str) -> Path:
    """Return the folder of one scheme's vectors, or skip the test where they are not there."""
    base = Path(os.environ.get("TROTH_VECTORS") or _ROOT.parent / "shared" / "vectors")
    folder = base / scheme
    if not folder.is_dir():
        pytest.skip(f"the shared vectors are not at {folder}; point TROTH_VECTORS at them")
    return folder


def own_vectors(folder: str) -> Path:
    """Return a folder of the vectors that are part of the repository."""
    return _ROOT / "tests" / "vectors" / folder
