# SPDX-License-Identifier: Apache-2.0
"""Attested TLS for Python programs, on an unmodified TLS stack.

`open_connection` and `start_server` are asyncio's, with two additions: what this side shows
(`Credentials`), and what the other must show (`AttestationPolicy`).
"""

from troth.tls.asyncio.connection import AttestationRefusedError, AttestedConnection
from troth.tls.asyncio.streams import AttestedServer, AttestedStream, open_connection, start_server
from troth.tls.credentials import Credentials, ProofKey
from troth.tls.judge import AttestedPeer
from troth.tls.policy import AttestationPolicy

__all__ = [
    "AttestationPolicy",
    "AttestationRefusedError",
    "AttestedConnection",
    "AttestedPeer",
    "AttestedServer",
    "AttestedStream",
    "Credentials",
    "ProofKey",
    "open_connection",
    "start_server",
]
