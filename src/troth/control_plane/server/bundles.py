# SPDX-License-Identifier: Apache-2.0
"""The trust bundles that this server knows: its own with its number, and those of others.

They are read by whoever verifies or publishes, and told to every agent through the feed as soon as
one changes. A bundle is bound to its trust domain from the registry to the workload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from cryptography.hazmat.primitives.serialization import Encoding

from troth.control_plane.server.authorities import Authorities
from troth.control_plane.server.feed_hub import FeedHub
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.event import Bundles
from troth.mesh.federation import Federation
from troth.mesh.registry import Registry

__all__ = ["REFRESH_HINT_SECONDS", "ServerBundles"]

REFRESH_HINT_SECONDS = 60
"""How often others should fetch our bundle; authorities are announced far longer than that."""


class ServerBundles:
    """Bundles as of the last `load`. As a source it knows our own trust domain only.

    Args:
        authorities: of our trust domain.
        now: time of the first look.
    """

    def __init__(self, authorities: Authorities, *, now: datetime) -> None:
        self._authorities = authorities
        self._own = authorities.bundle(now)
        self._digest = ""
        self._revision = 0
        self._federations: Mapping[TrustDomain, Federation] = MappingProxyType({})

    @property
    def own(self) -> TrustBundle:
        """The bundle of our trust domain."""
        return self._own

    @property
    def revision(self) -> int:
        """Number of the present set of bundles."""
        return self._revision

    @property
    def federations(self) -> Mapping[TrustDomain, Federation]:
        """The foreign trust domains."""
        return self._federations

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """Return our own bundle, and None for any other trust domain: members are our own."""
        return self._own if trust_domain == self._own.trust_domain else None

    def known(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """Return the bundle of this trust domain, ours or another's."""
        if trust_domain == self._own.trust_domain:
            return self._own
        federation = self._federations.get(trust_domain)
        return federation.bundle if federation else None

    def load(self, registry: Registry, now: datetime) -> bool:
        """Read what is in force, and number our own bundle if its keys changed. Blocks.

        Returns:
            Whether anything changed.

        Raises:
            UnavailableError: the registry or the keys cannot be used.
        """
        plain = self._authorities.bundle(now)
        digest = _digest(plain)
        if digest == self._digest and registry.bundles_revision() == self._revision:
            return False
        sequence = registry.number_own_bundle(digest)
        # The number first: what changes after it was read is read again at the next look.
        revision = registry.bundles_revision()
        federations = {each.trust_domain: each for each in registry.federations()}
        self._own = replace(plain, sequence=sequence, refresh_hint_seconds=REFRESH_HINT_SECONDS)
        self._federations = MappingProxyType(federations)
        self._digest, self._revision = digest, revision
        return True

    def message(self) -> Bundles:
        """Return what agents are told."""
        return Bundles(
            revision=self._revision,
            own=self._own.encode().decode("utf-8"),
            federated={
                each.trust_domain.name: each.bundle.encode().decode("utf-8")
                for each in self._federations.values()
                if each.bundle is not None
            },
        )

    def announce(self, hub: FeedHub) -> None:
        """Tell every agent."""
        hub.announce(self.message())


def _digest(bundle: TrustBundle) -> str:
    """Name the set of keys: which of them issues now is no business of who verifies."""
    keys = [each.public_bytes(Encoding.DER) for each in bundle.x509_authorities]
    keys += [each.key_id.encode() for each in bundle.jwt_authorities]
    whole = hashlib.sha256()
    for key in sorted(hashlib.sha256(key).digest() for key in keys):
        whole.update(key)
    return whole.hexdigest()
