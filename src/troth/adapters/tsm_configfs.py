# SPDX-License-Identifier: Apache-2.0
"""The Attester of a confidential VM: reports through the Linux kernel's configfs-tsm.

One directory serves all kinds of VMs. For each report a process makes an entry below it, writes
the challenge to `inblob`, and reads `outblob` (the report) and `auxblob` (what the host hands along,
such as certificates). `generation` counts writes, so that a process notices when another one has
written into its entry between its own write and its read.

Source: Linux Documentation/ABI/testing/configfs-tsm-report (6.7 and later).
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from troth.errors import ApiMisuseError, UnavailableError, UnsupportedError
from troth.evidence.attester import AttesterDescription
from troth.evidence.registry import SCHEMES, scheme
from troth.evidence.tsm_report import TSM_REPORT_CBOR, TsmReport

__all__ = [
    "PROVIDERS",
    "REPORT_DIRECTORY",
    "ConfigfsReports",
    "TsmAttester",
    "TsmEntry",
    "TsmReports",
    "read_report",
]

REPORT_DIRECTORY: Final = Path("/sys/kernel/config/tsm/report")

PROVIDERS: Final[Mapping[str, str]] = {
    "sev_guest": "sev_snp",
    "tdx_guest": "tdx",
    "arm_cca_guest": "cca",
}
"""The kernel's name of what answers, to the scheme's one word."""

CHALLENGE_SIZE: Final = 64
"""Octets of `inblob`: all providers of today take exactly that many."""

_MAX_BLOB: Final = 65_536
# How kernels say that this provider has no such attribute, or nothing in it.
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENXIO, errno.EOPNOTSUPP})
_ATTEMPTS: Final = 3
_MISSING: Final = (
    "Mount configfs (mount -t configfs none /sys/kernel/config) on a kernel of 6.7 or later whose "
    "driver for this kind of VM is loaded (sev-guest, tdx-guest, arm-cca-guest)."
)


class TsmEntry(Protocol):
    """One report being made."""

    def write(self, attribute: str, value: bytes) -> None:
        """Write an attribute, such as "inblob"."""
        ...

    def read(self, attribute: str) -> bytes:
        """Return an attribute, such as "outblob".

        Raises:
            OSError: as the kernel says; ENOENT where it has no such attribute.
        """
        ...


class TsmReports(Protocol):
    """Where entries are made. The kernel's directory in production, a fake of it in tests."""

    @property
    def source(self) -> str:
        """The place, for people."""
        ...

    def available(self) -> bool:
        """Say whether the interface is there at all."""
        ...

    def entry(self) -> AbstractContextManager[TsmEntry]:
        """Make an entry, and remove it in the end.

        Raises:
            OSError: as the kernel says.
        """
        ...


@dataclass(frozen=True, slots=True)
class ConfigfsReports:
    """The kernel's directory.

    Attributes:
        directory: where configfs-tsm is.
    """

    directory: Path = REPORT_DIRECTORY

    @property
    def source(self) -> str:
        """The directory."""
        return str(self.directory)

    def available(self) -> bool:
        """Say whether the directory is there."""
        return self.directory.is_dir()

    @contextmanager
    def entry(self) -> Iterator[TsmEntry]:
        """Make a directory of a name that no other process has, and remove it in the end."""
        path = self.directory / f"troth-{os.getpid()}-{secrets.token_hex(8)}"
        path.mkdir()
        try:
            yield _ConfigfsEntry(path)
        finally:
            path.rmdir()


