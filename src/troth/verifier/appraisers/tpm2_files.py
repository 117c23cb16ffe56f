# SPDX-License-Identifier: Apache-2.0
"""Files that the kernel measured against the list of described ones.

Reference Values about files have the measurement key "tpm2.file", the digest of the file's
content, and the path as their name; without a name the content may be anywhere. Together, those of
all states are the list of what may be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from troth.endorsement.reference_value import ReferenceValue
from troth.evidence.tpm2.measurements import Measurements
from troth.formats.tpm.algorithms import HASH_BY_NAME, STRONG_HASHES
from troth.formats.tpm.ima_log import BOOT_AGGREGATE, ImaEntry
from troth.verifier.finding import Finding

__all__ = ["FILE_KEY", "MAX_FILE_FINDINGS", "FileAppraisal", "appraise_files"]

FILE_KEY: Final = "tpm2.file"

MAX_FILE_FINDINGS: Final = 20
"""Unknown files that are told one by one."""

_APPROVED, _UNRECOGNISED = 2, 32


@dataclass(frozen=True, slots=True)
class FileAppraisal:
    """The conclusion about files.

    Attributes:
        file_system: value of the claim, or None where nothing is known.
        findings: what led to it.
        matched: ids of the values that matched.
    """

    file_system: int | None = None
    findings: Sequence[Finding] = ()
    matched: Sequence[str] = field(default=(), repr=False)


def appraise_files(
    measured: Measurements, values: Sequence[ReferenceValue], submod: str
) -> FileAppraisal:
    """Compare every measured file with the described ones."""
    files = measured.files
    if files is None:
        return FileAppraisal(_UNRECOGNISED, [_no_log(values, submod)]) if values else _NOTHING
    findings = list(_wrong_aggregate(measured, submod))
    if not values:
        findings.append(_no_values(files, submod))
        wrong = measured.is_boot_aggregate_right is False
        return FileAppraisal(_UNRECOGNISED if wrong else None, findings)
    described = _Described(values)
    unknown = [
        entry
        for entry in files
        if entry.path != BOOT_AGGREGATE and (entry.is_violation or not described.has(entry))
    ]
    findings += (_unknown(entry, submod) for entry in unknown[:MAX_FILE_FINDINGS])
    if len(unknown) > MAX_FILE_FINDINGS:
        findings.append(_more(len(unknown) - MAX_FILE_FINDINGS, len(unknown), submod))
    return FileAppraisal(
        _UNRECOGNISED if findings else _APPROVED, findings, tuple(described.matched)
    )


_NOTHING: Final = FileAppraisal()


class _Described:
    """The described files, by digest."""

    def __init__(self, values: Sequence[ReferenceValue]) -> None:
        self.matched: dict[str, None] = {}
        self._ids: dict[tuple[str, bytes], dict[str, str]] = {}
        for value in values:
            if value.uncomparable:  # what cannot be compared never matches
                continue
            for name, digest in value.digests.items():
                self._ids.setdefault((name, digest), {})[value.name] = value.id

    def has(self, entry: ImaEntry) -> bool:
        """Say whether the file's content is described, for its path or for any."""
        hash_ = HASH_BY_NAME.get(entry.hash)
        if hash_ is None or hash_.id not in STRONG_HASHES:
            return False
        names = self._ids.get((entry.hash, entry.digest))
        found = names and (names.get(entry.path) or names.get(""))
        if not found:
            return False
        self.matched[found] = None
        return True


def _wrong_aggregate(measured: Measurements, submod: str) -> Iterator[Finding]:
    if measured.is_boot_aggregate_right is not False:
        return
    yield Finding(
        claim="ima-log.boot-aggregate-matches",
        expected="an IMA log that begins with a hash over the quoted PCR 0 to 9",
        actual="it begins with another hash, or without one",
        rule="Linux IMA: the first entry ties the log to the boot",
        remedy="Find out which kernel was started, and from which firmware; another kernel may "
        "have been started from a running one (kexec).",
        submod=submod,
        severity="warning",
    )


def _unknown(entry: ImaEntry, submod: str) -> Finding:
    digest = f"{entry.hash or 'unknown hash'}:{entry.digest.hex()}"
    if entry.is_violation:
        actual = (
            "a violation: it was being written while it was measured, so its content is unknown"
        )
    elif entry.hash == "sha-1":
        actual = f"{digest}: SHA-1 identifies no file any more"
    else:
        actual = f"{digest}: not described"
    return Finding(
        claim=f"ima-log[{entry.number}] {entry.path}",
        expected="a described file",
        actual=actual,
        rule=f"Reference Values ({FILE_KEY}): every measured file must be described",
        remedy="If the file belongs there, provision its digest; if not, find out who put it "
        "there.",
        submod=submod,
        severity="warning",
    )


def _more(count: int, total: int, submod: str) -> Finding:
    return Finding(
        claim="ima-log",
        expected="described files only",
        actual=f"{count} more unknown files, {total} altogether",
        rule=f"at most {MAX_FILE_FINDINGS} files are told one by one",
        remedy="Provision what belongs there, then look at what is left.",
        submod=submod,
        severity="warning",
    )


def _no_log(values: Sequence[ReferenceValue], submod: str) -> Finding:
    return Finding(
        claim="ima-log",
        expected=f"an IMA log, since {len(values)} files are described",
        actual="none was sent",
        rule=f"Reference Values ({FILE_KEY}) are there to be compared",
        remedy="Have the node send its IMA log and quote PCR 10, or withdraw the values.",
        submod=submod,
        severity="warning",
    )


def _no_values(files: Sequence[ImaEntry], submod: str) -> Finding:
    return Finding(
        claim="ima-log",
        expected=f"Reference Values ({FILE_KEY})",
        actual=f"none provisioned; {len(files)} measured files were not compared",
        rule="no Reference Values, no affirmation (RFC 9334 section 8.3)",
        remedy="Provision the digests of the files that belong on the node.",
        submod=submod,
        severity="note",
    )
