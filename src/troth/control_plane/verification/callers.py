# SPDX-License-Identifier: Apache-2.0
"""Callers of the standard APIs: as whom they are limited, and who of them may provision."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.requests import Request

from troth.control_plane.server.http_server import Caller, caller_of
from troth.control_plane.verification.sections import ProvisionerSection

__all__ = ["MIN_TOKEN_CHARACTERS", "Provisioners", "bucket_of"]

MIN_TOKEN_CHARACTERS = 32
"""A shorter bearer token is refused even if its digest is configured: it may be guessed."""

_MAX_TOKEN_CHARACTERS = 4096


def bucket_of(caller: Caller) -> str:
    """Return as whom a caller is limited: its IPv4 address, or the /64 around its IPv6 address."""
    return _bucket(caller.address)


@lru_cache(maxsize=4096)
def _bucket(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    # Whoever has one address of a /64 has all of them.
    return str(ip_network((parsed, 64), strict=False))


class Provisioners:
    """Recognises who may provision over the network.

    Args:
        clients: the configured ones; none: nobody may.
    """

    def __init__(self, clients: Sequence[ProvisionerSection]) -> None:
        self._tokens = [(each.token_sha256, each.name) for each in clients if each.token_sha256]
        self._certificates = {
            each.certificate_sha256: each.name for each in clients if each.certificate_sha256
        }

    def recognise(self, request: Request) -> str | None:
        """Return the client's name, or None for anybody else."""
        certificate = caller_of(request.scope).certificate
        if certificate:
            name = self._certificates.get(hashlib.sha256(certificate).hexdigest())
            if name is not None:
                return name
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer":
            return None
        if not MIN_TOKEN_CHARACTERS <= len(token) <= _MAX_TOKEN_CHARACTERS:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for wanted, name in self._tokens:
            if hmac.compare_digest(wanted, digest):
                found = name
        return found
