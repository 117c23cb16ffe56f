# SPDX-License-Identifier: Apache-2.0
"""What a TPM signs: TPMS_ATTEST, as a quote of registers or the certification of a key.

Nothing here is authentic until the signature over exactly these octets has been verified.

Source: TPM 2.0 Library, Part 2, sections 10.11 (TPMS_CLOCK_INFO) and 10.12 (attestation).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.tpm.pcr_selection import PcrSelection, read_selection
from troth.formats.tpm.reader import TpmReader

__all__ = [
    "MAX_ATTEST_BYTES",
    "TPM_GENERATED",
    "Attest",
    "Certified",
    "ClockInfo",
    "Quoted",
    "decode_attest",
]

MAX_ATTEST_BYTES: Final = 1_024
"""Octets of one TPMS_ATTEST; a quote of two banks has 150."""

TPM_GENERATED: Final = b"\xffTCG"
"""TPM_GENERATED_VALUE. A restricted key signs nothing from outside that starts so."""

_CERTIFY, _QUOTE = 0x8017, 0x8018
_KINDS: Final = {
    0x8014: "NV",
    0x8015: "command audit",
    0x8016: "session audit",
    _CERTIFY: "certify",
    _QUOTE: "quote",
    0x8019: "time",
    0x801A: "creation",
    0x801C: "NV digest",
}
_MAX_NAME: Final = 66
_MAX_DATA: Final = 66
_MAX_DIGEST: Final = 64
_FORMAT: Final = "TPMS_ATTEST"


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """The TPM's clock and counters.

    A key outside the endorsement and platform hierarchies shows the counters with a constant
    added that depends on the key (Part 1, section 36.7): they still tell one boot from the next.

    Attributes:
        clock: milliseconds that the TPM has been powered.
        reset_count: boots since the TPM was cleared.
        restart_count: restarts and resumes since that boot.
        safe: the clock has not been shown a later value before.
    """

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True)
class Quoted:
    """TPMS_QUOTE_INFO.

    Attributes:
        selection: the registers.
        digest: hash over their values, by the hash of the signature.
    """

    selection: PcrSelection
    digest: bytes


@dataclass(frozen=True, slots=True)
class Certified:
    """TPMS_CERTIFY_INFO.

    Attributes:
        name: of the certified object.
        qualified_name: its name with those of its parents.
    """

    name: bytes
    qualified_name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """One TPMS_ATTEST.

    Attributes:
        raw: the octets that are signed.
        qualified_signer: qualified name of the key that signs.
        extra_data: the caller's challenge.
        clock: counters.
        firmware_version: of the TPM; vendor's own numbering.
        attested: what is attested.
    """

    raw: bytes = field(repr=False)
    qualified_signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware_version: int
    attested: Quoted | Certified


def decode_attest(data: bytes) -> Attest:
    """Decode a TPMS_ATTEST, whole.

    Raises:
        DecodeError: not one, or it does not start with TPM_GENERATED_VALUE.
        UnsupportedError: an attestation of something else than registers or a key.
        LimitExceededError: longer than any TPM makes one.
    """
    if len(data) > MAX_ATTEST_BYTES:
        raise LimitExceededError(format=_FORMAT, limit="MAX_ATTEST_BYTES", value=MAX_ATTEST_BYTES)
    if data[:4] != TPM_GENERATED:
        raise DecodeError(
            f"starts with {data[:4].hex() or 'nothing'}, not with TPM_GENERATED_VALUE (ff544347): "
            "no TPM made it",
            format=_FORMAT,
            offset=0,
        )
    reader = TpmReader(data, format=_FORMAT)
    reader.take(4, "magic")
    kind = reader.integer(2, "type")
    if kind not in (_QUOTE, _CERTIFY):
        name = _KINDS.get(kind, f"unknown type {kind:#06x}")
        raise UnsupportedError(f"is a {name} attestation", format=_FORMAT, offset=4)
    qualified_signer = reader.sized("qualifiedSigner", most=_MAX_NAME)
    extra_data = reader.sized("extraData", most=_MAX_DATA)
    clock = _clock(reader)
    firmware_version = reader.integer(8, "firmwareVersion")
    attested = _quoted(reader) if kind == _QUOTE else _certified(reader)
    reader.finish()
    return Attest(
        raw=data,
        qualified_signer=qualified_signer,
        extra_data=extra_data,
        clock=clock,
        firmware_version=firmware_version,
        attested=attested,
    )


def _clock(reader: TpmReader) -> ClockInfo:
    octets = reader.take(17, "clockInfo")
    if octets[16] > 1:
        raise reader.error(f"safe is {octets[16]}; expected 0 or 1")
    return ClockInfo(
        clock=int.from_bytes(octets[:8]),
        reset_count=int.from_bytes(octets[8:12]),
        restart_count=int.from_bytes(octets[12:16]),
        safe=octets[16] == 1,
    )


def _quoted(reader: TpmReader) -> Quoted:
    selection = read_selection(reader)
    return Quoted(selection, reader.sized("pcrDigest", most=_MAX_DIGEST))


def _certified(reader: TpmReader) -> Certified:
    return Certified(
        reader.sized("name", most=_MAX_NAME), reader.sized("qualifiedName", most=_MAX_NAME)
    )
