# SPDX-License-Identifier: Apache-2.0
"""Attested TLS for Python programs, on an unmodified TLS stack.

`open_connection` and `start_server` are asyncio's, with two additions: what this side shows
(`Credentials`), and what the other must show (`AttestationPolicy`).
"""

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
