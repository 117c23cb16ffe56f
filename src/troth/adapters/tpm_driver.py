# SPDX-License-Identifier: Apache-2.0
"""What Troth asks of a TPM, whichever library or tool talks to it.

The templates say exactly which keys are made, so that a key made by one driver can be loaded by
the other.

Source: TCG EK Credential Profile for TPM Family 2.0, version 2.5, annex B (default templates L-1 and
L-2); TPM 2.0 Library, Part 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from troth.formats.tpm.credential import Credential

__all__ = [
    "AK_TEMPLATE",
    "EK_ALGORITHMS",
    "EK_CERTIFICATE_INDEX",
    "EK_TEMPLATES",
    "SRK_TEMPLATE",
    "EkAlgorithm",
    "EndorsementKey",
    "TpmDriver",
    "TpmQuote",
    "WrappedKey",
    "der_of",
]

EkAlgorithm = Literal["rsa", "ecc"]
EK_ALGORITHMS: Final[tuple[EkAlgorithm, ...]] = ("rsa", "ecc")

_P256_NULL_KDF: Final = "00030010"
_AES_128_CFB: Final = "000600800043"
# PolicySecret of the endorsement hierarchy, and nothing else, authorizes the use of an EK.
_POLICY_A: Final = "0020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"

SRK_TEMPLATE: Final = bytes.fromhex(
    f"0023000b000300720000{_AES_128_CFB}0010{_P256_NULL_KDF}00000000"
)
"""Storage key under which the attestation key is kept: ECC P-256, restricted, decrypt."""

AK_TEMPLATE: Final = bytes.fromhex(f"0023000b00050472000000100018000b{_P256_NULL_KDF}00000000")
"""Attestation key: ECC P-256 with ECDSA over SHA-256, restricted, sign, bound to this TPM."""

EK_TEMPLATES: Final = {
    "rsa": bytes.fromhex(
        f"0001000b000300b2{_POLICY_A}{_AES_128_CFB}0010080000000000{'0100' + '00' * 256}"
    ),
    "ecc": bytes.fromhex(
        f"0023000b000300b2{_POLICY_A}{_AES_128_CFB}0010{_P256_NULL_KDF}{('0020' + '00' * 32) * 2}"
    ),
}
"""Endorsement keys: RSA 2048 and ECC P-256, as their vendors certify them."""

EK_CERTIFICATE_INDEX: Final = {"rsa": 0x01C00002, "ecc": 0x01C0000A}
"""Where the vendor's certificate of the endorsement key is stored."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key that only this TPM can use.

    Attributes:
        public: TPM2B_PUBLIC.
        private: TPM2B_PRIVATE, encrypted by the TPM.
    """

    public: bytes
    private: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """The TPM's identity.

    Attributes:
        public: TPM2B_PUBLIC.
        certificate: the vendor's, DER; b"" where the TPM holds none.
    """

    public: bytes
    certificate: bytes = b""


@dataclass(frozen=True, slots=True)
class TpmQuote:
    """One quote.

    Attributes:
        quote: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        values: of the selected registers, one after the other.
    """

    quote: bytes
    signature: bytes
    values: bytes


class TpmDriver(Protocol):
    """Talks to one TPM. Calls take as long as the chip does: 10 ms to some seconds.

    Every call raises UnavailableError where the TPM does not answer or refuses.
    """

    @property
    def source(self) -> str:
        """What it talks through to what, for people."""
        ...

    def create_attestation_key(self) -> WrappedKey:
        """Make a new attestation key, different each time."""
        ...

    def endorsement_key(self) -> EndorsementKey:
        """Return the endorsement key, which is the same as long as the TPM's seed is."""
        ...

    def quote(self, key: WrappedKey, challenge: bytes, bank: str, registers: list[int]) -> TpmQuote:
        """Quote these registers.

        Args:
            key: the attestation key.
            challenge: goes into extraData.
            bank: as tpm2-tools spell it, such as "sha256".
            registers: ascending.
        """
        ...

    def activate(self, key: WrappedKey, credential: Credential) -> bytes:
        """Return the secret in a credential, which the TPM gives out if `key` lives in it."""
        ...

    def close(self) -> None:
        """Let the TPM go."""
        ...


def der_of(data: bytes) -> bytes:
    """Return the DER item that `data` begins with: a TPM's storage is often longer; b"" for none."""
    if len(data) < 4 or data[0] != 0x30:
        return b""
    if data[1] < 0x80:
        return data[: 2 + data[1]]
    octets = data[1] & 0x7F
    size = 2 + octets + int.from_bytes(data[2 : 2 + octets])
    return data[:size] if 1 <= octets <= 2 and size <= len(data) else b""
