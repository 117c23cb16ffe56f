# SPDX-License-Identifier: Apache-2.0
"""SVIDs of this trust domain: members' in a join, and the server's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from troth.control_plane.server.keys import ServerKeys
from troth.identity.certificate_request import CertificateRequest, SvidKey
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_svid import X509Svid
from troth.mesh.join_messages import BundleMessage

__all__ = ["SERVER_PATH", "IssuedCertificate", "SvidIssuer"]

SERVER_PATH = "/troth/server"
"""Path of the server's own SPIFFE ID."""

_SERIAL_OCTETS = 16
_REFRESH_HINT_SECONDS = 60
# A result is signed a moment before the SVID that carries it.
_MAX_RESULT_AGE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A new X.509-SVID.

    Attributes:
        chain: PEM, leaf first.
        serial: certificate serial number in hex.
        key_digest: SHA-256 (hex) of its SubjectPublicKeyInfo.
        not_after: end of its validity.
    """

    chain: str = field(repr=False)
    serial: str
    key_digest: str
    not_after: datetime


class SvidIssuer:
    """The trust domain's authority. It looks at results; who may join, its caller has decided.

    Args:
        keys: of the trust domain and of the Verifier whose results make members.
        random: for serial numbers.
        allow_insecure: issue on results of simulators and published test keys too.
    """

    def __init__(
        self, keys: ServerKeys, *, random: Callable[[int], bytes], allow_insecure: bool
    ) -> None:
        self._authority = keys.authority
        self._results = keys.results
        self._random = random
        self._allow_insecure = allow_insecure

    def issue(
        self,
        *,
        spiffe_id: str,
        node_id: str,
        request: CertificateRequest,
        ear: str,
        ttl: timedelta,
        now: datetime,
    ) -> IssuedCertificate:
        """Return a member's SVID that carries `ear` and ends with it or after `ttl`.

        Raises:
            AuthorizationError: the result makes no member.
            FreshnessError: it would end before it begins.
        """
        svid = self._authority.issue_member_svid(
            request,
            SpiffeId.decode(spiffe_id),
            result=ear.encode("ascii"),
            result_keys=self._results.published(now),
            max_result_age=_MAX_RESULT_AGE,
            node_id=node_id,
            now=now,
            ttl=ttl,
            random=self._random(_SERIAL_OCTETS),
            allow_insecure=self._allow_insecure,
        )
        return IssuedCertificate(
            chain=svid.encode_pem().decode("ascii"),
            serial=f"{svid.leaf.serial_number:x}",
            key_digest=hashlib.sha256(svid.spki).hexdigest(),
            not_after=svid.not_after,
        )

    def issue_own(self, key: SvidKey, *, now: datetime, ttl: timedelta) -> X509Svid:
        """Return the server's own SVID for a key of the server's."""
        return self._authority.issue_infrastructure_svid(
            key,
            SpiffeId(self._authority.trust_domain, SERVER_PATH),
            now=now,
            ttl=ttl,
            random=self._random(_SERIAL_OCTETS),
        )

    def trust_bundle(self) -> TrustBundle:
        """Return the bundle of the trust domain."""
        return self._authority.bundle(refresh_hint_seconds=_REFRESH_HINT_SECONDS)

    def bundle(self) -> BundleMessage:
        """Return the bundle as nodes get it."""
        bundle = self.trust_bundle()
        return BundleMessage(
            spiffe=bundle.encode().decode("utf-8"), pem=bundle.encode_pem().decode("ascii")
        )
