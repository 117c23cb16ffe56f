# SPDX-License-Identifier: Apache-2.0
"""Attested TLS for Python programs, on an unmodified TLS stack.

`open_connection` and `start_server` are asyncio's, with two additions: what this side shows
(`Credentials`), and what the other must show (`AttestationPolicy`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from troth.tls.asyncio.connection import AttestedConnection
    from troth.tls.asyncio.driver import AttestationRefusedError
    from troth.tls.asyncio.server import AttestedServer
    from troth.tls.asyncio.streams import AttestedStream, open_connection, start_server
    from troth.tls.credentials import Credentials, ProofKey
    from troth.tls.local_check import LocalVerifier
    from troth.tls.peer import AttestedPeer
    from troth.tls.policy import AttestationPolicy

__all__ = [
    "AttestationPolicy",
    "AttestationRefusedError",
    "AttestedConnection",
    "AttestedPeer",
    "AttestedServer",
    "AttestedStream",
    "Credentials",
    "LocalVerifier",
    "ProofKey",
    "open_connection",
    "start_server",
]

# Name to module: those who need a part only, such as an agent's gate, do not load a TLS stack.
_MODULES = {
    "AttestationPolicy": "policy",
    "AttestationRefusedError": "asyncio.driver",
    "AttestedConnection": "asyncio.connection",
    "AttestedPeer": "peer",
    "AttestedServer": "asyncio.server",
    "AttestedStream": "asyncio.streams",
    "Credentials": "credentials",
    "LocalVerifier": "local_check",
    "ProofKey": "credentials",
    "open_connection": "asyncio.streams",
    "start_server": "asyncio.streams",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
