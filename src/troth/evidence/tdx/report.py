# SPDX-License-Identifier: Apache-2.0
"""The report of a trust domain: what it was launched from, what it has measured since, how it runs.

Source: Intel TDX Module Base Architecture Specification, "TDINFO_STRUCT" and "TD ATTRIBUTES";
Intel TDX DCAP Quoting Library API, appendix A.3.2 (TD report 1.0) and A.3.3 (1.5).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from troth.evidence.intel.octets import FieldReader
from troth.evidence.intel.quote import TD_REPORT_1_5

__all__ = ["ATTRIBUTE_BITS", "KNOWN_ATTRIBUTES", "UNDER_DEBUG", "TdReport"]

UNDER_DEBUG: Final = 0xFF
"""The attributes of a trust domain that is debugged or profiled; bit 0 is DEBUG itself."""

ATTRIBUTE_BITS: Final = {
    "debug": 0,
    "icssd": 16,
    "lass": 27,
    "sept_ve_disable": 28,
    "migratable": 29,
    "pks": 30,
    "key_locker": 31,
    "tpa": 62,
    "perfmon": 63,
}
"""Names and bits of the attributes."""

KNOWN_ATTRIBUTES: Final = sum(1 << bit for bit in ATTRIBUTE_BITS.values())

_FORMAT: Final = "TD report"


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """What the TDX module says of a trust domain (TD).

    Attributes:
        tee_tcb_svn: security versions of what the TD was launched with: octet 0 the TDX module's,
            octet 1 its major version, octet 2 the loader's.
        mr_seam, mr_signer_seam, seam_attributes: the TDX module's measurement, signer (zero for
            Intel's) and attributes.
        td_attributes, xfam: how the TD runs, and processor features that it may use; 8 octets,
            little-endian.
        mr_td: SHA-384 over the TD's initial memory, which is its virtual firmware.
        mr_config_id, mr_owner, mr_owner_config: of the owner's choice, set at launch.
        rtmr0, rtmr1, rtmr2, rtmr3: SHA-384 registers that software in the TD extends. By the
            firmware's convention: configuration; boot loader and kernel; command line and initial
            file system; applications.
        report_data: 64 octets of the TD's choice.
        tee_tcb_svn2: security versions of what runs now; b"" in a report 1.0.
        mr_service_td: measurement of a service TD that is bound, zero for none; b"" in a 1.0.
    """

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes = b""
    mr_service_td: bytes = b""

    @classmethod
    def decode(cls, body_type: int, body: bytes) -> TdReport:
        """Decode the body of a quote.

        Raises:
            DecodeError: it is too short.
        """
        reader = FieldReader(body, format=_FORMAT)
        sizes = _SIZES if body_type != TD_REPORT_1_5 else {**_SIZES, **_SIZES_1_5}
        return cls(**{name: reader.octets(size, name) for name, size in sizes.items()})

    @property
    def attributes(self) -> int:
        """The attributes as a number."""
        return int.from_bytes(self.td_attributes, "little")

    @property
    def flags(self) -> dict[str, bool]:
        """The attributes that have names."""
        return {name: bool(self.attributes >> bit & 1) for name, bit in ATTRIBUTE_BITS.items()}

    @property
    def launch_identity(self) -> bytes:
        """Sixteen octets that tell trust domains on one platform apart, if their owner does.

        The hardware gives a TD no identity of its own. What its owner may set at launch is
        mr_config_id, mr_owner and mr_owner_config; they outlast updates of its software.
        """
        chosen = self.mr_config_id + self.mr_owner + self.mr_owner_config
        return hashlib.sha256(chosen).digest()[:16]

    def to_json(self) -> dict[str, object]:
        """Return the fields under their names; octets as lower-case hex."""
        claims: dict[str, object] = {name: getattr(self, name).hex() for name in _SIZES}
        claims["td_attribute_flags"] = self.flags
        if self.tee_tcb_svn2:
            claims |= {name: getattr(self, name).hex() for name in _SIZES_1_5}
        return claims


_SIZES: Final = {
    "tee_tcb_svn": 16,
    "mr_seam": 48,
    "mr_signer_seam": 48,
    "seam_attributes": 8,
    "td_attributes": 8,
    "xfam": 8,
    "mr_td": 48,
    "mr_config_id": 48,
    "mr_owner": 48,
    "mr_owner_config": 48,
    "rtmr0": 48,
    "rtmr1": 48,
    "rtmr2": 48,
    "rtmr3": 48,
    "report_data": 64,
}
_SIZES_1_5: Final = {"tee_tcb_svn2": 16, "mr_service_td": 48}