@dataclass(frozen=True, slots=True)
class _ConfigfsEntry:
    path: Path

    def write(self, attribute: str, value: bytes) -> None:
        # Not to be created: where the kernel has no such attribute, there is none.
        descriptor = os.open(self.path / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(descriptor, value) != len(value):
                raise OSError(errno.EIO, "short write")
        finally:
            os.close(descriptor)

    def read(self, attribute: str) -> bytes:
        with (self.path / attribute).open("rb", buffering=0) as file:
            found = b""
            while part := file.read(_MAX_BLOB):
                found += part
                if len(found) > _MAX_BLOB:
                    raise OSError(errno.EFBIG, "longer than any report")
        return found


def read_report(reports: TsmReports, challenge: bytes) -> TsmReport:
    """Return a report that carries `challenge`, and what the host handed along.

    Raises:
        ApiMisuseError: the challenge has not 64 octets.
        UnavailableError: the interface is not there, or the kernel or the host refuses.
    """
    if len(challenge) != CHALLENGE_SIZE:
        raise ApiMisuseError(f"a challenge has {CHALLENGE_SIZE} octets, not {len(challenge)}")
    try:
        for _ in range(_ATTEMPTS):
            with reports.entry() as entry:
                found = _undisturbed(entry, challenge)
            if found is not None:
                return found
    except OSError as exc:
        raise _unavailable(reports, exc) from exc
    raise UnavailableError(
        f"{reports.source}: another process keeps writing into our entries",
        remedy="Find out which process writes below it; each should have entries of its own.",
    )


def _undisturbed(entry: TsmEntry, challenge: bytes) -> TsmReport | None:
    """Return the report, or None where somebody else wrote to the entry in between."""
    before = _generation(entry)
    entry.write("inblob", challenge)
    outblob = entry.read("outblob")
    auxblob = _optional(entry, "auxblob")
    provider = _provider(entry)
    after = _generation(entry)
    if before is not None and after != before + 1:
        return None
    return TsmReport(provider=provider, outblob=outblob, auxblob=auxblob)


def _generation(entry: TsmEntry) -> int | None:
    text = _optional(entry, "generation").strip()
    return int(text) if text.isdigit() else None


def _provider(entry: TsmEntry) -> str:
    return entry.read("provider").decode("ascii", "replace").strip()


def _optional(entry: TsmEntry, attribute: str) -> bytes:
    try:
        return entry.read(attribute)
    except OSError as exc:
        if exc.errno in _NOT_THERE:
            return b""
        raise


def _unavailable(reports: TsmReports, exc: OSError) -> UnavailableError:
    reason = f"{reports.source}: {exc.strerror or exc}"
    if exc.errno in {errno.ENOENT, errno.ENXIO, errno.ENODEV}:
        return UnavailableError(reason, remedy=_MISSING)
    if exc.errno in {errno.EACCES, errno.EPERM}:
        return UnavailableError(reason, remedy="Run the agent as root, or give it the directory.")
    if exc.errno in {errno.EBUSY, errno.EAGAIN}:
        # The firmware slows down guests that ask too often.
        return UnavailableError(reason, retry_after_seconds=2.0, remedy="Ask less often.")
    return UnavailableError(
        reason,
        remedy="The kernel or the host refuses to make a report; the kernel's log says more.",
    )


class TsmAttester:
    """Makes Evidence of the VM that this process runs in; implements the Attester port.

    Args:
        reports: the kernel's interface.

    Raises:
        UnavailableError: it is not there.
        UnsupportedError: a kind of VM that Troth does not know.
    """

    challenge_size = CHALLENGE_SIZE

    def __init__(self, reports: TsmReports | None = None) -> None:
        self._reports = reports or ConfigfsReports()
        try:
            with self._reports.entry() as entry:
                self._provider = _provider(entry)
        except OSError as exc:
            raise _unavailable(self._reports, exc) from exc
        name = PROVIDERS.get(self._provider, "")
        if name not in SCHEMES:
            raise UnsupportedError(
                f"the kernel's provider is {self._provider!r}; known are {', '.join(PROVIDERS)}",
                format=self._reports.source,
            )
        self.scheme = name
        # Where the host hands certificates along, they have to travel with the report.
        self.media_type = TSM_REPORT_CBOR if name == "sev_snp" else scheme(name).media_types[0]

    def attest(self, challenge: bytes) -> bytes:
        """Return Evidence that carries `challenge`.

        Raises:
            ApiMisuseError: it has not 64 octets.
            UnavailableError: the kernel does not answer, or not for this provider any more.
        """
        report = read_report(self._reports, challenge)
        if report.provider != self._provider:
            raise UnavailableError(
                f"{self._reports.source}: answered as {report.provider!r}, before as "
                f"{self._provider!r}"
            )
        return report.to_cbor() if self.scheme == "sev_snp" else report.outblob

    def describe(self) -> AttesterDescription:
        """Say what this Attester is, without making Evidence."""
        return AttesterDescription(
            scheme=self.scheme,
            media_type=self.media_type,
            source=self._reports.source,
            challenge_size=self.challenge_size,
            details={"kernel provider": self._provider},
        )
