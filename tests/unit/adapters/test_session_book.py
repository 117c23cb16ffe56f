# SPDX-License-Identifier: Apache-2.0
"""One session, one outcome: in memory, in a shared file, and between processes that race."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread

import pytest

from troth.adapters.session_book import SqliteSessionBook
from troth.errors import ConflictError, UnavailableError
from troth.verifier.session_book import MemorySessionBook, Outcome, SessionBook

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=150)
OUTCOME = Outcome(media_type="a/b", evidence=b"\x00evidence", result="a.b.c")


@pytest.fixture(params=["memory", "file"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionBook]:
    if request.param == "memory":
        yield MemorySessionBook(keep=100)
        return
    made = SqliteSessionBook(tmp_path / "sessions.db")
    yield made
    made.close()


def test_an_outcome_is_found_again(book: SessionBook) -> None:
    assert book.find(b"m" * 12) is None
    book.enter(b"m" * 12, OUTCOME, expires=LATER)
    assert book.find(b"m" * 12) == OUTCOME


def test_a_session_is_entered_once(book: SessionBook) -> None:
    book.enter(b"m", OUTCOME, expires=LATER)
    other = Outcome(media_type="x/y", evidence=b"other", result="x")
    for again in (other, None):
        with pytest.raises(ConflictError, match="used"):
            book.enter(b"m", again, expires=LATER)
    assert book.find(b"m") == OUTCOME


def test_what_was_given_up_or_forgotten_stays_used(book: SessionBook) -> None:
    book.enter(b"given up", None, expires=LATER)
    book.enter(b"forgotten", OUTCOME, expires=LATER)
    book.forget(b"forgotten")
    for mark in (b"given up", b"forgotten"):
        with pytest.raises(ConflictError):
            book.find(mark)
        with pytest.raises(ConflictError):
            book.enter(mark, OUTCOME, expires=LATER)


def test_entries_go_when_their_sessions_are_over(book: SessionBook) -> None:
    book.enter(b"old", OUTCOME, expires=NOW)
    book.enter(b"new", OUTCOME, expires=LATER)
    book.prune(now=NOW, keep=100)
    assert book.find(b"old") is None
    assert book.find(b"new") == OUTCOME


def test_the_oldest_outcomes_go_first_and_their_entries_stay(book: SessionBook) -> None:
    marks = [bytes([number]) for number in range(10)]
    for mark in marks:
        book.enter(mark, OUTCOME, expires=LATER)
    book.prune(now=NOW, keep=3)
    for mark in marks[:7]:
        with pytest.raises(ConflictError):
            book.find(mark)
    assert all(book.find(mark) == OUTCOME for mark in marks[7:])


def test_of_many_threads_one_enters_a_session(book: SessionBook) -> None:
    barrier, outcomes = Barrier(8), list[str]()

    def enter() -> None:
        barrier.wait()
        try:
            book.enter(b"raced", OUTCOME, expires=LATER)
        except ConflictError:
            outcomes.append("used")
        else:
            outcomes.append("entered")

    threads = [Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["entered", *["used"] * 7]


_CONTENDER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from troth.adapters.session_book import SqliteSessionBook
from troth.errors import ConflictError
book = SqliteSessionBook(Path(sys.argv[1]))
sys.stdin.readline()
entered = 0
for number in range(300):
    try:
        book.enter(number.to_bytes(12), None, expires=datetime(2030, 1, 1, tzinfo=UTC))
        entered += 1
    except ConflictError:
        pass
print(entered)
"""


def test_of_two_processes_one_enters_each_session(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", _CONTENDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for each in contenders:
        assert each.stdin
        each.stdin.write("go\n")
        each.stdin.flush()
    outputs = [each.communicate()[0] for each in contenders]
    assert all(each.returncode == 0 for each in contenders)
    assert sum(map(int, outputs)) == 300


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    book = SqliteSessionBook(tmp_path / "sessions.db")
    book.enter(b"m", OUTCOME, expires=LATER)
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    book.close()


def test_a_book_that_cannot_be_had_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot be used"):
        SqliteSessionBook(tmp_path / "absent" / "sessions.db")
    (tmp_path / "noise").write_bytes(os.urandom(4096))
    with pytest.raises(UnavailableError):
        SqliteSessionBook(tmp_path / "noise")
