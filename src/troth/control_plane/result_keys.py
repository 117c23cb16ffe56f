# SPDX-License-Identifier: Apache-2.0
"""The keys that Attestation Results are signed with."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from troth.control_plane.rotating_keys import MAX_PUBLISHED_KEYS, RotatingKeys

__all__ = ["MAX_PUBLISHED_KEYS", "ResultKeys"]


class ResultKeys(RotatingKeys):
    """The result keys in one directory; see `RotatingKeys`."""

    def __init__(
        self,
        directory: Path,
        *,
        now: datetime,
        announce: timedelta = timedelta(days=1),
        keep: timedelta = timedelta(days=1),
    ) -> None:
        """Load the keys, or make the first; `keep` is the longest life of a result."""
        super().__init__(directory, name="result", now=now, announce=announce, keep=keep)
