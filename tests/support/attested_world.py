# SPDX-License-Identifier: Apache-2.0
"""One trust domain with its Verifier, and nodes that joined it: what attested TLS tests need."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from troth.endorsement.build import AttestKey, Component, cca_corims, psa_corim
from troth.endorsement.store import EndorsementStore
from troth.evidence.challenge import derive_challenge
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedPlatform
from troth.formats.ear.dialects import Dialect
from troth.formats.ear.result import minimise
from troth.formats.ear.token import sign_ear
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.identity.certificate_request import decode_csr
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundleSet
from troth.identity.x509_authority import X509Authority
from troth.identity.x509_svid import X509Svid
from troth.mesh.passport import TrustedVerifier
from troth.mesh.tier import DEFAULT_LIFETIMES
from troth.tls.credentials import Credentials
from troth.tls.local_check import LocalVerifier
from troth.tls.policy import AttestationPolicy
from troth.verifier.result import AttestationResult, VerifierIdentity
from troth.verifier.verifier import Verifier

DOMAIN = "mesh.example"
_LEAF_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass
class Node:
    """A node that joined."""

    name: str
    platform: SimulatedPlatform
    key: ec.EllipticCurvePrivateKey
    svid: X509Svid
    passport: str


@dataclass
class World:
    """Authority, Verifier and the nodes' makers."""

    store: EndorsementStore = field(default_factory=EndorsementStore)
    lifetime: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        self.trust_domain = TrustDomain(DOMAIN)
        self.authority = X509Authority.self_signed(
            self.trust_domain,
            ec.generate_private_key(ec.SECP256R1()),
            now=datetime.now(UTC) - timedelta(minutes=1),
            lifetime=timedelta(days=1),
            random=os.urandom(16),
        )
        self.result_key = ec.generate_private_key(ec.SECP256R1())
        self.verifier = Verifier(
            identity=VerifierIdentity(name="home", developer="https://troth.example", build="t"),
            endorsements=self.store,
            lifetimes=dict.fromkeys(DEFAULT_LIFETIMES, self.lifetime),
            allow_simulator=True,
        )
        self.trusted = TrustedVerifier(
            name="home", keys=[VerificationKey(self.result_key.public_key())]
        )
        self.check = LocalVerifier(name="here", verifier=self.verifier)
        self.bundles = TrustBundleSet([self.authority.bundle()])
        self._count = 0

    def platform(self, options: PsaOptions | CcaOptions | None = None) -> SimulatedPlatform:
        """Make a platform whose maker has endorsed it as it is."""
        self._count += 1
        platform = SimulatedPlatform.create(options or PsaOptions(), random=os.urandom)
        self.endorse(platform, f"maker-{self._count}")
        return platform

    def endorse(self, platform: SimulatedPlatform, name: str) -> None:
        reference = platform.reference()
        components = [
            Component(digest=c.digest, signer_id=c.signer_id, name=c.name, version=c.version)
            for c in reference.components
        ]
        keys = [AttestKey(instance_id=reference.instance_id, key=reference.public_key_pem.encode())]
        if reference.scheme == "psa":
            corims = [
                psa_corim(
                    corim_id=name,
                    implementation_id=reference.implementation_id,
                    components=components,
                    keys=keys,
                )
            ]
        else:
            corims = list(
                cca_corims(
                    corim_id=name,
                    implementation_id=reference.implementation_id,
                    components=components,
                    rim=reference.rim,
                    rems=reference.rems,
                    rpv=reference.personalization_value,
                    config=reference.config,
                    keys=keys,
                )
            )
        for corim in corims:
            self.store.provision(corim, now=datetime.now(UTC), source=name)

    def appraise(self, platform: SimulatedPlatform, key: bytes) -> AttestationResult:
        nonce = os.urandom(32)
        challenge = derive_challenge(b"test", key, nonce, platform.challenge_size)
        return self.verifier.appraise(
            platform.attest(challenge), now=datetime.now(UTC), challenge=challenge, key=key
        )

    def join(
        self, name: str, platform: SimulatedPlatform, *, svid_only: bool = False, **issue: Any
    ) -> Node:
        """Attest `platform` and issue its SVID."""
        key = ec.generate_private_key(ec.SECP256R1())
        result = self.appraise(platform, spki(key.public_key()))
        passport = sign_ear(
            minimise(result.to_ear()), LocalSigner(self.result_key), Dialect.IETF_03, wire="jwt"
        ).decode()
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .sign(key, hashes.SHA256())
        )
        spiffe_id = SpiffeId.decode(f"spiffe://{DOMAIN}/node/{name}")
        now = datetime.now(UTC)
        if svid_only:
            svid = self._plain_svid(key, spiffe_id)
            passport = ""
        else:
            svid = self.authority.issue_member_svid(
                decode_csr(csr.public_bytes(serialization.Encoding.DER)),
                spiffe_id,
                result=passport.encode(),
                result_keys=self.trusted.keys,
                max_result_age=timedelta(hours=1),
                node_id=issue.get("node_id", name),
                now=now,
                ttl=timedelta(minutes=30),
                random=os.urandom(16),
                allow_insecure=True,
            )
        return Node(name, platform, key, X509Svid(chain=svid.chain, private_key=key), passport)

    def _plain_svid(self, key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId) -> X509Svid:
        """An SVID of another issuer in the same trust domain, such as SPIRE: no result in it."""
        ca = self.authority.certificate
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(minutes=30))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                _LEAF_USAGE,
                critical=True,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))]),
                critical=True,
            )
        )
        certificate = builder.sign(self.authority._private_key, hashes.SHA256())
        return X509Svid(chain=[certificate], private_key=key)

    def credentials(self, node: Node, **changes: Any) -> Credentials:
        given: dict[str, Any] = {
            "svid": node.svid,
            "bundles": self.bundles,
            "passport": node.passport,
            "attester": node.platform,
        }
        return Credentials(**{**given, **changes})

    def policy(self, **changes: Any) -> AttestationPolicy:
        given: dict[str, Any] = {
            "peers": [f"spiffe://{DOMAIN}/*"],
            "verifiers": [self.trusted],
            "allow_insecure": True,
        }
        return AttestationPolicy(**{**given, **changes})
