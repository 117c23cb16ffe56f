# SPDX-License-Identifier: Apache-2.0
"""What the media type of Evidence says about its profile."""

from __future__ import annotations

from functools import lru_cache

from troth.errors import DecodeError
from troth.formats.eat import normalise_media_type
from troth.formats.media_type import parse_media_type
from troth.formats.quoting import shown

__all__ = ["refuse_other_profile"]


def refuse_other_profile(media_type: str, *accepted: str, format: str) -> None:
    """Refuse Evidence that came under the media type of another profile.

    A media type without a profile, or none at all (""), says nothing and is let through.

    Args:
        media_type: as received, in any spelling.
        accepted: profiles that the Evidence itself stands for, the best known first.
        format: what the Evidence is, for the message.

    Raises:
        DecodeError: it names another one, or is no media type.
    """
    if not media_type:
        return
    stated = _stated_profile(media_type)
    if stated and stated not in accepted:
        raise DecodeError(
            f"came as {shown(media_type)}, but its own profile is {accepted[0]}", format=format
        )


# A fleet sends few spellings over and over, and taking one apart costs as much as a small token.
@lru_cache(maxsize=256)
def _stated_profile(media_type: str) -> str:
    parameters = parse_media_type(normalise_media_type(media_type)).parameters
    return parameters.get("eat_profile") or parameters.get("profile") or ""
