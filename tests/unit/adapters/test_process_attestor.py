# SPDX-License-Identifier: Apache-2.0
"""What is found out about a process, and what it cannot say about itself."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.adapters import process_attestor
from troth.adapters.process_attestor import ProcessAttestor, selectors_of_cgroup
from troth.errors import UnavailableError
from troth.identity.selector import Selector
from troth.mesh.workload_entry import WORKLOAD_SELECTOR_FORMS

ID = "0123456789abcdef" * 4
POD = "9eebccd2-12bf-40a6-b262-65fe0487d453"
STATUS = """Name:\tsome \tprogram
Uid:\t1000\t1001\t1002\t1003
Gid:\t2000\t2001\t2002\t2003
Groups:\t4 24 2001
"""


def texts(selectors: frozenset[Selector] | set[Selector]) -> set[str]:
    return {str(selector) for selector in selectors}


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Run a copy of a program of its own, and give its path and process id."""
    path = tmp_path / "sleeper"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", path)
    with subprocess.Popen([path, "60"]) as process:
        yield path, process.pid
        process.kill()


def test_a_real_process_is_known_by_its_user_groups_and_program(
    program: tuple[Path, int],
) -> None:
    path, pid = program
    found = texts(ProcessAttestor().attest(pid, with_digest=True))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert {
        f"unix:uid:{os.getuid()}",
        f"unix:gid:{os.getgid()}",
        f"unix:user:{pwd.getpwuid(os.getuid()).pw_name}",
        f"unix:group:{grp.getgrgid(os.getgid()).gr_name}",
        f"unix:path:{path}",
        f"unix:sha256:{digest}",
    } <= found
    assert {f"unix:supplementary_gid:{gid}" for gid in os.getgroups()} <= found


def test_a_digest_is_made_when_asked_for(program: tuple[Path, int]) -> None:
    _, pid = program
    assert not any("sha256" in text for text in texts(ProcessAttestor().attest(pid)))


def test_a_program_that_was_replaced_on_disk_is_still_the_one_that_runs(
    program: tuple[Path, int],
) -> None:
    path, pid = program
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    path.write_bytes(b"something that is trusted")
    found = texts(ProcessAttestor().attest(pid, with_digest=True))
    assert f"unix:sha256:{digest}" in found
    assert not any(text.startswith("unix:path:") for text in found)


