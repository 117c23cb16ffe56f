# SPDX-License-Identifier: Apache-2.0
"""Errors of the standard APIs: problem details in JSON, or in CBOR for CoSERV.

Veraison's clients read `title` as the status in words and `detail` as the reason, so the reason
stands there; it is about the caller's own request. Troth adds `code`, as everywhere.

Source: RFC 9457 section 3; RFC 9290 section 2 (concise problem details).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from troth.control_plane.server.problem import PROBLEM_JSON, STATUS
from troth.control_plane.verification.messages import ProblemMessage
from troth.errors import TrothError, UnavailableError
from troth.formats import cbor

__all__ = ["CONCISE_PROBLEM", "concise_problem", "http_problem", "status_of", "wait_headers"]

CONCISE_PROBLEM = "application/concise-problem-details+cbor"
_TITLE, _DETAIL = -1, -2
_LONGEST_DETAIL = 1024


def http_problem(
    status: int, detail: str, *, code: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a problem document in JSON."""
    message = ProblemMessage(
        title=HTTPStatus(status).phrase, status=status, detail=_cut(detail), code=code
    )
    return Response(
        msgspec.json.encode(message),
        status_code=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=PROBLEM_JSON,
    )


def concise_problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a problem document in CBOR, as CoSERV asks for."""
    body = cbor.encode({_TITLE: HTTPStatus(status).phrase, _DETAIL: _cut(detail)})
    return Response(
        body,
        status_code=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=CONCISE_PROBLEM,
    )


def status_of(error: TrothError) -> int:
    """Return the HTTP status of an error, by the table that all APIs share."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def wait_headers(error: TrothError) -> dict[str, str]:
    """Return when to come back, where the error says so."""
    if isinstance(error, UnavailableError) and error.retry_after_seconds is not None:
        return {"Retry-After": str(math.ceil(error.retry_after_seconds))}
    return {}


def _cut(detail: str) -> str:
    return detail if len(detail) <= _LONGEST_DETAIL else detail[: _LONGEST_DETAIL - 1] + "…"
