# SPDX-License-Identifier: Apache-2.0
"""Typed reading of a decoded claims map.

An EAT receiver ignores claims that it does not know (RFC 9711 section 4) but must not take a known
one in the wrong type or size. Each refusal names the claim and its key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from troth.errors import DecodeError
from troth.formats.cbor import Tag
from troth.formats.quoting import shown

__all__ = ["DIGEST_SIZES", "UEID_RAND_SIZE", "ClaimReader", "jsonable"]

DIGEST_SIZES = frozenset({32, 48, 64})
"""Octets of the hashes that PSA and CCA claims may hold: SHA-256, SHA-384, SHA-512."""

UEID_RAND_SIZE = 33
"""Octets of a UEID of type RAND: 0x01 and 32 octets (RFC 9711 section 4.2.1.1)."""

_UEID_RAND = 0x01


class ClaimReader:
    """One claims map, read claim by claim.

    Each method takes the claim's key and name and raises DecodeError where the claim has another
    type or size than asked for. `required` claims raise where absent; others give the empty value.
    """

    __slots__ = ("_claims", "_format")

    def __init__(self, claims: object, *, format: str) -> None:
        if type(claims) is not dict:
            raise DecodeError("the claims are not a map", format=format)
        self._claims: dict[int | str | bytes, object] = claims
        self._format = format

    def error(self, key: int, name: str, problem: str) -> DecodeError:
        """Return the refusal of one claim, for a rule that is not here."""
        return DecodeError(f"claim {key} ({name}) {problem}", format=self._format)

    def has(self, key: int) -> bool:
        """Say whether the claim is there."""
        return key in self._claims

    def octets(
        self, key: int, name: str, sizes: Collection[int] | None, *, required: bool = True
    ) -> bytes:
        """Return a byte string; `sizes` are the lengths that it may have, None for any."""
        value = self._claims.get(key)
        if type(value) is not bytes:
            if key not in self._claims and not required:
                return b""
            raise self._wrong(key, name, "a byte string")
        if sizes is not None and len(value) not in sizes:
            raise self.error(key, name, f"has {len(value)} octets; expected {_sizes(sizes)}")
        return value

    def ueid(self, key: int, name: str, *, required: bool = True) -> bytes:
        """Return a UEID of type RAND: 33 octets, the first 0x01."""
        value = self.octets(key, name, (UEID_RAND_SIZE,), required=required)
        if value and value[0] != _UEID_RAND:
            raise self.error(key, name, f"starts with 0x{value[0]:02x}; expected 0x01 (RAND)")
        return value

    def text(self, key: int, name: str, *, required: bool = True) -> str:
        """Return a text string."""
        value = self._claims.get(key)
        if type(value) is not str:
            if key not in self._claims and not required:
                return ""
            raise self._wrong(key, name, "a text string")
        return value

    def integer(self, key: int, name: str) -> int:
        """Return an integer; it must be there."""
        value = self._claims.get(key)
        if type(value) is not int:
            raise self._wrong(key, name, "an integer")
        return value

    def array(self, key: int, name: str) -> list[object]:
        """Return an array; it must be there."""
        value = self._claims.get(key)
        if type(value) is not list:
            raise self._wrong(key, name, "an array")
        return value

    def others(self, known: Collection[int]) -> dict[str, object]:
        """Return the claims that are not `known`, keys as text and values fit for JSON.

        What a Verifier does not understand it must not refuse, but people may want to see it.
        """
        keys = self._claims.keys() - known
        return {str(key): jsonable(self._claims[key]) for key in keys} if keys else {}

    def _wrong(self, key: int, name: str, expected: str) -> DecodeError:
        if key not in self._claims:
            return self.error(key, name, "is missing")
        value = self._claims[key]
        return self.error(key, name, f"is {_kind(value)} {shown(value)}; expected {expected}")


def jsonable(value: object) -> object:
    """Return a decoded CBOR value as JSON can hold it; byte strings as lower-case hex.

    A tag becomes `{"tag": number, "value": …}`. Different CBOR may give the same JSON: this is for
    people and policies that look at claims Troth itself does not know, never for comparison.
    """
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {
            key.hex() if isinstance(key, bytes) else str(key): jsonable(member)
            for key, member in value.items()
        }
    if isinstance(value, list):
        return [jsonable(member) for member in value]
    if isinstance(value, Tag):
        return {"tag": value.number, "value": jsonable(value.value)}
    return value


def _sizes(sizes: Collection[int]) -> str:
    if isinstance(sizes, range):
        return f"{sizes[0]} to {sizes[-1]}"
    return " or ".join(str(size) for size in sorted(sizes))


def _kind(value: object) -> str:
    return {
        bytes: "the byte string",
        str: "the text",
        int: "the integer",
        bool: "the boolean",
        float: "the float",
        list: "the array",
        dict: "the map",
        Tag: "the tagged item",
    }.get(type(value), "the value")
