# SPDX-License-Identifier: Apache-2.0
"""What a Verifier can say about an Attester: trustworthiness claims, tiers and the vector.

Source: draft-ietf-rats-ar4si-06 section 2.3. The descriptions of the values are our own words;
they live in `troth.formats.ar4si_values`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from troth.errors import DecodeError

__all__ = ["CLAIM_NAMES", "TrustTier", "TrustworthinessVector", "tier_of"]

_FORMAT: Final = "trustworthiness vector"


class TrustTier(IntEnum):
    """The four tiers, worst last: `max()` over claims gives the tier of the whole.

    The order none < affirming < warning < contraindicated is that of the values on the wire. It
    is an order of alarm and not of trust: NONE means that nothing was established, so whoever
    decides on a tier must deny it. `is_better_than` compares by trust.
    """

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96

    @property
    def word(self) -> str:
        """The tier's spelling in JSON."""
        return self.name.lower()

    @classmethod
    def from_word(cls, word: object) -> TrustTier:
        """Return the tier that JSON spells `word`.

        Raises:
            DecodeError: it spells none.
        """
        tier = _TIER_BY_WORD.get(word) if isinstance(word, str) else None
        if tier is None:
            raise DecodeError(
                f"{str(word)[:32]!r} is none of {', '.join(_TIER_BY_WORD)}",
                format="trustworthiness tier",
            )
        return tier

    @classmethod
    def from_number(cls, number: object) -> TrustTier:
        """Return the tier that CBOR writes as `number`.

        Raises:
            DecodeError: it writes none so.
        """
        if type(number) is int:
            for tier in cls:
                if tier == number:
                    return tier
        raise DecodeError(
            f"{str(number)[:32]!r} is none of 0, 2, 32, 96", format="trustworthiness tier"
        )

    def is_better_than(self, other: TrustTier) -> bool:
        """Say whether `self` asserts more trust: affirming > warning > none > contraindicated."""
        return _TRUST[self] > _TRUST[other]

    @staticmethod
    def least_trusted(tiers: Iterable[TrustTier]) -> TrustTier:
        """Return the tier that asserts the least trust, NONE where there are no tiers."""
        return min(tiers, key=_TRUST.__getitem__, default=TrustTier.NONE)


_TIER_BY_WORD: Final = {tier.word: tier for tier in TrustTier}
_TRUST: Final = {
    TrustTier.CONTRAINDICATED: 0,
    TrustTier.NONE: 1,
    TrustTier.WARNING: 2,
    TrustTier.AFFIRMING: 3,
}


def tier_of(value: int) -> TrustTier:
    """Return the tier that a claim's value lies in, known value or not (section 2.3.2).

    Args:
        value: -128 … 127.
    """
    if -1 <= value <= 1:
        return TrustTier.NONE
    if -32 <= value <= 31:
        return TrustTier.AFFIRMING
    if -96 <= value <= 95:
        return TrustTier.WARNING
    return TrustTier.CONTRAINDICATED


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustworthinessVector:
    """One value for each aspect that was appraised; None where no claim is made.

    A Relying Party does not tell 0 from None; the vector keeps both as they came.

    Attributes:
        instance_identity, configuration, executables, file_system, hardware, runtime_opaque,
        storage_opaque, sourced_data: the standard claims, -128 … 127.
        others: claims that the draft does not define, by JSON name or CBOR key; they count.

    Raises:
        DecodeError: a value that is not an integer of eight bits.
    """

    instance_identity: int | None = None
    configuration: int | None = None
    executables: int | None = None
    file_system: int | None = None
    hardware: int | None = None
    runtime_opaque: int | None = None
    storage_opaque: int | None = None
    sourced_data: int | None = None
    others: Mapping[str | int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.items():
            if type(value) is not int or not -128 <= value <= 127:
                raise DecodeError(f"{name} is {value!r}, not -128 … 127", format=_FORMAT)
        if taken := set(self.others) & _STANDARD_LABELS:
            raise DecodeError(f"{taken.pop()!r} is a standard claim", format=_FORMAT)
        object.__setattr__(self, "others", MappingProxyType(dict(self.others)))

    def items(self) -> Iterator[tuple[str | int, int]]:
        """Yield each claim that is made, as (JSON name, value); unknown ones by their label."""
        for name, attribute in CLAIM_NAMES.items():
            value = getattr(self, attribute)
            if value is not None:
                yield name, value
        yield from self.others.items()

    @property
    def tiers(self) -> dict[str | int, TrustTier]:
        """The tier of each claim that is made."""
        return {name: tier_of(value) for name, value in self.items()}

    @property
    def worst(self) -> TrustTier:
        """The tier of the worst claim; NONE where no claim says anything."""
        return max(self.tiers.values(), default=TrustTier.NONE)

    def to_json(self) -> dict[str, int]:
        """Return the vector as JSON carries it.

        Raises:
            DecodeError: an unknown claim came from CBOR and has no JSON name.
        """
        value: dict[str, int] = {}
        for name, number in self.items():
            if not isinstance(name, str):
                raise DecodeError(f"claim {name} has no JSON name", format=_FORMAT)
            value[name] = number
        return value

    def to_cbor(self) -> dict[int | str, int]:
        """Return the vector as CBOR carries it."""
        return {_KEY_BY_NAME.get(name, name): number for name, number in self.items()}

    @classmethod
    def from_json(cls, value: object) -> TrustworthinessVector:
        """Read a vector from its JSON object.

        Raises:
            DecodeError: not an object of small integers.
        """
        return cls._from(value, CLAIM_NAMES)

    @classmethod
    def from_cbor(cls, value: object) -> TrustworthinessVector:
        """Read a vector from its CBOR map.

        Raises:
            DecodeError: not a map of small integers.
        """
        return cls._from(value, _ATTRIBUTE_BY_KEY)

    @classmethod
    def _from(
        cls, value: object, attributes: Mapping[str, str] | Mapping[int, str]
    ) -> TrustworthinessVector:
        if not isinstance(value, dict):
            raise DecodeError("is not a map", format=_FORMAT)
        standard: dict[str, int] = {}
        others: dict[str | int, int] = {}
        for label, number in value.items():
            attribute = attributes.get(label)
            if attribute is not None:
                standard[attribute] = number
            elif isinstance(label, str | int):
                others[label] = number
            else:
                raise DecodeError("a label is neither text nor integer", format=_FORMAT)
        # A null where a number belongs would read as "no claim"; it is not one.
        if None in value.values():
            raise DecodeError("a claim is null", format=_FORMAT)
        return cls(**standard, others=others)


_ATTRIBUTES: Final = tuple(f.name for f in fields(TrustworthinessVector) if f.name != "others")

CLAIM_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {attribute.replace("_", "-"): attribute for attribute in _ATTRIBUTES}
)
"""JSON name to attribute, in the order of the CBOR keys 0 … 7."""

_ATTRIBUTE_BY_KEY: Final[Mapping[int, str]] = MappingProxyType(dict(enumerate(_ATTRIBUTES)))
_KEY_BY_NAME: Final[Mapping[str | int, int | str]] = {n: key for key, n in enumerate(CLAIM_NAMES)}
_STANDARD_LABELS: Final[frozenset[str | int]] = frozenset({*CLAIM_NAMES, *_ATTRIBUTE_BY_KEY})
