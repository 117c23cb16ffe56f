# SPDX-License-Identifier: Apache-2.0
"""The base specification's rules, for schemes without an endorsement profile of their own.

Every member for which Troth has a comparison is taken. One for which it has none does not make
the CoRIM unreadable, but its value never matches: "If the processor is unable to determine the
applicable comparison algorithm for an attribute, it MUST behave as though the C-ECT does not
match" (draft-ietf-rats-corim 0b855af, "Comparison of a Single Measurement Values Map Attribute").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from troth.endorsement.profiles.profile import (
    Drafts,
    checked_digests,
    octets_of,
    refuse_conditions,
    refuse_parts,
)
from troth.endorsement.reference_value import Environment, ReferenceValue
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.environment import EnvironmentMap
from troth.formats.corim.key_material import certificate_of, public_key_of
from troth.formats.corim.measurement import (
    FLAG_NAMES,
    IntRange,
    Measurement,
    MeasurementValues,
    RawValue,
    Svn,
)
from troth.formats.corim.node import Node
from troth.formats.corim.triples import KeyTriple, MeasurementTriple

__all__ = ["GenericProfile", "key_text", "read_environment", "read_keys", "read_value"]

_CERTIFICATES: Final = frozenset({tags.CERTIFICATE, tags.CERTIFICATE_DER})
_UNCOMPARED: Final = ("mac_address", "ip_address", "serial_number", "ueid", "uuid", "crypto_keys")


@dataclass(frozen=True, slots=True)
class GenericProfile:
    """The base rules, on behalf of one scheme.

    Attributes:
        uri: the profile, or "" where the caller named the scheme.
        scheme: the scheme's one word.
    """

    uri: str
    scheme: str

    def read_reference(self, triple: MeasurementTriple, place: Node, drafts: Drafts) -> None:
        """Take every measurement."""
        environment = read_environment(triple.environment, place)
        if not environment.class_id and not environment.instance_id:
            raise place.child("environment", None).error(
                "neither a class id nor an instance id: it would be about every Attester"
            )
        for index, measurement in enumerate(triple.measurements):
            at = place.child("measurements", None).element(index, None)
            drafts.add(read_value(measurement, environment, at, drafts))

    def read_attest_key(self, triple: KeyTriple, place: Node, drafts: Drafts) -> None:
        """Take public keys of a class or an instance, and root certificates."""
        read_keys(triple, place, drafts)


def read_environment(environment: EnvironmentMap, place: Node) -> Environment:
    """Return the environment as the store looks it up.

    Raises:
        UnsupportedError: a part that no Evidence can be compared with.
    """
    refuse_parts(environment, place)
    at = place.child("environment", None)
    named, instance = environment.environment_class, environment.instance
    class_id = named.class_id if named else None
    return Environment(
        class_id=(
            octets_of(class_id, at.child("class", None).child("class-id", None))
            if class_id
            else b""
        ),
        instance_id=octets_of(instance, at.child("instance", None)) if instance else b"",
        vendor=(named.vendor or "") if named else "",
        model=(named.model or "") if named else "",
        class_tag=class_id.number if class_id else tags.BYTES,
        instance_tag=instance.number if instance else tags.UEID,
    )


def read_keys(triple: KeyTriple, place: Node, drafts: Drafts) -> None:
    """Add the keys and certificates of an attest-key triple.

    Raises:
        DecodeError: a thumbprint, a path or a damaged key; or a key of nobody in particular.
    """
    environment = read_environment(triple.environment, place)
    refuse_conditions(triple, place)
    for index, key in enumerate(triple.keys):
        at = place.child("keys", None).element(index, None)
        if key.number in _CERTIFICATES:
            drafts.add_certificate(environment, certificate_of(key, at))
            continue
        if not environment.class_id and not environment.instance_id:
            raise place.child("environment", None).error(
                "neither a class id nor an instance id: the key would be every Attester's"
            )
        drafts.add_key(environment, public_key_of(key, at))


def read_value(
    measurement: Measurement, environment: Environment, place: Node, drafts: Drafts
) -> ReferenceValue:
    """Return one measurement as a Reference Value.

    Raises:
        DecodeError: a digest of the wrong length, or a mask that does not fit its value.
    """
    values, at = measurement.values, place.child("mval", None)
    raw = values.raw_value if isinstance(values.raw_value, RawValue) else None
    if raw is not None and raw.mask is not None and len(raw.mask) != len(raw.value):
        raise at.child("raw-value", None).error(
            f"a mask of {len(raw.mask)} octets for a value of {len(raw.value)}"
        )
    exact, minimum = _svn(values.svn)
    registers_at = at.child("integrity-registers", None)
    return ReferenceValue(
        id="",
        scheme=drafts.scheme,
        environment=environment,
        key=key_text(measurement.key, place.child("mkey", None)),
        state=drafts.state,
        digests=checked_digests(values.digests, at.child("digests", None)),
        name=values.name or "",
        version=values.version.text if values.version else "",
        raw_value=raw.value if raw else None,
        raw_mask=raw.mask if raw else None,
        svn=exact,
        min_svn=minimum,
        registers={
            key: checked_digests(digests, registers_at.child(f"register {key}", None))
            for key, digests in values.registers.items()
        },
        flags=_flags(values),
        int_range=_int_range(values.int_range),
        uncomparable=_uncomparable(values),
        source=drafts.source,
    )


def key_text(key: int | str | Tag | None, place: Node) -> str:
    """Return a measurement key as text: a UUID in its usual form, an OID as "oid:" and hex.

    Raises:
        UnsupportedError: another kind of key.
    """
    if key is None:
        return ""
    if not isinstance(key, Tag):
        return str(key)
    if key.number == tags.UUID and isinstance(key.value, bytes):
        return str(UUID(bytes=key.value))
    if key.number == tags.OID and isinstance(key.value, bytes):
        return f"oid:{key.value.hex()}"
    raise place.unsupported(f"a measurement key with tag {key.number}")


def _svn(svn: Svn | None) -> tuple[int | None, int | None]:
    if svn is None:
        return None, None
    return (None, svn.value) if svn.is_minimum else (svn.value, None)


def _flags(values: MeasurementValues) -> dict[str, bool]:
    return {
        FLAG_NAMES[number]: state
        for number, state in values.flags.items()
        if isinstance(number, int) and 0 <= number < len(FLAG_NAMES) and isinstance(state, bool)
    }


def _int_range(value: int | IntRange | None) -> tuple[int | None, int | None] | None:
    if isinstance(value, IntRange):
        return value.minimum, value.maximum
    return None if value is None else (value, value)


def _uncomparable(values: MeasurementValues) -> tuple[str, ...]:
    found = [name.replace("_", "-") for name in _UNCOMPARED if getattr(values, name)]
    if isinstance(values.raw_value, Tag):
        found.append(f"raw-value with tag {values.raw_value.number}")
    found += [f"flag {key!r}" for key in values.flags if key not in range(len(FLAG_NAMES))]
    found += [f"member {key!r}" for key in values.extensions]
    return tuple(found)
