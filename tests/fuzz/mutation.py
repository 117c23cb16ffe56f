# SPDX-License-Identifier: Apache-2.0
"""Mutations of sample inputs: of octets, and of the values that CBOR and JSON octets stand for.

Mutated octets test the outer decoder; mutated values come through it and test what reads them,
byte strings with CBOR inside included.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random

from troth.errors import TrothError
from troth.formats import cbor
from troth.formats.limits import RIM_LIMITS

_HEADS = [bytes([major << 5 | info]) for major in range(8) for info in (0, 1, 23, 24, 27, 31)]
_LENGTHS = [
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\x00\x00\x00\x00\xff\xff\xff\xff",
    b"\x00\x01\x00\x00",
]
_VALUES: Sequence[object] = (
    0, 1, -1, 23, 24, 2**31, 2**32, 2**63, 2**64 - 1, -(2**64), True, False, None, 0.0, -1.5, 1e308,
    b"", b"\0", bytes(31), bytes(32), bytes(33), bytes(48), bytes(64), bytes(65), "", "x", "\0",
    "é", "😀" * 9, "spiffe://", [], [[]], {}, {0: 0}, {"": ""}, [0] * 40, "1.2.3", "a:b", b"\xa0",
)  # fmt: skip
_TAGS = (0, 1, 2, 3, 17, 18, 24, 28, 29, 32, 35, 37, 61, 111, 399, 501, 506, 550, 560, 907, 2**40)


def mutate(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Return `data` changed in one way or a few."""
    if random.random() < 0.5:
        changed = _mutate_value(data, random)
        if changed is not None and random.random() < 0.9:
            return changed
        data = data if changed is None else changed
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(_OCTET_MUTATIONS)(data, others, random)
    return data


def _flip(data: bytes, _others: Sequence[bytes], random: Random) -> bytes:
    if not data:
        return random.randbytes(3)
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _replace(data: bytes, _others: Sequence[bytes], random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    piece = random.choice((random.choice(_HEADS), random.randbytes(1), random.choice(_LENGTHS)))
    return data[:at] + piece + data[at + len(piece) :]


def _insert(data: bytes, _others: Sequence[bytes], random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    piece = random.choice(
        (
            random.choice(_HEADS),
            random.choice(_HEADS) + random.choice(_LENGTHS),
            b"{",
            b'"',
            b"\xc3",
        )
    )
    return data[:at] + piece * random.choice((1, 1, 2, 70)) + data[at:]


def _delete(data: bytes, _others: Sequence[bytes], random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + data[at + random.choice((1, 1, 2, 8)) :]


def _truncate(data: bytes, _others: Sequence[bytes], random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _repeat(data: bytes, _others: Sequence[bytes], random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    stop = start + random.choice((1, 4, 16, len(data)))
    return data[:stop] + data[start:stop] * random.choice((1, 2, 50)) + data[stop:]


def _splice(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    other = random.choice(others)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


_OCTET_MUTATIONS: list[Callable[[bytes, Sequence[bytes], Random], bytes]] = [
    _flip, _flip, _replace, _insert, _delete, _truncate, _repeat, _splice,
]  # fmt: skip


def _mutate_value(data: bytes, random: Random) -> bytes | None:
    """Change the value that `data` encodes, or return None where it encodes none."""
    if data[:1] in {b"{", b"["}:
        try:
            return json.dumps(_changed(json.loads(data), random, _in_json)).encode()
        except (ValueError, TypeError, RecursionError):
            return None
    try:
        value = cbor.decode(data, format="sample", limits=RIM_LIMITS, allow_indefinite=True)
        return cbor.encode(_changed(value, random, _in_cbor))
    except TrothError:
        return None


def _changed(value: object, random: Random, leaf: Callable[[object, Random], object]) -> object:
    """Return `value` with one node, somewhere in it, replaced, removed, repeated or wrapped."""
    if random.random() < 0.15:
        return leaf(value, random)
    if isinstance(value, dict) and value:
        return _changed_map(value, random, leaf)
    if isinstance(value, list) and value:
        at = random.randrange(len(value))
        action = random.random()
        if action < 0.1:
            return value[:at] + value[at + 1 :]
        if action < 0.2:
            return value[:at] + value[at : at + 1] * random.choice((2, 3, 40)) + value[at + 1 :]
        return [*value[:at], _changed(value[at], random, leaf), *value[at + 1 :]]
    if isinstance(value, cbor.Tag) and random.random() < 0.9:
        return cbor.Tag(value.number, _changed(value.value, random, leaf))
    return leaf(value, random)


def _changed_map(
    value: dict[object, object], random: Random, leaf: Callable[[object, Random], object]
) -> object:
    key = random.choice(list(value))
    action = random.random()
    if action < 0.1:
        return {k: v for k, v in value.items() if k != key}
    if action < 0.2:
        new = random.choice([v for v in _VALUES if isinstance(v, (int, str)) and v is not True])
        return {**value, new: value[key]}
    return {**value, key: _changed(value[key], random, leaf)}


def _in_json(value: object, random: Random) -> object:
    replacement = random.choice((value, *_VALUES))
    return "" if isinstance(replacement, bytes) else replacement


def _in_cbor(value: object, random: Random) -> object:
    if isinstance(value, bytes) and random.random() < 0.8:
        inner = _mutate_value(value, random) if value else None
        return random.randbytes(len(value)) if inner is None else inner
    if random.random() < 0.2:
        return cbor.Tag(random.choice(_TAGS), value)
    return random.choice(_VALUES)
