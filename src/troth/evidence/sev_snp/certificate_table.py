# SPDX-License-Identifier: Apache-2.0
"""The table of certificates that a host hands to a guest beside the report.

A header of entries (GUID, offset, length), ended by one of zeros, and then the certificates. The
host writes it, so nothing in it is more than a suggestion where to find signed documents.

Source: AMD GHCB Specification (56421) revision 2.03, section 4.1.8.1 (SNP extended guest request).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from troth.errors import DecodeError, LimitExceededError

__all__ = [
    "ARK",
    "ASK",
    "CRL",
    "MAX_TABLE_ENTRIES",
    "VCEK",
    "VLEK",
    "decode_table",
    "encode_table",
]

VCEK: Final = UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK: Final = UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK: Final = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
"""The intermediate, ASK or ASVK."""
ARK: Final = UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
CRL: Final = UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")

NAMES: Final[Mapping[UUID, str]] = {
    VCEK: "VCEK",
    VLEK: "VLEK",
    ASK: "ASK",
    ARK: "ARK",
    CRL: "CRL",
}

MAX_TABLE_ENTRIES: Final = 16
"""Entries of one table; five kinds are known, and hosts add some of their own."""

_FORMAT: Final = "SNP certificate table"
_ENTRY_SIZE: Final = 24


def decode_table(data: bytes) -> dict[str, bytes]:
    """Return the certificates by name ("VCEK", "ASK", …); entries of unknown kind are left out.

    What stands in them is not looked at. An empty table is none.

    Raises:
        DecodeError: an entry points outside, one kind comes twice, or the header does not end.
        LimitExceededError: more than `MAX_TABLE_ENTRIES`.
    """
    found: dict[str, bytes] = {}
    if not any(data):
        return found
    for index in range(MAX_TABLE_ENTRIES + 1):
        start = index * _ENTRY_SIZE
        entry = data[start : start + _ENTRY_SIZE]
        if len(entry) < _ENTRY_SIZE:
            raise DecodeError("the header does not end", format=_FORMAT, offset=start)
        if not any(entry):
            return found
        name = NAMES.get(UUID(bytes=entry[:16]))
        offset, length = (
            int.from_bytes(entry[16:20], "little"),
            int.from_bytes(entry[20:], "little"),
        )
        if offset + length > len(data):
            raise DecodeError(
                f"{length} octets at {offset} are not inside the table of {len(data)}",
                format=_FORMAT,
                offset=start,
            )
        if name is None:
            continue
        if name in found:
            raise DecodeError(f"two entries for {name}", format=_FORMAT, offset=start)
        found[name] = data[offset : offset + length]
    raise LimitExceededError(format=_FORMAT, limit="MAX_TABLE_ENTRIES", value=MAX_TABLE_ENTRIES)


def encode_table(certificates: Mapping[UUID, bytes]) -> bytes:
    """Return the table with these certificates, as a host writes it; none gives an empty one."""
    if not certificates:
        return b""
    header, body = b"", b""
    start = (len(certificates) + 1) * _ENTRY_SIZE
    for guid, certificate in certificates.items():
        header += guid.bytes
        header += (start + len(body)).to_bytes(4, "little")
        header += len(certificate).to_bytes(4, "little")
        body += certificate
    return header + bytes(_ENTRY_SIZE) + body
