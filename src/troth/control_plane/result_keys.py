# SPDX-License-Identifier: Apache-2.0
"""The keys that Attestation Results are signed with, and how one follows another without a gap.

A new key is published first and signs later, so that whoever fetches the keys now and then knows
it before its first result comes. The old one stays published until the last result that it signed
has ended, and its private half is deleted when its turn is over.

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
from collections.abc import Sequence
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

__all__ = ["MAX_PUBLISHED_KEYS", "ResultKeys"]

_LOG = logging.getLogger(__name__)
_FIRST = "result.key.pem"
_SCHEDULE = "result-keys.schedule"

MAX_PUBLISHED_KEYS = 8
"""Keys published at once: who verifies a result tries at most this many."""


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
    signers: dict[str, LocalSigner]
    stamp: tuple[int, int]


class ResultKeys:
    """The result keys in one directory. Methods may be called from any thread.

    Args:
        directory: where the key files are.
        announce: how long a new key is published before it signs.
        keep: how long an old one stays published after its last signature; at least as long as
            the longest life of a result.
    """

    def __init__(
        self,
        directory: Path,
        *,
        now: datetime,
        announce: timedelta = timedelta(days=1),
        keep: timedelta = timedelta(days=1),
    ) -> None:
        """Load the keys, or make the first.

        Raises:
            ConfigurationError: a key file or the schedule is damaged or open to others.
            UnavailableError: the directory cannot be written, or the key that signs is gone.
        """
        self._directory, self._announce, self._keep = directory, announce, keep
        self._lock = Lock()
        if not self._schedule.exists():
            key = load_or_create_key(directory / _FIRST)
            stamp = int(now.timestamp())
            self._write([_entry(_FIRST, key, made=stamp, signs_from=stamp)])
        self._state = self._load()
        self.signer(now)

    @property
    def _schedule(self) -> Path:
        return self._directory / _SCHEDULE

    def signer(self, now: datetime) -> LocalSigner:
        """Return the key that signs at `now`.

        Raises:
            UnavailableError: its file is gone.
        """
        entry = _signing(self._state.entries, now)
        signer = self._state.signers.get(entry.key_id)
        if signer is None:
            raise UnavailableError(
                f"the result key {entry.file} cannot be used",
                remedy=f"restore it in {self._directory}",
            )
        return signer

    def published(self, now: datetime) -> list[VerificationKey]:
        """Return the public keys that results verify with: the one that signs first."""
        state = self._state
        return [state.keys[entry.key_id] for entry in _published(state.entries, now)]

    def jwk_set(self, now: datetime) -> dict[str, object]:
        """Return the published keys as a JWK Set, the one that signs first."""
        return {"keys": [dict(entry.jwk) for entry in _published(self._state.entries, now)]}

    def jwk(self, now: datetime) -> dict[str, str]:
        """Return the key that signs, as a JWK."""
        return dict(_signing(self._state.entries, now).jwk)

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
                    f"the next result key is announced already and signs from "
                    f"{datetime.fromtimestamp(waiting[0].signs_from, UTC):%FT%TZ} on"
                )
            if len(_published(self._state.entries, now)) >= MAX_PUBLISHED_KEYS:
                raise ConflictError(
                    f"{MAX_PUBLISHED_KEYS} result keys are published",
                    remedy="wait until the oldest results have ended",
                )
            signs_from = int((now + (self._announce if announce is None else announce)).timestamp())
            present = _signing(self._state.entries, now)
            file = f"result-{os.urandom(6).hex()}.key.pem"
            made = _entry(
                file,
                load_or_create_key(self._directory / file),
                made=seconds,
                signs_from=signs_from,
            )
            retiring = msgspec.structs.replace(
                present, gone_at=signs_from + int(self._keep.total_seconds())
            )
            kept = [retiring if each is present else each for each in self._state.entries]
            self._write([*kept, made])
            self._state = self._load()
        return made.key_id

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
                    _LOG.info("the next result key is %s", self.rotate(now))
        if self._stamp() != self._state.stamp:
            with self._lock:
                self._state = self._load()
        if self._untidy(now):
            self._tidy(now)
        return self._state.stamp != before

    def _untidy(self, now: datetime) -> bool:
        entries, signers = self._state.entries, self._state.signers
        signing, published = _signing(entries, now), _published(entries, now)
        seconds = now.timestamp()
        return len(published) < len(entries) or any(
            each is not signing and each.signs_from <= seconds and each.key_id in signers
            for each in entries
        )

    def _tidy(self, now: datetime) -> None:
        """Delete private keys whose turn is over, and drop keys that are not published any more."""
        with self._lock:
            self._state = self._load()
            signing, seconds = _signing(self._state.entries, now), now.timestamp()
            for entry in self._state.entries:
                if entry is not signing and entry.signs_from <= seconds:
                    # Results that it signed verify with the public key in the schedule.
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
            raise ConfigurationError(source=path, accepted="one result key at least")
        signers = {
            each.key_id: self._signer(each)
            for each in entries
            if (self._directory / each.file).exists()
        }
        return _State(entries, keys, signers, stamp)

    def _signer(self, entry: _Entry) -> LocalSigner:
        file = self._directory / entry.file
        key = load_key(file)
        if thumbprint(VerificationKey(key.public_key())) != entry.key_id:
            raise ConfigurationError(
                source=str(file),
                accepted="the key that was made there; another one would sign results that nobody "
                "can verify",
            )
        return LocalSigner(key, entry.key_id)


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
    return max(due, key=lambda entry: entry.signs_from) if due else entries[0]


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
