# SPDX-License-Identifier: Apache-2.0
"""A peer is one process and no other, even when it has ended and its number goes to somebody else."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from troth.control_plane import peer_process
from troth.control_plane.peer_process import PeerProcess

CONNECT = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
sys.stdin.read()
"""


@pytest.fixture
def path() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tr", dir="/tmp"))
    yield directory / "s"
    shutil.rmtree(directory)


@contextlib.contextmanager
def connected(path: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """Give the accepted end of a connection that another process made."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-c", CONNECT, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            accepted, _ = listener.accept()
            with accepted:
                yield accepted, process
                if process.stdin and process.poll() is None:
                    process.stdin.close()
                    process.wait(10)


def test_a_peer_is_the_process_that_connected(path: Path) -> None:
    with connected(path) as (accepted, process), PeerProcess.of_socket(accepted) as peer:
        assert (peer.pid, peer.uid, peer.gid) == (process.pid, os.getuid(), os.getgid())
        assert peer.alive
        assert peer.fileno() >= 0


def test_a_peer_that_has_ended_is_not_alive_even_before_it_is_reaped(path: Path) -> None:
    with connected(path) as (accepted, process), PeerProcess.of_socket(accepted) as peer:
        assert peer.alive
        os.kill(process.pid, 9)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()  # a zombie still has its number
        assert not peer.alive
        process.wait(10)
        assert not peer.alive


def test_a_peer_that_had_ended_before_it_was_looked_at_is_not_alive(path: Path) -> None:
    with connected(path) as (accepted, process):
        os.kill(process.pid, 9)
        process.wait(10)
        with PeerProcess.of_socket(accepted) as peer:
            assert not peer.alive


def test_an_older_kernel_gives_the_same_answers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_process, "_SO_PEERPIDFD", 9999)
    with connected(path) as (accepted, process):
        with PeerProcess.of_socket(accepted) as peer:
            assert (peer.pid, peer.alive) == (process.pid, True)
        os.kill(process.pid, 9)
        process.wait(10)
        with PeerProcess.of_socket(accepted) as peer:
            assert not peer.alive


def test_on_an_older_kernel_a_process_of_another_user_is_not_the_peer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_process, "_SO_PEERPIDFD", 9999)
    monkeypatch.setattr(peer_process, "_effective_ids", lambda pid: (os.getuid() + 1, pid))
    with connected(path) as (accepted, _), PeerProcess.of_socket(accepted) as peer:
        assert not peer.alive


def test_a_named_process_is_held(path: Path) -> None:
    with connected(path) as (_, process):
        named = PeerProcess.named(process.pid)
        assert named is not None
        with named:
            assert (named.pid, named.uid, named.alive) == (process.pid, os.getuid(), True)
            os.kill(process.pid, 9)
            process.wait(10)
            assert not named.alive


@pytest.mark.parametrize("pid", [0, -1, -(2**31), 2**22 + 1])
def test_a_number_that_is_nobodys_names_nobody(pid: int) -> None:
    assert PeerProcess.named(pid) is None


def test_letting_go_twice_is_harmless() -> None:
    peer = PeerProcess.named(os.getpid())
    assert peer is not None
    peer.close()
    peer.close()
    assert not peer.alive
