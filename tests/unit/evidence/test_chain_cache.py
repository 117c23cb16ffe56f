# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import combinations

from troth.evidence.chain_cache import ChainCache


def test_no_two_ways_of_grouping_octets_have_one_key() -> None:
    ways = [
        ((b"ab",), ()),
        ((), (b"ab",)),
        ((b"a", b"b"), ()),
        ((b"a",), (b"b",)),
        ((), (b"a", b"b")),
        ((b"", b"ab"), ()),
        ((b"ab", b""), ()),
        ((b"ab",),),
    ]
    for one, other in combinations(ways, 2):
        assert ChainCache.key(*one) != ChainCache.key(*other)


def test_the_least_recently_used_goes_first() -> None:
    cache: ChainCache[int] = ChainCache(2)
    cache.put(b"a", 1)
    cache.put(b"b", 2)
    assert cache.get(b"a") == 1
    cache.put(b"c", 3)
    assert cache.get(b"b") is None
    assert (cache.get(b"a"), cache.get(b"c"), len(cache)) == (1, 3, 2)
