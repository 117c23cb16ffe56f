# SPDX-License-Identifier: Apache-2.0
"""A chip with SEV-SNP that does not exist, for tests: its own root, certificates and reports.

Everything about its reports verifies once its root is provisioned as a trust anchor. The root's
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
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from troth.evidence.attester import AttesterDescription
from troth.evidence.insecure import SIMULATOR_MARK
from troth.evidence.sev_snp.certificate_table import ARK, ASK, VCEK, VLEK, encode_table
from troth.evidence.sev_snp.evidence import PROVIDER
from troth.evidence.sev_snp.fields import TcbVersion
from troth.evidence.sev_snp.report import REPORT_SIZE, SIGNATURE_SIZE, SIGNED_SIZE
from troth.evidence.tsm_report import TSM_REPORT_CBOR, TsmReport

__all__ = ["SimulatedSnpGuest", "SnpAuthority", "encode_report", "sign_report"]

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_YEARS: Final = timedelta(days=365 * 7)
_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
_ARC: Final = "1.3.6.1.4.1.3704.1."
_CPUID: Final = {"Milan": (0x19, 0x01, 0x01), "Genoa": (0x19, 0x11, 0x01), "Turin": (0x1A, 0x02, 0)}

_NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "version": (0x00, 4),
    "guest_svn": (0x04, 4),
    "policy": (0x08, 8),
    "vmpl": (0x30, 4),
    "signature_algorithm": (0x34, 4),
    "current_tcb": (0x38, 8),
    "platform_info": (0x40, 8),
    "keys": (0x48, 4),
    "reported_tcb": (0x180, 8),
    "cpuid_family": (0x188, 1),
    "cpuid_model": (0x189, 1),
    "cpuid_stepping": (0x18A, 1),
    "committed_tcb": (0x1E0, 8),
    "current_version": (0x1E8, 3),
    "committed_version": (0x1EC, 3),
    "launch_tcb": (0x1F0, 8),
    "launch_mitigations": (0x1F8, 8),
    "current_mitigations": (0x200, 8),
}
_OCTETS: Final[Mapping[str, tuple[int, int]]] = {
    "family_id": (0x10, 16),
    "image_id": (0x20, 16),
    "report_data": (0x50, 64),
    "measurement": (0x90, 48),
    "host_data": (0xC0, 32),
    "id_key_digest": (0xE0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "chip_id": (0x1A0, 64),
}


def encode_report(fields: Mapping[str, int | bytes]) -> bytes:
    """Return the octets of a report with these fields and no signature; the rest is zero."""
    report = bytearray(REPORT_SIZE)
    for name, value in fields.items():
        at, size = {**_NUMBERS, **_OCTETS}[name]
        octets = value.to_bytes(size, "little") if isinstance(value, int) else value
        report[at : at + size] = octets.ljust(size, b"\0")
    return bytes(report)


def sign_report(report: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the report with a signature by `key`."""
    signed = report[:SIGNED_SIZE]
    parts = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    signature = b"".join(part.to_bytes(SIGNATURE_SIZE, "little") for part in parts)
    return signed + signature + bytes(REPORT_SIZE - SIGNED_SIZE - len(signature))


