# SPDX-License-Identifier: Apache-2.0
"""A quote of an SGX enclave or a TDX trust domain, taken apart. Nothing in it is believed here.

::

    version 3 (SGX)      header 48 | enclave report 384                  | length, signature data
    version 4 (TDX 1.0)  header 48 | TD report 584                       | length, signature data
    version 5 (TDX 1.5)  header 48 | type 2, size 4 | TD report 584, 648 | length, signature data

The signature covers everything before the length. In versions 4 and 5 the quoting enclave's own
report is wrapped once more, as certification data of type 6. All numbers are little-endian.

Source: Intel SGX ECDSA Quote Library Reference, appendix A.4 (version 3); Intel TDX DCAP Quoting
Library API, appendix A.3 and A.4 (versions 4 and 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.evidence.intel.octets import FieldReader

__all__ = [
    "INTEL_QE_VENDOR",
    "MAX_QUOTE_BYTES",
    "SGX_REPORT",
    "TD_REPORT_1_0",
    "TD_REPORT_1_5",
    "TEE_SGX",
    "TEE_TDX",
    "Quote",
    "QuoteHeader",
    "QuoteSignature",
    "decode_quote",
]

MAX_QUOTE_BYTES: Final = 16_384
"""Octets of one quote. Those seen have 4.6 to 5 KB; the kernel pads them to 8 KB at most."""

TEE_SGX: Final = 0x00000000
TEE_TDX: Final = 0x00000081

SGX_REPORT: Final = 1
TD_REPORT_1_0: Final = 2
TD_REPORT_1_5: Final = 3
_BODY_SIZES: Final = {SGX_REPORT: 384, TD_REPORT_1_0: 584, TD_REPORT_1_5: 648}

INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""UUID of Intel's quoting enclaves; nobody else is known to make any."""

_ECDSA_P256: Final = 2
_QE_REPORT_CERTIFICATION: Final = 6
_PCK_CHAIN: Final = 5
_QE_AUTHENTICATION_SIZE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteHeader:
    """The first 48 octets.

    Attributes:
        version: 3, 4 or 5.
        tee_type: `TEE_SGX` or `TEE_TDX`.
        attestation_key_type: always 2, ECDSA on P-256 with SHA-256.
        user_data: 20 octets; the first 16 identify the quoting enclave on its platform.
    """

    version: int
    tee_type: int
    attestation_key_type: int
    user_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteSignature:
    """Who signed, and who vouches for that key.

    Attributes:
        signature: r and s over header and body, under `attestation_key`.
        attestation_key: x and y of the quoting enclave's key.
        qe_report: the quoting enclave's report, 384 octets.
        qe_report_signature: r and s over it, under the platform's certified key (PCK).
        qe_authentication: what the quoting enclave hashed together with its key.
        pck_chain: certificates in PEM, the platform's first.
    """

    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: bytes = field(repr=False)
    qe_report_signature: bytes = field(repr=False)
    qe_authentication: bytes = field(repr=False)
    pck_chain: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One quote.

    Attributes:
        header: its header.
        body_type: `SGX_REPORT`, `TD_REPORT_1_0` or `TD_REPORT_1_5`.
        body: the report of the enclave or trust domain.
        signed: what the signature covers.
        signature: the signature data.
        raw: the quote without padding.
    """

    header: QuoteHeader
    body_type: int
    body: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: QuoteSignature
    raw: bytes = field(repr=False)


def decode_quote(data: bytes, *, format: str) -> Quote:
    """Decode one quote. Zeros after it are padding; anything else after it is refused.

    Raises:
        LimitExceededError: longer than `MAX_QUOTE_BYTES`.
        UnsupportedError: a version, key type or certification that Troth does not take.
        DecodeError: not a quote.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise LimitExceededError(format=format, limit="MAX_QUOTE_BYTES", value=MAX_QUOTE_BYTES)
    reader = FieldReader(data, format=format)
    header = _header(reader, format)
    body_type, body = _body(reader, header, format)
    signed = data[: reader.offset]
    size = reader.number(4, "the length of the signature data")
    start = reader.offset
    signature = _signature(
        FieldReader(reader.octets(size, "the signature data"), format=format, start=start),
        header.version,
        format,
    )
    if reader.rest.strip(b"\0"):
        raise reader.error("there is more after the signature data")
    return Quote(
        header=header,
        body_type=body_type,
        body=body,
        signed=signed,
        signature=signature,
        raw=data[: reader.offset],
    )


