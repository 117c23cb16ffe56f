# SPDX-License-Identifier: Apache-2.0
"""TCB info and identities of quoting enclaves: what Intel says of firmware and its versions.

dcap-qvl decides the status of a platform. What stands here reads the same documents to say *why*:
which component is behind, what it has and what it would need.

Source: Intel PCS API version 4, "Get SGX TCB Info", "Get TDX TCB Info", "Get TDX QE Identity".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, TypeVar

import msgspec

from troth.errors import DecodeError

__all__ = [
    "QeIdentity",
    "Shortfall",
    "TcbInfo",
    "TcbLevel",
    "TcbStatus",
    "TcbVersions",
    "assess",
    "decode_qe_identity",
    "decode_tcb_info",
]

_COMPONENTS: Final = 16


class TcbStatus(Enum):
    """What Intel's word for a TCB level is, best first. The last two are ours."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"
    BELOW_EVERY_LEVEL = "BelowEveryLevel"
    UNRECOGNISED = "Unrecognised"

    @classmethod
    def of(cls, word: str) -> TcbStatus:
        """Return the status of this name; `UNRECOGNISED`, the worst, for one that is not known."""
        return next((each for each in cls if each.value == word), cls.UNRECOGNISED)

    @property
    def rank(self) -> int:
        """Return the position, 0 for the best."""
        return list(type(self)).index(self)


class Component(msgspec.Struct, frozen=True):
    """One TCB component's security version, and what it is where Intel says so."""

    svn: int
    category: str = ""
    type: str = ""

    @property
    def description(self) -> str:
        """What it is, in Intel's words."""
        return ": ".join(part for part in (self.category, self.type) if part)


class Tcb(msgspec.Struct, frozen=True):
    """The security versions of one level."""

    sgx: tuple[Component, ...] = msgspec.field(name="sgxtcbcomponents")
    pce_svn: int = msgspec.field(name="pcesvn")
    tdx: tuple[Component, ...] = msgspec.field(name="tdxtcbcomponents", default=())


class TcbLevel(msgspec.Struct, frozen=True):
    """One level, and what Intel says of platforms that have it."""

    tcb: Tcb
    date: str = msgspec.field(name="tcbDate")
    status_word: str = msgspec.field(name="tcbStatus")
    advisories: tuple[str, ...] = msgspec.field(name="advisoryIDs", default=())

    @property
    def status(self) -> TcbStatus:
        """The status."""
        return TcbStatus.of(self.status_word)


class IsvSvn(msgspec.Struct, frozen=True):
    """The security version of a TDX module or a quoting enclave."""

    isvsvn: int


class IsvLevel(msgspec.Struct, frozen=True):
    """One level of a TDX module or a quoting enclave."""

    tcb: IsvSvn
    date: str = msgspec.field(name="tcbDate")
    status_word: str = msgspec.field(name="tcbStatus")
    advisories: tuple[str, ...] = msgspec.field(name="advisoryIDs", default=())

    @property
    def status(self) -> TcbStatus:
        """The status."""
        return TcbStatus.of(self.status_word)


class TdxModuleIdentity(msgspec.Struct, frozen=True):
    """The levels of one major version of the TDX module, "TDX_03" for version 3."""

    id: str
    levels: tuple[IsvLevel, ...] = msgspec.field(name="tcbLevels")


class TcbInfo(msgspec.Struct, frozen=True):
    """TCB info for one kind of processor."""

    id: str
    version: int
    issue_date: datetime = msgspec.field(name="issueDate")
    next_update: datetime = msgspec.field(name="nextUpdate")
    fmspc_text: str = msgspec.field(name="fmspc")
    evaluation_number: int = msgspec.field(name="tcbEvaluationDataNumber")
    levels: tuple[TcbLevel, ...] = msgspec.field(name="tcbLevels")
    modules: tuple[TdxModuleIdentity, ...] = msgspec.field(name="tdxModuleIdentities", default=())


