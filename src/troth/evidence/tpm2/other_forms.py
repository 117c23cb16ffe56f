# SPDX-License-Identifier: Apache-2.0
"""TPM Evidence in the forms of other projects, which Troth reads and does not write.

Neither form has a specification. What is known of them comes from Evidence that the projects
publish: Parsec's key attestation (a map of a key and a platform attestation, as in
draft-bft-rats-kat) and EnactTrust's token (a node id and a quote).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from troth.errors import DecodeError, UnsupportedError
from troth.formats import cbor
from troth.formats.limits import Limits
from troth.formats.quoting import shown
from troth.formats.tpm.attest import MAX_ATTEST_BYTES, TPM_GENERATED, Attest, decode_attest
from troth.formats.tpm.public import TpmPublic, decode_public
from troth.formats.tpm.reader import TpmReader
from troth.formats.tpm.signature import TpmSignature, decode_signature

__all__ = [
    "ENACTTRUST_MEDIA_TYPE",
    "PARSEC_MEDIA_TYPE",
    "KeyAttestation",
    "QuoteParts",
    "decode_enacttrust",
    "decode_parsec",
    "is_enacttrust",
    "is_parsec",
]

PARSEC_MEDIA_TYPE: Final = "application/vnd.parallaxsecond.key-attestation.tpm"
ENACTTRUST_MEDIA_TYPE: Final = "application/vnd.enacttrust.tpm-evidence"

_PARSEC_LIMITS: Final = Limits(max_bytes=16_384, max_items=64, max_depth=3)
_PARSEC_STARTS: Final = (b"\xa2\x63kat", b"\xa2\x63pat")
_PARSEC: Final = "Parsec TPM Evidence"
_KID_SIZE: Final = 33
_KID_RAND: Final = 0x01
_NODE_ID_SIZE: Final = 16
_ENACTTRUST: Final = "EnactTrust token"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAttestation:
    """A key that the attestation key certifies to live in the same TPM.

    Attributes:
        key: its public area.
        attest: TPMS_ATTEST of type certify.
        signature: over it.
    """

    key: TpmPublic
    attest: Attest
    signature: TpmSignature


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteParts:
    """A quote as it was wrapped.

    Attributes:
        quote: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        key_id: what names the attestation key.
        key_attestation: of another key, or None.
    """

    quote: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    key_id: bytes
    key_attestation: KeyAttestation | None = None


def is_parsec(data: bytes) -> bool:
    """Say whether `data` begins as Parsec's Evidence does."""
    return data.startswith(_PARSEC_STARTS)


def is_enacttrust(data: bytes) -> bool:
    """Say whether `data` has a quote where EnactTrust's token has it."""
    begin = _NODE_ID_SIZE + 2
    size = int.from_bytes(data[_NODE_ID_SIZE:begin])
    return data[begin : begin + 4] == TPM_GENERATED and size <= MAX_ATTEST_BYTES


def decode_parsec(data: bytes) -> QuoteParts:
    """Decode `{"kat": {…}, "pat": {…}}`, both under one attestation key.

    Raises:
        DecodeError: something is missing or malformed.
        UnsupportedError: a member that Troth does not know, or another version than 2.0.
        LimitExceededError: a limit was crossed.
    """
    value = cbor.decode(data, format=_PARSEC, limits=_PARSEC_LIMITS)
    if not isinstance(value, dict) or value.keys() != {"kat", "pat"}:
        raise DecodeError('is not a map of "kat" and "pat"', format=_PARSEC)
    kat = _part(value["kat"], "kat", ("certInfo", "pubArea"))
    pat = _part(value["pat"], "pat", ("attestInfo",))
    if kat["kid"] != pat["kid"]:
        raise DecodeError("kat and pat name different attestation keys", format=_PARSEC)
    return QuoteParts(
        quote=pat["attestInfo"],
        signature=pat["sig"],
        key_id=pat["kid"],
        key_attestation=KeyAttestation(
            key=decode_public(kat["pubArea"]),
            attest=decode_attest(kat["certInfo"]),
            signature=decode_signature(kat["sig"]),
        ),
    )


def _part(value: object, name: str, octets: tuple[str, ...]) -> dict[str, bytes]:
    if not isinstance(value, dict):
        raise DecodeError(f"{name} is not a map", format=_PARSEC)
    wanted = ("kid", "sig", *octets)
    # "alg" is in some of them and signed by nobody; the signature says its own algorithm.
    unknown = value.keys() - {"tpmVer", "alg", *wanted}
    for key in wanted:
        if not isinstance(value.get(key), bytes):
            raise DecodeError(f"{name}.{key} is missing or not a byte string", format=_PARSEC)
    if unknown:
        raise UnsupportedError(f"{name} has {shown(sorted(map(str, unknown)))}", format=_PARSEC)
    if value.get("tpmVer") != "2.0":
        raise UnsupportedError(f"{name}.tpmVer is {shown(value.get('tpmVer'))}", format=_PARSEC)
    kid = value["kid"]
    if len(kid) != _KID_SIZE or kid[0] != _KID_RAND:
        raise DecodeError(f"{name}.kid is not a UEID of 33 octets, the first 0x01", format=_PARSEC)
    return {key: value[key] for key in wanted}


def decode_enacttrust(data: bytes) -> QuoteParts:
    """Decode a node id of 16 octets, a TPM2B_ATTEST and a TPMT_SIGNATURE.

    Raises:
        DecodeError: something is missing or malformed.
        LimitExceededError: a limit was crossed.
    """
    reader = TpmReader(data, format=_ENACTTRUST)
    node_id = reader.take(_NODE_ID_SIZE, "node id")
    quote = reader.sized("TPMS_ATTEST", most=MAX_ATTEST_BYTES)
    return QuoteParts(
        quote=quote, signature=reader.take(reader.remaining, "TPMT_SIGNATURE"), key_id=node_id
    )
