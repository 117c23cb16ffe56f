# SPDX-License-Identifier: Apache-2.0
"""The server's keys: made on the first start, for its own user only, and loaded later.

Each key for one thing: the authority of the trust domain, the Verifier's results, and TLS.
They are files; an installation that has an HSM keeps them there (the signers are ports).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from troth.control_plane.key_files import (
    load_or_create_key,
    make_private_directory,
    write_private,
)
from troth.control_plane.result_keys import ResultKeys
from troth.errors import ConfigurationError, DecodeError
from troth.identity.spiffe_id import TrustDomain
from troth.identity.x509_authority import X509Authority

__all__ = ["AUTHORITY_LIFETIME", "ServerKeys", "load_or_create_keys"]

AUTHORITY_LIFETIME = timedelta(days=3650)
"""Of the authority's certificate, made on the first start."""

_AUTHORITY_KEY = "authority.key.pem"
_AUTHORITY_CERTIFICATE = "authority.pem"
_TLS_KEY = "tls.key.pem"
_SERIAL_OCTETS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """What the server signs with.

    Attributes:
        authority: of the trust domain.
        results: sign Attestation Results; their ids are their thumbprints.
        tls_key: of the server's own SVID.
    """

    authority: X509Authority
    results: ResultKeys
    tls_key: ec.EllipticCurvePrivateKey


def load_or_create_keys(
    directory: Path,
    trust_domain: TrustDomain,
    *,
    now: datetime,
    random: Callable[[int], bytes],
    results_last: timedelta = timedelta(days=1),
    announce: timedelta = timedelta(days=1),
) -> ServerKeys:
    """Return the keys in `directory`; make directory and keys where they are absent.

    A file that is there and unreadable is an error and is never replaced: a new authority key
    would cut every node off.

    Args:
        directory: where they are.
        trust_domain: whose authority it is.
        now: the time.
        random: source of randomness.
        results_last: the longest life of an Attestation Result.
        announce: how long a new key for results is published before it signs.

    Raises:
        ConfigurationError: a key file is damaged, open to others, or of another trust domain.
        UnavailableError: the directory cannot be written.
    """
    make_private_directory(directory)
    return ServerKeys(
        authority=_authority(directory, trust_domain, now, random),
        results=ResultKeys(directory, now=now, announce=announce, keep=results_last),
        tls_key=load_or_create_key(directory / _TLS_KEY),
    )


def _authority(
    directory: Path,
    trust_domain: TrustDomain,
    now: datetime,
    random: Callable[[int], bytes],
) -> X509Authority:
    key = load_or_create_key(directory / _AUTHORITY_KEY)
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
