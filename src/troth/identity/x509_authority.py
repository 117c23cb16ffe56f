# SPDX-License-Identifier: Apache-2.0
"""The authority of a trust domain: issues X.509-SVIDs, members' only on an Attestation Result.

Three kinds of SVIDs, and no way from the one to the other:

* A *member's* names an attested node or its proxy. Its path does not begin with /troth/. It takes
  an EAR that a trusted Verifier signed for the very key in the request, affirming, with an end; and
  it never outlives that end.
* A *workload's* names a process on such a node. It takes the node's EAR, says by whose word the
  workload's key stands (`workload_result.py`), and never outlives the node's EAR either.
* An *infrastructure* SVID names a part of Troth itself, under /troth/. It takes no EAR, so whoever
  can call that method can make the control plane's identities: keep it off every network.

What is issued has passed Troth's own validator before it leaves.

Source: X509-SVID sections 2 to 4 (spiffe/spiffe, July 2026); RFC 5280 section 4.1.2, 4.2.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
)
from troth.formats.ar4si import TrustTier
from troth.formats.ear import PROFILES, Ear, minimise, verify_ear
from troth.formats.keys import VerificationKey, spki
from troth.identity.attestation_result import result_extension
from troth.identity.certificate_fields import (
    TLS_USES,
    AuthorityKey,
    checked_dns_names,
    key_usage,
    serial_number,
    signature_hash,
    whole_seconds,
)
from troth.identity.certificate_request import CertificateRequest, SvidKey, check_svid_key
from troth.identity.certificates import (
    extensions_of,
    key_of,
    key_usage_of,
    spiffe_id_of,
    subject_alternative_names,
)
from troth.identity.hardware_key import hardware_key_policy
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet
from troth.identity.workload_result import NodeResult
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import NODE_PREFIX, X509Svid

__all__ = [
    "BACKDATE",
    "INFRASTRUCTURE_PREFIX",
    "MAX_RESULT_BYTES",
    "AuthorityKey",
    "X509Authority",
]

BACKDATE: Final = timedelta(seconds=30)
"""How far an SVID's beginning lies in the past, for clocks that are behind."""

INFRASTRUCTURE_PREFIX: Final = "/troth/"
"""Where the paths of Troth's own identities begin, and nobody else's."""

MAX_RESULT_BYTES: Final = 4096
"""An EAR in a certificate. It travels in every handshake, and the whole chain has a limit there."""

_CA_FORMAT: Final = "CA certificate"
_MAX_LEEWAY: Final = timedelta(seconds=30)
# X.520 bounds an organizational unit to 64 characters.
_NODE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,58}")
_ORGANIZATION: Final = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE")


