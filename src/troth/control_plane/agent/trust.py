# SPDX-License-Identifier: Apache-2.0
"""Whom an agent believes: the newest bundle of each trust domain, from joining and from the feed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from troth.errors import DecodeError
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.event import Bundles, decode_bundles

__all__ = ["AgentTrust"]

_LOG = logging.getLogger(__name__)


class AgentTrust:
    """The bundles of the moment, as a TrustBundleSource. Never merged, never an older one again."""

    def __init__(self) -> None:
        self._own: TrustBundle | None = None
        self._foreign: Mapping[TrustDomain, TrustBundle] = MappingProxyType({})
        self._revision = -1

    @property
    def own(self) -> TrustBundle | None:
        """The bundle of our own trust domain, once there is one."""
        return self._own

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """Return the bundle of exactly this trust domain, or None."""
        if self._own is not None and trust_domain == self._own.trust_domain:
            return self._own
        return self._foreign.get(trust_domain)

    def adopt(self, own: TrustBundle) -> bool:
        """Take the bundle that came with joining or renewing; say whether anything changed."""
        if self._own is not None and (self._own.sequence or 0) > (own.sequence or 0):
            return False  # a reply that was on its way while the feed was faster
        changed = own != self._own
        self._own = own
        return changed

    def take(self, message: Bundles) -> bool:
        """Take what the feed says; say whether anything changed."""
        if self._own is None or message.revision <= self._revision:
            return False
        try:
            own, foreign = decode_bundles(message, self._own.trust_domain)
        except DecodeError as exc:
            _LOG.warning("the server sent bundles that cannot be read: %s", exc)
            return False
        self._revision = message.revision
        changed = (own, foreign) != (self._own, dict(self._foreign))
        self._own, self._foreign = own, MappingProxyType(foreign)
        return changed

    def pem_by_domain(self) -> dict[str, bytes]:
        """Return the authorities as PEM by the SPIFFE ID of their trust domain, for Envoy."""
        own = [self._own] if self._own is not None else []
        bundles = [*own, *self._foreign.values()]
        return {
            str(each.trust_domain.id): each.encode_pem()
            for each in bundles
            if each.x509_authorities
        }
