# SPDX-License-Identifier: Apache-2.0
"""The fields of an SNP report against Reference Values: one rule for each kind of field.

Security version numbers of the TCB are packed into one number, so "at least" is taken part by part:
as numbers, a newer microcode would outweigh an older boot loader. The draft profile writes numbers
that are octet strings (policy, platform info, VMPL) in the report's order, published CoRIMs in the
opposite one; which one a value is in shows in where it has its bits (`_in_report_order`).

Source: draft-deeglaze-amd-sev-snp-corim-profile, "AMD SEV-SNP measurements".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from troth.endorsement.matching import Measured, Mismatch, compare
from troth.endorsement.reference_value import ReferenceValue
from troth.evidence.sev_snp.fields import TcbVersion
from troth.evidence.sev_snp.report import AttestationReport

__all__ = ["NOT_COMPARED", "compare_field"]

NOT_COMPARED: Final = frozenset({"version", "report_data", "report_id", "report_id_ma"})
"""Fields that differ from report to report, or say how it is written; published CoRIMs hold them."""

_TCB_FIELDS: Final[Mapping[str, Callable[[AttestationReport], TcbVersion]]] = {
    "reported_tcb": lambda report: report.reported_tcb,
    "current_tcb": lambda report: report.current_tcb,
    "committed_tcb": lambda report: report.committed_tcb,
    "launch_tcb": lambda report: report.launch_tcb,
}
# Field to its size in octets. None of their known values needs the upper half.
_NUMBERS_IN_OCTETS: Final = {"policy": 8, "platform_info": 8, "vmpl": 4}

_FIELDS: Final[Mapping[str, Callable[[AttestationReport], Measured]]] = {
    "guest_svn": lambda report: Measured(svn=report.guest_svn),
    "policy": lambda report: _number(report.policy.value, 8),
    "family_id": lambda report: _octets(report.family_id),
    "image_id": lambda report: _octets(report.image_id),
    "vmpl": lambda report: _number(report.vmpl, 4),
    "platform_info": lambda report: _number(report.platform_info.value, 8),
    "measurement": lambda report: _octets(report.measurement),
    "host_data": lambda report: _octets(report.host_data),
    "id_key_digest": lambda report: _octets(report.id_key_digest),
    "author_key_digest": lambda report: _octets(report.author_key_digest),
    "cpuid_fam_id": lambda report: Measured(integer=report.cpuid_family),
    "cpuid_mod_id": lambda report: Measured(integer=report.cpuid_model),
    "cpuid_step": lambda report: Measured(integer=report.cpuid_stepping),
    "chip_id": lambda report: _octets(report.chip_id),
    "current_version": lambda report: Measured(version=report.current_version),
    "committed_version": lambda report: Measured(version=report.committed_version),
}
_BY_SIZE: Final = {32: "sha-256", 48: "sha-384"}


def compare_field(value: ReferenceValue, report: AttestationReport) -> tuple[Mismatch, ...]:
    """Return every way in which the report does not meet the value; none is a match."""
    tcb = _TCB_FIELDS.get(value.key)
    if tcb is not None:
        return _compare_tcb(value, tcb(report))
    if not value.key:  # the profile's flags stand in a measurement without a key
        flags = Measured(flags={"is-debug": report.policy.debug_allowed})
        return compare(value, flags)
    field = _FIELDS.get(value.key)
    if field is None:
        return (Mismatch("key", value.key, "absent", "no field of a report"),)
    measured = replace(field(report), key=value.key)
    size = _NUMBERS_IN_OCTETS.get(value.key)
    if size is None:
        return compare(value, measured)
    ordered = _in_report_order(value, size)
    return tuple(_as_numbers(each, ordered) for each in compare(ordered, measured))


def _compare_tcb(value: ReferenceValue, measured: TcbVersion) -> tuple[Mismatch, ...]:
    if value.svn is None and value.min_svn is None:
        return (Mismatch("svn", "a TCB version", "none", "the reference states no TCB version"),)
    found: list[Mismatch] = []
    if value.svn is not None and value.svn != measured.value:
        expected = TcbVersion(value.svn, measured.turin)
        found += (
            Mismatch(name, str(expected.parts[name]), str(actual), "another version")
            for name, actual in measured.parts.items()
            if actual != expected.parts[name]
        )
    if value.min_svn is not None:
        lowest = TcbVersion(value.min_svn, measured.turin)
        found += (
            Mismatch(name, f"at least {wanted}", str(actual), "below the minimum")
            for name, (actual, wanted) in measured.behind(lowest).items()
        )
        if lowest.reserved_bits:
            text = f"{value.min_svn:#x}"
            found.append(Mismatch("svn", text, str(measured), "a TCB version of other chips"))
    rest = replace(value, svn=None, min_svn=None)
    if _states_more(rest):
        found.append(Mismatch("value", "a TCB version", "more", "no comparison is known for it"))
    return tuple(found) or _unequal(value, measured)


def _unequal(value: ReferenceValue, measured: TcbVersion) -> tuple[Mismatch, ...]:
    """Catch a difference outside the known parts."""
    if value.svn is None or value.svn == measured.value:
        return ()
    expected, actual = f"{value.svn:#x}", f"{measured.value:#x}"
    return (Mismatch("svn", expected, actual, "another TCB version"),)


def _states_more(value: ReferenceValue) -> bool:
    return bool(
        value.digests
        or value.registers
        or value.flags
        or value.uncomparable
        or value.version
        or value.raw_value is not None
        or value.int_range is not None
    )


def _in_report_order(value: ReferenceValue, size: int) -> ReferenceValue:
    """Return the value with its octets in the order of the report, least significant first.

    Only the lower half of these fields is in use. What has bits in the other half must have been
    written the other way round; no value in the report's order can be mistaken for it. Where
    nothing tells, the condition must hold both ways.
    """
    raw, mask = value.raw_value, value.raw_mask
    if raw is None or len(raw) != size or (mask is not None and len(mask) != size):
        return value
    reverse = replace(value, raw_value=raw[::-1], raw_mask=mask[::-1] if mask is not None else None)
    half = size // 2
    for octets in (mask, raw):
        if octets is not None and any(octets[:half]) != any(octets[half:]):
            return value if any(octets[:half]) else reverse
    if mask is not None and not any(raw):
        both = bytes(one | other for one, other in zip(mask, mask[::-1], strict=True))
        return replace(value, raw_mask=both)
    return value


def _as_numbers(mismatch: Mismatch, value: ReferenceValue) -> Mismatch:
    """Show octets that are a number as one."""
    raw, mask = value.raw_value, value.raw_mask
    if mismatch.attribute != "raw-value" or raw is None or len(mismatch.actual) != 2 * len(raw):
        return mismatch
    expected = _shown_number(raw) + (f" under mask {_shown_number(mask)}" if mask else "")
    actual = _shown_number(bytes.fromhex(mismatch.actual))
    return replace(mismatch, expected=expected, actual=actual)


def _shown_number(octets: bytes) -> str:
    return f"{int.from_bytes(octets, 'little'):#x}"


def _number(number: int, size: int) -> Measured:
    return Measured(raw_value=number.to_bytes(size, "little"), integer=number)


def _octets(octets: bytes) -> Measured:
    """Return octets that a CoRIM may describe as a digest or as they are."""
    algorithm = _BY_SIZE.get(len(octets))
    digests = {algorithm: octets} if algorithm is not None else {}
    return Measured(digests=digests, raw_value=octets)