class QeIdentity(msgspec.Struct, frozen=True):
    """What a quoting enclave must be."""

    id: str
    version: int
    issue_date: datetime = msgspec.field(name="issueDate")
    next_update: datetime = msgspec.field(name="nextUpdate")
    evaluation_number: int = msgspec.field(name="tcbEvaluationDataNumber")
    misc_select: str = msgspec.field(name="miscselect")
    misc_select_mask: str = msgspec.field(name="miscselectMask")
    attributes: str
    attributes_mask: str = msgspec.field(name="attributesMask")
    mr_signer: str = msgspec.field(name="mrsigner")
    isv_prod_id: int = msgspec.field(name="isvprodid")
    levels: tuple[IsvLevel, ...] = msgspec.field(name="tcbLevels")


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbVersions:
    """The security versions that one quote shows.

    Attributes:
        sgx: the processor's 16 components, from the platform's certificate.
        pce: the provisioning enclave's, from there too.
        tdx: tee_tcb_svn of a trust domain, when it was launched; b"" for SGX.
        tdx_now: tee_tcb_svn2, what the platform has now; b"" where it does not say.
        qe: the quoting enclave's.
    """

    sgx: bytes
    pce: int
    tdx: bytes = b""
    tdx_now: bytes = b""
    qe: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """One security version that is too low.

    Attributes:
        component: name and index, such as "sgxtcbcomponents[0]".
        description: what it is, in Intel's words, or "".
        actual: the version in the Evidence.
        needed: the version of the level that is compared with.
        level: that level, in words.
    """

    component: str
    description: str
    actual: int
    needed: int
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the documents say of one platform.

    Attributes:
        status: of platform, TDX module and quoting enclave, the worst of them.
        date: of the platform's level, or "".
        advisories: of all levels met.
        shortfalls: every version that keeps it from the best level.
        relaunch_helps: what is short is what the trust domain was launched with; the platform has
            been updated since.
    """

    status: TcbStatus
    date: str
    advisories: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...]
    relaunch_helps: bool


def assess(info: TcbInfo, identity: QeIdentity, versions: TcbVersions) -> Assessment:
    """Compare the versions with every level.

    Both documents must be authentic; that is not checked here.
    """
    levels = _sorted(info.levels, tdx=bool(versions.tdx))
    level = next((each for each in levels if not _short_of(each, versions)), None)
    status = TcbStatus.BELOW_EVERY_LEVEL if level is None else level.status
    advisories = list(level.advisories) if level is not None else []
    shortfalls = _shortfalls(levels, level, versions)
    relaunch = any(each.component.startswith("tdx") for each in shortfalls)
    if relaunch:
        now = TcbVersions(sgx=versions.sgx, pce=versions.pce, tdx=versions.tdx_now)
        relaunch = bool(versions.tdx_now) and not any(
            each.component.startswith("tdx") for each in _shortfalls(levels, level, now)
        )
    for name, own, svn in (
        ("tdxModule.isvsvn", _module_levels(info, versions), (versions.tdx or b"\0")[0]),
        ("qe.isvsvn", identity.levels, versions.qe),
    ):
        if not own:
            continue
        met, short = _isv_level(own, svn, name)
        status = max(
            status,
            met.status if met is not None else TcbStatus.BELOW_EVERY_LEVEL,
            key=lambda each: each.rank,
        )
        advisories += met.advisories if met is not None else ()
        shortfalls += short
    return Assessment(
        status=status,
        date=level.date if level is not None else "",
        advisories=tuple(dict.fromkeys(advisories)),
        shortfalls=tuple(shortfalls),
        relaunch_helps=relaunch,
    )


def decode_tcb_info(text: str, *, format: str) -> TcbInfo:
    """Decode the signed part of TCB info.

    Raises:
        DecodeError: not TCB info of version 3, or a level without its 16 components.
    """
    info = _decode(text, TcbInfo, format)
    for level in info.levels:
        tdx = len(level.tcb.tdx)
        if len(level.tcb.sgx) != _COMPONENTS or tdx != (_COMPONENTS if info.id == "TDX" else 0):
            raise DecodeError("a level without its 16 components", format=format)
    return info


def decode_qe_identity(text: str, *, format: str) -> QeIdentity:
    """Decode the signed part of the identity of a quoting enclave.

    Raises:
        DecodeError: it is not.
    """
    return _decode(text, QeIdentity, format)


_T = TypeVar("_T", TcbInfo, QeIdentity)


def _decode(text: str, kind: type[_T], format: str) -> _T:
    try:
        value = msgspec.json.decode(text.encode(), type=kind)
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise DecodeError(str(exc), format=format) from exc
    if value.issue_date.tzinfo is None or value.next_update.tzinfo is None:
        raise DecodeError("a date without a zone", format=format)
    return value


def _sorted(levels: Sequence[TcbLevel], *, tdx: bool) -> list[TcbLevel]:
    """Sort as Intel's own library does: the highest versions first, whatever the text's order."""

    def height(level: TcbLevel) -> tuple[list[int], int, list[int]]:
        tcb = level.tcb
        return (
            [each.svn for each in tcb.sgx],
            tcb.pce_svn,
            [each.svn for each in tcb.tdx] if tdx else [],
        )

    return sorted(levels, key=height, reverse=True)


def _short_of(level: TcbLevel, versions: TcbVersions) -> list[Shortfall]:
    tcb = level.tcb
    words = f"{level.status_word} level of {level.date[:10]}"
    compared = [
        (f"sgxtcbcomponents[{index}]", component.description, versions.sgx[index], component.svn)
        for index, component in enumerate(tcb.sgx)
    ]
    compared.append(("pcesvn", "Provisioning Certification Enclave", versions.pce, tcb.pce_svn))
    if versions.tdx:
        compared += [
            (f"tdxtcbcomponents[{index}]", component.description, actual, component.svn)
            for index, (component, actual) in enumerate(zip(tcb.tdx, versions.tdx, strict=True))
        ]
    return [
        Shortfall(component=name, description=what, actual=actual, needed=needed, level=words)
        for name, what, actual, needed in compared
        if actual < needed
    ]


def _shortfalls(
    levels: Sequence[TcbLevel], met: TcbLevel | None, versions: TcbVersions
) -> list[Shortfall]:
    """Return what is missing to the nearest of the best levels."""
    if not levels:
        return []
    best = min(level.status.rank for level in levels)
    if met is not None and met.status.rank == best:
        return []
    wanted = [level for level in levels if level.status.rank == best]
    return min((_short_of(level, versions) for level in wanted), key=len)


def _module_levels(info: TcbInfo, versions: TcbVersions) -> tuple[IsvLevel, ...]:
    # Octet 1 of tee_tcb_svn is the module's major version; 0 is the first one, without an identity.
    if len(versions.tdx) < 2 or not versions.tdx[1]:
        return ()
    wanted = f"TDX_{versions.tdx[1]:02X}"
    return next((each.levels for each in info.modules if each.id.upper() == wanted), ())


def _isv_level(
    levels: Sequence[IsvLevel], svn: int, name: str
) -> tuple[IsvLevel | None, list[Shortfall]]:
    ordered = sorted(levels, key=lambda level: level.tcb.isvsvn, reverse=True)
    met = next((level for level in ordered if level.tcb.isvsvn <= svn), None)
    best = min(ordered, key=lambda level: (level.status.rank, level.tcb.isvsvn))
    if met is not None and met.status.rank <= best.status.rank:
        return met, []
    what = "TDX module" if name.startswith("tdx") else "quoting enclave"
    words = f"{best.status_word} level of {best.date[:10]}"
    short = Shortfall(
        component=name, description=what, actual=svn, needed=best.tcb.isvsvn, level=words
    )
    return met, [short]
