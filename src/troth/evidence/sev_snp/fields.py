# SPDX-License-Identifier: Apache-2.0
"""The packed fields of an attestation report: guest policy, platform info, TCB version, product.

Source: AMD SEV-SNP Firmware ABI Specification (56860) revision 1.58, sections 2.2 (TCB_VERSION),
4.3 (guest policy) and 7.3 (ATTESTATION_REPORT); AMD document 57230 (product names).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["GuestPolicy", "PlatformInfo", "TcbVersion", "product_of_cpuid"]

_POLICY_FLAGS: Final[Mapping[str, int]] = {
    "smt_allowed": 16,
    "migrate_ma": 18,
    "debug_allowed": 19,
    "single_socket": 20,
    "cxl_allowed": 21,
    "mem_aes_256_xts": 22,
    "rapl_disabled": 23,
    "ciphertext_hiding": 24,
    "page_swap_disabled": 25,
}
_POLICY_MUST_BE_ONE: Final = 17
_POLICY_KNOWN_BITS: Final = 26

_PLATFORM_FLAGS: Final[Mapping[str, int]] = {
    "smt_enabled": 0,
    "tsme_enabled": 1,
    "ecc_enabled": 2,
    "rapl_disabled": 3,
    "ciphertext_hiding": 4,
    "alias_check_complete": 5,
    "tio_enabled": 7,
}


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """What the guest's owner lets the host do with it; fixed at launch.

    Attributes:
        value: the 64-bit field.
    """

    value: int

    @property
    def abi_minor(self) -> int:
        """Lowest minor version of the firmware ABI that may run the guest."""
        return self.value & 0xFF

    @property
    def abi_major(self) -> int:
        """Lowest major version."""
        return self.value >> 8 & 0xFF

    @property
    def debug_allowed(self) -> bool:
        """The host may read and write the guest's memory through the firmware."""
        return self._flag("debug_allowed")

    @property
    def migrate_ma(self) -> bool:
        """A migration agent may be given to the guest, which can then export it."""
        return self._flag("migrate_ma")

    @property
    def unknown_bits(self) -> int:
        """Bits that the specification reserves and that are not as it wants them."""
        above = self.value >> _POLICY_KNOWN_BITS << _POLICY_KNOWN_BITS
        return above | (~self.value & 1 << _POLICY_MUST_BE_ONE)

    def to_json(self) -> dict[str, object]:
        """Return the policy as claims."""
        flags = {f"policy_{name}": self._flag(name) for name in _POLICY_FLAGS}
        return {
            "policy": self.value,
            "policy_abi_major": self.abi_major,
            "policy_abi_minor": self.abi_minor,
            **flags,
        }

    def _flag(self, name: str) -> bool:
        return bool(self.value >> _POLICY_FLAGS[name] & 1)


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """How the host is set up.

    Attributes:
        value: the 64-bit field.
    """

    value: int

    @property
    def alias_check_complete(self) -> bool:
        """Memory modules that answer at two addresses were looked for and not found (SB-3015)."""
        return self._flag("alias_check_complete")

    def to_json(self) -> dict[str, object]:
        """Return the field as claims."""
        flags = {f"platform_{name}": self._flag(name) for name in _PLATFORM_FLAGS}
        return {"platform_info": self.value, **flags}

    def _flag(self, name: str) -> bool:
        return bool(self.value >> _PLATFORM_FLAGS[name] & 1)


_LEGACY_LAYOUT: Final[Mapping[str, int]] = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_TURIN_LAYOUT: Final[Mapping[str, int]] = {
    "fmc": 0,
    "bootloader": 1,
    "tee": 2,
    "snp": 3,
    "microcode": 7,
}


@dataclass(frozen=True, slots=True)
class TcbVersion:
    """Security version numbers of the firmware's parts.

    Attributes:
        value: the 64-bit field; never compared as a number, only part by part.
        turin: the layout of family 1Ah (Turin), which begins with the FMC.
    """

    value: int
    turin: bool

    @classmethod
    def of_parts(cls, parts: Mapping[str, int], *, turin: bool) -> TcbVersion:
        """Return the version with these parts, each one octet; those not named are 0."""
        layout = _TURIN_LAYOUT if turin else _LEGACY_LAYOUT
        return cls(sum(parts.get(name, 0) << 8 * at for name, at in layout.items()), turin)

    @property
    def parts(self) -> dict[str, int]:
        """Part to security version number: "bootloader", "tee", "snp", "microcode", "fmc"."""
        layout = _TURIN_LAYOUT if self.turin else _LEGACY_LAYOUT
        return {name: self.value >> 8 * at & 0xFF for name, at in layout.items()}

    @property
    def reserved_bits(self) -> int:
        """Bits outside the parts."""
        return self.value & ~TcbVersion.of_parts(self.parts, turin=self.turin).value

    def behind(self, minimum: TcbVersion) -> dict[str, tuple[int, int]]:
        """Return the parts that are lower than in `minimum`: name to (ours, wanted)."""
        ours = self.parts
        return {
            name: (ours.get(name, 0), wanted)
            for name, wanted in minimum.parts.items()
            if ours.get(name, 0) < wanted
        }

    def to_json(self, name: str) -> dict[str, object]:
        """Return the parts as claims that begin with `name`."""
        return {f"{name}_{part}": number for part, number in self.parts.items()}

    def __str__(self) -> str:
        return ", ".join(f"{name} {number}" for name, number in self.parts.items())


def product_of_cpuid(family: int, model: int) -> str:
    """Return the product line as AMD's certificates call it, or "" for one not known.

    Args:
        family: combined family, such as 0x19.
        model: combined model.
    """
    if family == 0x19 and model <= 0x0F:
        return "Milan"
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return "Genoa"
    if family == 0x1A and model <= 0x11:
        return "Turin"
    return ""
