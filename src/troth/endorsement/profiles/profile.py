# SPDX-License-Identifier: Apache-2.0
"""The port of a CoRIM profile, and what a profile's rules are written with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from troth.endorsement.reference_value import Environment, ReferenceValue
from troth.endorsement.trust_anchor import TrustAnchor
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.environment import EnvironmentMap
from troth.formats.corim.identifier import Digest
from troth.formats.corim.measurement import Measurement, MeasurementValues
from troth.formats.corim.node import Node
from troth.formats.corim.triples import KeyTriple, MeasurementTriple
from troth.formats.keys import PublicKey, spki

__all__ = [
    "Drafts",
    "Profile",
    "checked_digests",
    "octets_of",
    "only_members",
    "refuse_conditions",
    "refuse_parts",
]


class Profile(Protocol):
    """The rules by which CoRIMs of one profile are read.

    A profile checks everything that it takes from a triple and names the member that breaks a
    rule; what it does not know it refuses, unless the base specification lets it be ignored.
    """

    @property
    def uri(self) -> str:
        """The profile's identifier."""
        ...

    @property
    def scheme(self) -> str:
        """The scheme's one word."""
        ...

    def read_reference(self, triple: MeasurementTriple, place: Node, drafts: Drafts) -> None:
        """Check a reference triple and add its values to `drafts`.

        Raises:
            DecodeError: a rule is broken.
        """
        ...

    def read_attest_key(self, triple: KeyTriple, place: Node, drafts: Drafts) -> None:
        """Check an attest-key triple and add its anchors to `drafts`.

        Raises:
            DecodeError: a rule is broken.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Drafts:
    """Collects what the triples of one CoMID say, before it has identifiers.

    Attributes:
        scheme, source: go into everything that is added.
        state: which reference triple is being read.
        reference_values, trust_anchors: what was added, in order, with an empty id.
    """

    scheme: str
    source: str
    state: str = ""
    reference_values: list[ReferenceValue] = field(default_factory=list)
    trust_anchors: list[TrustAnchor] = field(default_factory=list)

    def add(self, value: ReferenceValue) -> None:
        """Add a Reference Value; scheme, source and state are filled in."""
        self.reference_values.append(value)

    def add_key(self, environment: Environment, key: PublicKey) -> None:
        """Add an attestation key."""
        self.trust_anchors.append(
            TrustAnchor(
                id="",
                scheme=self.scheme,
                environment=environment,
                public_key=spki(key),
                source=self.source,
            )
        )

    def add_certificate(self, environment: Environment, certificate: x509.Certificate) -> None:
        """Add a root certificate."""
        self.trust_anchors.append(
            TrustAnchor(
                id="",
                scheme=self.scheme,
                environment=environment,
                certificate=certificate.public_bytes(serialization.Encoding.DER),
                source=self.source,
            )
        )


def octets_of(identifier: Tag, place: Node) -> bytes:
    """Return the octets of a UUID, OID, UEID or opaque identifier.

    Raises:
        UnsupportedError: another kind, such as a key.
    """
    known = {tags.UUID, tags.OID, tags.UEID, tags.BYTES, tags.LEGACY_IMPLEMENTATION_ID}
    if identifier.number not in known or not isinstance(identifier.value, bytes):
        name = tags.TAG_NAMES.get(identifier.number, "unknown")
        raise place.unsupported(f"an identifier with tag {identifier.number} ({name})")
    return identifier.value


def checked_digests(
    digests: tuple[Digest, ...], place: Node, *, sizes: frozenset[int] | None = None
) -> dict[str, bytes]:
    """Return digests by name, each of the length that its algorithm has.

    Args:
        digests: as decoded; no two are by one algorithm.
        place: where they are.
        sizes: the lengths that the profile allows, or None for all.

    Raises:
        UnsupportedError: an algorithm that is not in the registry. No Evidence could be compared
            with it.
        DecodeError: another length.
    """
    found: dict[str, bytes] = {}
    for index, digest in enumerate(digests):
        at = place.element(index, None)
        size = tags.HASH_SIZES.get(digest.name)
        if size is None:
            raise at.unsupported(f"hash algorithm {digest.algorithm!r} is not registered")
        if len(digest.value) != size:
            raise at.error(f"a {digest.name} digest of {len(digest.value)} octets; expected {size}")
        if sizes is not None and size not in sizes:
            allowed = ", ".join(str(each) for each in sorted(sizes))
            raise at.error(f"{digest.name} has {size} octets; expected one of {allowed}")
        found[digest.name] = digest.value
    return found


def only_members(values: MeasurementValues, allowed: frozenset[str], place: Node) -> None:
    """Refuse members of a measurement that a profile does not provide for."""
    for name in MeasurementValues.__dataclass_fields__:
        if name in allowed or name == "extensions":
            continue
        if getattr(values, name) not in (None, (), {}):
            raise place.error(f"{name.replace('_', '-')} is no part of this profile")
    for key in values.extensions:
        raise place.error(f"member {key!r} is no part of this profile")


def refuse_conditions(triple: KeyTriple, place: Node) -> None:
    """Refuse an attest-key triple that only holds under conditions.

    They are not evaluated, and an ignored condition would make the endorsement wider.
    """
    if triple.key is not None or triple.authorized_by:
        raise place.child("conditions", None).unsupported("conditions on an attestation key")


def refuse_parts(environment: EnvironmentMap, place: Node) -> None:
    """Refuse an environment that is narrower than Evidence can tell: layer, index or group."""
    place = place.child("environment", None)
    if environment.group is not None:
        raise place.child("group", None).unsupported("no Evidence names its group")
    if environment.environment_class is not None:
        for name in ("layer", "index"):
            if getattr(environment.environment_class, name) is not None:
                raise (
                    place.child("class", None)
                    .child(name, None)
                    .unsupported(f"no Evidence names its {name}")
                )


def refuse_authorized_by(measurement: Measurement, place: Node) -> None:
    """Refuse `authorized-by`, which the Arm profiles forbid in Reference Values."""
    if measurement.authorized_by:
        raise place.child("authorized-by", None).error("authorized-by must not be there")
