# SPDX-License-Identifier: Apache-2.0
"""Signing keys in files, and how one follows another without a gap.

A new key is published first and signs later, so that whoever fetches the keys now and then knows
it before its first signature comes. The old one stays published until the last thing that it
signed has ended, and its private half is deleted when its turn is over.

::

    made        signs                  the next one signs            gone
      |--------->|--------------------------->|----------------------->|
      published ...............................................................
       `announce`                                 `keep`

The schedule is one file; other processes on the same directory see a change at their next look.
Source: RFC 7517 section 5 (the published form).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from troth.control_plane.key_files import load_key, load_or_create_key, write_private
from troth.errors import ConfigurationError, ConflictError, DecodeError, UnavailableError
from troth.formats.jwk import decode_jwk, required_members
from troth.formats.keys import thumbprint
from troth.formats.signer import LocalSigner
from troth.formats.verification_key import VerificationKey

__all__ = ["MAX_PUBLISHED_KEYS", "RotatingKeys"]

_LOG = logging.getLogger(__name__)

MAX_PUBLISHED_KEYS = 8
"""Keys published at once: who verifies a signature tries at most this many."""

Prepare = Callable[[ec.EllipticCurvePrivateKey, str, bool], None]
"""Does what else a new key needs before it is published; told the key, its id, and if it is the
first."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One key in the schedule; times are whole seconds since 1970, 0 for no end."""

    file: str
    jwk: dict[str, str]
    made: int
    signs_from: int
    gone_at: int = 0

    @property
    def key_id(self) -> str:
        return self.jwk["kid"]


@dataclass(frozen=True, slots=True)
class _State:
    entries: tuple[_Entry, ...]
    keys: dict[str, VerificationKey]
    private: dict[str, ec.EllipticCurvePrivateKey]
    stamp: tuple[int, int]


