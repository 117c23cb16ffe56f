# SPDX-License-Identifier: Apache-2.0
"""Measurements: what is stated about one element of an environment.

Source: draft-ietf-rats-corim (0b855af) "Measurements", "Integrity Registers", "Int Range".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.identifier import (
    Digest,
    decode_digests,
    decode_identifier,
    decode_keys,
    encode_digests,
)
from troth.formats.corim.node import Node

__all__ = [
    "FLAG_NAMES",
    "IntRange",
    "Measurement",
    "MeasurementValues",
    "RawValue",
    "Svn",
    "Version",
    "decode_measurement",
    "decode_measurements",
]

FLAG_NAMES: Final = (
    "is-configured",
    "is-secure",
    "is-recovery",
    "is-debug",
    "is-replay-protected",
    "is-integrity-protected",
    "is-runtime-meas",
    "is-immutable",
    "is-tcb",
    "is-confidentiality-protected",
    "is-runtime-updatable",
)

_MEASUREMENT_KEYS: Final = frozenset({0, 1, 2})
_VALUE_KEYS: Final = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15})
_MAX_NAME: Final = 1024
_MAX_REGISTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Version:
    """A version with its scheme, such as 16384 for semver, or None."""

    text: str
    scheme: int | str | None = None


@dataclass(frozen=True, slots=True)
class Svn:
    """A security version number.

    Attributes:
        value: the number.
        form: how it was written: None for a plain integer (which means an exact number),
            `tags.SVN` for an exact one, `tags.MIN_SVN` for the lowest acceptable one.
    """

    value: int
    form: int | None = tags.SVN

    @property
    def is_minimum(self) -> bool:
        """Whether higher numbers are acceptable as well."""
        return self.form == tags.MIN_SVN


@dataclass(frozen=True, slots=True)
class RawValue:
    """Octets, perhaps with a mask that selects the bits to compare.

    Attributes:
        value: the octets.
        mask: the mask, or None where every bit counts. It may differ in length; then no
            comparison succeeds.
        deprecated_mask: the mask was written in the member of its own (key 5) that the draft
            deprecates.
    """

    value: bytes
    mask: bytes | None = None
    deprecated_mask: bool = False


@dataclass(frozen=True, slots=True)
class IntRange:
    """An inclusive range of integers; None is unbounded."""

    minimum: int | None
    maximum: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementValues:
    """The values of one measured element; at least one is present.

    Attributes:
        version, svn, digests, flags, raw_value: as in the draft. A raw value under a tag that is
            not known stays a `Tag`. Flags are by number (`FLAG_NAMES`).
        mac_address, ip_address: octets.
        serial_number, ueid, uuid, name: as in the draft.
        crypto_keys: keys or key identifiers, such as the signer of a component.
        registers: identifiers ("5" and 5 differ) to digests, for example PCRs.
        int_range: an integer or a range.
        extensions: members that a profile adds, uninterpreted.
    """

    version: Version | None = None
    svn: Svn | None = None
    digests: tuple[Digest, ...] = ()
    flags: Mapping[int | str, object] = field(default_factory=dict)
    raw_value: RawValue | Tag | None = None
    mac_address: bytes | None = None
    ip_address: bytes | None = None
    serial_number: str | None = None
    ueid: bytes | None = None
    uuid: bytes | None = None
    name: str | None = None
    crypto_keys: tuple[Tag, ...] = ()
    registers: Mapping[int | str, tuple[Digest, ...]] = field(default_factory=dict)
    int_range: int | IntRange | None = None
    extensions: Mapping[int | str, object] = field(default_factory=dict)

    def to_cbor(self) -> dict[int | str, object]:
        """Return the measurement-values-map."""
        found: dict[int | str, object] = {
            6: self.mac_address,
            7: self.ip_address,
            8: self.serial_number,
            9: self.ueid,
            10: self.uuid,
            11: self.name,
            **_encode_structured(self),
        }
        found = {key: value for key, value in found.items() if value is not None}
        return found | dict(self.extensions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured element.

    Attributes:
        key: which element: a number, text or tagged item (UUID, OID, or another, kept as it
            came); None for an anonymous one.
        values: what is stated about it.
        authorized_by: authorities, where the triple is a search condition.
    """

    key: int | str | Tag | None = None
    values: MeasurementValues
    authorized_by: tuple[Tag, ...] = ()

    def to_cbor(self) -> dict[int, object]:
        """Return the measurement-map."""
        encoded: dict[int, object] = {1: self.values.to_cbor()}
        if self.key is not None:
            encoded[0] = self.key
        if self.authorized_by:
            encoded[2] = list(self.authorized_by)
        return encoded


