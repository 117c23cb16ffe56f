# SPDX-License-Identifier: Apache-2.0
"""The report of an SGX enclave: an application's, or the quoting enclave's own.

Source: Intel SDM volume 3D, section 38.15 (REPORT), and the Key Separation and Sharing fields.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from troth.errors import DecodeError
from troth.evidence.intel.octets import FieldReader

__all__ = ["ATTRIBUTE_FLAGS", "EnclaveReport"]

_SIZE: Final = 384

ATTRIBUTE_FLAGS: Final = {
    "init": 0,
    "debug": 1,
    "mode64bit": 2,
    "provision_key": 4,
    "einittoken_key": 5,
    "cet": 6,
    "kss": 7,
    "aex_notify": 10,
}
"""Bits of the first eight octets of the attributes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """What the processor says of an enclave.

    Attributes:
        cpu_svn: security version of the processor, opaque; the platform's certificate says it in
            comparable numbers.
        misc_select, attributes: what the enclave may do; 4 and 16 octets.
        mr_enclave: SHA-256 over its code, data and layout.
        mr_signer: SHA-256 over the modulus of its signer's key.
        isv_prod_id, isv_svn: product and security version that the signer gave.
        isv_ext_prod_id, isv_family_id, config_id, config_svn: key separation (KSS), else zero.
        report_data: 64 octets of the enclave's choice.
    """

    cpu_svn: bytes
    misc_select: bytes
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    isv_prod_id: int
    isv_svn: int
    isv_ext_prod_id: bytes
    isv_family_id: bytes
    config_id: bytes
    config_svn: int
    report_data: bytes

    @classmethod
    def decode(cls, data: bytes, *, format: str) -> EnclaveReport:
        """Decode 384 octets; reserved ones are not looked at.

        Raises:
            DecodeError: another size.
        """
        if len(data) != _SIZE:
            raise DecodeError(f"a report of {len(data)} octets; expected {_SIZE}", format=format)
        reader = FieldReader(data, format=format)
        cpu_svn = reader.octets(16, "cpu_svn")
        misc_select = reader.octets(4, "misc_select")
        reader.octets(12, "reserved")
        isv_ext_prod_id = reader.octets(16, "isv_ext_prod_id")
        attributes = reader.octets(16, "attributes")
        mr_enclave = reader.octets(32, "mr_enclave")
        reader.octets(32, "reserved")
        mr_signer = reader.octets(32, "mr_signer")
        reader.octets(32, "reserved")
        config_id = reader.octets(64, "config_id")
        isv_prod_id = reader.number(2, "isv_prod_id")
        isv_svn = reader.number(2, "isv_svn")
        config_svn = reader.number(2, "config_svn")
        reader.octets(42, "reserved")
        isv_family_id = reader.octets(16, "isv_family_id")
        return cls(
            cpu_svn=cpu_svn,
            misc_select=misc_select,
            attributes=attributes,
            mr_enclave=mr_enclave,
            mr_signer=mr_signer,
            isv_prod_id=isv_prod_id,
            isv_svn=isv_svn,
            isv_ext_prod_id=isv_ext_prod_id,
            isv_family_id=isv_family_id,
            config_id=config_id,
            config_svn=config_svn,
            report_data=reader.octets(64, "report_data"),
        )

    @property
    def flags(self) -> dict[str, bool]:
        """The attribute bits that have names."""
        bits = int.from_bytes(self.attributes[:8], "little")
        return {name: bool(bits >> bit & 1) for name, bit in ATTRIBUTE_FLAGS.items()}

    @property
    def product_identity(self) -> bytes:
        """Sixteen octets that tell enclaves on one platform apart: by signer, product and config.

        They outlast updates of the enclave. The hardware gives it no identity of its own.
        """
        chosen = (
            self.mr_signer,
            self.isv_prod_id.to_bytes(2, "little"),
            self.isv_family_id,
            self.isv_ext_prod_id,
            self.config_id,
        )
        return hashlib.sha256(b"".join(chosen)).digest()[:16]

    def to_json(self) -> dict[str, object]:
        """Return the fields under their names; octets as lower-case hex."""
        return {
            "cpu_svn": self.cpu_svn.hex(),
            "misc_select": self.misc_select.hex(),
            "attributes": self.attributes.hex(),
            "attribute_flags": self.flags,
            "mr_enclave": self.mr_enclave.hex(),
            "mr_signer": self.mr_signer.hex(),
            "isv_prod_id": self.isv_prod_id,
            "isv_svn": self.isv_svn,
            "isv_ext_prod_id": self.isv_ext_prod_id.hex(),
            "isv_family_id": self.isv_family_id.hex(),
            "config_id": self.config_id.hex(),
            "config_svn": self.config_svn,
            "report_data": self.report_data.hex(),
        }
