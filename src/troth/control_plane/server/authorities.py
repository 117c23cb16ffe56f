# SPDX-License-Identifier: Apache-2.0
"""The authorities of the trust domain: those that issue now, the next ones, and the last ones.

An X.509 authority and a JWT key go through the same three stages (`RotatingKeys`): *prepared*, in
the bundle and not used yet; *active*; and *old*, in the bundle until the last SVID that it signed
has ended. So everybody who has a bundle that is not older than the announcement can verify every
SVID that is alive, at every moment of a rollover.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, load_pem_x509_certificate

from troth.control_plane.key_files import write_private
from troth.control_plane.rotating_keys import RotatingKeys
from troth.errors import ConfigurationError, DecodeError, UnavailableError
from troth.formats.verification_key import VerificationKey
from troth.identity.jwt_svid import JwtAuthority
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_authority import X509Authority

__all__ = ["AUTHORITY_LIFETIME", "Authorities", "AuthorityStatus", "Rollover"]

AUTHORITY_LIFETIME = timedelta(days=3650)
"""Of an authority's certificate. Rollover ends its use, not this."""

_FIRST_CERTIFICATE = "authority.pem"
_SERIAL_OCTETS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollover:
    """How one authority follows another.

    Attributes:
        announce: how long the next one is published before it issues.
        keep: how long an old one stays published: the longest life of what it issued.
        after: age at which the next one is made, or None where operators decide.
    """

    announce: timedelta
    keep: timedelta
    after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityStatus:
    """One authority as operators see it; `stage` is "prepared", "active" or "old"."""

    kind: str
    id: str
    stage: str


class Authorities:
    """The keys of one trust domain, in one directory. Methods may be called from any thread.

    Args:
        directory: where the keys are.
        trust_domain: whose they are.
        now: the time.
        random: source of randomness.
        x509, jwt: how they follow one another.
    """

    def __init__(
        self,
        directory: Path,
        trust_domain: TrustDomain,
        *,
        now: datetime,
        random: Callable[[int], bytes],
        x509: Rollover,
        jwt: Rollover,
    ) -> None:
        """Load the authorities, or make the first.

        Raises:
            ConfigurationError: a file is damaged, open to others, or of another trust domain.
            UnavailableError: the directory cannot be written, or a key that is needed is gone.
        """
        self.trust_domain = trust_domain
        self._directory, self._random = directory, random
        self._now = now
        self._certificates: dict[str, Certificate] = {}
        self._x509_rollover, self._jwt_rollover = x509, jwt
        self.x509 = RotatingKeys(
            directory,
            name="authority",
            now=now,
            announce=x509.announce,
            keep=x509.keep,
            prepare=self._certify,
        )
        self.jwt = RotatingKeys(
            directory, name="jwt", now=now, announce=jwt.announce, keep=jwt.keep
        )
        self.active(now)

    def active(self, now: datetime) -> X509Authority:
        """Return the authority that issues X.509-SVIDs at `now`.

        Raises:
            UnavailableError: its key is gone. ConfigurationError: its certificate is not its own.
        """
        key_id = self.x509.signer(now).key_id
        key = self.x509.private_key(key_id)
        if key is None:
            raise UnavailableError(f"the key of authority {key_id} is gone")
        try:
            return X509Authority(self.trust_domain, self._certificate(key_id), key)
        except DecodeError as exc:
            raise self._foreign(key_id, exc) from exc

    def active_jwt(self, now: datetime) -> JwtAuthority:
        """Return the authority that issues JWT-SVIDs at `now`.

        Raises:
            UnavailableError: its key is gone.
        """
        return JwtAuthority(self.trust_domain, self.jwt.signer(now))

    def bundle(self, now: datetime) -> TrustBundle:
        """Return the bundle of the trust domain: active ones first, then prepared and old ones."""
        return TrustBundle(
            trust_domain=self.trust_domain,
            x509_authorities=[self._certificate(key.key_id) for key in self.x509.published(now)],
            jwt_authorities=[
                VerificationKey(key.material, key.key_id) for key in self.jwt.published(now)
            ],
        )

    def status(self, now: datetime) -> list[AuthorityStatus]:
        """Return all authorities with their stages, active ones first."""
        return [
            AuthorityStatus(kind=kind, id=key_id, stage=keys.stage(key_id, now))
            for kind, keys in (("x509", self.x509), ("jwt", self.jwt))
            for key_id in (key.key_id for key in keys.published(now))
        ]

    def look(self, now: datetime) -> None:
        """Take over what other processes changed, and do what is due.

        Raises:
            UnavailableError, ConfigurationError: the files cannot be used; nothing was changed.
        """
        self._now = now
        self.x509.look(now, rotate_after=self._x509_rollover.after)
        self.jwt.look(now, rotate_after=self._jwt_rollover.after)

    def _certify(self, key: ec.EllipticCurvePrivateKey, key_id: str, first: bool) -> None:  # noqa: FBT001 - as RotatingKeys calls it
        """Give a new key its certificate, before anybody is told of it."""
        path = self._directory / (_FIRST_CERTIFICATE if first else _file_of(key_id))
        if path.exists():  # from before there was a schedule
            self._check(path, key)
            return
        made = X509Authority.self_signed(
            self.trust_domain,
            key,
            now=self._now,
            lifetime=AUTHORITY_LIFETIME,
            random=self._random(_SERIAL_OCTETS),
        )
        write_private(path, made.certificate.public_bytes(Encoding.PEM))

    def _check(self, path: Path, key: ec.EllipticCurvePrivateKey) -> None:
        try:
            X509Authority(self.trust_domain, _read(path), key)
        except DecodeError as exc:
            raise _not_ours(path, self.trust_domain, exc) from exc

    def _certificate(self, key_id: str) -> Certificate:
        known = self._certificates.get(key_id)
        if known is None:
            path = self._path(key_id)
            known = self._certificates[key_id] = _read(path)
        return known

    def _path(self, key_id: str) -> Path:
        own = self._directory / _file_of(key_id)
        return own if own.exists() else self._directory / _FIRST_CERTIFICATE

    def _foreign(self, key_id: str, exc: DecodeError) -> ConfigurationError:
        return _not_ours(self._path(key_id), self.trust_domain, exc)


def _file_of(key_id: str) -> str:
    return f"authority-{key_id[:16]}.pem"


def _read(path: Path) -> Certificate:
    try:
        return load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"the certificate of an authority ({exc})"
        ) from exc


def _not_ours(path: Path, trust_domain: TrustDomain, exc: DecodeError) -> ConfigurationError:
    return ConfigurationError(
        source=str(path), accepted=f"the certificate of the authority of {trust_domain} ({exc})"
    )
