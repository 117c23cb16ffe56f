# SPDX-License-Identifier: Apache-2.0
"""A digest of a set that is kept up to date as members come and go.

Each member is hashed to 1024 numbers of 16 bits, and the digest of the set is their sum in each
place: adding and removing cost one hash, the order does not matter, and two stores with the same
members have the same digest. Finding another set with the same sum means solving a short-vector
problem; plain XOR, or one sum of 256 bits, could be steered by whoever writes the members.

Source: M. Bellare and D. Micciancio, "A New Paradigm for Collision-Free Hashing" (EUROCRYPT 1997);
the parameters are those of K. Lewi et al., "Securing Update Propagation with Homomorphic Hashing"
(2019), LtHash16.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256, shake_128
from typing import Final

__all__ = ["EMPTY", "SetDigest"]

_LANES: Final = 1024
_STRIDE: Final = 4
"""Octets of a lane: two for the number and two that take the carry, so that one addition of two
long integers adds all lanes."""
_OCTETS: Final = _LANES * _STRIDE
_MASK: Final = int.from_bytes(b"\x00\x00\xff\xff" * _LANES)
_MODULUS: Final = int.from_bytes(b"\x00\x01\x00\x00" * _LANES)


@dataclass(frozen=True, slots=True)
class SetDigest:
    """The digest of a set; `add` and `remove` return that of the changed set.

    Adding a member twice counts it twice: the caller knows what is in the set.
    """

    lanes: int = 0

    def add(self, member: bytes) -> SetDigest:
        """Return the digest of the set with `member`."""
        return SetDigest((self.lanes + _lanes(member)) & _MASK)

    def remove(self, member: bytes) -> SetDigest:
        """Return the digest of the set without `member`, which must be in it."""
        return SetDigest((self.lanes + _MODULUS - _lanes(member)) & _MASK)

    def hexdigest(self) -> str:
        """Return the digest as 64 hexadecimal digits."""
        return sha256(self.lanes.to_bytes(_OCTETS)).hexdigest()


EMPTY: Final = SetDigest()


def _lanes(member: bytes) -> int:
    return int.from_bytes(shake_128(member).digest(_OCTETS)) & _MASK
