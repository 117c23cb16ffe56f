# SPDX-License-Identifier: Apache-2.0
"""Result keys follow each other so that no reader meets a result of a key it cannot know."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from troth.control_plane.result_keys import MAX_PUBLISHED_KEYS, ResultKeys
from troth.errors import ConfigurationError, ConflictError, UnavailableError
from troth.formats.jose import sign_jwt, verify_jwt
from troth.formats.keys import load_keys

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def ring(directory: Path, now: datetime = NOW) -> ResultKeys:
    return ResultKeys(directory, now=now, announce=DAY, keep=2 * HOUR)


def ids(keys: ResultKeys, now: datetime) -> list[str]:
    return [str(key["kid"]) for key in keys.jwk_set(now)["keys"]]  # type: ignore[attr-defined]


def test_the_first_key_signs_at_once_and_lasts_over_a_restart(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    assert ids(keys, NOW) == [keys.signer(NOW).key_id] == ids(ring(tmp_path), NOW)
    assert keys.jwk(NOW)["alg"] == "ES256"


def test_a_new_key_is_published_before_it_signs_and_the_old_one_after(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    old, new = keys.signer(NOW).key_id, keys.rotate(NOW)
    assert ids(keys, NOW) == [old, new]
    assert keys.signer(NOW + DAY - HOUR).key_id == old
    assert keys.signer(NOW + DAY).key_id == new
    assert ids(keys, NOW + DAY) == [new, old]
    assert ids(keys, NOW + DAY + 2 * HOUR) == [new]


def test_whoever_fetches_the_keys_within_the_announcement_verifies_every_result(
    tmp_path: Path,
) -> None:
    keys = ring(tmp_path)
    keys.rotate(NOW)
    # The reader fetched the set right after the announcement, and again only a day later.
    fetched = load_keys(json.dumps(keys.jwk_set(NOW)).encode(), source="reader")
    for hours in range(26):
        now = NOW + hours * HOUR
        verify_jwt(sign_jwt({"at": hours}, keys.signer(now)), fetched)


def test_only_one_key_is_announced_at_a_time(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    keys.rotate(NOW)
    with pytest.raises(ConflictError, match="announced already"):
        keys.rotate(NOW + HOUR)
    assert keys.rotate(NOW + DAY)


def test_no_more_keys_are_published_than_a_reader_tries(tmp_path: Path) -> None:
    keys = ResultKeys(tmp_path, now=NOW, announce=timedelta(0), keep=DAY)
    for _ in range(MAX_PUBLISHED_KEYS - 1):
        keys.rotate(NOW)
    with pytest.raises(ConflictError, match="published"):
        keys.rotate(NOW)


def test_the_private_half_goes_when_its_turn_is_over(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    old = keys.signer(NOW).key_id
    keys.rotate(NOW)
    keys.look(NOW)
    assert len(list(tmp_path.glob("*.key.pem"))) == 2
    keys.look(NOW + DAY)
    assert not (tmp_path / "result.key.pem").exists()
    assert old in ids(keys, NOW + DAY)
    assert keys.signer(NOW + DAY)
    keys.look(NOW + DAY + 2 * HOUR)
    assert old not in (tmp_path / "result-keys.schedule").read_text()


def test_keys_rotate_by_themselves_when_they_are_old(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    assert not keys.look(NOW + 6 * DAY, rotate_after=7 * DAY)
    assert keys.look(NOW + 7 * DAY, rotate_after=7 * DAY)
    assert not keys.look(NOW + 8 * DAY, rotate_after=7 * DAY)
    assert len(ids(keys, NOW + 7 * DAY)) == 2


def test_another_process_sees_the_new_key_at_its_next_look(tmp_path: Path) -> None:
    one, other = ring(tmp_path), ring(tmp_path)
    new = one.rotate(NOW)
    assert new not in ids(other, NOW)
    assert other.look(NOW)
    assert not other.look(NOW)
    assert new in ids(other, NOW)
    assert other.signer(NOW + DAY).key_id == new


def test_a_damaged_schedule_and_a_foreign_key_are_refused_and_left_alone(tmp_path: Path) -> None:
    ring(tmp_path)
    schedule = tmp_path / "result-keys.schedule"
    good = schedule.read_bytes()
    for damaged in (b"", b"[]", b"{}", good.replace(b"EC", b"XX"), good[:-4]):
        schedule.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match="schedule"):
            ring(tmp_path)
        assert schedule.read_bytes() == damaged
    schedule.write_bytes(good)
    (tmp_path / "other").mkdir()
    ring(tmp_path / "other")
    foreign = (tmp_path / "other" / "result.key.pem").read_bytes()
    (tmp_path / "result.key.pem").write_bytes(foreign)
    with pytest.raises(ConfigurationError, match="nobody can verify"):
        ring(tmp_path)


def test_without_the_private_key_nothing_is_signed(tmp_path: Path) -> None:
    ring(tmp_path)
    (tmp_path / "result.key.pem").unlink()
    with pytest.raises(UnavailableError, match="cannot be used"):
        ring(tmp_path)


def test_haste_lets_the_announced_key_sign_at_once(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    first = keys.signer(NOW).key_id
    with pytest.raises(ConflictError, match="no result key is announced"):
        keys.activate(NOW)
    second = keys.rotate(NOW)
    assert keys.signer(NOW).key_id == first
    assert keys.activate(NOW + HOUR) == second
    assert keys.signer(NOW + HOUR).key_id == second
    # What the first signed verifies for as long as it may last, and no longer.
    published = [key.key_id for key in keys.published(NOW + 3 * HOUR - timedelta(seconds=1))]
    assert published == [second, first]
    assert [key.key_id for key in keys.published(NOW + 3 * HOUR)] == [second]


def test_the_private_half_is_there_until_its_turn_is_over(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    first = keys.signer(NOW).key_id
    assert keys.private_key(first) is not None
    keys.rotate(NOW, announce=timedelta(0))
    keys.look(NOW)
    assert keys.private_key(first) is None
    assert keys.private_key("unknown") is None
