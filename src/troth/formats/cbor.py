# SPDX-License-Identifier: Apache-2.0
"""Strict CBOR in, deterministic CBOR out.

What comes out of `decode`, and what `encode` takes::

    integers             int within -2**64 … 2**64-1
    byte, text strings   bytes, str
    arrays, maps         list, dict; a map key is an int, str or bytes, never a bool
    tags                 Tag(number, value); no tag is interpreted, not even a bignum or a date
    false, true, null    False, True, None
    floats               float, finite

Everything else is refused: trailing bytes, repeated map keys, other key types (so no two keys are
equal across types, as 1, true and 1.0 are in Python), indefinite lengths unless they are asked
for, simple values other than the three, `undefined`, NaN and infinities (no comparison with NaN
means anything, so it must not reach a policy), text that is not UTF-8, and whatever crosses a
limit. Integers, lengths and floats in a longer form than needed are accepted, since RFC 9783
section 5.1.1 wants decoders to tolerate them; `decode_deterministic` refuses them.

The decoder is our own. The C and Rust codecs interpret tags, skip trailing bytes and give no
offsets, so a scan of our own would have to come before them, and scanning costs what decoding
costs. cbor2 is the oracle of our tests instead (docs/adr/0008-own-cbor-codec.md).

Source: RFC 8949 sections 3, 4.2.1 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, UnsupportedError
from troth.formats.limits import DEFAULT_LIMITS, HIGHEST_DEPTH, Limits
from troth.formats.quoting import shown

__all__ = ["Tag", "decode", "decode_deterministic", "encode", "is_deterministic"]

_INDEFINITE = 31
_BREAK = 0xFF


@dataclass(frozen=True, slots=True)
class Tag:
    """A tagged data item, uninterpreted.

    Attributes:
        number: the tag number.
        value: the tag content.
    """

    number: int
    value: object


def decode(
    data: bytes, *, format: str, limits: Limits = DEFAULT_LIMITS, allow_indefinite: bool = False
) -> object:
    """Decode exactly one data item.

    Does not check that the encoding is the preferred one.

    Args:
        data: the encoded item, nothing before and nothing after.
        format: what the bytes should be, for the error message.
        limits: what this decoding may cost.
        allow_indefinite: also take strings, arrays and maps of indefinite length.

    Raises:
        DecodeError: not well-formed, or one of the refusals listed above.
        LimitExceededError: a limit was crossed.
        UnsupportedError: well-formed, but a kind of item that is never taken.
    """
    if len(data) > limits.max_bytes:
        raise LimitExceededError(format=format, limit="max_bytes", value=limits.max_bytes)
    reader = _Reader(bytes(data), format, limits, allow_indefinite=allow_indefinite)
    try:
        value = reader.item()
    except IndexError as exc:
        raise reader.error("ends in the middle of a data item", len(data)) from exc
    if reader.position != len(data):
        raise reader.error(
            f"{len(data) - reader.position} bytes after the data item", reader.position
        )
    return value


def decode_deterministic(data: bytes, *, format: str, limits: Limits = DEFAULT_LIMITS) -> object:
    """Decode one data item that is in core deterministic encoding (RFC 8949 section 4.2.1).

    Raises:
        DecodeError: as `decode`, or another encoding of the same item; the offset is the first
            octet that differs.
    """
    value = decode(data, format=format, limits=limits)
    expected = encode(value)
    if expected != data:
        pairs = zip(expected, data, strict=False)
        offset = next((at for at, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
        raise DecodeError(
            "not in core deterministic encoding (RFC 8949 section 4.2.1)",
            format=format,
            offset=offset,
        )
    return value


def is_deterministic(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Say whether `data` is one data item in core deterministic encoding."""
    try:
        decode_deterministic(data, format="CBOR", limits=limits)
    except DecodeError:
        return False
    return True


def encode(value: object) -> bytes:
    """Encode in core deterministic encoding: shortest forms, keys in bytewise order of encoding.

    Raises:
        ApiMisuseError: a type, number or nesting that `decode` would not give back.
    """
    out: list[bytes] = []
    _encode(value, out, HIGHEST_DEPTH)
    return b"".join(out)


