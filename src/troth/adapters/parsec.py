# SPDX-License-Identifier: Apache-2.0
"""Asks a Parsec service whether it is there and which protocol it speaks.

Parsec gives programs the PSA Crypto API on keys that hardware keeps. None of its operations
returns a PSA Initial Attestation token, and its key attestation (experimental, TPM only) proves
where a key lives and says nothing about what the machine runs. So Troth makes no Evidence
through it; `troth attest --explain` says that it was found, and this.

Source: Parsec Book, wire protocol 1.0 (fixed common header) and operation Ping (opcode 1).
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from troth.errors import UnavailableError

__all__ = ["ENDPOINT_VARIABLE", "PARSEC_SOCKET", "ParsecService", "parsec_socket", "ping"]

PARSEC_SOCKET: Final = Path("/run/parsec/parsec.sock")
"""Where the service listens by default."""

ENDPOINT_VARIABLE: Final = "PARSEC_SERVICE_ENDPOINT"
"""Environment variable in which clients of Parsec find it, such as unix:/run/parsec/parsec.sock."""

_DEADLINE_SECONDS: Final = 2.0
_MAX_BODY: Final = 64
_MAGIC: Final = 0x5EC0A710
# Magic; octets of the header from here on; version; flags, provider, session; types of content,
# accept and authentication; lengths of body and authentication; opcode; status; reserved.
_HEADER: Final = struct.Struct("<IHBBHBQBBBIHIHH")
_REST: Final = 30
_PING: Final = 1


@dataclass(frozen=True, slots=True)
class ParsecService:
    """A service that answered.

    Attributes:
        version: the highest version of the wire protocol that it speaks.
    """

    version: str


def parsec_socket() -> Path:
    """Return where a Parsec service is to be looked for."""
    endpoint = os.environ.get(ENDPOINT_VARIABLE, "")
    return Path(endpoint.removeprefix("unix:")) if endpoint.startswith("unix:") else PARSEC_SOCKET


def ping(path: Path) -> ParsecService:
    """Ask the service behind a Unix socket who it is.

    Raises:
        UnavailableError: nobody answers there, or not as Parsec does.
    """
    request = _HEADER.pack(_MAGIC, _REST, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, _PING, 0, 0)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_DEADLINE_SECONDS)
            connection.connect(str(path))
            connection.sendall(request)
            header = _HEADER.unpack(_exactly(connection, _HEADER.size))
            magic, rest, body, status = header[0], header[1], header[10], header[13]
            if magic != _MAGIC or rest != _REST or body > _MAX_BODY:
                raise UnavailableError(f"{path}: what answers there is no Parsec service")
            if status:
                raise UnavailableError(f"{path}: Parsec answers with status {status}")
            return ParsecService(_version(_exactly(connection, body)))
    except OSError as exc:
        raise UnavailableError(
            f"{path}: {exc.strerror or exc}", remedy="Is the Parsec service running?"
        ) from exc


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise UnavailableError("the connection ended within an answer")
        data += part
    return data


def _version(body: bytes) -> str:
    """Read the protocol buffer of two small numbers; one that is 0 is left out of it."""
    numbers = dict(zip(body[::2], body[1::2], strict=False))
    return f"{numbers.get(0x08, 0)}.{numbers.get(0x10, 0)}"
