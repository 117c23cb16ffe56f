# SPDX-License-Identifier: Apache-2.0
"""What Linux says about a process, as selectors in SPIRE's words.

Everything is read from procfs, by number. Whoever calls this holds the process by its pidfd and
looks whether it is alive afterwards: only then was all of it about that process.

What a process can choose for itself is not used: its command line, its environment, its name, and
control groups that it may have made below its own.

Source: proc_pid_status(5), proc_pid_exe(5), cgroups(7); systemd's docs/CGROUP_DELEGATION; the
cgroup drivers of Docker and of the kubelet.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from troth.errors import DecodeError, UnavailableError
from troth.identity.selector import Selector

__all__ = ["MAX_GROUPS", "MAX_PROGRAM_BYTES", "ProcessAttestor", "selectors_of_cgroup"]

MAX_PROGRAM_BYTES: Final = 512 * 1024 * 1024
"""A longer program gets no digest."""

MAX_GROUPS: Final = 64
"""Supplementary groups that become selectors; Linux allows 65,536."""

_MAX_DIGESTS: Final = 1024
_CHUNK: Final = 1 << 20
_DELETED: Final = " (deleted)"

_ID: Final = "[0-9a-f]{64}"
_POD: Final = "pod(?P<pod>[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})"
_QOS: Final = "(besteffort|burstable)"
# Whole prefixes, from the root of the hierarchy: below a unit of its own anybody who may delegate
# can make a group of any name, so a group that only *contains* such a part proves nothing.
_DOCKER: Final = re.compile(
    rf"/(docker/(?P<plain>{_ID})|system\.slice/docker-(?P<scope>{_ID})\.scope)(/.*)?"
)
_KUBEPODS: Final = re.compile(
    rf"/kubepods(/{_QOS})?/{_POD}/(?P<plain>{_ID})(/.*)?"
    rf"|/kubepods\.slice(/kubepods-{_QOS}\.slice)?/kubepods(-{_QOS})?-{_POD.replace('pod>', 'pod2>')}"
    rf"\.slice/[a-z-]+-(?P<scope>{_ID})\.scope(/.*)?"
)
_SLICE: Final = ".slice"
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.@\\-]{1,255}\.(service|scope)")


@dataclass(frozen=True, slots=True)
class _Status:
    uid: int
    gid: int
    groups: tuple[int, ...]


class ProcessAttestor:
    """Finds out the selectors of processes on this machine. Its methods block; any thread.

    Args:
        proc: where procfs is.
        max_program_bytes: longest program whose digest is made.
    """

    def __init__(
        self, proc: Path = Path("/proc"), *, max_program_bytes: int = MAX_PROGRAM_BYTES
    ) -> None:
        self._proc, self._max_program = proc, max_program_bytes
        self._lock = threading.Lock()
        self._digests: OrderedDict[tuple[int, ...], str] = OrderedDict()

    def attest(self, pid: int, *, with_digest: bool = False) -> frozenset[Selector]:
        """Return the selectors of the process that has this number now.

        Args:
            pid: its number.
            with_digest: make the SHA-256 of its program too, which reads all of it once.

        Raises:
            UnavailableError: there is no such process, or it cannot be looked at.
        """
        place = self._proc / str(pid)
        try:
            status = _read_status(place / "status")
            cgroup = (place / "cgroup").read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError, KeyError, IndexError) as exc:
            raise UnavailableError(f"process {pid} cannot be looked at ({exc})") from exc
        found = set(_credentials(status))
        found |= selectors_of_cgroup(cgroup)
        found |= self._program(place / "exe", with_digest=with_digest)
        return frozenset(found)

    def _program(self, exe: Path, *, with_digest: bool) -> set[Selector]:
        """Path and digest of the program; neither where we may not see it."""
        found: set[Selector] = set()
        with contextlib.suppress(OSError):
            target = str(exe.readlink())
            # A program that was replaced on disk is not what lies at that path now.
            if target.startswith("/") and not target.endswith(_DELETED) and target.isprintable():
                with contextlib.suppress(DecodeError):  # too long for a selector
                    found.add(Selector("unix", f"path:{target}"))
        if with_digest:
            with contextlib.suppress(OSError):
                digest = self._digest(exe)
                if digest:
                    found.add(Selector("unix", f"sha256:{digest}"))
        return found

    def _digest(self, exe: Path) -> str:
        # The open file is the program that runs, whatever its path names by now.
        with exe.open("rb") as file:
            key = _version_of(file.fileno())
            with self._lock:
                known = self._digests.get(key)
                if known is not None:
                    self._digests.move_to_end(key)
                    return known
            if os.fstat(file.fileno()).st_size > self._max_program:
                return ""
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            if _version_of(file.fileno()) != key:
                return ""  # written to while we read; the kernel forbids that for most programs
        made = digest.hexdigest()
        with self._lock:
            self._digests[key] = made
            while len(self._digests) > _MAX_DIGESTS:
                self._digests.popitem(last=False)
        return made


def _version_of(descriptor: int) -> tuple[int, ...]:
    """Name one content of one file: ctime cannot be set back, unlike mtime."""
    status = os.fstat(descriptor)
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _read_status(path: Path) -> _Status:
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    # Real, effective, saved, file system: the effective ones are what the process acts as.
    return _Status(
        uid=int(lines["Uid"].split()[1]),
        gid=int(lines["Gid"].split()[1]),
        groups=tuple(map(int, lines.get("Groups", "").split()[:MAX_GROUPS])),
    )


def _credentials(status: _Status) -> Iterator[Selector]:
    yield Selector("unix", f"uid:{status.uid}")
    yield Selector("unix", f"gid:{status.gid}")
    yield from _named("user", _user(status.uid))
    yield from _named("group", _group(status.gid))
    for number in status.groups:
        yield Selector("unix", f"supplementary_gid:{number}")
        yield from _named("supplementary_group", _group(number))


def _named(kind: str, name: str) -> Iterator[Selector]:
    if name and name.isprintable():
        yield Selector("unix", f"{kind}:{name}")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return ""


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return ""


def selectors_of_cgroup(text: str) -> set[Selector]:
    """Return what the content of /proc/PID/cgroup says: systemd unit, container, pod.

    The unit is the outermost one, which the system's manager made: what is below it belongs to
    whoever it was delegated to.
    """
    found: set[Selector] = set()
    for path in _cgroup_paths(text):
        if docker := _DOCKER.fullmatch(path):
            container = docker["plain"] or docker["scope"]
            found.add(Selector("docker", f"container_id:{container}"))
        elif pod := _KUBEPODS.fullmatch(path):
            container = pod["plain"] or pod["scope"]
            uid = (pod["pod"] or pod["pod2"]).replace("_", "-")
            found.add(Selector("k8s", f"pod-uid:{uid}"))
            found.add(Selector("k8s", f"container_id:{container}"))
        elif unit := _outermost_unit(path):
            found.add(Selector("systemd", f"id:{unit}"))
    return found


def _cgroup_paths(text: str) -> Iterator[str]:
    """Yield the paths that count: of version 2, or of systemd's own and the memory hierarchy of 1.

    A path that leaves our own namespace's root ("/../…") says nothing that we could check.
    """
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version_2 = hierarchy == "0" and not controllers
        if (version_2 or controllers in ("name=systemd", "memory")) and "/.." not in path:
            yield path


def _outermost_unit(path: str) -> str:
    for part in path.split("/")[1:]:
        if part.endswith(_SLICE):
            continue
        return part if _UNIT.fullmatch(part) else ""
    return ""
