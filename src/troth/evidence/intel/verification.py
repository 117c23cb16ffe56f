# SPDX-License-Identifier: Apache-2.0
"""The verification that SGX and TDX share: from a decoded quote to what is known of its platform.

The order, whose numbers the code wears; structure was checked by decoding:

1. the platform's certificates end at a trust anchor;
2. collateral is chosen and verified. Where that fails, the quote's own signatures are verified
   before anything is said about collateral: what is forged is refused as such;
3. the simulator is recognised;
4. dcap-qvl verifies everything together, and its reading of the report is compared with ours;
5. where it objects to an otherwise authentic quote, we verify the signatures ourselves, and the
   objection becomes a matter of appraisal, which it can only make worse;
6. where the TCB is not up to date, the documents are read for the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, TypeVar

from troth.errors import ChainError, CollateralError, SignatureError
from troth.evidence.context import VerificationContext
from troth.evidence.evidence import Evidence, TrustAnchorSource, VerifiedEvidence
from troth.evidence.insecure import refuse_simulator
from troth.evidence.intel import library
from troth.evidence.intel.collateral import PlatformCollateral, choose_collateral
from troth.evidence.intel.documents import IntelDocuments
from troth.evidence.intel.enclave_report import EnclaveReport
from troth.evidence.intel.pck import PckChain, Root, find_root, read_pck_chain
from troth.evidence.intel.quote import Quote
from troth.evidence.intel.signatures import check_quoting_enclave, check_signatures
from troth.evidence.intel.tcb import (
    Assessment,
    Shortfall,
    TcbStatus,
    TcbVersions,
    assess,
)

__all__ = ["Platform", "VerifiedQuote", "verify_platform"]

E_co = TypeVar("E_co", bound=Evidence, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What is known of the platform that a quote comes from.

    Attributes:
        ppid: identifies it.
        fmspc: kind of its processor.
        root: SHA-256 (hex) of the root certificate.
        status: TCB status, the worst of platform, TDX module and quoting enclave.
        level_date: date of the platform's TCB level, or "".
        advisories: security advisories of Intel's that apply.
        evaluation_number: of the TCB info; a higher one is newer.
        shortfalls: every security version that keeps it from the best level.
        relaunch_helps: only what the trust domain was launched with is too old.
        objection: what dcap-qvl holds against it, in its words, or "".
        expires: when the first document of the collateral runs out.
        stale: what of the collateral has run out, within the grace.
        insecure: reasons why it must not count in production.
    """

    ppid: bytes
    fmspc: bytes
    root: str
    status: TcbStatus
    level_date: str
    advisories: Sequence[str]
    evaluation_number: int
    shortfalls: Sequence[Shortfall]
    relaunch_helps: bool
    objection: str
    expires: datetime
    stale: Sequence[str]
    insecure: Sequence[str]

    def to_json(self) -> dict[str, object]:
        """Return what policies see of the platform (docs/reference/schemes/tdx.md)."""
        return {
            "fmspc": self.fmspc.hex(),
            "ppid": self.ppid.hex(),
            "tcb_status": self.status.value,
            "tcb_date": self.level_date,
            "tcb_advisories": list(self.advisories),
            "tcb_evaluation_number": self.evaluation_number,
            "tcb_shortfalls": {each.component: each.actual for each in self.shortfalls},
            "qvl_objection": self.objection,
            "collateral_expires": f"{self.expires:%FT%TZ}",
            "collateral_expires_ns": int(self.expires.timestamp()) * 10**9,
            "collateral_stale": list(self.stale),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote(VerifiedEvidence[E_co], Generic[E_co]):
    """Authentic Evidence of SGX or TDX.

    Attributes:
        platform: the platform.
    """

    platform: Platform = field(repr=False)


def verify_platform(
    quote: Quote,
    *,
    scheme: str,
    report: tuple[str | int, ...],
    tdx_svns: tuple[bytes, bytes] = (b"", b""),
    trust_anchors: TrustAnchorSource,
    context: VerificationContext,
    allow_simulator: bool,
) -> Platform:
    """Establish that a platform of Intel's made the quote. Says nothing about what is in it.

    Args:
        quote: decoded.
        scheme: "sgx" or "tdx".
        report: what we read in the report, in the library's order, to compare.
        tdx_svns: tee_tcb_svn and tee_tcb_svn2 of a trust domain.
        trust_anchors: which roots are believed.
        context: time, collateral, vendors, grace.
        allow_simulator: whether the simulator is taken.

    Raises:
        SignatureError, ChainError: not authentic.
        CollateralError: nothing can be said, for want of Intel's documents.
        DecodeError: the platform's certificates cannot be read.
        ConfigurationError: dcap-qvl is not installed.
    """
    now = context.time
    documents = IntelDocuments.of(context.collateral)
    chain = read_pck_chain(quote.signature.pck_chain)
    root = find_root(  # (1)
        chain,
        anchors=tuple(trust_anchors.certificates(scheme)),
        vendors=context.vendors,
        others=documents.certificates,
    )
    try:
        collateral = choose_collateral(  # (2)
            documents,
            tee=scheme.upper(),
            chain=chain,
            root=root,
            now=now,
            grace=context.grace,
        )
    except CollateralError:
        check_signatures(quote, chain, root.certificate, at=now)
        raise
    insecure = refuse_simulator(root.organization.encode(), allowed=allow_simulator)  # (3)
    if collateral.stale:
        # In the grace, all is verified as of the past; the platform's own certificates are not.
        chain.check(root.certificate, at=now)
    try:
        claims = library.verify(  # (4)
            quote.raw, collateral.documents, root=root.der, at=collateral.at
        )
    except ChainError:
        _check_ourselves(quote, chain, root, collateral)  # says which certificate, and why
        raise
    if not claims.objection and claims.report != report:
        raise SignatureError("dcap-qvl reads another report in this quote than Troth does")
    if claims.objection:
        _check_ourselves(quote, chain, root, collateral)  # (5)
    found = _assessment(quote, chain, collateral, claims, tdx_svns)  # (6)
    return Platform(
        ppid=chain.fields.ppid,
        fmspc=chain.fields.fmspc,
        root=root.digest,
        status=found.status,
        level_date=found.date,
        advisories=found.advisories,
        evaluation_number=collateral.tcb_info.content.evaluation_number,
        shortfalls=found.shortfalls,
        relaunch_helps=found.relaunch_helps,
        objection=claims.objection,
        expires=collateral.expires,
        stale=collateral.stale,
        insecure=insecure,
    )


def _check_ourselves(
    quote: Quote, chain: PckChain, root: Root, collateral: PlatformCollateral
) -> None:
    check_signatures(quote, chain, root.certificate, at=collateral.at)
    for certificate, revoked in (
        (chain.leaf, collateral.pck_list),
        (chain.authority, collateral.root_list),
    ):
        serial = certificate.serial_number
        if revoked.content.get_revoked_certificate_by_serial_number(serial) is not None:
            raise ChainError(
                f"a certificate of the platform is revoked (serial number {serial:x})",
                remedy="Intel has revoked this platform's key: do not use it.",
            )
    check_quoting_enclave(quote, collateral.qe_identity.content)


_FINE: Final = TcbStatus.UP_TO_DATE


def _assessment(
    quote: Quote,
    chain: PckChain,
    collateral: PlatformCollateral,
    claims: library.LibraryClaims,
    tdx_svns: tuple[bytes, bytes],
) -> Assessment:
    status = TcbStatus.of(claims.status)
    if status is _FINE and not claims.objection:
        return Assessment(
            status=status,
            date=claims.level_date,
            advisories=claims.advisories,
            shortfalls=(),
            relaunch_helps=False,
        )
    qe_report = EnclaveReport.decode(quote.signature.qe_report, format="quoting enclave's report")
    own = assess(
        collateral.tcb_info.content,
        collateral.qe_identity.content,
        TcbVersions(
            sgx=chain.fields.cpu_svn,
            pce=chain.fields.pce_svn,
            tdx=tdx_svns[0],
            tdx_now=tdx_svns[1],
            qe=qe_report.isv_svn,
        ),
    )
    if claims.objection:
        return own
    return Assessment(
        status=status,
        date=claims.level_date,
        advisories=claims.advisories,
        shortfalls=own.shortfalls,
        relaunch_helps=own.relaunch_helps,
    )
