# SPDX-License-Identifier: Apache-2.0
"""Intel's part of SGX and TDX, for tests: a root of our own, platforms, and collateral about them.

The names are Intel's but for the organization, which carries the simulator's mark: a Verifier
refuses what leads to this root unless it is a trust anchor and simulators are allowed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from troth.evidence.insecure import SIMULATOR_MARK
from troth.identity.certificate_fields import key_usage

__all__ = [
    "MADE",
    "NEXT_UPDATE",
    "IntelAuthority",
    "Platform",
    "level",
    "module_level",
    "sign_es256",
]

MADE: Final = datetime(2026, 11, 20, tzinfo=UTC)
"""When collateral is issued unless said otherwise."""

NEXT_UPDATE: Final = MADE + timedelta(days=30)

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_YEARS: Final = timedelta(days=365 * 7)
_SGX_OID: Final = "1.2.840.113741.1.13.1"
_QE_SIGNER: Final = hashlib.sha256(b"simulated signer of quoting enclaves").digest()


def level(
    sgx: Sequence[int],
    pce: int,
    tdx: Sequence[int] = (),
    *,
    status: str = "UpToDate",
    advisories: Sequence[str] = (),
    date: str = "2026-06-01T00:00:00Z",
) -> dict[str, Any]:
    """Return one level of TCB info, its components filled up with zeros to 16."""
    kinds = ("BIOS: Early Microcode Update", "OS/VMM: SGX Late Microcode Update")
    components = [{"svn": svn} for svn in [*sgx, *bytes(16 - len(sgx))]]
    for component, kind in zip(components, kinds, strict=False):
        category, name = kind.split(": ")
        component |= {"category": category, "type": name}
    tcb: dict[str, Any] = {"sgxtcbcomponents": components, "pcesvn": pce}
    if tdx:
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in [*tdx, *bytes(16 - len(tdx))]]
        tcb["tdxtcbcomponents"][0] |= {"category": "OS/VMM", "type": "TDX Module"}
    found = {"tcb": tcb, "tcbDate": date, "tcbStatus": status}
    return found | ({"advisoryIDs": list(advisories)} if advisories else {})


def module_level(svn: int, *, status: str = "UpToDate") -> dict[str, Any]:
    """Return one level of a TDX module or a quoting enclave."""
    return {"tcb": {"isvsvn": svn}, "tcbDate": "2026-06-01T00:00:00Z", "tcbStatus": status}


def sign_es256(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return r and s."""
    parts = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return b"".join(part.to_bytes(32) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A machine with a certified key.

    Attributes:
        key: its PCK.
        chain: PEM of its certificate, the authority's and the root's.
        certificate: its certificate.
    """

    key: ec.EllipticCurvePrivateKey
    chain: bytes
    certificate: x509.Certificate


@dataclass(frozen=True, kw_only=True)
class IntelAuthority:
    """A root, its CAs, and what they publish.

    Attributes:
        organization: of every name.
        qe_signer: MRSIGNER of the quoting enclaves, as their identity says it.
    """

    organization: str = SIMULATOR_MARK.decode()
    qe_signer: bytes = _QE_SIGNER

    @functools.cached_property
    def _keys(self) -> Mapping[str, ec.EllipticCurvePrivateKey]:
        return {
            role: ec.generate_private_key(ec.SECP256R1())
            for role in ("root", "platform", "processor", "signing")
        }

    @functools.cached_property
    def root(self) -> x509.Certificate:
        """The root."""
        return self._certificate("Intel SGX Root CA", "root", "root", ca=True)

    @functools.cached_property
    def signing(self) -> x509.Certificate:
        """The certificate that signs TCB info and identities."""
        return self._certificate("Intel SGX TCB Signing", "signing", "root", ca=False)

    @functools.cached_property
    def authorities(self) -> Mapping[str, x509.Certificate]:
        """The CAs that certify platforms: "platform" and "processor"."""
        return {
            role: self._certificate(f"Intel SGX PCK {role.title()} CA", role, "root", ca=True)
            for role in ("platform", "processor")
        }

    def platform(
        self,
        *,
        cpu_svn: Sequence[int] = (3, 3, 2, 2, 4, 1, 0, 5),
        pce_svn: int = 13,
        fmspc: str = "90c06f000000",
        ppid: bytes = bytes(range(16)),
        authority: str = "platform",
        not_after: datetime = _EPOCH + _YEARS,
    ) -> Platform:
        """Certify the key of a machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        svns = bytes([*cpu_svn, *bytes(16 - len(cpu_svn))])
        extension = _pck_extension(ppid, svns, pce_svn, bytes.fromhex(fmspc))
        certificate = (
            self._builder("Intel SGX PCK Certificate", authority, key.public_key(), ca=False)
            .not_valid_after(not_after)
            .add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX_OID), extension),
                critical=False,
            )
            .sign(self._keys[authority], hashes.SHA256())
        )
        chain = (certificate, self.authorities[authority], self.root)
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
        return Platform(key=key, chain=pem, certificate=certificate)

    def collateral(
        self,
        tee: str,
        levels: Sequence[Mapping[str, Any]],
        *,
        fmspc: str = "90c06f000000",
        modules: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        qe_levels: Sequence[Mapping[str, Any]] = (module_level(4),),
        authority: str = "platform",
        revoked: Sequence[x509.Certificate] = (),
        made: datetime = MADE,
        next_update: datetime = NEXT_UPDATE,
    ) -> dict[str, bytes]:
        """Return what Intel's service would answer about a kind of platform.

        Args:
            tee: "SGX" or "TDX".
            levels: TCB levels.
            fmspc: of the platforms.
            modules: identities of TDX modules ("TDX_01") with their levels.
            qe_levels: levels of the quoting enclave.
            authority: which CA's revocation list is wanted.
            revoked: certificates that are revoked.
            made: issue date of everything.
            next_update: when everything runs out.
        """
        dates = {"issueDate": f"{made:%FT%TZ}", "nextUpdate": f"{next_update:%FT%TZ}"}
        tcb_info: dict[str, Any] = {
            "id": tee, "version": 3, **dates, "fmspc": fmspc, "pceId": "0000", "tcbType": 0,
            "tcbEvaluationDataNumber": 18, "tcbLevels": list(levels),
        }  # fmt: skip
        if tee == "TDX":
            module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            tcb_info["tdxModule"] = module
            tcb_info["tdxModuleIdentities"] = [
                {"id": name, **module, "tcbLevels": list(own)}
                for name, own in (modules or {}).items()
            ]
        identity = {
            "id": "QE" if tee == "SGX" else "TD_QE", "version": 2, **dates,
            "tcbEvaluationDataNumber": 18,
            "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15, "attributesMask": "FB" + "FF" * 7 + "00" * 8,
            "mrsigner": self.qe_signer.hex().upper(), "isvprodid": 1 if tee == "SGX" else 2,
            "tcbLevels": list(qe_levels),
        }  # fmt: skip
        return {
            "tcbInfo": self._signed("tcbInfo", tcb_info),
            "qeIdentity": self._signed("enclaveIdentity", identity),
            "pckcrl": self.revocation_list(authority, revoked, made=made, next_update=next_update),
            "rootcrl": self.revocation_list("root", revoked, made=made, next_update=next_update),
            "tcb-signing.pem": self.signing.public_bytes(Encoding.PEM),
        }

    def revocation_list(
        self,
        authority: str,
        revoked: Sequence[x509.Certificate] = (),
        *,
        made: datetime = MADE,
        next_update: datetime = NEXT_UPDATE,
    ) -> bytes:
        """Return a revocation list in DER."""
        issuer = self.root if authority == "root" else self.authorities[authority]
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._keys[authority].public_key()
        )
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(made)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(identifier, critical=False)
        )
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(made)
                .build()
            )
        return builder.sign(self._keys[authority], hashes.SHA256()).public_bytes(Encoding.DER)

    def _signed(self, name: str, value: Mapping[str, Any]) -> bytes:
        text = json.dumps(value, separators=(",", ":"))
        signature = sign_es256(self._keys["signing"], text.encode()).hex()
        return f'{{"{name}":{text},"signature":"{signature}"}}'.encode()

    def _certificate(
        self, common_name: str, role: str, issuer: str, *, ca: bool
    ) -> x509.Certificate:
        key = self._keys[role].public_key()
        builder = self._builder(common_name, issuer, key, ca=ca)
        return builder.not_valid_after(_EPOCH + _YEARS).sign(self._keys[issuer], hashes.SHA256())

    def _builder(
        self, common_name: str, issuer: str, key: ec.EllipticCurvePublicKey, *, ca: bool
    ) -> x509.CertificateBuilder:
        issuers = {"root": "Intel SGX Root CA"} | {
            role: f"Intel SGX PCK {role.title()} CA" for role in ("platform", "processor")
        }
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._keys[issuer].public_key()
        )
        return (
            x509.CertificateBuilder()
            .subject_name(self._name(common_name))
            .issuer_name(self._name(issuers[issuer]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_EPOCH)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(key_usage(ca=ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(identifier, critical=False)
        )

    def _name(self, common_name: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.organization),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )


def _pck_extension(ppid: bytes, svns: bytes, pce_svn: int, fmspc: bytes) -> bytes:
    """Return Intel's extension of a PCK certificate in DER."""
    tcb = [_member(f"2.{index}", _integer(svn)) for index, svn in enumerate(svns, start=1)]
    tcb += [_member("2.17", _integer(pce_svn)), _member("2.18", _der(4, svns))]
    configuration = [_member(f"7.{index}", _der(1, b"\xff")) for index in (1, 2, 3)]
    return _sequence(
        _member("1", _der(4, ppid)),
        _member("2", _sequence(*tcb)),
        _member("3", _der(4, bytes(2))),
        _member("4", _der(4, fmspc)),
        _member("5", _der(10, b"\1")),
        _member("6", _der(4, ppid)),
        _member("7", _sequence(*configuration)),
    )


def _member(arc: str, value: bytes) -> bytes:
    octets = bytes.fromhex("2a864886f84d010d01") + bytes(int(part) for part in arc.split("."))
    return _sequence(_der(6, octets), value)


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, b"".join(parts))


def _integer(value: int) -> bytes:
    return _der(2, value.to_bytes(value.bit_length() // 8 + 1))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content
