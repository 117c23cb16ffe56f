# SPDX-License-Identifier: Apache-2.0
"""The attestation report that the AMD Secure Processor signs: 1184 octets, versions 2 to 5.

Version 3 added the CPUID fields and version 5 the mitigation vectors; the rest has kept its place.
All numbers are little-endian.

Source: AMD SEV-SNP Firmware ABI Specification (56860) revision 1.58, section 7.3 table 23
(ATTESTATION_REPORT) and chapter 10 (digital signatures).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from troth.errors import DecodeError, UnsupportedError
from troth.evidence.sev_snp.fields import (
    GuestPolicy,
    PlatformInfo,
    TcbVersion,
    product_of_cpuid,
)

__all__ = [
    "NO_MIGRATION_AGENT",
    "REPORT_DATA",
    "REPORT_SIZE",
    "SIGNATURE_SIZE",
    "SIGNED_SIZE",
    "AttestationReport",
    "SigningKey",
    "decode_report",
]

REPORT_SIZE: Final = 1184
SIGNED_SIZE: Final = 0x2A0
SIGNATURE_SIZE: Final = 72
"""Octets of R, and of S: little-endian, the upper 24 always zero for P-384."""

REPORT_DATA: Final = slice(0x50, 0x90)

NO_MIGRATION_AGENT: Final = b"\xff" * 32
"""REPORT_ID_MA of a guest without one."""

_FORMAT: Final = "SNP report"
_VERSIONS: Final = range(2, 6)
_ECDSA_P384_SHA384: Final = 1
_P384_OCTETS: Final = 48
_WITH_CPUID, _WITH_MITIGATIONS = 3, 5


class SigningKey(Enum):
    """What the report is signed with; the value is the name in claims."""

    VCEK = "vcek"
    """A key of this chip, at this TCB version."""
    VLEK = "vlek"
    """A key that AMD gave to one provider for many of its chips, at this TCB version."""
    NONE = "none"
    """Nothing: the host switched signing off."""


_SIGNING_KEYS: Final = {0: SigningKey.VCEK, 1: SigningKey.VLEK, 7: SigningKey.NONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationReport:
    """One report, field by field. None of them is to be believed before `verify()`.

    Attributes:
        version: of the report's format.
        guest_svn: security version number that the guest's owner gave it.
        policy: what the owner lets the host do.
        family_id, image_id: given by the owner in the ID block, 16 octets.
        vmpl: privilege level that the report was asked for, 0 the highest of 0 to 3. What asked
            runs at this level or a higher one.
        current_tcb: of the firmware that runs.
        platform_info: how the host is set up.
        author_key_enabled: the ID key is certified by an author key.
        mask_chip_key: the host switched the chip's key off.
        signing_key: which kind of key signed.
        report_data: the caller's challenge, 64 octets.
        measurement: of the guest's memory and state at launch, SHA-384.
        host_data: given by the host at launch, 32 octets.
        id_key_digest, author_key_digest: SHA-384 of the keys that signed the ID block; zeros
            where there was none.
        report_id: drawn at launch, 32 octets; identifies this guest until it ends.
        report_id_ma: of its migration agent; all ones where it has none.
        reported_tcb: that the signing key is derived for: what the host lets others know.
        cpuid_family, cpuid_model, cpuid_stepping: of the chip; None in version 2.
        chip_id: 64 octets; zeros where the host masks it.
        committed_tcb: below which the firmware cannot be rolled back.
        current_version, committed_version: of the firmware, such as "1.55.29".
        launch_tcb: at the guest's launch or import.
        launch_mitigations, current_mitigations: vectors of verified mitigations; None before
            version 5.
        signature_r, signature_s: the ECDSA signature.
    """

    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: TcbVersion
    platform_info: PlatformInfo
    author_key_enabled: bool
    mask_chip_key: bool
    signing_key: SigningKey
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: TcbVersion
    cpuid_family: int | None
    cpuid_model: int | None
    cpuid_stepping: int | None
    chip_id: bytes
    committed_tcb: TcbVersion
    current_version: str
    committed_version: str
    launch_tcb: TcbVersion
    launch_mitigations: int | None
    current_mitigations: int | None
    signature_r: int = field(repr=False)
    signature_s: int = field(repr=False)

    @property
    def product(self) -> str:
        """The product line that the CPUID fields stand for; "" where they are not known."""
        if self.cpuid_family is None or self.cpuid_model is None:
            return ""
        return product_of_cpuid(self.cpuid_family, self.cpuid_model)

    @property
    def turin(self) -> bool:
        """The TCB versions were read in the layout of Turin."""
        return self.reported_tcb.turin

    @property
    def chip_known(self) -> bool:
        """The report says which chip it is from."""
        return any(self.chip_id)

    def to_json(self) -> dict[str, object]:
        """Return the claims as JSON, Rego and people see them (docs/reference/schemes)."""
        claims: dict[str, object] = {
            "version": self.version,
            "guest_svn": self.guest_svn,
            **self.policy.to_json(),
            "family_id": self.family_id.hex(),
            "image_id": self.image_id.hex(),
            "vmpl": self.vmpl,
            **self.platform_info.to_json(),
            "author_key_enabled": self.author_key_enabled,
            "mask_chip_key": self.mask_chip_key,
            "signing_key": self.signing_key.value,
            "report_data": self.report_data.hex(),
            "measurement": self.measurement.hex(),
            "host_data": self.host_data.hex(),
            "id_key_digest": self.id_key_digest.hex(),
            "author_key_digest": self.author_key_digest.hex(),
            "report_id": self.report_id.hex(),
            "report_id_ma": self.report_id_ma.hex(),
            **self.reported_tcb.to_json("reported_tcb"),
            **self.current_tcb.to_json("current_tcb"),
            **self.committed_tcb.to_json("committed_tcb"),
            **self.launch_tcb.to_json("launch_tcb"),
            "current_version": self.current_version,
            "committed_version": self.committed_version,
            "chip_id": self.chip_id.hex(),
        }
        if self.cpuid_family is not None:
            claims["cpuid_fam_id"] = self.cpuid_family
            claims["cpuid_mod_id"] = self.cpuid_model
            claims["cpuid_step"] = self.cpuid_stepping
        if self.launch_mitigations is not None:
            claims["launch_mit_vector"] = self.launch_mitigations
            claims["current_mit_vector"] = self.current_mitigations
        return claims


def decode_report(data: bytes) -> AttestationReport:
    """Decode one report and check its form.

    Reserved fields are not looked at: newer firmware may fill them. They are signed like the rest.

    Raises:
        DecodeError: not 1184 octets, or a field has a value that no report has.
        UnsupportedError: another version or signature algorithm.
    """
    if len(data) != REPORT_SIZE:
        raise DecodeError(f"has {len(data)} octets; expected {REPORT_SIZE}", format=_FORMAT)
    version = _number(data, 0x00, 4)
    if version not in _VERSIONS:
        raise UnsupportedError(f"version {version}; known are 2 to 5", format=_FORMAT)
    algorithm = _number(data, 0x34, 4)
    if algorithm != _ECDSA_P384_SHA384:
        raise UnsupportedError(
            f"signature algorithm {algorithm}; expected 1 (ECDSA P-384 with SHA-384)",
            format=_FORMAT,
        )
    vmpl = _number(data, 0x30, 4)
    if vmpl > 3:
        raise DecodeError(f"VMPL {vmpl}; there are 0 to 3", format=_FORMAT, offset=0x30)
    keys = _number(data, 0x48, 4)
    signing_key = _SIGNING_KEYS.get(keys >> 2 & 7)
    if signing_key is None:
        raise UnsupportedError(f"signing key {keys >> 2 & 7}; known are 0, 1, 7", format=_FORMAT)
    turin = _is_turin(data, version)
    cpuid = tuple(data[0x188:0x18B]) if version >= _WITH_CPUID else (None, None, None)
    mitigated = version >= _WITH_MITIGATIONS
    return AttestationReport(
        version=version,
        guest_svn=_number(data, 0x04, 4),
        policy=GuestPolicy(_number(data, 0x08, 8)),
        family_id=data[0x10:0x20],
        image_id=data[0x20:0x30],
        vmpl=vmpl,
        current_tcb=TcbVersion(_number(data, 0x38, 8), turin),
        platform_info=PlatformInfo(_number(data, 0x40, 8)),
        author_key_enabled=bool(keys & 1),
        mask_chip_key=bool(keys & 2),
        signing_key=signing_key,
        report_data=data[REPORT_DATA],
        measurement=data[0x90:0xC0],
        host_data=data[0xC0:0xE0],
        id_key_digest=data[0xE0:0x110],
        author_key_digest=data[0x110:0x140],
        report_id=data[0x140:0x160],
        report_id_ma=data[0x160:0x180],
        reported_tcb=TcbVersion(_number(data, 0x180, 8), turin),
        cpuid_family=cpuid[0],
        cpuid_model=cpuid[1],
        cpuid_stepping=cpuid[2],
        chip_id=data[0x1A0:0x1E0],
        committed_tcb=TcbVersion(_number(data, 0x1E0, 8), turin),
        current_version=_firmware(data, 0x1E8),
        committed_version=_firmware(data, 0x1EC),
        launch_tcb=TcbVersion(_number(data, 0x1F0, 8), turin),
        launch_mitigations=_number(data, 0x1F8, 8) if mitigated else None,
        current_mitigations=_number(data, 0x200, 8) if mitigated else None,
        signature_r=_signature_part(data, SIGNED_SIZE, "R"),
        signature_s=_signature_part(data, SIGNED_SIZE + SIGNATURE_SIZE, "S"),
    )


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _firmware(data: bytes, at: int) -> str:
    build, minor, major = data[at : at + 3]
    return f"{major}.{minor}.{build}"


def _signature_part(data: bytes, at: int, name: str) -> int:
    number = _number(data, at, SIGNATURE_SIZE)
    if number >> 8 * _P384_OCTETS:
        raise DecodeError(
            f"{name} of the signature is longer than {_P384_OCTETS} octets",
            format=_FORMAT,
            offset=at,
        )
    return number


def _is_turin(data: bytes, version: int) -> bool:
    """Say in which layout the TCB versions are; the endorsement key's certificate confirms it."""
    if version >= _WITH_CPUID:
        return data[0x188] >= 0x1A
    # Version 2 does not say. Turin's chip ids have 8 octets in a field of 64.
    return any(data[0x1A0:0x1A8]) and not any(data[0x1A8:0x1E0])
