# SPDX-License-Identifier: Apache-2.0
"""CCA platform and realm endorsements.

Source: draft-ydb-rats-cca-endorsements (8531b12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from troth.endorsement.profiles.arm import DIGEST_SIZES, ArmPlatform
from troth.endorsement.profiles.profile import (
    Drafts,
    checked_digests,
    only_members,
    refuse_authorized_by,
    refuse_parts,
)
from troth.endorsement.reference_value import Environment, ReferenceValue
from troth.formats.corim import tags
from troth.formats.corim.measurement import Measurement, RawValue
from troth.formats.corim.node import Node
from troth.formats.corim.triples import KeyTriple, MeasurementTriple

__all__ = [
    "CCA_PLATFORM",
    "CCA_PLATFORM_LEGACY",
    "CCA_PLATFORM_URI",
    "CCA_REALM",
    "CCA_REALM_URI",
    "CcaPlatformProfile",
    "CcaRealmProfile",
]

CCA_PLATFORM_URI: Final = "tag:arm.com,2025:cca_platform#1.0.0"
CCA_REALM_URI: Final = "tag:arm.com,2025:cca_realm#1.0.0"
COMPONENT: Final = "cca.software-component"
CONFIG: Final = "cca.platform-config"
RIM: Final = "cca.rim"
RPV: Final = "cca.rpv"
REMS: Final = ("cca.rem0", "cca.rem1", "cca.rem2", "cca.rem3")

_REALM_KEYS: Final = (RIM, *REMS, RPV)
_MAX_RPV: Final = 64


@dataclass(frozen=True, slots=True)
class CcaPlatformProfile:
    """Rules of the CCA platform profile."""

    uri: str
    _rules: ArmPlatform
    scheme: str = "cca"

    def read_reference(self, triple: MeasurementTriple, place: Node, drafts: Drafts) -> None:
        """Take software components and at most one platform configuration."""
        environment = self._rules.environment(triple.environment, place, instance=False)
        configured = False
        for index, measurement in enumerate(triple.measurements):
            at = place.child("measurements", None).element(index, None)
            if self._rules.is_component(measurement):
                self._rules.component(measurement, environment, at, drafts)
            elif measurement.key == CONFIG:
                if configured:
                    raise at.child("mkey", None).error(f"a second {CONFIG!r} in one triple")
                configured = True
                _read_config(measurement, environment, at, drafts)
            else:
                raise at.child("mkey", None).error(
                    f"{measurement.key!r}; expected {COMPONENT!r} or {CONFIG!r}"
                )

    def read_attest_key(self, triple: KeyTriple, place: Node, drafts: Drafts) -> None:
        """Take the CCA Platform Attestation Key of one instance."""
        self._rules.attestation_key(triple, place, drafts)


@dataclass(frozen=True, slots=True)
class CcaRealmProfile:
    """Rules of the CCA realm profile: the RIM is the class id, and must be measured as well."""

    uri: str
    scheme: str = "cca"

    def read_reference(self, triple: MeasurementTriple, place: Node, drafts: Drafts) -> None:
        """Take the RIM, and perhaps the REMs and the personalization value."""
        environment = _realm(triple, place)
        found: set[str] = set()
        for index, measurement in enumerate(triple.measurements):
            at = place.child("measurements", None).element(index, None)
            key = measurement.key
            if not isinstance(key, str) or key not in _REALM_KEYS:
                expected = ", ".join(_REALM_KEYS)
                raise at.child("mkey", None).error(f"{key!r}; expected one of {expected}")
            if key in found:
                raise at.child("mkey", None).error(f"a second {key!r} in one triple")
            found.add(key)
            _read_realm_measurement(measurement, key, environment, at, drafts)
        if RIM not in found:
            raise place.child("measurements", None).error(f"{RIM!r} is missing")

    def read_attest_key(self, triple: KeyTriple, place: Node, drafts: Drafts) -> None:  # noqa: ARG002 - the port's signature
        """Refuse: a realm's key comes with its Evidence, vouched for by the platform.

        An endorsed one would let Evidence be signed by a key that no platform has vouched for.
        """
        raise place.error("an attestation key for a realm; its key is in the Evidence")


def _read_config(
    measurement: Measurement, environment: Environment, place: Node, drafts: Drafts
) -> None:
    refuse_authorized_by(measurement, place)
    at = place.child("mval", None)
    only_members(measurement.values, frozenset({"raw_value"}), at)
    raw = measurement.values.raw_value
    if not isinstance(raw, RawValue):
        raise at.child("raw-value", None).error("missing; expected a masked raw value (tag 563)")
    # The draft writes value and mask under tag 563; endorsements in the field have tag 560 and
    # the deprecated mask, which the base specification makes the same thing.
    if raw.mask is not None and len(raw.mask) != len(raw.value):
        raise at.child("raw-value", None).error(
            f"a mask of {len(raw.mask)} octets for a value of {len(raw.value)}"
        )
    drafts.add(
        ReferenceValue(
            id="",
            scheme=drafts.scheme,
            environment=environment,
            key=CONFIG,
            state=drafts.state,
            raw_value=raw.value,
            raw_mask=raw.mask,
            source=drafts.source,
        )
    )


def _realm(triple: MeasurementTriple, place: Node) -> Environment:
    refuse_parts(triple.environment, place)
    at = place.child("environment", None)
    named = triple.environment.environment_class
    class_at = at.child("class", None).child("class-id", None)
    if named is None or named.class_id is None:
        raise class_at.error("missing; expected the RIM (tag 560)")
    if triple.environment.instance is not None:
        raise at.child("instance", None).error("realms have no instance id; the RIM is the class")
    rim = named.class_id
    if rim.number != tags.BYTES or not isinstance(rim.value, bytes):
        raise class_at.error(f"tag {rim.number}; expected tag {tags.BYTES}, the RIM")
    if len(rim.value) not in DIGEST_SIZES:
        raise class_at.error(f"{len(rim.value)} octets; a RIM has 32, 48 or 64")
    return Environment(
        class_id=rim.value,
        vendor=named.vendor or "",
        model=named.model or "",
    )


def _read_realm_measurement(
    measurement: Measurement, key: str, environment: Environment, place: Node, drafts: Drafts
) -> None:
    refuse_authorized_by(measurement, place)
    values, at = measurement.values, place.child("mval", None)
    digests: dict[str, bytes] = {}
    raw_value = None
    if key == RPV:
        only_members(values, frozenset({"raw_value"}), at)
        raw_value = _personalization_value(values.raw_value, at.child("raw-value", None))
    else:
        only_members(values, frozenset({"digests"}), at)
        if not values.digests:
            raise at.child("digests", None).error("missing")
        digests = checked_digests(values.digests, at.child("digests", None), sizes=DIGEST_SIZES)
        if key == RIM and environment.class_id not in digests.values():
            raise at.child("digests", None).error("not the RIM that the environment names")
    drafts.add(
        ReferenceValue(
            id="",
            scheme=drafts.scheme,
            environment=environment,
            key=key,
            state=drafts.state,
            digests=digests,
            raw_value=raw_value,
            source=drafts.source,
        )
    )


def _personalization_value(raw: object, place: Node) -> bytes:
    if not isinstance(raw, RawValue):
        raise place.error("missing; expected the personalization value (tag 560)")
    if raw.mask is not None:
        raise place.error("a mask; expected the personalization value whole (tag 560)")
    if not 1 <= len(raw.value) <= _MAX_RPV:
        raise place.error(f"{len(raw.value)} octets; expected 1 to {_MAX_RPV}")
    return raw.value


CCA_PLATFORM: Final = CcaPlatformProfile(CCA_PLATFORM_URI, ArmPlatform("cca", COMPONENT))

CCA_PLATFORM_LEGACY: Final = CcaPlatformProfile(
    "tag:arm.com,2023:cca_platform#1.0.0",
    ArmPlatform(
        "cca",
        COMPONENT,
        class_tags=frozenset({tags.BYTES, tags.LEGACY_IMPLEMENTATION_ID}),
        legacy_component_tag=tags.LEGACY_SOFTWARE_COMPONENT,
    ),
)
"""The token's own profile, under which CoSERV services hand out the older form."""

CCA_REALM: Final = CcaRealmProfile(CCA_REALM_URI)
