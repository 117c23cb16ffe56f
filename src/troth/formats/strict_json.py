# SPDX-License-Identifier: Apache-2.0
"""JSON without its ambiguities.

Two parsers that read one text differently are an attack; so whatever RFC 8259 leaves to the
implementation is refused here: duplicate names (section 4), NaN and Infinity, numbers beyond
double precision's range, a byte order mark, lone surrogates (section 8.2), and anything deeper or
longer than the limits.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, NoReturn

from troth.errors import ApiMisuseError, DecodeError, LimitExceededError
from troth.formats.limits import DEFAULT_LIMITS, Limits

__all__ = ["decode_json", "decode_json_object", "encode_json"]


# A string, terminated or not: without the "?" an unterminated text full of escaped quotes would be
# scanned once for every quote in it.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_ONE_BRACKET: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(octet for octet in range(256) if octet not in b"[]{}")
_SEPARATORS: Final = (b",", b":", b"[", b"{")
_QUOTED_LENGTH: Final = 64


def decode_json(data: bytes, *, format: str, limits: Limits = DEFAULT_LIMITS) -> object:
    """Decode exactly one JSON text in UTF-8.

    Numbers with a fraction or an exponent become `float`, all others `int` of any size: range is
    the caller's to check.

    Raises:
        LimitExceededError: longer, deeper or of more items than `limits`.
        DecodeError: not JSON, not UTF-8, or one of the ambiguities above.
    """
    _check_limits(data, format, limits)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DecodeError("JSON is not UTF-8", format=format, offset=exc.start) from exc
    try:
        value: object = _DECODER.decode(text)
        if b"\\u" in data:  # only an escape can smuggle half of a surrogate pair in
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as exc:
        offset = len(text[: exc.pos].encode("utf-8"))
        raise DecodeError(f"not JSON: {exc.msg}", format=format, offset=offset) from exc
    except UnicodeEncodeError as exc:
        raise DecodeError("a string has half of a surrogate pair", format=format) from exc
    except ValueError as exc:
        raise DecodeError(str(exc), format=format) from exc
    return value


def decode_json_object(
    data: bytes,
    *,
    format: str,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, object]:
    """Decode a JSON text whose outermost value is an object; raises as `decode_json` does."""
    value = decode_json(data, format=format, limits=limits)
    if not isinstance(value, dict):
        raise DecodeError("the outermost JSON value is not an object", format=format)
    return value


def encode_json(value: object) -> bytes:
    """Encode compactly and reproducibly: names sorted, UTF-8, no escapes that JSON does not need.

    Raises:
        ApiMisuseError: `value` holds something that JSON has no form for.
    """
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as exc:
        raise ApiMisuseError(f"cannot be written as JSON: {exc}") from exc


_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
)


def _check_limits(data: bytes, format: str, limits: Limits) -> None:
    """Refuse what crosses a limit before the recursive parser, which allocates, sees it."""
    if len(data) > limits.max_bytes:
        raise LimitExceededError(format=format, limit="max_bytes", value=limits.max_bytes)
    openers = data.count(b"[") + data.count(b"{")
    items = 1 + openers + data.count(b",") + data.count(b":")
    if openers <= limits.max_depth and items <= limits.max_items:
        return  # most texts: not even what is inside strings could cross a limit
    outside_strings = _STRING.sub(b"", data)
    if 1 + sum(map(outside_strings.count, _SEPARATORS)) > limits.max_items:
        raise LimitExceededError(format=format, limit="max_items", value=limits.max_items)
    brackets = outside_strings.translate(_ONE_BRACKET, _NOT_BRACKETS)
    for _ in range(limits.max_depth):  # each pass takes the innermost level away
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    # What is left and has no pair in it is unbalanced: the parser says where, unless it would
    # recurse on the openers first.
    if b"[]" in brackets or brackets.count(b"[") > limits.max_depth:
        raise LimitExceededError(format=format, limit="max_depth", value=limits.max_depth)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name[:_QUOTED_LENGTH]!r} occurs twice in one object")
            seen.add(name)
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:_QUOTED_LENGTH]} is out of range")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_constant=_constant
)
