# SPDX-License-Identifier: Apache-2.0
"""A Nitro enclave that does not exist, for tests: its own root, certificates and documents.

Everything about its documents verifies once its root is provisioned as a trust anchor. The root's
name carries the simulator's mark, so a Verifier refuses them unless simulators are allowed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from troth.evidence.attester import AttesterDescription
from troth.evidence.insecure import SIMULATOR_MARK
from troth.evidence.nitro.document import DIGEST_SIZE, MEDIA_TYPE
from troth.formats import cbor
from troth.formats.cose import sign1
from troth.formats.signer import LocalSigner

__all__ = ["NitroAuthority", "SimulatedEnclave"]

_EPOCH: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)
_BUNDLE: Final = (
    ("aws.nitro-enclaves", timedelta(days=365 * 30), None),
    ("region.aws.nitro-enclaves", timedelta(days=20), 2),
    ("zonal.region.aws.nitro-enclaves", timedelta(days=6), 1),
    ("i-simulated.aws.nitro-enclaves", timedelta(days=1), 0),
)


@dataclass(frozen=True, kw_only=True)
class NitroAuthority:
    """A root with intermediates, as AWS has them.

    Attributes:
        made: when all certificates begin, but for an hour.
        curve, digest: of all keys and signatures.
        path_lengths: of the certificates in the bundle, root first.
    """

    made: datetime = _EPOCH
    curve: ec.EllipticCurve = field(default_factory=ec.SECP384R1)
    digest: hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA384)
    path_lengths: Sequence[int | None] = tuple(length for _, _, length in _BUNDLE)

    @functools.cached_property
    def keys(self) -> tuple[ec.EllipticCurvePrivateKey, ...]:
        """The keys of the bundle, root first."""
        return tuple(ec.generate_private_key(self.curve) for _ in _BUNDLE)

    @functools.cached_property
    def bundle(self) -> tuple[x509.Certificate, ...]:
        """The certificates, root first."""
        names = [_name(common_name) for common_name, _, _ in _BUNDLE]
        return tuple(
            self._builder(
                names[index], names[max(index - 1, 0)], self.keys[index].public_key(), life
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .sign(self.keys[max(index - 1, 0)], self.digest)
            for index, ((_, life, _), length) in enumerate(
                zip(_BUNDLE, self.path_lengths, strict=True)
            )
        )

    @property
    def root(self) -> x509.Certificate:
        """The root."""
        return self.bundle[0]

    def certify(
        self,
        key: ec.EllipticCurvePublicKey,
        *,
        life: timedelta = timedelta(hours=3),
        usage: x509.KeyUsage | None = None,
        more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        """Return the certificate of an enclave."""
        issuer = self.bundle[-1].subject
        builder = self._builder(_name("i-simulated-enc"), issuer, key, life)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        ).add_extension(usage or _usage(ca=False), critical=False)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.keys[-1], self.digest)

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        life: timedelta,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.made - timedelta(hours=1))
            .not_valid_after(self.made - timedelta(hours=1) + life)
        )


@dataclass(frozen=True, kw_only=True)
class SimulatedEnclave:
    """One enclave under such a root; implements the Attester port. INSECURE by nature.

    Attributes:
        authority: that certifies it.
        module_id: its name.
        pcrs: its registers; those of 0 to 15 that are not here are zero.
        claims: what documents say otherwise, by the names of the claims.
        tagged: write the COSE tag, which AWS leaves out.
    """

    authority: NitroAuthority = field(default_factory=NitroAuthority)
    module_id: str = "i-simulated-enc0123456789abcdef"
    pcrs: Mapping[int, bytes] = field(
        default_factory=lambda: {
            index: bytes([0xA0 + index]) * DIGEST_SIZE for index in (0, 1, 2, 3, 4, 8)
        }
    )
    claims: Mapping[str, object] = field(default_factory=dict)
    tagged: bool = False
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    scheme: str = "nitro"
    media_type: str = MEDIA_TYPE
    challenge_size: int = 64

    def saying(self, **claims: object) -> SimulatedEnclave:
        """Return the same enclave, whose documents say something else."""
        return replace(self, claims={**self.claims, **claims})

    @functools.cached_property
    def certificate(self) -> x509.Certificate:
        """The certificate of the key that signs."""
        return self.authority.certify(self.key.public_key())

    def attest(self, challenge: bytes) -> bytes:
        """Return a document with this nonce."""
        payload: dict[str, object] = {
            "module_id": self.module_id,
            "digest": "SHA384",
            "timestamp": int(self.authority.made.timestamp() * 1000),
            "pcrs": {index: self.pcrs.get(index, bytes(DIGEST_SIZE)) for index in range(16)},
            "certificate": self.certificate.public_bytes(Encoding.DER),
            "cabundle": [each.public_bytes(Encoding.DER) for each in self.authority.bundle],
            "public_key": None,
            "user_data": None,
            "nonce": challenge,
        }
        said = {**payload, **self.claims}
        said = {name: value for name, value in said.items() if value is not ...}
        return sign1(cbor.encode(said), LocalSigner(self.key), tagged=self.tagged)

    def describe(self) -> AttesterDescription:
        """Say what this Attester is."""
        return AttesterDescription(
            scheme=self.scheme,
            media_type=self.media_type,
            source="a simulated enclave, in memory",
            challenge_size=self.challenge_size,
            identity=self.module_id.encode().hex(),
            insecure=("platform simulator",),
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SIMULATOR_MARK.decode()),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
