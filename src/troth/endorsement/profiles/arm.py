# SPDX-License-Identifier: Apache-2.0
"""What the PSA and the CCA platform profile have in common.

The drafts ask for text names of hash algorithms; endorsements in the field have the registry's
numbers. Both are taken, as one algorithm.

Source: draft-fdb-rats-psa-endorsements (77206ee) "PSA Endorsements"; draft-ydb-rats-cca-
endorsements (8531b12) "Arm CCA Platform Endorsements".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from troth.endorsement.profiles.profile import (
    Drafts,
    checked_digests,
    only_members,
    refuse_authorized_by,
    refuse_conditions,
    refuse_parts,
)
from troth.endorsement.reference_value import Environment, ReferenceValue
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.environment import EnvironmentMap
from troth.formats.corim.key_material import public_key_of
from troth.formats.corim.measurement import Measurement
from troth.formats.corim.node import Node
from troth.formats.corim.triples import KeyTriple

__all__ = ["DIGEST_SIZES", "ArmPlatform"]

DIGEST_SIZES: Final = frozenset({32, 48, 64})

_COMPONENT_MEMBERS: Final = frozenset({"version", "digests", "name", "crypto_keys"})
_LEGACY_MEMBERS: Final = frozenset({"digests"})


@dataclass(frozen=True, slots=True)
class ArmPlatform:
    """The rules for one Arm platform profile.

    Attributes:
        scheme: "psa" or "cca".
        component_key: measurement key of a software component.
        class_tags: tags under which an implementation id is accepted.
        legacy_component_tag: tag of the older structured measurement key, or None.
    """

    scheme: str
    component_key: str
    class_tags: frozenset[int] = frozenset({tags.BYTES})
    legacy_component_tag: int | None = None

    def environment(
        self, environment: EnvironmentMap, place: Node, *, instance: bool
    ) -> Environment:
        """Check an environment: class id of 32 octets, instance id a UEID of type RAND.

        Args:
            environment: as decoded.
            place: of the triple.
            instance: whether the instance id must be there.
        """
        refuse_parts(environment, place)
        at = place.child("environment", None)
        named = environment.environment_class
        class_at = at.child("class", None).child("class-id", None)
        if named is None or named.class_id is None:
            raise class_at.error("missing; expected the 32 octets of an implementation id")
        if environment.instance is None and instance:
            raise at.child("instance", None).error("missing; expected a UEID (tag 550)")
        found = environment.instance
        return Environment(
            class_id=self._implementation_id(named.class_id, class_at),
            instance_id=_instance_id(found, at.child("instance", None)) if found else b"",
            vendor=named.vendor or "",
            model=named.model or "",
            class_tag=named.class_id.number,
            instance_tag=tags.UEID,
        )

    def _implementation_id(self, identifier: Tag, place: Node) -> bytes:
        if identifier.number not in self.class_tags:
            name = tags.TAG_NAMES.get(identifier.number, "unknown")
            wanted = " or ".join(str(each) for each in sorted(self.class_tags))
            raise place.error(f"tag {identifier.number} ({name}); expected tag {wanted}")
        value = identifier.value
        if not isinstance(value, bytes) or len(value) != 32:
            found = f"{len(value)} octets" if isinstance(value, bytes) else "no octets"
            raise place.error(f"{found}; an implementation id has 32")
        return value

    def component(
        self, measurement: Measurement, environment: Environment, place: Node, drafts: Drafts
    ) -> None:
        """Check a software component and add it."""
        refuse_authorized_by(measurement, place)
        values, at = measurement.values, place.child("mval", None)
        if not values.digests:
            raise at.child("digests", None).error("missing")
        name, version, signer = self._labels(measurement, place)
        drafts.add(
            ReferenceValue(
                id="",
                scheme=drafts.scheme,
                environment=environment,
                key=self.component_key,
                state=drafts.state,
                digests=checked_digests(
                    values.digests, at.child("digests", None), sizes=DIGEST_SIZES
                ),
                name=name,
                version=version,
                signer_ids=(signer,),
                source=drafts.source,
            )
        )

    def is_component(self, measurement: Measurement) -> bool:
        """Say whether the measurement key is that of a software component."""
        key = measurement.key
        if isinstance(key, Tag):
            return key.number == self.legacy_component_tag
        return key == self.component_key

    def _labels(self, measurement: Measurement, place: Node) -> tuple[str, str, bytes]:
        """Return name, version and signer id."""
        values, at = measurement.values, place.child("mval", None)
        if isinstance(measurement.key, Tag):
            only_members(values, _LEGACY_MEMBERS, at)
            return _legacy_labels(measurement.key, place.child("mkey", None))
        only_members(values, _COMPONENT_MEMBERS, at)
        version = values.version
        if version is not None and version.scheme is not None:
            raise at.child("version", None).error("version-scheme must not be there")
        signer = _signer_id(values.crypto_keys, at.child("cryptokeys", None))
        return values.name or "", version.text if version else "", signer

    def attestation_key(self, triple: KeyTriple, place: Node, drafts: Drafts) -> None:
        """Check an attest-key triple and add its one key."""
        environment = self.environment(triple.environment, place, instance=True)
        refuse_conditions(triple, place)
        at = place.child("keys", None)
        if len(triple.keys) != 1:
            raise at.error(f"{len(triple.keys)} keys; expected exactly one")
        if triple.keys[0].number != tags.KEY:
            number = triple.keys[0].number
            name = tags.TAG_NAMES.get(number, "unknown")
            raise at.element(0, None).error(
                f"tag {number} ({name}); expected tag {tags.KEY}, the key itself"
            )
        drafts.add_key(environment, public_key_of(triple.keys[0], at.element(0, None)))


def _instance_id(identifier: Tag, place: Node) -> bytes:
    if identifier.number != tags.UEID:
        name = tags.TAG_NAMES.get(identifier.number, "unknown")
        raise place.error(f"tag {identifier.number} ({name}); expected tag {tags.UEID}, a UEID")
    value = identifier.value
    if not isinstance(value, bytes) or len(value) != 33 or value[0] != 1:
        shown = value.hex() if isinstance(value, bytes) else repr(value)
        raise place.error(f"{shown}; expected 33 octets of which the first is 01 (RAND)")
    return value


def _signer_id(keys: tuple[Tag, ...], place: Node) -> bytes:
    if len(keys) != 1:
        raise place.error(f"{len(keys)} entries; expected exactly one signer id")
    value = keys[0].value
    at = place.element(0, None)
    if keys[0].number != tags.BYTES or not isinstance(value, bytes):
        raise at.error(f"tag {keys[0].number}; expected tag {tags.BYTES}, a signer id")
    if len(value) not in DIGEST_SIZES:
        raise at.error(f"{len(value)} octets; a signer id has 32, 48 or 64")
    return value


def _legacy_labels(key: Tag, place: Node) -> tuple[str, str, bytes]:
    node = Node(key.value, format=place.format, name="", parent=place)
    node.only(frozenset({1, 4, 5}))
    name, version = node.optional(1, "measurement-type"), node.optional(4, "version")
    signer = node.member(5, "signer-id").octets()
    if len(signer) not in DIGEST_SIZES:
        raise place.error(f"a signer id of {len(signer)} octets; expected 32, 48 or 64")
    return name.text() if name else "", version.text() if version else "", signer