@dataclass(frozen=True, slots=True, eq=False)
class X509Authority:
    """One CA key of one trust domain.

    While a key is replaced there are two: publish both certificates in the bundle first, then issue
    with the new one.

    Attributes:
        trust_domain: the trust domain.
        certificate: the CA certificate, self-signed.

    Raises:
        DecodeError: the key is not the certificate's, or the certificate is not an authority of
            this trust domain.
    """

    trust_domain: TrustDomain
    certificate: x509.Certificate
    _private_key: AuthorityKey = field(repr=False)

    def __post_init__(self) -> None:
        key = check_svid_key(self._private_key.public_key(), format=_CA_FORMAT)
        if spki(key_of(self.certificate, format=_CA_FORMAT)) != spki(key):
            raise DecodeError("the private key is not the certificate's", format=_CA_FORMAT)
        spiffe_id = spiffe_id_of(subject_alternative_names(self.certificate))
        if spiffe_id != self.trust_domain.id:
            raise DecodeError(f"is for {spiffe_id}, not {self.trust_domain.id}", format=_CA_FORMAT)
        if not key_usage_of(self.certificate).value.key_cert_sign:
            raise DecodeError("must not sign certificates", format=_CA_FORMAT)
        self._key_id()

    def _key_id(self) -> x509.SubjectKeyIdentifier:
        try:
            extension = extensions_of(self.certificate, format=_CA_FORMAT).get_extension_for_class(
                x509.SubjectKeyIdentifier
            )
        except x509.ExtensionNotFound as exc:
            raise DecodeError("has no subject key identifier", format=_CA_FORMAT) from exc
        return extension.value

    @classmethod
    def self_signed(
        cls,
        trust_domain: TrustDomain,
        private_key: AuthorityKey,
        *,
        now: datetime,
        lifetime: timedelta,
        random: bytes,
    ) -> X509Authority:
        """Make the certificate for a new authority.

        Args:
            trust_domain: the trust domain.
            private_key: P-256 where nothing speaks for another; it never leaves this object.
            now: timezone-aware.
            lifetime: of the certificate.
            random: 16 octets or more from the operating system.

        Raises:
            UnsupportedError: a key that some TLS stack of the mesh refuses.
        """
        serial = serial_number(random)
        key = check_svid_key(private_key.public_key(), format="authority key")
        # Each certificate has a name of its own, so that no stack mistakes the next key's for it.
        name = x509.Name(
            [_ORGANIZATION, x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:032x}")]
        )
        start = whole_seconds(now)
        uri = x509.UniformResourceIdentifier(str(trust_domain.id))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(start - BACKDATE)
            .not_valid_after(start + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(private_key, signature_hash(private_key))
        )
        return cls(trust_domain, certificate, private_key)

    def bundle(
        self,
        *,
        sequence: int | None = None,
        refresh_hint_seconds: int | None = None,
        others: Sequence[x509.Certificate] = (),
    ) -> TrustBundle:
        """Return the bundle with this authority and `others`: the last one, the next one."""
        return TrustBundle(
            trust_domain=self.trust_domain,
            x509_authorities=[self.certificate, *others],
            sequence=sequence,
            refresh_hint_seconds=refresh_hint_seconds,
        )

    def issue_member_svid(
        self,
        request: CertificateRequest,
        spiffe_id: SpiffeId,
        *,
        result: bytes,
        result_keys: Sequence[VerificationKey],
        max_result_age: timedelta,
        node_id: str,
        now: datetime,
        ttl: timedelta,
        random: bytes,
        dns_names: Sequence[str] = (),
        allow_insecure: bool = False,
        hardware_key: bool = False,
    ) -> X509Svid:
        """Issue an SVID for an attested node, with its minimised result inside.

        Args:
            request: the key; see `decode_csr`.
            spiffe_id: from registration.
            result: EAR as JWT, minimised and then signed; see `minimise`.
            result_keys: the Verifiers whose results make members.
            max_result_age: how long ago the result may have been issued.
            node_id: goes into the Subject as `OU=node:…`; 1 to 59 letters, digits, '.', '_', '-'.
            now: timezone-aware.
            ttl: wanted lifetime. The end is the first of now + `ttl`, the result's `exp` and the
                authority's own end.
            random: 16 octets or more from the operating system.
            dns_names: from registration; lower case, no wildcards.
            allow_insecure: also on results that must not count in production (simulator, test
                keys). They stay marked.
            hardware_key: mark the key as one that cannot leave a device (`hardware_key.py`). The
                caller has made sure of it.

        Raises:
            AuthorizationError: the result does not make a member: not affirming, no end, no key or
                another key than the request's, or insecure; or the SPIFFE ID is not a member's.
            SignatureError, FreshnessError, DecodeError: the result does not hold; see `verify_ear`.
            LimitExceededError: the result is longer than `MAX_RESULT_BYTES`.
            ApiMisuseError: the result is not minimised, or a name is not of its form.
        """
        self._check_id(spiffe_id, infrastructure=False)
        if not _NODE_ID.fullmatch(node_id):
            raise ApiMisuseError(f"node id {node_id[:64]!r} does not fit a Subject")
        if len(result) > MAX_RESULT_BYTES:
            raise LimitExceededError(
                format="EAR in an X.509-SVID", limit="max_result_bytes", value=MAX_RESULT_BYTES
            )
        if not result.isascii():
            raise ApiMisuseError("an X.509-SVID carries its EAR as a JWT")
        ear = verify_ear(
            result,
            result_keys,
            now=now,
            max_age=max_result_age,
            leeway=_MAX_LEEWAY,
            profiles=PROFILES,
            require_key=False,  # the refusals that follow say more
            require_exp=False,
        )
        expires_at = _member_result_end(ear, request, spiffe_id, allow_insecure=allow_insecure)
        if minimise(ear) != ear:
            raise ApiMisuseError("minimise the EAR before it is signed for a certificate")
        return self._issue(
            request.public_key,
            spiffe_id,
            now=now,
            not_after=min(whole_seconds(now) + ttl, expires_at),
            random=random,
            dns_names=dns_names,
            node_id=node_id,
            result=result,
            hardware_key=hardware_key,
        )

    def issue_workload_svid(
        self,
        request: CertificateRequest,
        spiffe_id: SpiffeId,
        *,
        node: NodeResult,
        now: datetime,
        ttl: timedelta,
        random: bytes,
        dns_names: Sequence[str] = (),
    ) -> X509Svid:
        """Issue an SVID for a process on an attested node, with a result of layers inside.

        Says nothing about whether this process may have this SPIFFE ID: registration and the node's
        agent do.

        Args:
            request: the key; see `decode_csr`.
            spiffe_id: from registration.
            node: the node's verified result.
            now: timezone-aware.
            ttl: wanted lifetime. The end is the first of now + `ttl`, the end of the node's result
                and the authority's own end.
            random: 16 octets or more from the operating system.
            dns_names: from registration; lower case, no wildcards.

        Raises:
            AuthorizationError: the SPIFFE ID is not a member's.
            FreshnessError: it would end before it begins.
            LimitExceededError: the result is longer than `MAX_RESULT_BYTES`.
            ApiMisuseError: a name is not of its form.
        """
        self._check_id(spiffe_id, infrastructure=False)
        if not _NODE_ID.fullmatch(node.node_id):
            raise ApiMisuseError(f"node id {node.node_id[:64]!r} does not fit a Subject")
        result = node.sign_for(request.spki)
        if len(result) > MAX_RESULT_BYTES:
            raise LimitExceededError(
                format="EAR in an X.509-SVID", limit="max_result_bytes", value=MAX_RESULT_BYTES
            )
        return self._issue(
            request.public_key,
            spiffe_id,
            now=now,
            not_after=min(whole_seconds(now) + ttl, node.expires_at),
            random=random,
            dns_names=dns_names,
            node_id=node.node_id,
            result=result,
            # A batch is of hundreds: what was signed a moment ago is not verified as a path again.
            # The rules of a leaf are checked all the same.
            verify_path=False,
        )

    def issue_infrastructure_svid(
        self,
        key: SvidKey,
        spiffe_id: SpiffeId,
        *,
        now: datetime,
        ttl: timedelta,
        random: bytes,
        dns_names: Sequence[str] = (),
    ) -> X509Svid:
        """Issue an SVID for a part of Troth itself: no result, so nothing is said about a machine.

        Args:
            key: the key of the server, the operator's tool or an agent's admin side.
            spiffe_id: its path begins with /troth/.
            now: timezone-aware.
            ttl: wanted lifetime; ends with the authority at the latest.
            random: 16 octets or more from the operating system.
            dns_names: lower case, no wildcards.

        Raises:
            AuthorizationError: the SPIFFE ID is not of this trust domain or not under /troth/.
            UnsupportedError: a key that SVIDs are not issued for.
        """
        self._check_id(spiffe_id, infrastructure=True)
        return self._issue(
            check_svid_key(key, format="public key"),
            spiffe_id,
            now=now,
            not_after=whole_seconds(now) + ttl,
            random=random,
            dns_names=dns_names,
        )

    def _check_id(self, spiffe_id: SpiffeId, *, infrastructure: bool) -> None:
        if spiffe_id.trust_domain != self.trust_domain:
            raise AuthorizationError(f"{spiffe_id} is not of trust domain {self.trust_domain}")
        if spiffe_id.path.startswith(INFRASTRUCTURE_PREFIX) != infrastructure or not spiffe_id.path:
            kind = "an infrastructure" if infrastructure else "a member's"
            raise AuthorizationError(
                f"{spiffe_id} is not {kind} identity",
                remedy=f"paths under {INFRASTRUCTURE_PREFIX} are for Troth's own parts, and only "
                "for them",
            )

    def _issue(
        self,
        key: SvidKey,
        spiffe_id: SpiffeId,
        *,
        now: datetime,
        not_after: datetime,
        random: bytes,
        dns_names: Sequence[str],
        node_id: str = "",
        result: bytes = b"",
        hardware_key: bool = False,
        verify_path: bool = True,
    ) -> X509Svid:
        start = whole_seconds(now)
        not_after = min(whole_seconds(not_after), self.certificate.not_valid_after_utc)
        if not_after <= start:
            raise FreshnessError(
                f"{spiffe_id}: an SVID issued now would already have ended at {not_after}"
            )
        subject = [_ORGANIZATION]
        if node_id:
            unit = NODE_PREFIX + node_id
            subject.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
        names.extend(map(x509.DNSName, checked_dns_names(dns_names)))
        authority_key = self._key_id()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(serial_number(random))
            .not_valid_before(max(start - BACKDATE, self.certificate.not_valid_before_utc))
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(ca=False), critical=True)
            .add_extension(TLS_USES, critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key),
                critical=False,
            )
        )
        if result:
            builder = builder.add_extension(result_extension(result), critical=False)
        if hardware_key:
            builder = builder.add_extension(hardware_key_policy(), critical=False)
        certificate = builder.sign(self._private_key, signature_hash(self._private_key))
        svid = X509Svid(chain=(certificate,))
        if verify_path:
            verify_x509_svid(svid, TrustBundleSet([self.bundle()]), now=now)
        return svid


def _member_result_end(
    ear: Ear, request: CertificateRequest, spiffe_id: SpiffeId, *, allow_insecure: bool
) -> datetime:
    """Return the end of a result that makes a member, or refuse."""

    def refusal(message: str, remedy: str) -> AuthorizationError:
        return AuthorizationError(f"{spiffe_id}: {message}", result=ear, remedy=remedy)

    if ear.overall_status is not TrustTier.AFFIRMING:
        raise refusal(
            f"the Attestation Result is {ear.overall_status.word}, not affirming",
            "read the result's findings",
        )
    if ear.keys != (request.spki,):
        raise refusal(
            f"the Attestation Result vouches for {len(ear.keys) or 'no'} key(s), "
            "and not for the request's alone",
            "attest with Evidence over the key that the request is for",
        )
    if ear.expires_at is None:
        raise refusal("the Attestation Result has no exp", "have the Verifier set one")
    if ear.insecure and not allow_insecure:
        raise refusal(
            f"the Attestation Result must not count in production: {'; '.join(ear.insecure)}",
            "attest with real hardware, or allow insecure results in this installation",
        )
    return ear.expires_at
