# SPDX-License-Identifier: Apache-2.0
"""A set of Endorsements in force, held in memory and indexed by environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cryptography import x509

from troth.endorsement.persistent_map import PersistentMap
from troth.endorsement.reference_value import Environment, ReferenceValue
from troth.endorsement.set_digest import EMPTY, SetDigest
from troth.endorsement.trust_anchor import TrustAnchor
from troth.formats.keys import VerificationKey

__all__ = ["MemorySnapshot"]

_Values = PersistentMap[tuple[str, bytes, bytes], tuple[ReferenceValue, ...]]
_Anchors = PersistentMap[tuple[str, bytes, bytes], tuple[TrustAnchor, ...]]
_Roots = PersistentMap[str, tuple[TrustAnchor, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySnapshot:
    """An immutable set; `with_…` and `without_…` return changed ones that share the rest.

    Values are found under (scheme, class id, instance id), where an absent part is empty. Keys
    are found under (scheme, "", instance id), or under the class where they name no instance:
    some Evidence says its instance and not its class.
    """

    _values: _Values = field(default_factory=PersistentMap)
    _anchors: _Anchors = field(default_factory=PersistentMap)
    _roots: _Roots = field(default_factory=PersistentMap)
    _digest: SetDigest = EMPTY

    @property
    def epoch(self) -> str:
        """Digest of the set, 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def find(
        self, scheme: str, *, class_id: bytes, instance_id: bytes = b""
    ) -> Sequence[ReferenceValue]:
        """Return the values for this environment: of its class, its instance, and of both."""
        classes = [class_id]
        if not class_id and instance_id:
            classes = self._endorsed_classes(scheme, instance_id)
        places = [(scheme, each, b"") for each in classes if each]
        if instance_id:
            places += [(scheme, each, instance_id) for each in classes if each]
            places.append((scheme, b"", instance_id))
        found: tuple[ReferenceValue, ...] = ()
        for place in places:
            found += self._values.get(place) or ()
        return found

    def trust_anchors(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[TrustAnchor]:
        """Return the keys of this Attester. An empty `implementation_id` matches any."""
        found: tuple[TrustAnchor, ...] = ()
        if instance_id:
            found = tuple(
                anchor
                for anchor in self._anchors.get((scheme, b"", instance_id)) or ()
                if not implementation_id or anchor.environment.class_id in {b"", implementation_id}
            )
        if implementation_id:
            found += self._anchors.get((scheme, implementation_id, b"")) or ()
        return found

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        """Return the keys of this Attester, ready to verify with."""
        anchors = self.trust_anchors(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )
        return [anchor.verification_key() for anchor in anchors]

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        """Return the root certificates for this scheme."""
        return [anchor.x509_certificate() for anchor in self._roots.get(scheme) or ()]

    def with_value(self, value: ReferenceValue, member: bytes) -> MemorySnapshot:
        """Return the set with `value`; `member` is what it is in the digest."""
        key = _value_key(value)
        values = (*(self._values.get(key) or ()), value)
        return replace(
            self, _values=self._values.set(key, values), _digest=self._digest.add(member)
        )

    def without_value(self, value: ReferenceValue, member: bytes) -> MemorySnapshot:
        """Return the set without `value`."""
        key = _value_key(value)
        left = tuple(each for each in self._values.get(key) or () if each.id != value.id)
        values = self._values.set(key, left) if left else self._values.delete(key)
        return replace(self, _values=values, _digest=self._digest.remove(member))

    def with_anchor(self, anchor: TrustAnchor, member: bytes) -> MemorySnapshot:
        """Return the set with `anchor`."""
        digest = self._digest.add(member)
        if anchor.certificate:
            roots = (*(self._roots.get(anchor.scheme) or ()), anchor)
            return replace(self, _roots=self._roots.set(anchor.scheme, roots), _digest=digest)
        key = _anchor_key(anchor.scheme, anchor.environment)
        anchors = (*(self._anchors.get(key) or ()), anchor)
        return replace(self, _anchors=self._anchors.set(key, anchors), _digest=digest)

    def without_anchor(self, anchor: TrustAnchor, member: bytes) -> MemorySnapshot:
        """Return the set without `anchor`."""
        digest = self._digest.remove(member)
        if anchor.certificate:
            held = self._roots.get(anchor.scheme) or ()
            left = tuple(each for each in held if each.id != anchor.id)
            roots = (
                self._roots.set(anchor.scheme, left) if left else self._roots.delete(anchor.scheme)
            )
            return replace(self, _roots=roots, _digest=digest)
        key = _anchor_key(anchor.scheme, anchor.environment)
        left = tuple(each for each in self._anchors.get(key) or () if each.id != anchor.id)
        anchors = self._anchors.set(key, left) if left else self._anchors.delete(key)
        return replace(self, _anchors=anchors, _digest=digest)

    def _endorsed_classes(self, scheme: str, instance_id: bytes) -> list[bytes]:
        anchors = self._anchors.get((scheme, b"", instance_id)) or ()
        # dict, not set: the order is that of provisioning, and messages should not change by run.
        return list(dict.fromkeys(anchor.environment.class_id for anchor in anchors))


def _value_key(value: ReferenceValue) -> tuple[str, bytes, bytes]:
    environment = value.environment
    return value.scheme, environment.class_id, environment.instance_id


def _anchor_key(scheme: str, environment: Environment) -> tuple[str, bytes, bytes]:
    if environment.instance_id:
        return scheme, b"", environment.instance_id
    return scheme, environment.class_id, b""