class _Reader:
    """A cursor over one encoded item.

    The item budget is charged when a container's head is read, before any memory is taken for
    its members, so a declared length costs nothing that it has not paid for.
    """

    __slots__ = ("_allow_indefinite", "_data", "_depth", "_end", "_format", "_items", "_limits", "position")  # fmt: skip

    def __init__(
        self, data: bytes, format_: str, limits: Limits, *, allow_indefinite: bool
    ) -> None:
        self._data = data
        self._end = len(data)
        self._format = format_
        self._limits = limits
        self._allow_indefinite = allow_indefinite
        self._items = limits.max_items - 1
        self._depth = limits.max_depth
        self.position = 0

    def error(self, message: str, offset: int) -> DecodeError:
        return DecodeError(message, format=self._format, offset=offset)

    def item(self) -> object:  # noqa: C901, PLR0912 - it runs for each item; a call for each kind would double the cost
        data, start = self._data, self.position
        initial = data[start]
        info = initial & 0x1F
        if info < 24:
            argument, after = info, start + 1
        elif info == 24:
            argument, after = data[start + 1], start + 2
        elif info == 25:
            argument, after = data[start + 1] << 8 | data[start + 2], start + 3
        elif info < 28:
            after = start + 1 + (1 << (info - 24))
            if after > self._end:
                raise IndexError
            argument = int.from_bytes(data[start + 1 : after])
        elif info == _INDEFINITE:
            return self._indefinite(initial >> 5, start)
        else:
            raise self.error(f"reserved additional information {info}", start)

        major = initial >> 5
        if major == 0:
            self.position = after
            return argument
        if major == 2:
            stop = after + argument
            if stop > self._end:
                raise self._overrun(argument, after, start)
            self.position = stop
            return data[after:stop]
        if major == 3:
            stop = after + argument
            if stop > self._end:
                raise self._overrun(argument, after, start)
            self.position = stop
            try:
                return data[after:stop].decode()
            except UnicodeDecodeError as exc:
                raise self.error("text is not UTF-8", after + exc.start) from exc
        self.position = after
        if major == 5:
            return self._map(argument, start)
        if major == 4:
            return self._array(argument, start)
        if major == 1:
            return -1 - argument
        if major == 6:
            return self._tag(argument, start)
        return self._simple(info, argument, start)

    def _overrun(self, length: int, after: int, start: int) -> DecodeError:
        return self.error(f"a length of {length} where {self._end - after} bytes are left", start)

    def _enter(self, members: int, start: int) -> None:
        self._items -= members
        if self._items < 0:
            limit = self._limits.max_items
            raise LimitExceededError(
                format=self._format, limit="max_items", value=limit, offset=start
            )
        self._depth -= 1
        if self._depth < 0:
            limit = self._limits.max_depth
            raise LimitExceededError(
                format=self._format, limit="max_depth", value=limit, offset=start
            )

    def _array(self, length: int, start: int) -> list[object]:
        # Each member takes a byte at least: a length beyond that can never be honoured.
        if length > self._end - self.position:
            raise self._overrun(length, self.position, start)
        self._enter(length, start)
        item = self.item
        value = [item() for _ in range(length)]
        self._depth += 1
        return value

    def _map(self, length: int, start: int) -> dict[int | str | bytes, object]:
        if 2 * length > self._end - self.position:
            raise self._overrun(length, self.position, start)
        self._enter(2 * length, start)
        value: dict[int | str | bytes, object] = {}
        data, item = self._data, self.item
        for _ in range(length):
            at = self.position
            initial = data[at]
            # The keys of COSE and EAT are read on the spot: calls for them would be a fifth of
            # what decoding a token costs.
            if initial < 24:
                key: int | str | bytes = initial
                self.position = at + 1
            elif initial == 0x19:
                key = data[at + 1] << 8 | data[at + 2]
                self.position = at + 3
            else:
                key = self._key(at)
            if key in value:
                raise self._repeated(key, at)
            value[key] = item()
        self._depth += 1
        return value

    def _key(self, at: int) -> int | str | bytes:
        key = self.item()
        if type(key) is int or type(key) is str or type(key) is bytes:
            return key
        raise UnsupportedError(
            "a map key that is neither an integer nor a string", format=self._format, offset=at
        )

    def _repeated(self, key: object, at: int) -> DecodeError:
        return self.error(f"the map key {shown(key)} occurs twice", at)

    def _tag(self, number: int, start: int) -> Tag:
        self._enter(1, start)
        value = Tag(number, self.item())
        self._depth += 1
        return value

    def _simple(self, info: int, argument: int, start: int) -> bool | float | None:
        if info < 24:
            if info in _SIMPLE:
                return _SIMPLE[info]
            raise UnsupportedError(
                "undefined" if info == 23 else f"simple value {info}",
                format=self._format,
                offset=start,
            )
        if info == 24:
            if argument < 32:
                raise self.error(f"simple value {argument} in two bytes", start)
            raise UnsupportedError(f"simple value {argument}", format=self._format, offset=start)
        width = 1 << (info - 24)
        (value,) = _FLOATS[width].unpack_from(self._data, start + 1)
        if not isfinite(value):
            raise UnsupportedError(
                f"the float {value} is not finite", format=self._format, offset=start
            )
        return float(value)

    def _indefinite(self, major: int, start: int) -> object:
        if major == 7:
            raise self.error("a break outside an item of indefinite length", start)
        if major in {0, 1, 6}:
            raise self.error(f"reserved additional information {_INDEFINITE}", start)
        if not self._allow_indefinite:
            raise UnsupportedError("indefinite length", format=self._format, offset=start)
        self.position = start + 1
        self._enter(0, start)
        value = self._chunks(major) if major in {2, 3} else self._members(major)
        self.position += 1
        self._depth += 1
        return value

    def _chunks(self, major: int) -> bytes | str:
        chunks = []
        while (initial := self._data[self.position]) != _BREAK:
            if initial >> 5 != major or initial & 0x1F == _INDEFINITE:
                raise self.error(
                    "a chunk that is not a definite string of the same type", self.position
                )
            self._charge(1)
            chunks.append(self.item())
        # A text chunk must be UTF-8 in itself (RFC 8949 section 3.2.3), as item() demanded.
        if major == 2:
            return b"".join(chunk for chunk in chunks if isinstance(chunk, bytes))
        return "".join(chunk for chunk in chunks if isinstance(chunk, str))

    def _members(self, major: int) -> object:
        array: list[object] = []
        table: dict[int | str | bytes, object] = {}
        while self._data[self.position] != _BREAK:
            if major == 4:
                self._charge(1)
                array.append(self.item())
            else:
                self._charge(2)
                at = self.position
                key = self._key(at)
                if key in table:
                    raise self._repeated(key, at)
                table[key] = self.item()
        return array if major == 4 else table

    def _charge(self, items: int) -> None:
        self._items -= items
        if self._items < 0:
            raise LimitExceededError(
                format=self._format,
                limit="max_items",
                value=self._limits.max_items,
                offset=self.position,
            )


