# SPDX-License-Identifier: Apache-2.0
"""Trust domains and enclaves that do not exist, for tests: they make quotes like Intel's.

A quote verifies once the authority's root is a trust anchor, simulators are allowed, and the
authority's collateral is at hand. Everything in a quote can be chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from troth.evidence.attester import AttesterDescription
from troth.evidence.intel.quote import INTEL_QE_VENDOR
from troth.evidence.sgx.evidence import MEDIA_TYPES as SGX_MEDIA_TYPES
from troth.evidence.tdx.evidence import QUOTE_MEDIA_TYPE
from troth.testing.intel_authority import IntelAuthority, Platform, sign_es256

__all__ = ["SimulatedEnclave", "SimulatedTrustDomain", "enclave_report", "td_report"]

_TD_FIELDS: Final = {
    "tee_tcb_svn": 16, "mr_seam": 48, "mr_signer_seam": 48, "seam_attributes": 8,
    "td_attributes": 8, "xfam": 8, "mr_td": 48, "mr_config_id": 48, "mr_owner": 48,
    "mr_owner_config": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48, "rtmr3": 48, "report_data": 64,
    "tee_tcb_svn2": 16, "mr_service_td": 48,
}  # fmt: skip
_ENCLAVE_FIELDS: Final = {
    "cpu_svn": 16, "misc_select": 4, "reserved1": 12, "isv_ext_prod_id": 16, "attributes": 16,
    "mr_enclave": 32, "reserved2": 32, "mr_signer": 32, "reserved3": 32, "config_id": 64,
    "isv_prod_id": 2, "isv_svn": 2, "config_svn": 2, "reserved4": 42, "isv_family_id": 16,
    "report_data": 64,
}  # fmt: skip
_GOOD_TD: Final[Mapping[str, bytes]] = {
    "tee_tcb_svn": bytes([6, 1, 3]),
    "tee_tcb_svn2": bytes([6, 1, 3]),
    "mr_seam": hashlib.sha384(b"module").digest(),
    "td_attributes": (1 << 28).to_bytes(8, "little"),
    "xfam": bytes.fromhex("e702060000000000"),
    "mr_td": hashlib.sha384(b"firmware").digest(),
    "rtmr0": hashlib.sha384(b"configuration").digest(),
    "rtmr1": hashlib.sha384(b"kernel").digest(),
    "rtmr2": hashlib.sha384(b"command line").digest(),
}
_GOOD_ENCLAVE: Final[Mapping[str, bytes]] = {
    "attributes": bytes([0x05]) + bytes(7) + b"\xe7" + bytes(7),
    "mr_enclave": hashlib.sha256(b"enclave").digest(),
    "mr_signer": hashlib.sha256(b"signer").digest(),
    "isv_prod_id": b"\7\0",
    "isv_svn": b"\5\0",
}
_QE_AUTHENTICATION: Final = bytes(range(32))


def td_report(fields: Mapping[str, bytes], *, version: str = "1.5") -> bytes:
    """Return a TD report with these fields, the rest zero."""
    names = list(_TD_FIELDS) if version == "1.5" else list(_TD_FIELDS)[:-2]
    return b"".join(fields.get(name, b"").ljust(_TD_FIELDS[name], b"\0") for name in names)


def enclave_report(fields: Mapping[str, bytes]) -> bytes:
    """Return an enclave's report with these fields, the rest zero."""
    return b"".join(
        fields.get(name, b"").ljust(size, b"\0") for name, size in _ENCLAVE_FIELDS.items()
    )


@dataclass(kw_only=True)
class _Quoting:
    """A platform with its quoting enclave.

    Attributes:
        authority: certified the platform.
        platform: the platform.
        qe: fields of the quoting enclave's report that differ from a good one's.
    """

    authority: IntelAuthority
    platform: Platform
    qe: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def _sign(self, signed: bytes, *, wrapped: bool) -> bytes:
        """Return the signature data over header and body."""
        key = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        digest = hashlib.sha256(key[1:] + _QE_AUTHENTICATION).digest()
        report = enclave_report(
            {
                "attributes": bytes([0x11]) + bytes(15),
                "mr_signer": self.authority.qe_signer,
                "isv_prod_id": b"\2\0" if wrapped else b"\1\0",
                "isv_svn": b"\6\0",
                "report_data": digest,
                **self.qe,
            }
        )
        certified = (
            report
            + sign_es256(self.platform.key, report)
            + len(_QE_AUTHENTICATION).to_bytes(2, "little")
            + _QE_AUTHENTICATION
            + _certification(5, self.platform.chain)
        )
        if wrapped:
            certified = _certification(6, certified)
        data = sign_es256(self._key, signed) + key[1:] + certified
        return len(data).to_bytes(4, "little") + data


def _certification(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(content).to_bytes(4, "little") + content


def _header(version: int, tee_type: int) -> bytes:
    words = version.to_bytes(2, "little") + b"\2\0" + tee_type.to_bytes(4, "little")
    return words + bytes(4) + INTEL_QE_VENDOR + bytes(20)


@dataclass(kw_only=True)
class SimulatedTrustDomain(_Quoting):
    """A trust domain; implements the Attester port.

    Attributes:
        fields: of its report that differ from a good one's.
        version: of its quotes: "4" for a report 1.0, "5" for 1.5, "5/1.0" for 1.0 in a quote 5.
    """

    fields: Mapping[str, bytes] = field(default_factory=dict)
    version: str = "5"
    scheme = "tdx"
    media_type = QUOTE_MEDIA_TYPE
    challenge_size = 64

    def attest(self, challenge: bytes) -> bytes:
        """Return a quote with this challenge in report_data, zeros after it."""
        fields = {**_GOOD_TD, **self.fields, "report_data": challenge}
        report = td_report(fields, version="1.5" if self.version == "5" else "1.0")
        signed = _header(int(self.version[0]), 0x81)
        if self.version[0] == "5":
            body_type = 3 if self.version == "5" else 2
            signed += body_type.to_bytes(2, "little") + len(report).to_bytes(4, "little")
        signed += report
        return signed + self._sign(signed, wrapped=True)

    def describe(self) -> AttesterDescription:
        """Say what this Attester is."""
        return _description(self.scheme, self.media_type)


@dataclass(kw_only=True)
class SimulatedEnclave(_Quoting):
    """An enclave; implements the Attester port.

    Attributes:
        fields: of its report that differ from a good one's.
    """

    fields: Mapping[str, bytes] = field(default_factory=dict)
    scheme = "sgx"
    media_type = SGX_MEDIA_TYPES[0]
    challenge_size = 64

    def attest(self, challenge: bytes) -> bytes:
        """Return a quote with this challenge in report_data, zeros after it."""
        fields = {**_GOOD_ENCLAVE, **self.fields, "report_data": challenge}
        signed = _header(3, 0) + enclave_report(fields)
        return signed + self._sign(signed, wrapped=False)

    def describe(self) -> AttesterDescription:
        """Say what this Attester is."""
        return _description(self.scheme, self.media_type)


def _description(scheme: str, media_type: str) -> AttesterDescription:
    return AttesterDescription(
        scheme=scheme,
        media_type=media_type,
        source="simulator, in memory",
        challenge_size=64,
        insecure=("platform simulator",),
    )
