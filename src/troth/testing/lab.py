# SPDX-License-Identifier: Apache-2.0
"""A trust domain in one object: its authority, its Verifier, and nodes on simulated platforms.

For trying things out and for tests. Everything in it is labelled insecure, and is: the platforms
are software, and every key is in this process.
"""

from __future__ import annotations

import asyncio
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
from troth.identity.certificate_fields import key_usage
from troth.identity.certificate_request import decode_csr
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundleSet
from troth.identity.x509_authority import X509Authority
from troth.identity.x509_svid import X509Svid
from troth.mesh.passport import TrustedVerifier
from troth.mesh.tier import DEFAULT_LIFETIMES
from troth.tls.credentials import Credentials, ProofKey
from troth.tls.local_check import LocalVerifier
from troth.tls.policy import AttestationPolicy
from troth.verifier.result import AttestationResult, VerifierIdentity
from troth.verifier.verifier import Verifier

__all__ = ["DOMAIN", "Lab", "Node", "SoftwareDevice"]

DOMAIN = "mesh.example"

_SVID_LIFETIME = timedelta(minutes=30)


class SoftwareDevice:
    """Stands for a TPM or a KMS that signs with a key of its own: a `ProofSigner`."""

    algorithm = "ES256"

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public_key = self._key.public_key()
        self.signatures = 0

    async def __call__(self, data: bytes) -> bytes:
        """Sign, in a thread, as a driver would."""
        self.signatures += 1
        return await asyncio.to_thread(LocalSigner(self._key).sign, data)

    def request(self) -> bytes:
        """Return a certificate signing request for the key."""
        return _request(self._key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that joined: its platform, its SVID with the private key, its passport."""

    name: str
    platform: SimulatedPlatform
    svid: X509Svid
    passport: str
    proof_key: ProofKey | None = None


@dataclass
class Lab:
    """One trust domain, `mesh.example`.

    Attributes:
        store: Endorsements and Reference Values of the Verifier.
        lifetime: of the results that it gives.
    """

    store: EndorsementStore = field(default_factory=EndorsementStore)
    lifetime: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        self.trust_domain = TrustDomain(DOMAIN)
        self._authority_key = ec.generate_private_key(ec.SECP256R1())
        self.authority = X509Authority.self_signed(
            self.trust_domain,
            self._authority_key,
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
        """Make a platform (PSA by default) whose maker has endorsed it as it is."""
        self._count += 1
        platform = SimulatedPlatform.create(options or PsaOptions(), random=os.urandom)
        self.endorse(platform, f"maker-{self._count}")
        return platform

    def endorse(self, platform: SimulatedPlatform, name: str) -> None:
        """Provision what a maker would publish about `platform`."""
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
        """Let the platform attest for the key with this SubjectPublicKeyInfo, and appraise it."""
        nonce = os.urandom(32)
        challenge = derive_challenge(b"test", key, nonce, platform.challenge_size)
        return self.verifier.appraise(
            platform.attest(challenge), now=datetime.now(UTC), challenge=challenge, key=key
        )

    def join(
        self,
        name: str,
        platform: SimulatedPlatform | None = None,
        *,
        svid_only: bool = False,
        device: SoftwareDevice | None = None,
        node_id: str = "",
    ) -> Node:
        """Attest a platform and issue its SVID, for `spiffe://mesh.example/node/NAME`.

        Args:
            name: the node's.
            platform: a new one if None.
            svid_only: give an SVID as another issuer in the trust domain would: no result in it.
            device: holds a separate key to prove with; the passport is about that key then.
            node_id: what the SVID calls the node; its name if "".
        """
        platform = platform or self.platform()
        key = ec.generate_private_key(ec.SECP256R1())
        spiffe_id = SpiffeId.decode(f"spiffe://{DOMAIN}/node/{name}")
        if svid_only:
            return Node(
                name=name, platform=platform, svid=self._plain_svid(key, spiffe_id), passport=""
            )
        node_id = node_id or name
        passport = self.passport(platform, key.public_key())
        svid = self._issue(_request(key), spiffe_id, passport, node_id, hardware=False)
        proof_key = None
        if device is not None:
            passport = self.passport(platform, device.public_key)
            certified = self._issue(device.request(), spiffe_id, passport, node_id, hardware=True)
            proof_key = ProofKey(svid=certified, sign=device)
        return Node(
            name=name,
            platform=platform,
            svid=X509Svid(chain=svid.chain, private_key=key),
            passport=passport,
            proof_key=proof_key,
        )

    def passport(self, platform: SimulatedPlatform, key: ec.EllipticCurvePublicKey) -> str:
        """Return a signed result for `key` on `platform`, as JWT."""
        result = minimise(self.appraise(platform, spki(key)).to_ear())
        signer = LocalSigner(self.result_key)
        return sign_ear(result, signer, Dialect.IETF_03, wire="jwt").decode()

    def credentials(self, node: Node, **changes: Any) -> Credentials:  # noqa: ANN401 - the dataclass's own fields
        """Return what `node` shows; `changes` are fields of `Credentials`."""
        given: dict[str, Any] = {
            "svid": node.svid,
            "bundles": self.bundles,
            "passport": node.passport,
            "attester": node.platform,
            "proof_key": node.proof_key,
        }
        return Credentials(**{**given, **changes})

    def policy(self, **changes: Any) -> AttestationPolicy:  # noqa: ANN401 - the dataclass's own fields
        """Return a policy for everybody here; `changes` are fields of `AttestationPolicy`."""
        given: dict[str, Any] = {
            "peers": [f"spiffe://{DOMAIN}/*"],
            "verifiers": [self.trusted],
            "allow_insecure": True,
        }
        return AttestationPolicy(**{**given, **changes})

    def _issue(
        self, request: bytes, spiffe_id: SpiffeId, passport: str, node_id: str, *, hardware: bool
    ) -> X509Svid:
        return self.authority.issue_member_svid(
            decode_csr(request),
            spiffe_id,
            result=passport.encode(),
            result_keys=self.trusted.keys,
            max_result_age=timedelta(hours=1),
            node_id=node_id,
            now=datetime.now(UTC),
            ttl=_SVID_LIFETIME,
            random=os.urandom(16),
            allow_insecure=True,
            hardware_key=hardware,
        )

    def _plain_svid(self, key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId) -> X509Svid:
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.authority.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + _SVID_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(ca=False), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))]),
                critical=True,
            )
            .sign(self._authority_key, hashes.SHA256())
        )
        return X509Svid(chain=[certificate], private_key=key)


def _request(key: ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
