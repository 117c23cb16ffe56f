# SPDX-License-Identifier: Apache-2.0
"""Errors as problem details, by one table. Peers are told a class, operators the cause.

Source: RFC 9457 section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import JSONResponse

from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    ConfigurationError,
    ConflictError,
    DecodeError,
    LimitExceededError,
    PeerError,
    TrothError,
    UnavailableError,
    UnsupportedError,
    VerificationError,
)

__all__ = ["PROBLEM_JSON", "STATUS", "TITLES", "problem", "problem_for"]

PROBLEM_JSON = "application/problem+json"

# The most derived class decides.
STATUS: Mapping[type[TrothError], int] = MappingProxyType(
    {
        LimitExceededError: 413,
        UnsupportedError: 415,
        DecodeError: 400,
        VerificationError: 403,
        AuthorizationError: 403,
        ConflictError: 409,
        UnavailableError: 503,
        PeerError: 400,
        ConfigurationError: 500,
        ApiMisuseError: 500,
        TrothError: 500,
    }
)

# One sentence for each code: all that a stranger is told.
TITLES: Mapping[str, str] = MappingProxyType(
    {
        "malformed": "The request or the Evidence is not what its format says.",
        "too_large": "The request or the Evidence crosses a documented limit.",
        "unsupported": "The Evidence is of a kind that this server does not accept.",
        "not_authentic": "The authenticity of the Evidence was not established.",
        "not_fresh": "The session is unknown, used or expired, or the Evidence is not an answer to it.",
        "not_bound": "The Evidence is not about the key of this request.",
        "refused": "Authentic, but not allowed.",
        "conflict": "The state changed meanwhile; read it again.",
        "unavailable": "The server cannot do this now.",
        "protocol": "The request breaks the protocol.",
        "configuration": "The server is not configured for this.",
        "internal": "The server made a mistake.",
        "error": "The server made a mistake.",
        "not_found": "There is nothing of that name.",
        "rate_limited": "Too many requests; wait before the next.",
    }
)


def problem(
    status: int,
    code: str,
    *,
    detail: str = "",
    headers: Mapping[str, str] | None = None,
    **extensions: object,
) -> JSONResponse:
    """Return a problem document; `extensions` are members beside the standard ones."""
    body: dict[str, object] = {
        "type": f"urn:troth:problem:{code}",
        "title": TITLES[code],
        "status": status,
        "code": code,
    }
    if detail:
        body["detail"] = detail
    body |= extensions
    return JSONResponse(
        body, status_code=status, headers=dict(headers or {}), media_type=PROBLEM_JSON
    )


def problem_for(exc: TrothError, *, operator: bool, **extensions: object) -> JSONResponse:
    """Return the problem document for an error.

    Args:
        exc: the error.
        operator: the reader is an operator of this server, and is told cause and remedy.
        extensions: further members.
    """
    status = next(STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS)
    headers = {}
    if isinstance(exc, UnavailableError) and exc.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(exc.retry_after_seconds))
    if operator:
        extensions = {"remedy": exc.remedy, **extensions} if exc.remedy else extensions
    return problem(
        status, exc.code, detail=str(exc) if operator else "", headers=headers, **extensions
    )
