# SPDX-License-Identifier: Apache-2.0
"""The collateral for one platform: chosen, verified, and current, or why it is not.

Whatever is wrong here is about Intel's documents, not about the Attester: it raises
`CollateralError`, which is neither yes nor no. The steps:

1. for each kind, the newest document that is about this platform and issued by now;
2. certificates of the root's signed TCB info and the identity of the quoting enclave;
3. the revocation lists are signed by the root and by the authority that certified the platform;
4. the root has not revoked the signing certificates;
5. none is past its next update, or by no more than the grace that the operator allows. Then all
   is verified as of the moment when the first of them ran out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from troth.errors import CollateralError, SignatureError
from troth.evidence.intel.documents import (
    IntelDocuments,
    RevocationList,
    SignedQeIdentity,
    SignedTcbInfo,
)
from troth.evidence.intel.library import CollateralDocuments
from troth.evidence.intel.pck import VENDOR, PckChain, Root, is_issued_by
from troth.evidence.intel.signatures import verify_es256

__all__ = ["PlatformCollateral", "choose_collateral"]

_REMEDY: Final = (
    "Put current answers of Intel's PCS, or of a PCCS, into the directory of collateral "
    "(docs/reference/schemes/tdx.md), or have them fetched."
)


_MOMENT: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformCollateral:
    """Authentic collateral for one platform.

    Attributes:
        tcb_info, qe_identity: as chosen.
        documents: all of it, as the library wants it.
        root_list, pck_list: the revocation lists.
        at: when everything is to be valid: the clock reading, or an earlier moment in the grace.
        expires: when the first document runs out.
        stale: what has run out; only ever within the grace.
    """

    tcb_info: SignedTcbInfo
    qe_identity: SignedQeIdentity
    documents: CollateralDocuments = field(repr=False)
    root_list: RevocationList
    pck_list: RevocationList
    at: datetime
    expires: datetime
    stale: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The newest document of each kind."""

    tcb_info: SignedTcbInfo
    qe_identity: SignedQeIdentity
    root_list: RevocationList
    pck_list: RevocationList


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authentic:
    documents: CollateralDocuments
    signers_end: datetime


_Q = TypeVar("_Q", SignedTcbInfo, SignedQeIdentity)


def choose_collateral(
    found: IntelDocuments,
    *,
    tee: str,
    chain: PckChain,
    root: Root,
    now: datetime,
    grace: timedelta,
) -> PlatformCollateral:
    """Return the collateral for a platform.

    Args:
        found: Intel's documents.
        tee: "SGX" or "TDX".
        chain: the platform's certificates; the root must have issued its authority.
        root: the trust anchor.
        now: timezone-aware.
        grace: how long after its next update a document still serves.

    Raises:
        CollateralError: something is missing, not authentic, or too old; names all of it.
    """
    wanted = {
        "tee": tee.lower(),
        "fmspc": chain.fields.fmspc.hex(),
        "ca": chain.authority_word,
    }
    chosen = _newest(found, wanted, chain=chain, root=root, now=now)
    authentic = _authenticate(chosen, found.certificates, chain, root)
    if isinstance(authentic, str):
        raise _error(wanted, f"collateral is not authentic: {authentic}")
    ends = {
        "the TCB info": chosen.tcb_info.content.next_update,
        "the identity of the quoting enclave": chosen.qe_identity.content.next_update,
        "the root's revocation list": chosen.root_list.next_update,
        f"the revocation list of the {wanted['ca']} CA": chosen.pck_list.next_update,
        "the certificate that signed the TCB info": authentic.signers_end,
    }
    expires = min(ends.values())
    stale = tuple(f"{name} ran out {end:%FT%TZ}" for name, end in ends.items() if end <= now)
    if expires + grace <= now:
        raise _error(
            wanted,
            f"collateral for {_platform(wanted)} is out of date: {'; '.join(stale)}"
            + (f"; the grace is {grace}" if grace else ""),
        )
    return PlatformCollateral(
        tcb_info=chosen.tcb_info,
        qe_identity=chosen.qe_identity,
        documents=authentic.documents,
        root_list=chosen.root_list,
        pck_list=chosen.pck_list,
        at=min(now, expires - _MOMENT),
        expires=expires,
        stale=stale,
    )