def decode_measurements(node: Node, *, minimum: int = 1) -> tuple[Measurement, ...]:
    """Decode a list of measurement-maps."""
    return tuple(decode_measurement(each) for each in node.elements(minimum=minimum))


def decode_measurement(node: Node) -> Measurement:
    """Decode a measurement-map."""
    node.only(_MEASUREMENT_KEYS)
    key = node.optional(0, "mkey")
    authorized_by = node.optional(2, "authorized-by")
    return Measurement(
        key=decode_measurement_key(key) if key else None,
        values=_decode_values(node.member(1, "mval")),
        authorized_by=decode_keys(authorized_by) if authorized_by else (),
    )


def decode_measurement_key(node: Node) -> int | str | Tag:
    """Decode a measured-element choice."""
    if isinstance(node.value, Tag):
        return decode_identifier(node)
    return node.text(maximum=_MAX_NAME) if isinstance(node.value, str) else node.unsigned()


def _decode_values(node: Node) -> MeasurementValues:
    version = node.optional(0, "version")
    svn = node.optional(1, "svn")
    digests = node.optional(2, "digests")
    flags = node.optional(3, "flags")
    serial_number = node.optional(8, "serial-number")
    name = node.optional(11, "name")
    crypto_keys = node.optional(13, "cryptokeys")
    registers = node.optional(14, "integrity-registers")
    int_range = node.optional(15, "int-range")
    return MeasurementValues(
        version=_decode_version(version) if version else None,
        svn=_decode_svn(svn) if svn else None,
        digests=decode_digests(digests) if digests else (),
        flags=_decode_flags(flags) if flags else {},
        raw_value=_decode_raw_value(node),
        mac_address=_octets(node, 6, "mac-addr", {6, 8}),
        ip_address=_octets(node, 7, "ip-addr", {4, 16}),
        serial_number=serial_number.text(maximum=_MAX_NAME) if serial_number else None,
        ueid=_octets(node, 9, "ueid", set(range(7, 34))),
        uuid=_octets(node, 10, "uuid", {16}),
        name=name.text(maximum=_MAX_NAME) if name else None,
        crypto_keys=decode_keys(crypto_keys) if crypto_keys else (),
        registers=_decode_registers(registers) if registers else {},
        int_range=_decode_int_range(int_range) if int_range else None,
        extensions=node.extensions(_VALUE_KEYS),
    )


def _octets(node: Node, key: int, name: str, sizes: set[int]) -> bytes | None:
    member = node.optional(key, name)
    if member is None:
        return None
    value = member.octets()
    if len(value) not in sizes:
        raise member.error(f"{len(value)} octets; expected {_sizes(sizes)}")
    return value


def _sizes(sizes: set[int]) -> str:
    ordered = sorted(sizes)
    if len(ordered) > 2:
        return f"{ordered[0]} to {ordered[-1]}"
    return " or ".join(str(size) for size in ordered)


def _decode_version(node: Node) -> Version:
    node.only(frozenset({0, 1}))
    scheme = node.optional(1, "version-scheme")
    decoded: int | str | None = None
    if scheme:
        decoded = scheme.text() if isinstance(scheme.value, str) else scheme.integer()
    return Version(node.member(0, "version").text(maximum=_MAX_NAME), decoded)


def _decode_svn(node: Node) -> Svn:
    if not isinstance(node.value, Tag):
        return Svn(node.unsigned(), None)
    if node.value.number not in {tags.SVN, tags.MIN_SVN}:
        raise node.error(f"expected tag {tags.SVN} or {tags.MIN_SVN}, not {node.value.number}")
    return Svn(node.tagged(node.value.number).unsigned(), node.value.number)


