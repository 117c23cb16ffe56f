# SPDX-License-Identifier: Apache-2.0
"""JWT-SVIDs that were issued lately, so that a workload that asks often costs the server little."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from troth.formats.base64url import decode_base64url
from troth.formats.strict_json import decode_json_object
from troth.identity.jwt_svid import JwtSvid
from troth.mesh.workload_messages import AgentEntry

__all__ = ["MAX_KEPT_TOKENS", "JwtCache"]

MAX_KEPT_TOKENS: Final = 10_000
"""Tokens kept, least recently used first to go."""

_Key = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Kept:
    svid: JwtSvid
    renew_at: datetime
    key_id: str


class JwtCache:
    """Tokens by entry and audience. Not for several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, entry: AgentEntry, audience: Sequence[str], *, now: datetime) -> JwtSvid | None:
        """Return a token that has half of its life before it, or None."""
        key = _key(entry, audience)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if now >= kept.renew_at:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept.svid

    def keep(
        self, entry: AgentEntry, audience: Sequence[str], svid: JwtSvid, *, now: datetime
    ) -> None:
        """Keep a token that was issued now."""
        renew_at = now + (svid.expires_at - now) / 2
        self._kept[_key(entry, audience)] = _Kept(svid, renew_at, _key_id(svid.token))
        if len(self._kept) > MAX_KEPT_TOKENS:
            self._kept.popitem(last=False)

    def trim(self, key_ids: Collection[str]) -> None:
        """Forget tokens of keys that are not in the bundle any more: nobody believes them."""
        for key, kept in list(self._kept.items()):
            if kept.key_id not in key_ids:
                del self._kept[key]

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def _key(entry: AgentEntry, audience: Sequence[str]) -> _Key:
    return entry.id, entry.spiffe_id, tuple(sorted(set(audience)))


def _key_id(token: str) -> str:
    header = decode_json_object(
        decode_base64url(token.partition(".")[0], format="JWT-SVID"), format="JWT-SVID header"
    )
    kid = header.get("kid")
    return kid if isinstance(kid, str) else ""
