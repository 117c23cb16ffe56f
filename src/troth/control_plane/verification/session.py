# SPDX-License-Identifier: Apache-2.0
"""Challenge-response sessions whose whole state is in their identifier.

Opening a session writes nothing down: the identifier is the nonce and its end under a MAC, so that
any process that has the key can tell that it was given out here, and a stranger who opens a
million of them costs no memory. That a session answers once is in the book of sessions.

::

    octets   1        8          12       1      8 to 64   16
           +---+-------------+---------+------+----------+-----+
           | 1 | end, s UTC  | random  | size |  nonce   | MAC |
           +---+-------------+---------+------+----------+-----+

The MAC is keyed BLAKE2b (RFC 7693 section 2.9) over what stands before it. The nonce is no secret:
it is what the Evidence has to carry.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from troth.errors import ApiMisuseError, DecodeError, FreshnessError
from troth.formats.base64url import decode_base64url, encode_base64url

__all__ = ["NONCE_SIZES", "SESSION_KEY_BYTES", "Session", "SessionTokens"]

NONCE_SIZES = range(8, 65)
"""Octets of a nonce (RFC 9711 section 4.1)."""

SESSION_KEY_BYTES = 32
"""Octets of the key that identifiers are authenticated with."""

_VERSION = b"\x01"
_MARK_BYTES = 12
_MAC_BYTES = 16
_HEAD_BYTES = 1 + 8 + _MARK_BYTES + 1
_LONGEST = _HEAD_BYTES + NONCE_SIZES[-1] + _MAC_BYTES
_PERSON = b"troth session"
_FORMAT = "session id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session, as its identifier says.

    Attributes:
        id: names it in the URL.
        mark: names it in the book of sessions; 12 random octets.
        nonce: what the Evidence has to carry.
        expires: aware UTC, whole seconds.
    """

    id: str
    mark: bytes
    nonce: bytes
    expires: datetime


class SessionTokens:
    """Opens sessions, and recognises those that were opened with the same key.

    Args:
        key: secret, `SESSION_KEY_BYTES` octets; a new one ends all sessions.
        lifetime: of a session.
        random: source of randomness.
    """

    def __init__(self, key: bytes, *, lifetime: timedelta, random: Callable[[int], bytes]) -> None:
        if len(key) != SESSION_KEY_BYTES:
            raise ApiMisuseError(f"a session key of {len(key)} octets, not {SESSION_KEY_BYTES}")
        self._key, self._lifetime, self._random = key, lifetime, random

    def open(self, *, nonce: bytes | None = None, size: int = 32, now: datetime) -> Session:
        """Return a new session.

        Args:
            nonce: chosen by the caller, or None for a random one.
            size: octets of a random one.
            now: timezone-aware.
        """
        if nonce is None:
            nonce = self._random(size)
        if len(nonce) not in NONCE_SIZES:
            raise ApiMisuseError(f"a nonce of {len(nonce)} octets")
        mark = self._random(_MARK_BYTES)
        expires = (now + self._lifetime).replace(microsecond=0)
        head = b"".join(
            (
                _VERSION,
                int(expires.timestamp()).to_bytes(8),
                mark,
                len(nonce).to_bytes(1),
                nonce,
            )
        )
        return Session(
            id=encode_base64url(head + self._mac(head)), mark=mark, nonce=nonce, expires=expires
        )

    def recognise(self, identifier: str, *, now: datetime) -> Session:
        """Return the session of this identifier.

        Says nothing about whether it was used: that is in the book.

        Raises:
            DecodeError: no identifier has this form.
            FreshnessError: not opened here, or over.
        """
        if len(identifier) > 2 * _LONGEST:
            raise DecodeError("longer than any", format=_FORMAT)
        data = decode_base64url(identifier, format=_FORMAT)
        size = len(data) - _HEAD_BYTES - _MAC_BYTES
        if size not in NONCE_SIZES or data[:1] != _VERSION or data[_HEAD_BYTES - 1] != size:
            raise DecodeError("not of the form of one", format=_FORMAT)
        head, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(head)):
            raise FreshnessError("no session of this id was opened here")
        end = int.from_bytes(head[1:9])
        if now.timestamp() >= end:
            raise FreshnessError("the session is over; open a new one")
        return Session(
            id=identifier,
            mark=head[9 : 9 + _MARK_BYTES],
            nonce=head[_HEAD_BYTES:],
            expires=datetime.fromtimestamp(end, UTC),
        )

    def _mac(self, head: bytes) -> bytes:
        return blake2b(head, digest_size=_MAC_BYTES, key=self._key, person=_PERSON).digest()