def _decode_flags(node: Node) -> dict[int | str, object]:
    flags: dict[int | str, object] = {}
    for number, name in enumerate(FLAG_NAMES):
        member = node.optional(number, name)
        if member:
            flags[number] = member.boolean()
    return flags | node.extensions(frozenset(range(len(FLAG_NAMES))))


def _decode_raw_value(node: Node) -> RawValue | Tag | None:
    raw = node.optional(4, "raw-value")
    mask = node.optional(5, "raw-value-mask")
    if raw is None:
        if mask:
            raise mask.error("a mask without a raw-value")
        return None
    tag = raw.tag()
    if tag.number == tags.MASKED_RAW_VALUE:
        if mask:
            raise mask.error("a second mask beside the masked raw-value")
        value, inner = raw.tagged(tags.MASKED_RAW_VALUE).pair("value", "mask")
        return RawValue(value.octets(minimum=0), inner.octets(minimum=0))
    if tag.number != tags.BYTES:
        if mask:
            raise mask.error(f"a mask beside a raw-value with tag {tag.number}")
        return tag
    value = raw.tagged(tags.BYTES)
    if mask is None:
        return RawValue(value.octets(minimum=0))
    return RawValue(value.octets(minimum=0), mask.octets(minimum=0), deprecated_mask=True)


def _decode_registers(node: Node) -> dict[int | str, tuple[Digest, ...]]:
    entries = node.entries()
    if len(entries) > _MAX_REGISTERS:
        raise node.error(f"{len(entries)} registers; expected at most {_MAX_REGISTERS}")
    registers: dict[int | str, tuple[Digest, ...]] = {}
    for key, value in entries.items():
        if isinstance(key, bytes) or (isinstance(key, int) and key < 0):
            raise node.error(f"register {key!r}; expected an unsigned integer or text")
        shown = key if isinstance(key, int) else f'"{key}"'
        registers[key] = decode_digests(node.child(f"register {shown}", value))
    return registers


def _decode_int_range(node: Node) -> int | IntRange:
    if not isinstance(node.value, Tag):
        return node.integer()
    lower, upper = node.tagged(tags.INT_RANGE).pair("min", "max")
    minimum = None if lower.value is None else lower.integer()
    maximum = None if upper.value is None else upper.integer()
    if minimum is not None and maximum is not None and minimum > maximum:
        raise node.error(f"an empty range {minimum} … {maximum}")
    return IntRange(minimum, maximum)


def _encode_structured(values: MeasurementValues) -> dict[int | str, object]:
    found: dict[int | str, object] = {}
    if values.version:
        found[0] = {0: values.version.text}
        if values.version.scheme is not None:
            found[0] = {0: values.version.text, 1: values.version.scheme}
    if values.svn:
        svn = values.svn
        found[1] = svn.value if svn.form is None else Tag(svn.form, svn.value)
    if values.digests:
        found[2] = encode_digests(values.digests)
    if values.flags:
        found[3] = dict(values.flags)
    if values.crypto_keys:
        found[13] = list(values.crypto_keys)
    if values.registers:
        found[14] = {key: encode_digests(each) for key, each in values.registers.items()}
    if isinstance(values.int_range, IntRange):
        found[15] = Tag(tags.INT_RANGE, [values.int_range.minimum, values.int_range.maximum])
    elif values.int_range is not None:
        found[15] = values.int_range
    return found | _encode_raw_value(values.raw_value)


def _encode_raw_value(raw: RawValue | Tag | None) -> dict[int | str, object]:
    if raw is None:
        return {}
    if isinstance(raw, Tag):
        return {4: raw}
    if raw.mask is None:
        return {4: Tag(tags.BYTES, raw.value)}
    if raw.deprecated_mask:
        return {4: Tag(tags.BYTES, raw.value), 5: raw.mask}
    return {4: Tag(tags.MASKED_RAW_VALUE, [raw.value, raw.mask])}
