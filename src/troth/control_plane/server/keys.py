# SPDX-License-Identifier: Apache-2.0
"""The server's keys: made on the first start, for its own user only, and loaded later.

Three keys, each for one thing: the authority of the trust domain, the Verifier's results, and TLS.
They are files; an installation that has an HSM keeps them there (the signers are ports).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from troth.errors import ConfigurationError, DecodeError, TrothError, UnavailableError
from troth.formats.keys import thumbprint
from troth.formats.signer import LocalSigner, load_private_key
from troth.formats.verification_key import VerificationKey
from troth.identity.spiffe_id import TrustDomain
from troth.identity.x509_authority import X509Authority

__all__ = ["AUTHORITY_LIFETIME", "ServerKeys", "load_or_create_keys", "write_private"]

AUTHORITY_LIFETIME = timedelta(days=3650)
"""Of the authority's certificate, made on the first start."""

_AUTHORITY_KEY = "authority.key.pem"
_AUTHORITY_CERTIFICATE = "authority.pem"
_RESULT_KEY = "result.key.pem"
_TLS_KEY = "tls.key.pem"
_SERIAL_OCTETS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """What the server signs with.

    Attributes:
        authority: of the trust domain.
        result_signer: signs Attestation Results; its key id is the key's thumbprint.
        tls_key: of the server's own SVID.
    """

    authority: X509Authority
    result_signer: LocalSigner
    tls_key: ec.EllipticCurvePrivateKey


def load_or_create_keys(
    directory: Path,
    trust_domain: TrustDomain,
    *,
    now: datetime,
    random: Callable[[int], bytes],
) -> ServerKeys:
    """Return the keys in `directory`; make directory and keys where they are absent.

    A file that is there and unreadable is an error and is never replaced: a new authority key
    would cut every node off.

    Raises:
        ConfigurationError: a key file is damaged, open to others, or of another trust domain.
        UnavailableError: the directory cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise UnavailableError(
            f"the data directory {directory} cannot be made: {exc.strerror}"
        ) from exc
    result_key = _key(directory / _RESULT_KEY)
    return ServerKeys(
        authority=_authority(directory, trust_domain, now, random),
        result_signer=LocalSigner(result_key, thumbprint(VerificationKey(result_key.public_key()))),
        tls_key=_key(directory / _TLS_KEY),
    )


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


def _authority(
    directory: Path,
    trust_domain: TrustDomain,
    now: datetime,
    random: Callable[[int], bytes],
) -> X509Authority:
    key = _key(directory / _AUTHORITY_KEY)
    path = directory / _AUTHORITY_CERTIFICATE
    if not path.exists():
        made = X509Authority.self_signed(
            trust_domain,
            key,
            now=now,
            lifetime=AUTHORITY_LIFETIME,
            random=random(_SERIAL_OCTETS),
        )
        write_private(path, made.certificate.public_bytes(Encoding.PEM))
        return made
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        return X509Authority(trust_domain, certificate, key)
    except (OSError, ValueError, DecodeError) as exc:
        raise ConfigurationError(
            source=str(path),
            accepted=f"the certificate of the authority of {trust_domain} ({exc})",
        ) from exc


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(path, pem)
        return made
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
