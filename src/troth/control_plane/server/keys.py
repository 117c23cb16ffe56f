# SPDX-License-Identifier: Apache-2.0
"""The server's keys: made on the first start, for its own user only, and loaded later.

Each key for one thing: the authorities of the trust domain, the Verifier's results, and TLS.
They are files; an installation that has an HSM keeps them there (the signers are ports).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from troth.control_plane.key_files import load_or_create_key, make_private_directory
from troth.control_plane.result_keys import ResultKeys
from troth.control_plane.server.authorities import Authorities, Rollover
from troth.identity.spiffe_id import TrustDomain

__all__ = ["ServerKeys", "load_or_create_keys"]

_TLS_KEY = "tls.key.pem"
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """What the server signs with.

    Attributes:
        authorities: of the trust domain.
        results: sign Attestation Results; their ids are their thumbprints.
        tls_key: of the server's own SVID.
    """

    authorities: Authorities
    results: ResultKeys
    tls_key: ec.EllipticCurvePrivateKey


def load_or_create_keys(
    directory: Path,
    trust_domain: TrustDomain,
    *,
    now: datetime,
    random: Callable[[int], bytes],
    results_last: timedelta = _DAY,
    announce: timedelta = _DAY,
    x509: Rollover | None = None,
    jwt: Rollover | None = None,
) -> ServerKeys:
    """Return the keys in `directory`; make directory and keys where they are absent.

    A file that is there and unreadable is an error and is never replaced: a new authority key
    would cut every node off.

    Args:
        directory: where they are.
        trust_domain: whose authorities they are.
        now: the time.
        random: source of randomness.
        results_last: the longest life of an Attestation Result.
        announce: how long a new key for results is published before it signs.
        x509: how authorities of X.509-SVIDs follow one another.
        jwt: how keys of JWT-SVIDs do.

    Raises:
        ConfigurationError: a key file is damaged, open to others, or of another trust domain.
        UnavailableError: the directory cannot be written, or a key that is needed is gone.
    """
    make_private_directory(directory)
    rollover = Rollover(announce=_DAY, keep=_DAY)
    return ServerKeys(
        authorities=Authorities(
            directory,
            trust_domain,
            now=now,
            random=random,
            x509=x509 or rollover,
            jwt=jwt or rollover,
        ),
        results=ResultKeys(directory, now=now, announce=announce, keep=results_last),
        tls_key=load_or_create_key(directory / _TLS_KEY),
    )
