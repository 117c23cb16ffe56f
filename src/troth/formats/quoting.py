# SPDX-License-Identifier: Apache-2.0
"""Values from outside, fit to stand in a message."""

from __future__ import annotations

__all__ = ["shown"]

_LONGEST = 80


def shown(value: object) -> str:
    """Return `repr(value)`, cut at 80 characters; a log line holds neither its lines nor its size."""
    if isinstance(value, (str, bytes)):
        value = value[: _LONGEST + 1]
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