def test_a_digest_is_made_once_for_one_content_of_a_file(
    program: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pid = program
    made = []
    sha256 = hashlib.sha256

    def counted() -> object:
        made.append(1)
        return sha256()

    monkeypatch.setattr(process_attestor.hashlib, "sha256", counted)
    attestor = ProcessAttestor()
    first = attestor.attest(pid, with_digest=True)
    assert attestor.attest(pid, with_digest=True) == first
    assert made == [1]


def test_a_program_that_is_too_long_gets_no_digest(program: tuple[Path, int]) -> None:
    _, pid = program
    found = ProcessAttestor(max_program_bytes=1000).attest(pid, with_digest=True)
    assert not any("sha256" in text for text in texts(found))


def test_a_process_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        ProcessAttestor().attest(2**22 + 1)


def procfs(
    directory: Path, *, status: str = STATUS, cgroup: str = "0::/\n", exe: str = "/bin/x"
) -> ProcessAttestor:
    place = directory / "7"
    place.mkdir()
    (place / "status").write_text(status)
    (place / "cgroup").write_text(cgroup)
    (place / "exe").symlink_to(exe)
    return ProcessAttestor(directory)


def test_the_effective_credentials_count(tmp_path: Path) -> None:
    found = texts(procfs(tmp_path).attest(7))
    numbers = {text for text in found if text[-1].isdigit()}
    assert numbers >= {
        "unix:uid:1001",
        "unix:gid:2001",
        "unix:supplementary_gid:4",
        "unix:supplementary_gid:24",
        "unix:supplementary_gid:2001",
    }
    assert not any("1000" in text or "1002" in text for text in numbers)


@pytest.mark.parametrize("status", ["", "Uid:\t1\n", "Uid:\tx\ty\nGid:\t1\t1\n", "\xff\xfe"])
def test_a_status_that_cannot_be_read_makes_nobody(tmp_path: Path, status: str) -> None:
    with pytest.raises(UnavailableError):
        procfs(tmp_path, status=status).attest(7)


def test_groups_have_a_limit(tmp_path: Path) -> None:
    groups = " ".join(map(str, range(50_000, 50_200)))
    attestor = procfs(tmp_path, status=STATUS.replace("4 24 2001", groups))
    found = texts(attestor.attest(7))
    count = sum(text.startswith("unix:supplementary_gid") for text in found)
    assert count == process_attestor.MAX_GROUPS


@pytest.mark.parametrize("exe", ["/a (deleted)", "relative", "/a\nb", "/" + "x" * 1100])
def test_a_path_that_is_none_is_not_a_selector(tmp_path: Path, exe: str) -> None:
    place = tmp_path / "7"
    attestor = procfs(tmp_path, exe="/bin/x")
    (place / "exe").unlink()
    (place / "exe").symlink_to(exe)
    assert not any(text.startswith("unix:path") for text in texts(attestor.attest(7)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", set()),
        ("/system.slice/nginx.service", {"systemd:id:nginx.service"}),
        (
            "/system.slice/system-web.slice/web@1.service/sub/group",
            {"systemd:id:web@1.service"},
        ),
        ("/init.scope", {"systemd:id:init.scope"}),
        ("/user.slice/user-1.slice/session-3.scope", {"systemd:id:session-3.scope"}),
        (f"/docker/{ID}", {f"docker:container_id:{ID}"}),
        (f"/docker/{ID}/inner", {f"docker:container_id:{ID}"}),
        (f"/system.slice/docker-{ID}.scope", {f"docker:container_id:{ID}"}),
        (
            f"/kubepods/besteffort/pod{POD}/{ID}",
            {f"k8s:pod-uid:{POD}", f"k8s:container_id:{ID}"},
        ),
        (f"/kubepods/pod{POD}/{ID}", {f"k8s:pod-uid:{POD}", f"k8s:container_id:{ID}"}),
        (
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"
                f"{POD.replace('-', '_')}.slice/cri-containerd-{ID}.scope"
            ),
            {f"k8s:pod-uid:{POD}", f"k8s:container_id:{ID}"},
        ),
        (
            f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{ID}.scope",
            {f"k8s:pod-uid:{POD}", f"k8s:container_id:{ID}"},
        ),
    ],
)
def test_a_control_group_names_unit_container_and_pod(path: str, expected: set[str]) -> None:
    assert texts(selectors_of_cgroup(f"0::{path}\n")) == expected
    version_1 = f"9:name=systemd:{path}\n5:devices:/other.service\n"
    assert texts(selectors_of_cgroup(version_1)) == expected


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        # Below a unit that was delegated to a user, names are that user's to choose.
        (f"/user.slice/user-1.slice/user@1.service/docker-{ID}.scope", "user@1.service"),
        (f"/user.slice/user-1.slice/user@1.service/docker/{ID}", "user@1.service"),
        ("/user.slice/user-1.slice/user@1.service/trusted.service", "user@1.service"),
        (f"/user.slice/user-1.slice/user@1.service/kubepods/pod{POD}/{ID}", "user@1.service"),
        (f"/system.slice/evil.service/system.slice/docker-{ID}.scope", "evil.service"),
        ("/system.slice/evil.service/kubepods.slice/x.service", "evil.service"),
    ],
)
def test_a_group_that_somebody_made_below_a_unit_of_his_own_is_that_unit(
    path: str, unit: str
) -> None:
    assert texts(selectors_of_cgroup(f"0::{path}\n")) == {f"systemd:id:{unit}"}


@pytest.mark.parametrize(
    "text",
    [
        "0::/../../system.slice/nginx.service",
        "0::/../docker/" + ID,
        "5:devices:/system.slice/nginx.service",
        "1:name=other:/system.slice/nginx.service",
        "nonsense",
        "",
        "0::/plain/nginx.service",
        f"0::/docker/{ID}0",
        f"0::/docker/{ID.upper()}",
        f"0::/x/docker/{ID}",
    ],
)
def test_another_line_says_nothing(text: str) -> None:
    assert not selectors_of_cgroup(text)


@given(st.text(max_size=300))
def test_whatever_a_control_group_is_called_only_good_selectors_come_of_it(text: str) -> None:
    for selector in selectors_of_cgroup(text):
        first, _, rest = selector.value.partition(":")
        pattern, _ = WORKLOAD_SELECTOR_FORMS[f"{selector.type}:{first}"]
        assert pattern.fullmatch(rest)


def test_every_selector_of_a_real_process_is_one_that_entries_can_have() -> None:
    for selector in ProcessAttestor().attest(os.getpid(), with_digest=True):
        first, _, rest = selector.value.partition(":")
        pattern, _ = WORKLOAD_SELECTOR_FORMS[f"{selector.type}:{first}"]
        assert pattern.fullmatch(rest), selector
