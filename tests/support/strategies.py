# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for values and octets of the binary formats."""

from __future__ import annotations

from hypothesis import strategies as st

from troth.formats import cbor
from troth.formats.cbor import Tag

_INTEGERS = st.integers(-(2**64), 2**64 - 1)
_EDGES = st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])


def cbor_keys() -> st.SearchStrategy[int | str | bytes]:
    """Return map keys that `cbor.decode` takes."""
    return st.one_of(_INTEGERS, _EDGES, st.text(max_size=30), st.binary(max_size=30))


def cbor_values(*, tags: bool = True) -> st.SearchStrategy[object]:
    """Return values that `cbor.encode` takes and `cbor.decode` gives back."""
    leaves: st.SearchStrategy[object] = st.one_of(
        st.none(),
        st.booleans(),
        _INTEGERS,
        _EDGES,
        _EDGES.map(lambda number: -1 - number),
        st.floats(allow_nan=False, allow_infinity=False),
        st.floats(width=16, allow_nan=False, allow_infinity=False),
        st.text(max_size=40),
        st.binary(max_size=70),
    )

    def containers(members: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        choices: list[st.SearchStrategy[object]] = [
            st.lists(members, max_size=6),
            st.dictionaries(cbor_keys(), members, max_size=6),
        ]
        if tags:
            choices.append(st.builds(Tag, st.integers(0, 2**64 - 1), members))
        return st.one_of(choices)

    return st.recursive(leaves, containers, max_leaves=12)


def encoded_items() -> st.SearchStrategy[bytes]:
    """Return octets of which many are CBOR: random ones, encoded values, and changed ones."""
    return st.one_of(
        st.binary(max_size=40),
        cbor_values().map(cbor.encode),
        _changed(),
    )


@st.composite
def _changed(draw: st.DrawFn) -> bytes:
    data = draw(cbor_values(tags=False).map(cbor.encode))
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
