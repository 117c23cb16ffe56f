# SPDX-License-Identifier: Apache-2.0
"""Reading request bodies and query parameters, strictly and within limits."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from troth.errors import DecodeError, LimitExceededError
from troth.formats.limits import Limits
from troth.formats.strict_json import decode_json

__all__ = ["MAX_BODY_SECONDS", "query_number", "query_text", "read_body", "read_message"]

T = TypeVar("T", bound=msgspec.Struct)

MAX_BODY_SECONDS = 20.0
"""How long a request may take to arrive."""

_MAX_ITEMS = 2048
_MAX_DEPTH = 8


async def read_body(request: Request, *, limit: int) -> bytes:
    """Return the body.

    Raises:
        LimitExceededError: longer than `limit`; no more than that was read.
        DecodeError: it did not come within `MAX_BODY_SECONDS`, or broke off.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise LimitExceededError(format="request body", limit="body_bytes", value=limit)
    except (TimeoutError, ClientDisconnect) as exc:
        raise DecodeError("it did not come whole and in time", format="request body") from exc
    return bytes(body)


async def read_message(request: Request, kind: type[T], *, limit: int) -> T:
    """Return the body as a message of `kind`; an empty body is an empty object.

    Raises:
        DecodeError: not one, duplicate or unknown members included.
    """
    body = await read_body(request, limit=limit)
    limits = Limits(max_bytes=limit, max_items=_MAX_ITEMS, max_depth=_MAX_DEPTH)
    value = decode_json(body or b"{}", format="request body", limits=limits)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise DecodeError(str(exc), format="request body") from exc


def query_number(request: Request, name: str, *, default: int, maximum: int) -> int:
    """Return a whole number from the query.

    Raises:
        DecodeError: not one, or greater than `maximum`.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > maximum:
        raise DecodeError(f"{name}={text[:32]!r} is not a number up to {maximum}", format="query")
    return int(text)


def query_text(request: Request, name: str) -> str:
    """Return a parameter of the query.

    Raises:
        DecodeError: absent or empty.
    """
    text = request.query_params.get(name, "")
    if not text:
        raise DecodeError(f"{name} is missing", format="query")
    return text
