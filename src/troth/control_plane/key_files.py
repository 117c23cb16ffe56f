# SPDX-License-Identifier: Apache-2.0
"""Private keys in files: made once, for their owner only, and never replaced."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from troth.errors import ConfigurationError, TrothError, UnavailableError
from troth.formats.signer import load_private_key

__all__ = ["load_key", "load_or_create_key", "make_private_directory", "write_private"]


def make_private_directory(directory: Path) -> None:
    """Make a directory that only its owner can enter, unless it is there.

    Raises:
        UnavailableError: it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise UnavailableError(
            f"the data directory {directory} cannot be made: {exc.strerror}"
        ) from exc


def load_or_create_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key at `path`; make one on P-256 where there is none.

    Raises:
        ConfigurationError: the file is damaged or open to others; it is not replaced.
        UnavailableError: it cannot be written.
    """
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(path, pem)
        return made
    return load_key(path)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key at `path`.

    Raises:
        ConfigurationError: the file is absent, damaged or open to others.
    """
    try:
        open_to_others = path.stat().st_mode & 0o077
        key = load_private_key(path.read_bytes(), source=str(path))
    except (OSError, TrothError) as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a private key in PEM ({exc})"
        ) from exc
    if open_to_others:
        raise ConfigurationError(
            source=str(path), accepted="a key file that only its owner can read (mode 0600)"
        )
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(source=str(path), accepted="a key on P-256 or P-384")
    return key


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, wholly or not at all.

    Raises:
        UnavailableError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as exc:
        raise UnavailableError(f"{path} cannot be written: {exc.strerror}") from exc