class RotatingKeys:
    """The keys of one purpose in one directory. Methods may be called from any thread.

    Args:
        directory: where the key files are.
        name: of the purpose; file names and messages begin with it.
        now: the time.
        announce: how long a new key is published before it signs.
        keep: how long an old one stays published after its last signature; at least as long as
            the longest life of what is signed.
        prepare: what else a new key needs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        now: datetime,
        announce: timedelta = timedelta(days=1),
        keep: timedelta = timedelta(days=1),
        prepare: Prepare | None = None,
    ) -> None:
        """Load the keys, or make the first.

        Raises:
            ConfigurationError: a key file or the schedule is damaged or open to others.
            UnavailableError: the directory cannot be written, or the key that signs is gone.
        """
        self._directory, self._announce, self._keep = directory, announce, keep
        self._name, self._prepare = name, prepare
        self._lock = Lock()
        if not self._schedule.exists():
            file = f"{name}.key.pem"
            key = load_or_create_key(directory / file)
            stamp = int(now.timestamp())
            made = _entry(file, key, made=stamp, signs_from=stamp)
            if prepare is not None:
                prepare(key, made.key_id, True)  # noqa: FBT003 - positional by its type
            self._write([made])
        self._state = self._load()
        self.signer(now)

    @property
    def _schedule(self) -> Path:
        return self._directory / f"{self._name}-keys.schedule"

    def signer(self, now: datetime) -> LocalSigner:
        """Return the key that signs at `now`.

        Raises:
            UnavailableError: its file is gone.
        """
        entry = _signing(self._state.entries, now)
        key = self._state.private.get(entry.key_id)
        if key is None:
            raise UnavailableError(
                f"the {self._name} key {entry.file} cannot be used",
                remedy=f"restore it in {self._directory}",
            )
        return LocalSigner(key, entry.key_id)

    def private_key(self, key_id: str) -> ec.EllipticCurvePrivateKey | None:
        """Return the private half of a published key, or None once its turn is over."""
        return self._state.private.get(key_id)

    def published(self, now: datetime) -> list[VerificationKey]:
        """Return the public keys to verify with: the one that signs first."""
        state = self._state
        return [state.keys[entry.key_id] for entry in _published(state.entries, now)]

    def jwk_set(self, now: datetime) -> dict[str, object]:
        """Return the published keys as a JWK Set, the one that signs first."""
        return {"keys": [dict(entry.jwk) for entry in _published(self._state.entries, now)]}

    def jwk(self, now: datetime) -> dict[str, str]:
        """Return the key that signs, as a JWK."""
        return dict(_signing(self._state.entries, now).jwk)

    def stage(self, key_id: str, now: datetime) -> str:
        """Return "prepared", "active" or "old" for a published key."""
        entries = self._state.entries
        if key_id == _signing(entries, now).key_id:
            return "active"
        waiting = any(e.key_id == key_id and e.signs_from > now.timestamp() for e in entries)
        return "prepared" if waiting else "old"

    def rotate(self, now: datetime, *, announce: timedelta | None = None) -> str:
        """Make the next key and return its id; it is published now and signs after `announce`.

        Raises:
            ConflictError: one is announced already, or too many old ones are still published.
            UnavailableError: nothing was changed.
        """
        with self._lock:
            self._state = self._load()
            seconds = int(now.timestamp())
            waiting = [entry for entry in self._state.entries if entry.signs_from > seconds]
            if waiting:
                raise ConflictError(
                    f"the next {self._name} key is announced already and signs from "
                    f"{datetime.fromtimestamp(waiting[0].signs_from, UTC):%FT%TZ} on"
                )
            if len(_published(self._state.entries, now)) >= MAX_PUBLISHED_KEYS:
                raise ConflictError(
                    f"{MAX_PUBLISHED_KEYS} {self._name} keys are published",
                    remedy="wait until what the oldest signed has ended",
                )
            signs_from = int((now + (self._announce if announce is None else announce)).timestamp())
            present = _signing(self._state.entries, now)
            file = f"{self._name}-{os.urandom(6).hex()}.key.pem"
            key = load_or_create_key(self._directory / file)
            made = _entry(file, key, made=seconds, signs_from=signs_from)
            if self._prepare is not None:
                self._prepare(key, made.key_id, False)  # noqa: FBT003 - positional by its type
            retiring = msgspec.structs.replace(
                present, gone_at=signs_from + int(self._keep.total_seconds())
            )
            kept = [retiring if each is present else each for each in self._state.entries]
            self._write([*kept, made])
            self._state = self._load()
        return made.key_id

    def activate(self, now: datetime) -> str:
        """Let the key that is announced sign from now on, and return its id.

        Who has not fetched it yet cannot verify what it signs: that is the price of haste.

        Raises:
            ConflictError: none is announced.
            UnavailableError: nothing was changed.
        """
        with self._lock:
            self._state = self._load()
            seconds = int(now.timestamp())
            waiting = [each for each in self._state.entries if each.signs_from > seconds]
            if not waiting:
                raise ConflictError(
                    f"no {self._name} key is announced", remedy="announce the next one first"
                )
            gone_at = seconds + int(self._keep.total_seconds())
            changed = [
                msgspec.structs.replace(each, signs_from=seconds)
                if each is waiting[0]
                else msgspec.structs.replace(each, gone_at=min(each.gone_at or gone_at, gone_at))
                for each in self._state.entries
            ]
            self._write(changed)
            self._state = self._load()
            return waiting[0].key_id

    def look(self, now: datetime, *, rotate_after: timedelta | None = None) -> bool:
        """Take over what other processes changed, and do what is due; say whether keys changed.

        Args:
            now: timezone-aware.
            rotate_after: make the next key when the newest is this old; None for never.

        Raises:
            UnavailableError, ConfigurationError: the files cannot be used; nothing was changed.
        """
        before = self._state.stamp
        if rotate_after is not None:
            newest = max(entry.made for entry in self._state.entries)
            if now.timestamp() >= newest + rotate_after.total_seconds():
                with suppress(ConflictError):  # another process was faster
                    _LOG.info("the next %s key is %s", self._name, self.rotate(now))
        if self._stamp() != self._state.stamp:
            with self._lock:
                self._state = self._load()
        if self._untidy(now):
            self._tidy(now)
        return self._state.stamp != before

    def _untidy(self, now: datetime) -> bool:
        entries, private = self._state.entries, self._state.private
        signing, published = _signing(entries, now), _published(entries, now)
        seconds = now.timestamp()
        return len(published) < len(entries) or any(
            each is not signing and each.signs_from <= seconds and each.key_id in private
            for each in entries
        )

    def _tidy(self, now: datetime) -> None:
        """Delete private keys whose turn is over, and drop keys that are not published any more."""
        with self._lock:
            self._state = self._load()
            signing, seconds = _signing(self._state.entries, now), now.timestamp()
            for entry in self._state.entries:
                if entry is not signing and entry.signs_from <= seconds:
                    # What it signed verifies with the public key in the schedule.
                    with suppress(FileNotFoundError):
                        (self._directory / entry.file).unlink()
            left = _published(self._state.entries, now)
            if len(left) < len(self._state.entries):
                self._write(left)
            self._state = self._load()

    def _stamp(self) -> tuple[int, int]:
        try:
            status = self._schedule.stat()
        except OSError as exc:
            raise UnavailableError(f"{self._schedule} is gone: {exc.strerror}") from exc
        return status.st_mtime_ns, status.st_ino

    def _write(self, entries: Sequence[_Entry]) -> None:
        write_private(self._schedule, msgspec.json.format(msgspec.json.encode(entries)) + b"\n")

    def _load(self) -> _State:
        stamp = self._stamp()
        path = str(self._schedule)
        try:
            entries = msgspec.json.decode(self._schedule.read_bytes(), type=tuple[_Entry, ...])
            keys = {each.key_id: decode_jwk(each.jwk, format=path) for each in entries}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, DecodeError, KeyError) as exc:
            raise ConfigurationError(
                source=path, accepted=f"the schedule as Troth wrote it ({exc})"
            ) from exc
        if not entries:
            raise ConfigurationError(source=path, accepted=f"one {self._name} key at least")
        private = {
            each.key_id: self._private_key(each)
            for each in entries
            if (self._directory / each.file).exists()
        }
        return _State(entries, keys, private, stamp)

    def _private_key(self, entry: _Entry) -> ec.EllipticCurvePrivateKey:
        file = self._directory / entry.file
        key = load_key(file)
        if thumbprint(VerificationKey(key.public_key())) != entry.key_id:
            raise ConfigurationError(
                source=str(file),
                accepted="the key that was made there; another one would sign what nobody can verify",
            )
        return key


def _published(entries: Sequence[_Entry], now: datetime) -> list[_Entry]:
    signing, seconds = _signing(entries, now), now.timestamp()
    others = [
        entry
        for entry in entries
        if entry is not signing and (not entry.gone_at or seconds < entry.gone_at)
    ]
    return [signing, *others]


def _signing(entries: Sequence[_Entry], now: datetime) -> _Entry:
    seconds = now.timestamp()
    due = [entry for entry in entries if entry.signs_from <= seconds]
    # Before the first is due the clock has gone back; the first still is the one that is known.
    # Of two that begin in the same second the one that was made later.
    return max(reversed(due), key=lambda entry: entry.signs_from) if due else entries[0]


def _entry(file: str, key: ec.EllipticCurvePrivateKey, *, made: int, signs_from: int) -> _Entry:
    public = key.public_key()
    signer = LocalSigner(key, thumbprint(VerificationKey(public)))
    jwk: dict[str, Any] = {
        **required_members(public),
        "kid": signer.key_id,
        "alg": signer.algorithm,
        "use": "sig",
    }
    return _Entry(file=file, jwk=jwk, made=made, signs_from=signs_from)
