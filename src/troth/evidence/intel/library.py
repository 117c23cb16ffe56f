# SPDX-License-Identifier: Apache-2.0
"""The boundary to dcap-qvl, which verifies quotes: its calls, its results, its refusals.

Nothing of the library crosses this module, neither its types nor its exceptions. It says why it
refuses in words only; the words are sorted here, once. An *objection* is about what an authentic
platform is like: its firmware is too old, the trust domain runs in debug mode. Some words are
about collateral, and so about nobody. Everything else means that authenticity was not established,
and so does every message that is not known.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import ModuleType
from typing import Any, Final, NoReturn

import msgspec

from troth.errors import (
    ChainError,
    CollateralError,
    ConfigurationError,
    DecodeError,
    SignatureError,
)

__all__ = ["CollateralDocuments", "LibraryClaims", "PckFields", "pck_fields", "verify"]

_PREFIX: Final = "Verification failed: "

OBJECTIONS: Final = (
    "Debug mode is enabled",
    "TD profiling is enabled",
    "TD migration is enabled",
    "SERVTD_EXT is enabled",
    "SEPT_VE_DISABLE is not enabled",
    "Reserved bits in TD attributes are set",
    "Invalid MR service TD",
    "No matching TCB level found",
    "TCB status is invalid",
    "TDX module",
    "No TDX module identity with id",
    "QE ISVSVN",
)
"""How messages begin that are about an authentic platform or trust domain."""

_ABOUT_COLLATERAL: Final = (
    "TCBInfo",
    "TCB Info",
    "QE Identity",
    "Failed to decode TcbInfo",
    "Failed to decode QeIdentity",
    "Failed to parse TCB Info",
    "Failed to parse QE Identity",
    "Signature is invalid for tcb_info",
    "Signature is invalid for qe_identity",
    "Certificate chain is too short for",
    "Unrecognized TCB status",
    "Unknown TCB status",
    "Unsupported QE Identity",
    "No TCB levels found in QE Identity",
    "Collateral expired",
    "CrlExpired",
    "SGX component count mismatch",
    "TDX component count mismatch",
    "TDX TCB Info is missing",
    "TDX quote with non-TDX TCB info",
    "SGX quote with non-SGX TCB info",
    "Fmspc mismatch",
    "Invalid TCB level tcbDate",
)
"""How messages begin that say nothing about the Attester. Most of it we have looked at before."""

_CHAIN_WORDS: Final = ("cert", "crl", "chain", "issuer", "revo", "pck")


@dataclass(frozen=True, slots=True, kw_only=True)
class PckFields:
    """What Intel wrote into the certificate of a platform.

    Attributes:
        ppid: identifies the platform, 16 octets.
        fmspc: kind of processor, 6 octets; TCB info is about one FMSPC.
        cpu_svn: security versions of the processor's 16 TCB components.
        pce_svn: security version of the provisioning enclave.
        pce_id: which provisioning enclave.
        sgx_type: 0 standard, 1 scalable, 2 scalable with integrity.
        platform_instance_id: identifies the platform over its packages, else b"".
    """

    ppid: bytes
    fmspc: bytes
    cpu_svn: bytes
    pce_svn: int
    pce_id: bytes
    sgx_type: int
    platform_instance_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralDocuments:
    """The documents that one verification is made with, as the library wants them.

    Attributes:
        tcb_info, qe_identity: the signed JSON texts.
        tcb_info_signature, qe_identity_signature: r and s.
        signing_chain: PEM of the certificate that signed them, and of the root.
        pck_crl, root_crl: revocation lists in DER.
    """

    tcb_info: str = field(repr=False)
    tcb_info_signature: bytes = field(repr=False)
    tcb_info_chain: str = field(repr=False)
    qe_identity: str = field(repr=False)
    qe_identity_signature: bytes = field(repr=False)
    qe_identity_chain: str = field(repr=False)
    pck_crl: bytes = field(repr=False)
    root_crl: bytes = field(repr=False)


class _Tcb(msgspec.Struct):
    status: str
    advisory_ids: list[str]


class _Level(msgspec.Struct):
    status: str = msgspec.field(name="tcbStatus")
    date: str = msgspec.field(name="tcbDate")


class _Platform(msgspec.Struct):
    tcb_level: _Level


class _TdReport(msgspec.Struct):
    td_attributes: str
    mr_td: str
    rt_mr0: str
    rt_mr1: str
    rt_mr2: str
    rt_mr3: str
    report_data: str


class _TdReport15(msgspec.Struct):
    base: _TdReport


class _SgxReport(msgspec.Struct):
    attributes: str
    mr_enclave: str
    mr_signer: str
    isv_prod_id: int
    isv_svn: int
    report_data: str


class _Report(msgspec.Struct):
    td10: _TdReport | None = msgspec.field(default=None, name="TD10")
    td15: _TdReport15 | None = msgspec.field(default=None, name="TD15")
    sgx: _SgxReport | None = msgspec.field(default=None, name="SgxEnclave")


class _Claims(msgspec.Struct):
    tcb: _Tcb
    platform: _Platform
    report: _Report


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryClaims:
    """What the library says of a quote.

    Attributes:
        objection: what it holds against an otherwise authentic quote, else "". Then nothing of
            the quote is established, and all else here is empty.
        status: TCB status of platform, TDX module and quoting enclave together.
        level_date: date of the platform's TCB level.
        advisories: security advisories that apply.
        report: the fields that it read in the report, in the order of `_read`, to compare.
    """

    objection: str = ""
    status: str = ""
    level_date: str = ""
    advisories: tuple[str, ...] = ()
    report: tuple[str | int, ...] = ()


def verify(
    quote: bytes, documents: CollateralDocuments, *, root: bytes, at: datetime
) -> LibraryClaims:
    """Verify signatures, certificates, revocation, collateral and TCB of a quote.

    Says nothing about the report's contents, nor about the challenge.

    Args:
        quote: the quote.
        documents: collateral for its platform.
        root: DER of the root certificate, or b"" for Intel's that the library has built in.
        at: timezone-aware; when certificates and collateral must be valid.

    Raises:
        SignatureError, ChainError: not authentic.
        CollateralError: the library cannot use the collateral.
        ConfigurationError: the library is not installed.
    """
    library = _library()
    seconds = int(at.timestamp())
    try:
        found = _verifier(root).verify_with_policy(
            quote, _collateral(documents), seconds, library.QuotePolicy.claims_only(seconds)
        )
        claims = msgspec.json.decode(found.to_json(), type=_Claims)
    except ValueError as exc:
        message = str(exc).removeprefix(_PREFIX)
        if message.startswith(OBJECTIONS):
            return LibraryClaims(objection=message)
        raise _refusal(message) from exc
    except BaseException as exc:  # noqa: BLE001 - a panic of Rust is no Exception
        _raise_panic(exc)
    return LibraryClaims(
        status=claims.tcb.status,
        level_date=claims.platform.tcb_level.date,
        advisories=tuple(claims.tcb.advisory_ids),
        report=_read(claims.report),
    )


@lru_cache(maxsize=1024)
def pck_fields(leaf: bytes) -> PckFields:
    """Return what Intel wrote into a platform's certificate; nothing of it is verified.

    Args:
        leaf: the certificate in PEM.

    Raises:
        DecodeError: it lacks Intel's extension, or that is damaged.
        ConfigurationError: the library is not installed.
    """
    library = _library()
    try:
        found = library.parse_pck_extension_from_pem(leaf)
        return PckFields(
            ppid=bytes(found.ppid),
            fmspc=bytes(found.fmspc),
            cpu_svn=bytes(found.cpu_svn),
            pce_svn=found.pce_svn,
            pce_id=bytes(found.pce_id),
            sgx_type=found.sgx_type,
            platform_instance_id=bytes(found.platform_instance_id or b""),
        )
    except ValueError as exc:
        raise DecodeError(f"Intel's extension: {exc}", format="PCK certificate") from exc
    except BaseException as exc:  # noqa: BLE001 - a panic of Rust is no Exception
        _raise_panic(exc)


def _read(report: _Report) -> tuple[str | int, ...]:
    td = report.td15.base if report.td15 is not None else report.td10
    if td is not None:
        registers = (td.rt_mr0, td.rt_mr1, td.rt_mr2, td.rt_mr3)
        return (td.td_attributes, td.mr_td, *registers, td.report_data)
    sgx = report.sgx
    if sgx is None:
        raise SignatureError("dcap-qvl verified a report of a kind that Troth does not know")
    return (
        sgx.attributes,
        sgx.mr_enclave,
        sgx.mr_signer,
        sgx.isv_prod_id,
        sgx.isv_svn,
        sgx.report_data,
    )


def _refusal(message: str) -> SignatureError | ChainError | CollateralError:
    if message.startswith(_ABOUT_COLLATERAL):
        return CollateralError(
            f"dcap-qvl cannot use this collateral: {message}",
            remedy="Fetch it anew; if it is current, look for a newer dcap-qvl.",
        )
    kind = ChainError if any(word in message.lower() for word in _CHAIN_WORDS) else SignatureError
    return kind(f"the quote does not verify: {message}")


def _raise_panic(exc: BaseException) -> NoReturn:
    # A panic in the library's Rust is no Exception; it must not end the process of a Verifier.
    if type(exc).__name__ != "PanicException":
        raise exc
    raise SignatureError(f"the quote does not verify: dcap-qvl failed ({exc})") from exc


def _library() -> ModuleType:
    try:
        return importlib.import_module("dcap_qvl")
    except ImportError as exc:
        raise ConfigurationError(
            source="schemes sgx and tdx",
            accepted="the package dcap-qvl, which verifies quotes: install troth[tdx]",
        ) from exc


@lru_cache(maxsize=16)
def _verifier(root: bytes) -> Any:  # noqa: ANN401 - the library has no types
    return _library().QuoteVerifier(root or None)


@lru_cache(maxsize=64)
def _collateral(documents: CollateralDocuments) -> Any:  # noqa: ANN401 - as above
    return _library().QuoteCollateralV3(
        "",  # the chain of the PCK's issuer: it is in the quote
        documents.root_crl,
        documents.pck_crl,
        documents.tcb_info_chain,
        documents.tcb_info,
        documents.tcb_info_signature,
        documents.qe_identity_chain,
        documents.qe_identity,
        documents.qe_identity_signature,
    )
