# SPDX-License-Identifier: Apache-2.0
"""Does what was measured match a Reference Value, and if not, why not?

The comparison rules of CoRIM as pure functions. Each returns None, or the mismatch in words that
a finding can carry. A comparison that cannot be made is a mismatch: an unknown member, a missing
claim, an empty reference.

The rules, from draft-ietf-rats-corim (0b855af) "Rules of Comparison":

1. Every member of the reference must be met by the measured one; what the reference does not
   state is ignored.
2. Digests: at least one algorithm in common, and equal under every common one, so that stating a
   weaker digest beside cannot downgrade the comparison. Two digests by one algorithm, or none,
   never match.
3. Security version numbers: equal, or at least the minimum.
4. Raw values: of one length with each other and with the mask, equal where the mask has a 1.
5. Registers: every register of the reference, as digests; more may be measured.
6. Versions and names: equal. Versions have no order.
7. Integer ranges: both bounds included.
8. No comparison known for a member: no match.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest

from troth.endorsement.reference_value import ReferenceValue
from troth.formats.corim.tags import HASH_SIZES, hash_name

__all__ = [
    "Measured",
    "Mismatch",
    "closest",
    "compare",
    "compare_digests",
    "compare_flags",
    "compare_integer",
    "compare_raw_value",
    "compare_registers",
    "compare_signer",
    "compare_svn",
    "compare_text",
]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One condition that is not met.

    Attributes:
        attribute: which one: "digests", "svn", "register 7", …
        expected: what the reference states, as text.
        actual: what was measured, as text; "absent" where it was not.
        why: the rule that failed, as a sentence without a full stop.
    """

    attribute: str
    expected: str
    actual: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What verified Evidence says about one element; None, "" and empty mean that it does not.

    Attributes:
        key: measurement key that the scheme gives this element, such as "cca.rim".
        digests: algorithm to digest. Algorithms are compared under their registered names.
        name, version: component name and version.
        signer_id: digest of the key that signed the component.
        raw_value: octets.
        svn: security version number.
        registers: register to digests by algorithm.
        flags: CoRIM flag names to their state.
        integer: an integer.
    """

    key: str = ""
    digests: Mapping[str, bytes] = field(default_factory=dict)
    name: str = ""
    version: str = ""
    signer_id: bytes = b""
    raw_value: bytes | None = None
    svn: int | None = None
    registers: Mapping[int | str, Mapping[str, bytes]] = field(default_factory=dict)
    flags: Mapping[str, bool] = field(default_factory=dict)
    integer: int | None = None


def compare(reference: ReferenceValue, measured: Measured) -> tuple[Mismatch, ...]:
    """Compare one element with one Reference Value and return every mismatch; none is a match.

    Environments are not compared: `ReferenceValueSource.find` has selected by them.
    """
    found = [*_compare_component(reference, measured), *_compare_state(reference, measured)]
    found.extend(
        Mismatch(each, "a comparison", "none known", "no comparison is known for this member")
        for each in reference.uncomparable
    )
    if not _states_something(reference):
        found.append(Mismatch("value", "a measurement", "none", "the reference states nothing"))
    return tuple(found)


def closest(
    references: Iterable[ReferenceValue], measured: Measured
) -> tuple[ReferenceValue, tuple[Mismatch, ...]] | None:
    """Return the reference with the fewest mismatches, the first of several; None for none.

    For messages: "this is what came nearest". A match is a result without mismatches.
    """
    nearest: tuple[ReferenceValue, tuple[Mismatch, ...]] | None = None
    for reference in references:
        mismatches = compare(reference, measured)
        if not mismatches:
            return reference, mismatches
        if nearest is None or len(mismatches) < len(nearest[1]):
            nearest = reference, mismatches
    return nearest


def compare_digests(
    reference: Mapping[str, bytes], measured: Mapping[str, bytes], *, attribute: str = "digests"
) -> Mismatch | None:
    """Compare the digests of one object (rule 2)."""
    why = _digest_problem(reference, measured)
    if not why:
        return None
    return Mismatch(attribute, _shown(reference), _shown(measured), why)


def _digest_problem(reference: Mapping[str, bytes], measured: Mapping[str, bytes]) -> str:
    """Return why the digests do not match, or ""; a match is common and costs no message."""
    ours, theirs = _by_name(reference), _by_name(measured)
    if ours is None or theirs is None:
        return "two digests by one algorithm"
    if not ours:
        return "the reference has no digest"
    common = ours.keys() & theirs.keys()
    if not common:
        return "no hash algorithm in common"
    for name in sorted(common):
        if len(theirs[name]) != HASH_SIZES.get(name, len(theirs[name])):
            return f"a {name} digest of {len(theirs[name])} octets"
        if not compare_digest(ours[name], theirs[name]):
            return f"the {name} digests differ"
    return ""


def compare_svn(exact: int | None, minimum: int | None, measured: int | None) -> Mismatch | None:
    """Compare a security version number with an exact or a minimal one (rule 3)."""
    expected = str(exact) if exact is not None else f"at least {minimum}"
    if measured is None:
        return Mismatch("svn", expected, "absent", "no security version number was measured")
    if exact is not None and measured != exact:
        return Mismatch("svn", expected, str(measured), "another security version number")
    if minimum is not None and measured < minimum:
        return Mismatch("svn", f"at least {minimum}", str(measured), "below the minimum")
    return None


def compare_raw_value(value: bytes, mask: bytes | None, measured: bytes | None) -> Mismatch | None:
    """Compare octets under a mask; no mask compares all bits (rule 4)."""
    expected = value.hex() + (f" under mask {mask.hex()}" if mask is not None else "")
    if measured is None:
        return Mismatch("raw-value", expected, "absent", "no raw value was measured")
    actual = measured.hex()
    if mask is not None and len(mask) != len(value):
        return Mismatch("raw-value", expected, actual, "mask and value differ in length")
    if len(value) != len(measured):
        why = f"{len(measured)} octets where the reference has {len(value)}"
        return Mismatch("raw-value", expected, actual, why)
    bits = mask if mask is not None else b"\xff" * len(value)
    ours = bytes(octet & bit for octet, bit in zip(value, bits, strict=True))
    theirs = bytes(octet & bit for octet, bit in zip(measured, bits, strict=True))
    if not compare_digest(ours, theirs):
        return Mismatch("raw-value", expected, actual, "the selected bits differ")
    return None


def compare_registers(
    reference: Mapping[int | str, Mapping[str, bytes]],
    measured: Mapping[int | str, Mapping[str, bytes]],
) -> tuple[Mismatch, ...]:
    """Compare each register of the reference; further measured ones are ignored (rule 5)."""
    found: list[Mismatch] = []
    for register, digests in reference.items():
        attribute = f"register {register}"
        if register not in measured:
            why = "this register was not measured"
            found.append(Mismatch(attribute, _shown(digests), "absent", why))
            continue
        mismatch = compare_digests(digests, measured[register], attribute=attribute)
        if mismatch:
            found.append(mismatch)
    return tuple(found)


def compare_flags(
    reference: Mapping[str, bool], measured: Mapping[str, bool]
) -> tuple[Mismatch, ...]:
    """Compare each flag of the reference; a flag that was not measured is unknown, not false."""
    return tuple(
        Mismatch(
            name,
            str(wanted).lower(),
            str(measured[name]).lower() if name in measured else "absent",
            "another state" if name in measured else "this flag was not measured",
        )
        for name, wanted in reference.items()
        if measured.get(name) is not wanted
    )


def compare_integer(bounds: tuple[int | None, int | None], measured: int | None) -> Mismatch | None:
    """Compare an integer with inclusive bounds, None for no bound (rule 7)."""
    low, high = bounds
    expected = (
        f"{low}"
        if low is not None and low == high
        else f"{'any' if low is None else low} to {'any' if high is None else high}"
    )
    if measured is None:
        return Mismatch("integer", expected, "absent", "no integer was measured")
    if (low is not None and measured < low) or (high is not None and measured > high):
        return Mismatch("integer", expected, str(measured), "outside the range")
    return None


def compare_signer(accepted: Sequence[bytes], measured: bytes) -> Mismatch | None:
    """Compare the signer of a component with the accepted ones."""
    if any(compare_digest(each, measured) for each in accepted):
        return None
    expected = " or ".join(each.hex() for each in accepted)
    return Mismatch("signer-id", expected, measured.hex() or "absent", "not an accepted signer")


def compare_text(attribute: str, reference: str, measured: str) -> Mismatch | None:
    """Compare names, versions and keys, which are equal or not (rule 6)."""
    if reference == measured:
        return None
    return Mismatch(attribute, reference or "absent", measured or "absent", "not equal")


def _compare_component(reference: ReferenceValue, measured: Measured) -> Iterator[Mismatch]:
    found = [compare_text("key", reference.key, measured.key)]
    if reference.name:
        found.append(compare_text("name", reference.name, measured.name))
    if reference.version:
        found.append(compare_text("version", reference.version, measured.version))
    if reference.digests:
        found.append(compare_digests(reference.digests, measured.digests))
    if reference.signer_ids:
        found.append(compare_signer(reference.signer_ids, measured.signer_id))
    return (each for each in found if each is not None)


def _compare_state(reference: ReferenceValue, measured: Measured) -> Iterator[Mismatch]:
    found: list[Mismatch | None] = []
    if reference.svn is not None or reference.min_svn is not None:
        found.append(compare_svn(reference.svn, reference.min_svn, measured.svn))
    if reference.raw_value is not None:
        raw = compare_raw_value(reference.raw_value, reference.raw_mask, measured.raw_value)
        found.append(raw)
    if reference.int_range is not None:
        found.append(compare_integer(reference.int_range, measured.integer))
    found.extend(compare_registers(reference.registers, measured.registers))
    found.extend(compare_flags(reference.flags, measured.flags))
    return (each for each in found if each is not None)


def _states_something(reference: ReferenceValue) -> bool:
    return bool(
        reference.digests
        or reference.version
        or reference.registers
        or reference.flags
        or reference.raw_value is not None
        or reference.svn is not None
        or reference.min_svn is not None
        or reference.int_range is not None
    )


def _by_name(digests: Mapping[str, bytes]) -> dict[str, bytes] | None:
    named = {hash_name(name): value for name, value in digests.items()}
    return named if len(named) == len(digests) else None


def _shown(digests: Mapping[str, bytes]) -> str:
    return ", ".join(f"{name}:{value.hex()}" for name, value in sorted(digests.items())) or "absent"