@functools.cache
def _rsa_key(name: str) -> rsa.RSAPrivateKey:
    """Make a key once for each process: it takes about a second."""
    del name
    return rsa.generate_private_key(65537, 4096)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SIMULATOR_MARK.decode()),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class SnpAuthority:
    """A root with intermediates, as AMD has one for each product line.

    Attributes:
        product: such as "Milan".
        label: makes another authority of the same names, with other keys.
        not_before, not_after: validity of root and intermediates.
    """

    product: str = "Milan"
    label: str = ""
    not_before: datetime = _EPOCH
    not_after: datetime = _EPOCH + _YEARS

    @functools.cached_property
    def ark(self) -> x509.Certificate:
        """The root."""
        return self._authority(f"ARK-{self.product}", 1, self._key("ark"))

    @functools.cached_property
    def ask(self) -> x509.Certificate:
        """The intermediate above VCEKs."""
        return self._authority(f"SEV-{self.product}", 2, self._key("ask"))

    @functools.cached_property
    def asvk(self) -> x509.Certificate:
        """The intermediate above VLEKs; it has the key of the other one."""
        return self._authority(f"SEV-VLEK-{self.product}", 3, self._key("ask"))

    def chain(self, *, vlek: bool = False) -> bytes:
        """Return intermediate and root as the Key Distribution Service gives them: PEM."""
        intermediate = self.asvk if vlek else self.ask
        return intermediate.public_bytes(Encoding.PEM) + self.ark.public_bytes(Encoding.PEM)

    def endorse(
        self,
        key: ec.EllipticCurvePublicKey,
        tcb: TcbVersion,
        *,
        hwid: bytes = b"",
        csp_id: str = "",
        common_name: str = "",
        not_before: datetime = _EPOCH,
        not_after: datetime = _EPOCH + _YEARS,
        more: Sequence[tuple[str, bytes]] = (),
        ca: bool = False,
        der_hwid: bool = False,
    ) -> x509.Certificate:
        """Return the certificate of a VCEK (with `hwid`) or VLEK (with `csp_id`)."""
        kind = "VLEK" if csp_id else "VCEK"
        values = {
            "1": b"\x02\x01\x00",
            "2": _text(f"{self.product}-B0"),
            **{f"3.{number}": _level(0) for number in range(4, 8)},
        }
        numbers = {"bootloader": 1, "tee": 2, "snp": 3, "microcode": 8, "fmc": 9}
        values |= {f"3.{numbers[name]}": _level(part) for name, part in tcb.parts.items()}
        if hwid:
            values["4"] = bytes([4, len(hwid)]) + hwid if der_hwid else hwid
        if csp_id:
            values["5"] = _text(csp_id)
        values |= dict(more)
        builder = self._builder(
            common_name or f"SEV-{kind}",
            f"SEV-VLEK-{self.product}" if csp_id else f"SEV-{self.product}",
            key,
        )
        builder = builder.not_valid_before(not_before).not_valid_after(not_after)
        for arc, value in values.items():
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(_ARC + arc), value)
            builder = builder.add_extension(extension, critical=False)
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)  # noqa: FBT003 - the library's parameter
            builder = builder.add_extension(_key_usage(), True)  # noqa: FBT003 - as above
        return builder.sign(self._key("ask"), hashes.SHA384(), rsa_padding=_PSS)

    def revocations(
        self,
        *revoked: x509.Certificate,
        made: datetime,
        next_update: datetime,
    ) -> bytes:
        """Return a revocation list by the root, DER."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(f"ARK-{self.product}"))
            .last_update(made)
            .next_update(next_update)
        )
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(made)
                .build()
            )
        signed = builder.sign(self._key("ark"), hashes.SHA384(), rsa_padding=_PSS)
        return signed.public_bytes(Encoding.DER)

    def _key(self, role: str) -> rsa.RSAPrivateKey:
        return _rsa_key(f"{role} {self.label}")

    def _authority(
        self, common_name: str, serial_number: int, key: rsa.RSAPrivateKey
    ) -> x509.Certificate:
        return (
            self._builder(common_name, f"ARK-{self.product}", key.public_key(), serial_number)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(), critical=True)
            .sign(self._key("ark"), hashes.SHA384(), rsa_padding=_PSS)
        )

    @staticmethod
    def _builder(
        subject: str,
        issuer: str,
        key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        serial_number: int = 1,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key)
            .serial_number(serial_number)
        )


@dataclass(frozen=True, kw_only=True)
class SimulatedSnpGuest:
    """A guest on such a chip; implements the Attester port. INSECURE by nature.

    Attributes:
        authority: that certifies the chip.
        hwid: the chip's id, 64 octets, or 8 for Turin.
        tcb: parts of every TCB version in the report that `fields` does not set.
        csp_id: sign with a VLEK of this provider instead of the chip's VCEK.
        fields: what the report says otherwise, by the names of `encode_report`.
        send_certificates: hand the certificates along, as a host should.
    """

    authority: SnpAuthority = field(default_factory=SnpAuthority)
    hwid: bytes = bytes(range(1, 65))
    tcb: Mapping[str, int] = field(
        default_factory=lambda: {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}
    )
    csp_id: str = ""
    fields: Mapping[str, int | bytes] = field(default_factory=dict)
    send_certificates: bool = True
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    scheme: str = "sev_snp"
    media_type: str = TSM_REPORT_CBOR
    challenge_size: int = 64

    def with_fields(self, **fields: int | bytes) -> SimulatedSnpGuest:
        """Return the same guest, whose report says something else."""
        return replace(self, fields={**self.fields, **fields})

    @property
    def tcb_version(self) -> TcbVersion:
        """The TCB version that the key stands for."""
        return TcbVersion.of_parts(self.tcb, turin=self.authority.product == "Turin")

    @functools.cached_property
    def certificate(self) -> x509.Certificate:
        """The certificate of the key that signs."""
        return self.authority.endorse(
            self.key.public_key(),
            self.tcb_version,
            hwid=b"" if self.csp_id else self.hwid,
            csp_id=self.csp_id,
        )

    def report(self, challenge: bytes) -> bytes:
        """Return a signed report."""
        family, model, stepping = _CPUID[self.authority.product]
        tcb = self.tcb_version.value
        fields: dict[str, int | bytes] = {
            "version": 5,
            "policy": 0x30000,
            "signature_algorithm": 1,
            "current_tcb": tcb,
            "platform_info": 0x25,
            "keys": 4 if self.csp_id else 0,
            "report_data": challenge,
            "measurement": b"\x11" * 48,
            "report_id": b"\x22" * 32,
            "report_id_ma": b"\xff" * 32,
            "reported_tcb": tcb,
            "cpuid_family": family,
            "cpuid_model": model,
            "cpuid_stepping": stepping,
            "chip_id": self.hwid,
            "committed_tcb": tcb,
            "current_version": bytes([29, 55, 1]),
            "committed_version": bytes([29, 55, 1]),
            "launch_tcb": tcb,
        }
        return sign_report(encode_report({**fields, **self.fields}), self.key)

    def table(self) -> bytes:
        """Return the host's table of certificates."""
        authority = self.authority
        return encode_table(
            {
                VLEK if self.csp_id else VCEK: self.certificate.public_bytes(Encoding.DER),
                ASK: (authority.asvk if self.csp_id else authority.ask).public_bytes(Encoding.DER),
                ARK: authority.ark.public_bytes(Encoding.DER),
            }
        )

    def attest(self, challenge: bytes) -> bytes:
        """Return Evidence: a TSM report."""
        table = self.table() if self.send_certificates else b""
        return TsmReport(provider=PROVIDER, outblob=self.report(challenge), auxblob=table).to_cbor()

    def describe(self) -> AttesterDescription:
        """Say what this Attester is."""
        return AttesterDescription(
            scheme=self.scheme,
            media_type=self.media_type,
            source="a simulated SEV-SNP guest, in memory",
            challenge_size=self.challenge_size,
            insecure=("platform simulator",),
        )


def _level(level: int) -> bytes:
    return b"\x02\x02\x00" + bytes([level]) if level >= 0x80 else b"\x02\x01" + bytes([level])


def _text(text: str) -> bytes:
    return bytes([0x16, len(text)]) + text.encode("ascii")


def _key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
