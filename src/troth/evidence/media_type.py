# SPDX-License-Identifier: Apache-2.0
"""Media types of Evidence, in the spellings that are about.

RFC 9782 registered `application/eat+cwt` with the parameter `eat_profile`; before that, tools wrote
`application/eat-cwt` and `profile`.

Source: RFC 9110 section 8.3.1 (syntax); RFC 9782 sections 4 and 6.
"""

from __future__ import annotations

import re

from troth.errors import DecodeError, LimitExceededError

__all__ = ["MAX_MEDIA_TYPE_LENGTH", "eat_profile", "normalise_media_type"]

MAX_MEDIA_TYPE_LENGTH = 256
"""Characters; the longest that a scheme has is a quarter of it."""

_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_ESSENCE = re.compile(rf"({_NAME})/({_NAME})")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_NAME})=(?:({_NAME})|"([^"\\\r\n]*)"|([^";\s]+))')
_RENAMED = {"application/eat-cwt": "application/eat+cwt"}


def normalise_media_type(media_type: str) -> str:
    """Return the one spelling of `media_type`: lower case, current names, profile quoted.

    Other parameters are left out: none changes what the Evidence is. An unquoted profile is taken,
    although its colons ask for quotes, because clients send it so.

    Raises:
        DecodeError: not a media type.
        LimitExceededError: longer than MAX_MEDIA_TYPE_LENGTH.
    """
    essence, profile = _parse(media_type)
    return f'{essence}; eat_profile="{profile}"' if profile else essence


def eat_profile(media_type: str) -> str:
    """Return the EAT profile that `media_type` names, or "".

    Raises:
        DecodeError: not a media type; "" is taken for none.
    """
    return _parse(media_type)[1] if media_type else ""


def _parse(media_type: str) -> tuple[str, str]:
    if len(media_type) > MAX_MEDIA_TYPE_LENGTH:
        raise LimitExceededError(
            format="media type", limit="MAX_MEDIA_TYPE_LENGTH", value=MAX_MEDIA_TYPE_LENGTH
        )
    text = media_type.strip()
    found = _ESSENCE.match(text)
    if found is None:
        raise DecodeError(f"{media_type!r} is not one", format="media type")
    essence = found[0].lower()
    profiles: list[str] = []
    at = found.end()
    while at < len(text):
        parameter = _PARAMETER.match(text, at)
        if parameter is None:
            raise DecodeError(f"{media_type!r} has a malformed parameter", format="media type")
        if parameter[1].lower() in {"eat_profile", "profile"}:
            profiles.append(parameter[2] or parameter[3] or parameter[4] or "")
        at = parameter.end()
    if len(profiles) > 1:
        raise DecodeError(f"{media_type!r} names two profiles", format="media type")
    return _RENAMED.get(essence, essence), profiles[0] if profiles else ""