def _header(reader: FieldReader, format: str) -> QuoteHeader:
    version = reader.number(2, "the version")
    key_type = reader.number(2, "the attestation key type")
    tee_type = reader.number(4, "the TEE type")
    reader.octets(4, "the security versions")  # of QE and PCE in version 3; else reserved
    vendor = reader.octets(16, "the vendor of the quoting enclave")
    user_data = reader.octets(20, "the user data")
    if version not in {3, 4, 5}:
        raise UnsupportedError(f"version {version}; expected 3, 4 or 5", format=format, offset=0)
    if tee_type != (TEE_SGX if version == 3 else TEE_TDX):
        raise UnsupportedError(
            f"TEE type {tee_type:#x} in version {version}; expected 0x0 (SGX) in version 3, "
            "0x81 (TDX) in versions 4 and 5",
            format=format,
            offset=4,
        )
    if key_type != _ECDSA_P256:
        raise UnsupportedError(
            f"attestation key type {key_type}; expected 2 (ECDSA on P-256)", format=format, offset=2
        )
    if vendor != INTEL_QE_VENDOR:
        raise UnsupportedError(
            f"quoting enclave of vendor {vendor.hex()}; expected Intel's", format=format, offset=12
        )
    return QuoteHeader(
        version=version, tee_type=tee_type, attestation_key_type=key_type, user_data=user_data
    )


def _body(reader: FieldReader, header: QuoteHeader, format: str) -> tuple[int, bytes]:
    if header.version == 3:
        body_type = SGX_REPORT
    elif header.version == 4:
        body_type = TD_REPORT_1_0
    else:
        at = reader.offset
        body_type = reader.number(2, "the body type")
        if body_type not in {TD_REPORT_1_0, TD_REPORT_1_5}:
            raise UnsupportedError(
                f"body type {body_type}; expected 2 (TDX 1.0) or 3 (TDX 1.5)",
                format=format,
                offset=at,
            )
        size = reader.number(4, "the body size")
        if size != _BODY_SIZES[body_type]:
            raise DecodeError(
                f"a body of type {body_type} with {size} octets; expected {_BODY_SIZES[body_type]}",
                format=format,
                offset=at + 2,
            )
    return body_type, reader.octets(_BODY_SIZES[body_type], "the report")


def _signature(reader: FieldReader, version: int, format: str) -> QuoteSignature:
    signature = reader.octets(64, "the signature")
    attestation_key = reader.octets(64, "the attestation key")
    if version > 3:
        reader = _certification(reader, _QE_REPORT_CERTIFICATION, format)
    qe_report = reader.octets(_BODY_SIZES[SGX_REPORT], "the quoting enclave's report")
    qe_report_signature = reader.octets(64, "the signature of the quoting enclave's report")
    at = reader.offset
    size = reader.number(2, "the length of the authentication data")
    # The only size that quoting enclaves use, and that dcap-qvl hashes.
    if size != _QE_AUTHENTICATION_SIZE:
        raise UnsupportedError(
            f"{size} octets of authentication data; expected {_QE_AUTHENTICATION_SIZE}",
            format=format,
            offset=at,
        )
    authentication = reader.octets(size, "the authentication data")
    chain = _certification(reader, _PCK_CHAIN, format)
    return QuoteSignature(
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        qe_authentication=authentication,
        pck_chain=chain.rest,
    )


def _certification(reader: FieldReader, wanted: int, format: str) -> FieldReader:
    """Return a reader of the certification data, which must be the last in its surroundings."""
    at = reader.offset
    kind = reader.number(2, "the certification data type")
    if kind != wanted:
        name = {_PCK_CHAIN: "a PCK certificate chain", _QE_REPORT_CERTIFICATION: "a QE report"}
        raise UnsupportedError(
            f"certification data of type {kind}; expected {wanted} ({name[wanted]})",
            format=format,
            offset=at,
            remedy="Have the quote provider put the PCK certificate chain into its quotes.",
        )
    size = reader.number(4, "the length of the certification data")
    start = reader.offset
    inner = FieldReader(reader.octets(size, "the certification data"), format=format, start=start)
    if reader.rest:
        raise reader.error("there is more after the certification data")
    return inner
