# SPDX-License-Identifier: Apache-2.0
"""How JSON and CBOR write the same EAR values: labels, octets, tiers, times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Final, Protocol

from troth.errors import DecodeError, UnsupportedError
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.ear.dialects import CORE, EXTENSIONS, Claim, Dialect

__all__ = ["CBOR", "JSON", "Encoding", "Label", "known_labels", "other_dialects_labels"]

Label = str | int

_YEAR_10000: Final = 253_402_300_800


class Encoding(Protocol):
    """One of the two encodings of an EAR.

    Attributes:
        binary: octets are octets, not text.
        verifier_labels: labels of `developer` and `build` in the Verifier's identity.
    """

    binary: bool
    verifier_labels: tuple[Label, Label]

    def __hash__(self) -> int: ...

    def label(self, claim: Claim, dialect: Dialect) -> Label:
        """Return the label of a claim."""
        ...

    def tier(self, value: object) -> TrustTier:
        """Read a tier."""
        ...

    def tier_value(self, tier: TrustTier) -> object:
        """Write a tier."""
        ...

    def vector(self, value: object) -> TrustworthinessVector:
        """Read a vector."""
        ...

    def vector_value(self, vector: TrustworthinessVector) -> object:
        """Write a vector."""
        ...

    def octets(self, value: object, *, format: str) -> bytes:
        """Read octets."""
        ...

    def octets_value(self, octets: bytes) -> object:
        """Write octets."""
        ...

    def nonce(self, value: object, *, format: str) -> bytes:
        """Read a nonce."""
        ...

    def nonce_value(self, nonce: bytes) -> object:
        """Write a nonce."""
        ...

    def time(self, value: object, dialect: Dialect, *, format: str) -> datetime:
        """Read a time."""
        ...

    def extension_value(self, value: object, *, format: str) -> object:
        """Return the value of an unknown claim if this encoding can carry it."""
        ...


class _Json:
    binary = False
    verifier_labels: tuple[Label, Label] = ("developer", "build")

    def label(self, claim: Claim, dialect: Dialect) -> Label:
        return claim.json_label(dialect)

    def tier(self, value: object) -> TrustTier:
        return TrustTier.from_word(value)

    def tier_value(self, tier: TrustTier) -> object:
        return tier.word

    def vector(self, value: object) -> TrustworthinessVector:
        return TrustworthinessVector.from_json(value)

    def vector_value(self, vector: TrustworthinessVector) -> object:
        return vector.to_json()

    def octets(self, value: object, *, format: str) -> bytes:
        if not isinstance(value, str):
            raise DecodeError("octets are not base64url text", format=format)
        return decode_base64url(value, format=format)

    def octets_value(self, octets: bytes) -> object:
        return encode_base64url(octets)

    def nonce(self, value: object, *, format: str) -> bytes:
        """Read with or without padding: draft 03 counts it (12 to 88 characters), many omit it."""
        if not isinstance(value, str):
            raise DecodeError("a nonce is not base64url text", format=format)
        if value.endswith("=") and len(value) % 4 == 0:
            return decode_base64url(value[:-2] + value[-2:].rstrip("="), format=format)
        return decode_base64url(value, format=format)

    def nonce_value(self, nonce: bytes) -> object:
        text = encode_base64url(nonce)
        return text + "=" * (-len(text) % 4)

    def time(self, value: object, dialect: Dialect, *, format: str) -> datetime:
        # Go programs of the older dialects write 1.666529184e+09; draft 03 forbids it.
        if isinstance(value, float) and dialect.dotted and value.is_integer():
            value = int(value)
        return _time(value, format)

    def extension_value(self, value: object, *, format: str) -> object:
        if not _is_json(value):
            raise UnsupportedError(
                "holds octets, tags or integer labels, for which this claim has no JSON form "
                "that Troth knows",
                format=format,
                remedy="write this result as CBOR, or leave the claim out",
            )
        return value


class _Cbor:
    binary = True
    verifier_labels: tuple[Label, Label] = (0, 1)

    def label(self, claim: Claim, dialect: Dialect) -> Label:
        return claim.cbor_label(dialect)

    def tier(self, value: object) -> TrustTier:
        return TrustTier.from_number(value)

    def tier_value(self, tier: TrustTier) -> object:
        return int(tier)

    def vector(self, value: object) -> TrustworthinessVector:
        return TrustworthinessVector.from_cbor(value)

    def vector_value(self, vector: TrustworthinessVector) -> object:
        return vector.to_cbor()

    def octets(self, value: object, *, format: str) -> bytes:
        if not isinstance(value, bytes):
            raise DecodeError("octets are not a byte string", format=format)
        return value

    def octets_value(self, octets: bytes) -> object:
        return octets

    def nonce(self, value: object, *, format: str) -> bytes:
        return self.octets(value, format=format)

    def nonce_value(self, nonce: bytes) -> object:
        return nonce

    def time(self, value: object, dialect: Dialect, *, format: str) -> datetime:
        del dialect
        return _time(value, format)

    def extension_value(self, value: object, *, format: str) -> object:
        del format
        return value


JSON: Final[Encoding] = _Json()
CBOR: Final[Encoding] = _Cbor()


@cache
def known_labels(encoding: Encoding, dialect: Dialect) -> Mapping[Label, str]:
    """Return label to draft-03 name, for every claim whose spelling is known."""
    return {encoding.label(claim, dialect): claim.name for claim in (*CORE, *EXTENSIONS)}


@cache
def other_dialects_labels(encoding: Encoding, dialect: Dialect) -> frozenset[Label]:
    """Return the labels that only another dialect gives to a claim known here.

    One token that says `ear.status` and `ear_status` would mean two things to two readers.
    """
    spellings: set[Label] = {
        spelling for claim in (*CORE, *EXTENSIONS) for spelling in (claim.name, claim.dotted)
    }
    return frozenset(spellings - known_labels(encoding, dialect).keys())


def _time(value: object, format: str) -> datetime:
    if type(value) is not int or not 0 <= value < _YEAR_10000:
        raise DecodeError(f"{value!r:.32} is not a time in whole seconds", format=format)
    return datetime.fromtimestamp(value, UTC)


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(item) for name, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, bool | int | float | str)