def _newest(
    found: IntelDocuments,
    wanted: Mapping[str, str],
    *,
    chain: PckChain,
    root: Root,
    now: datetime,
) -> _Chosen:
    """Return the newest document of each kind (1)."""
    tee, qe = ("SGX", "QE") if wanted["tee"] == "sgx" else ("TDX", "TD_QE")
    tcb_infos = [
        each
        for each in found.tcb_infos
        if each.content.id == tee and each.content.fmspc_text.lower() == wanted["fmspc"]
    ]
    identities = [each for each in found.identities if each.content.id == qe]
    tcb_info, qe_identity = _newest_signed(tcb_infos, now), _newest_signed(identities, now)
    root_list = _newest_list(found, root.name, now)
    pck_list = _newest_list(found, chain.authority_name, now)
    if tcb_info is None or qe_identity is None or root_list is None or pck_list is None:
        kinds = {
            f"{tee} TCB info": tcb_info,
            f"identity of the quoting enclave ({qe})": qe_identity,
            "revocation list of the root": root_list,
            f"revocation list of the {wanted['ca']} CA": pck_list,
        }
        missing = ", ".join(name for name, document in kinds.items() if document is None)
        detail = f" (cannot be read: {'; '.join(found.unreadable)})" if found.unreadable else ""
        raise _error(
            wanted,
            f"no collateral for {_platform(wanted)}, issued by {now:%FT%TZ}, is at hand: "
            f"{missing}{detail}",
        )
    return _Chosen(
        tcb_info=tcb_info, qe_identity=qe_identity, root_list=root_list, pck_list=pck_list
    )


def _newest_signed(documents: Iterable[_Q], now: datetime) -> _Q | None:
    issued = [each for each in documents if each.content.issue_date <= now]
    return max(
        issued,
        key=lambda each: (
            each.content.next_update >= now,
            each.content.evaluation_number,
            each.content.issue_date,
        ),
        default=None,
    )


def _newest_list(found: IntelDocuments, issuer: bytes, now: datetime) -> RevocationList | None:
    made = [
        each for each in found.revocation_lists if each.last_update <= now and each.issuer == issuer
    ]
    return max(made, key=lambda each: each.last_update, default=None)


@lru_cache(maxsize=64)
def _authenticate(
    chosen: _Chosen, certificates: tuple[x509.Certificate, ...], chain: PckChain, root: Root
) -> _Authentic | str:
    """Return what was verified, dates apart, or what is wrong with it (2) to (4).

    Remembered by the identity of the documents: they are read once, and serve a fleet.
    """
    if not _signed_by(chosen.root_list, root.certificate):
        return "the root's revocation list is not signed by the root"
    if not _signed_by(chosen.pck_list, chain.authority):
        return "the revocation list of the platform's CA is not signed by it"
    issued = [each for each in certificates if is_issued_by(each, root.certificate)]
    signers: list[x509.Certificate] = []
    for name, document in (
        ("the TCB info", chosen.tcb_info),
        ("the identity of the quoting enclave", chosen.qe_identity),
    ):
        signer = _signer_of(document, issued)
        if signer is None:
            return (
                f"none of the {len(issued)} certificates of the root's at hand signed {name} "
                "(the service sends the right one in the header ...-Issuer-Chain)"
            )
        serial = signer.serial_number
        if chosen.root_list.content.get_revoked_certificate_by_serial_number(serial) is not None:
            return f"the certificate that signed {name} is revoked"
        signers.append(signer)
    return _Authentic(
        documents=CollateralDocuments(
            tcb_info=chosen.tcb_info.text,
            tcb_info_signature=chosen.tcb_info.signature,
            tcb_info_chain=_pem(signers[0], root.certificate),
            qe_identity=chosen.qe_identity.text,
            qe_identity_signature=chosen.qe_identity.signature,
            qe_identity_chain=_pem(signers[1], root.certificate),
            pck_crl=chosen.pck_list.der,
            root_crl=chosen.root_list.der,
        ),
        signers_end=min(signer.not_valid_after_utc for signer in signers),
    )


def _signer_of(
    document: SignedTcbInfo | SignedQeIdentity, certificates: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    for certificate in certificates:
        try:
            verify_es256(
                certificate, document.signature, document.text.encode(), format="collateral"
            )
        except SignatureError:
            continue
        return certificate
    return None


def _signed_by(found: RevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        return found.content.is_signature_valid(key)
    except (ValueError, TypeError):
        return False


def _pem(*certificates: x509.Certificate) -> str:
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates)


def _platform(wanted: Mapping[str, str]) -> str:
    return f"platforms of FMSPC {wanted['fmspc']}"


def _error(wanted: Mapping[str, str], message: str) -> CollateralError:
    return CollateralError(message, vendor=VENDOR, wanted=wanted, remedy=_REMEDY)
