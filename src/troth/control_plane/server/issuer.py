# SPDX-License-Identifier: Apache-2.0
"""SVIDs of this trust domain: members' in a join, their workloads', and the server's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from troth.control_plane.server.bundles import ServerBundles
from troth.control_plane.server.keys import ServerKeys
from troth.errors import BindingError
from troth.identity.certificate_request import CertificateRequest, SvidKey
from troth.identity.jwt_svid import JwtSvid
from troth.identity.spiffe_id import SpiffeId
from troth.identity.trust_bundle import TrustBundle
from troth.identity.workload_identity_token import Wit, WitAuthority, proof_algorithm
from troth.identity.workload_result import NodeResult
from troth.identity.x509_authority import X509Authority
from troth.identity.x509_svid import X509Svid
from troth.mesh.join_messages import BundleMessage
from troth.mesh.node_record import AppraisedEvidence
from troth.mesh.workload_entry import SERVER_PATH

__all__ = ["SERVER_PATH", "IssuedCertificate", "IssuedWit", "SvidIssuer", "WorkloadIssuer"]

_SERIAL_OCTETS = 16
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


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedWit:
    """A new WIT, and the Attestation Result (EAR as JWT) for its key."""

    wit: Wit
    result: str = field(repr=False)


class WorkloadIssuer:
    """Issues for the workloads of one node, one after the other, on one result of the node's."""

    def __init__(
        self,
        authority: X509Authority,
        node: NodeResult,
        *,
        random: Callable[[int], bytes],
        now: datetime,
    ) -> None:
        self._authority, self._node = authority, node
        self._random, self._now = random, now

    def issue(
        self,
        request: CertificateRequest,
        spiffe_id: SpiffeId,
        *,
        ttl: timedelta,
        dns_names: Sequence[str],
    ) -> X509Svid:
        """Return an SVID; see `X509Authority.issue_workload_svid`."""
        return self._authority.issue_workload_svid(
            request,
            spiffe_id,
            node=self._node,
            now=self._now,
            ttl=ttl,
            random=self._random(_SERIAL_OCTETS),
            dns_names=dns_names,
        )


class SvidIssuer:
    """The trust domain's authorities. It looks at results; who may join, its caller has decided.

    Args:
        keys: of the trust domain and of the Verifier whose results make members.
        bundles: of the trust domain.
        random: for serial numbers.
        allow_insecure: issue on results of simulators and published test keys too.
    """

    def __init__(
        self,
        keys: ServerKeys,
        *,
        bundles: ServerBundles,
        random: Callable[[int], bytes],
        allow_insecure: bool,
    ) -> None:
        self._authorities = keys.authorities
        self._results = keys.results
        self._bundles = bundles
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
        svid = self._authorities.active(now).issue_member_svid(
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
        return self._authorities.active(now).issue_infrastructure_svid(
            key,
            SpiffeId(self._authorities.trust_domain, SERVER_PATH),
            now=now,
            ttl=ttl,
            random=self._random(_SERIAL_OCTETS),
        )

    def for_workloads(
        self, appraised: AppraisedEvidence, *, node_id: str, now: datetime
    ) -> WorkloadIssuer:
        """Return what issues for the workloads of a node that was appraised so.

        Raises:
            AuthorizationError, VerificationError: the node's result allows no SVIDs (any more).
        """
        node = self._node_result(appraised, node_id=node_id, now=now)
        authority = self._authorities.active(now)
        return WorkloadIssuer(authority, node, random=self._random, now=now)

    def issue_wit(
        self,
        request: CertificateRequest,
        spiffe_id: SpiffeId,
        appraised: AppraisedEvidence,
        *,
        node_id: str,
        own: bool,
        ttl: timedelta,
        now: datetime,
    ) -> IssuedWit:
        """Return a WIT for a key whose holder asked, and the result for the same key.

        Args:
            request: the key.
            spiffe_id: the subject: a workload of the node, or with `own` the node itself.
            appraised: what was appraised of the node.
            node_id: the node.
            own: the key must be the one that the node's result vouches for.
            ttl: wanted lifetime; it ends with the result at the latest.
            now: timezone-aware.

        Raises:
            BindingError: `own`, and the key is not the node's.
            AuthorizationError, VerificationError: the node's result allows none (any more).
        """
        node = self._node_result(appraised, node_id=node_id, now=now)
        if own and node.ear.keys != (request.spki,):
            raise BindingError(f"node {node_id}: its result vouches for another key than this one")
        authority = WitAuthority(self._authorities.trust_domain, self._authorities.jwt.signer(now))
        wit = authority.issue(
            spiffe_id,
            request.public_key,
            proof_algorithm(request.public_key),
            now=now,
            ttl=ttl,
            not_after=node.expires_at,
            random=self._random,
        )
        result = appraised.ear if own else node.sign_for(request.spki).decode("ascii")
        return IssuedWit(wit=wit, result=result)

    def _node_result(
        self, appraised: AppraisedEvidence, *, node_id: str, now: datetime
    ) -> NodeResult:
        return NodeResult.verify(
            appraised.ear,
            self._results.published(now),
            node_id=node_id,
            signer=self._results.signer(now),
            now=now,
            max_age=appraised.result.expires - appraised.result.issued,
            allow_insecure=self._allow_insecure,
        )

    def issue_jwt(
        self,
        spiffe_id: SpiffeId,
        audience: Sequence[str],
        *,
        now: datetime,
        ttl: timedelta,
        not_after: datetime,
    ) -> JwtSvid:
        """Return a JWT-SVID; see `JwtAuthority.issue`."""
        authority = self._authorities.active_jwt(now)
        return authority.issue(spiffe_id, audience, now=now, ttl=ttl, not_after=not_after)

    def trust_bundle(self) -> TrustBundle:
        """Return the bundle of the trust domain."""
        return self._bundles.own

    def bundle(self) -> BundleMessage:
        """Return the bundle as nodes get it."""
        bundle = self.trust_bundle()
        return BundleMessage(
            spiffe=bundle.encode().decode("utf-8"), pem=bundle.encode_pem().decode("ascii")
        )
