# SPDX-License-Identifier: Apache-2.0
"""Whatever octets come as a voucher or a device list, the errors are ours."""

from __future__ import annotations

import contextlib

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import DecodeError
from troth.formats import cbor
from troth.formats.keys import spki
from troth.mesh.ownership_voucher import decode_voucher

_KEY = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
_LEAVES = st.none() | st.integers(-300, 300) | st.binary(max_size=20) | st.text(max_size=8)
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=6), max_leaves=20)
_HEADER = st.tuples(
    st.just(101), st.binary(min_size=16, max_size=16), st.just([]), st.text(), _VALUES, _VALUES
).map(lambda parts: cbor.encode(list(parts)))


@given(st.binary(max_size=200))
def test_any_octets_are_decoded_or_refused(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode_voucher(data)


@given(_HEADER, _VALUES, st.lists(_VALUES, max_size=3))
def test_any_voucher_like_value_is_decoded_or_refused(
    header: bytes, chain: object, entries: list[object]
) -> None:
    with contextlib.suppress(DecodeError):
        decode_voucher(cbor.encode([101, header, [5, bytes(32)], chain, entries]))


@given(st.dictionaries(st.integers(-3, 3), _VALUES, max_size=3), _VALUES)
def test_any_entry_like_value_is_decoded_or_refused(header: object, payload: object) -> None:
    entry = cbor.Tag(18, [cbor.encode(header), {}, cbor.encode(payload), b"signature"])
    key = [10, 1, _KEY]
    inner = cbor.encode([101, bytes(16), [], "", key, None])
    with contextlib.suppress(DecodeError):
        decode_voucher(cbor.encode([101, inner, [5, bytes(32)], None, [entry]]))