_SIMPLE = {20: False, 21: True, 22: None}
_FLOATS = {2: struct.Struct(">e"), 4: struct.Struct(">f"), 8: struct.Struct(">d")}


def _encode(value: object, out: list[bytes], depth: int) -> None:
    if isinstance(value, bytes):
        out.append(_head(2, len(value)))
        out.append(value)
    elif isinstance(value, str):
        _encode_text(value, out)
    elif value is None or isinstance(value, bool):
        out.append(b"\xf6" if value is None else b"\xf5" if value else b"\xf4")
    elif isinstance(value, int):
        out.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
    elif isinstance(value, float):
        out.append(_float(value))
    else:
        _encode_container(value, out, depth)


def _encode_container(value: object, out: list[bytes], depth: int) -> None:
    if depth == 0:
        raise ApiMisuseError(f"CBOR: nested deeper than {HIGHEST_DEPTH}, or inside itself")
    if isinstance(value, (list, tuple)):
        out.append(_head(4, len(value)))
        for member in value:
            _encode(member, out, depth - 1)
    elif isinstance(value, Mapping):
        _encode_map(value, out, depth)
    elif isinstance(value, Tag):
        if value.number < 0:
            raise ApiMisuseError(f"CBOR: {value.number} is no tag number")
        out.append(_head(6, value.number))
        _encode(value.value, out, depth - 1)
    else:
        raise ApiMisuseError(f"CBOR: cannot encode a {type(value).__name__}")


def _encode_map(value: Mapping[object, object], out: list[bytes], depth: int) -> None:
    entries = []
    for key, member in value.items():
        if isinstance(key, bool) or not isinstance(key, (int, str, bytes)):
            raise ApiMisuseError(f"CBOR: cannot encode a {type(key).__name__} as a map key")
        entry: list[bytes] = []
        _encode(key, entry, 1)
        encoded_key = b"".join(entry)
        _encode(member, entry, depth - 1)
        entries.append((encoded_key, b"".join(entry)))
    entries.sort()
    out.append(_head(5, len(entries)))
    out.extend(entry for _, entry in entries)


def _encode_text(value: str, out: list[bytes]) -> None:
    try:
        encoded = value.encode()
    except UnicodeEncodeError as exc:
        raise ApiMisuseError("CBOR: text with a lone surrogate") from exc
    out.append(_head(3, len(encoded)))
    out.append(encoded)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument >> (8 * width) == 0:
            return bytes((major << 5 | info,)) + argument.to_bytes(width)
    raise ApiMisuseError("CBOR: a number beyond 64 bits; use Tag(2, …) or Tag(3, …)")


def _float(value: float) -> bytes:
    if not isfinite(value):
        raise ApiMisuseError(f"CBOR: cannot encode the float {value}")
    for initial, width in ((b"\xf9", 2), (b"\xfa", 4)):
        try:
            packed = _FLOATS[width].pack(value)
        except OverflowError:
            continue
        if _FLOATS[width].unpack(packed)[0] == value:
            return initial + packed
    return b"\xfb" + _FLOATS[8].pack(value)
