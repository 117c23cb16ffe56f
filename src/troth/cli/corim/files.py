# SPDX-License-Identifier: Apache-2.0
"""Writing the files that `troth corim` makes, and the periods that it puts into them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from troth.errors import ConfigurationError
from troth.formats.corim import Validity

__all__ = ["parse_moment", "parse_validity", "write_file"]


def write_file(path: Path, data: bytes, *, force: bool) -> None:
    """Write a file; one that exists is only replaced if `force` says so.

    Raises:
        ConfigurationError: it exists, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
            file.write(data)
    except FileExistsError as exc:
        raise ConfigurationError(
            source=str(path), accepted="a new file; --force replaces one that exists"
        ) from exc
    except OSError as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a file that can be written ({exc.strerror or exc})"
        ) from exc


def parse_validity(not_before: str, not_after: str, *, source: str) -> Validity | None:
    """Return the period between two moments as text, or None where neither is given.

    Raises:
        ConfigurationError: not a moment, an end before its begin, or a begin without an end.
    """
    begin = parse_moment(not_before, source=source, key="not-before") if not_before else None
    if not not_after:
        if begin is None:
            return None
        raise ConfigurationError(
            source=source, key="not-after", accepted="an end, since there is a begin"
        )
    end = parse_moment(not_after, source=source, key="not-after")
    if begin is not None and end < begin:
        raise ConfigurationError(
            source=source, key="not-after", value=not_after, accepted=f"a time after {not_before}"
        )
    return Validity(begin, end)


def parse_moment(text: str, *, source: str, key: str) -> datetime:
    """Return an ISO 8601 date (at 00:00 UTC) or date and time with a timezone.

    Raises:
        ConfigurationError: something else.
    """
    accepted = "a date, 2026-12-31, or a time with its zone, 2026-12-31T12:00:00Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigurationError(source=source, key=key, value=text, accepted=accepted) from exc
    if moment.tzinfo is None:
        if "T" in text or " " in text:
            raise ConfigurationError(source=source, key=key, value=text, accepted=accepted)
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)
