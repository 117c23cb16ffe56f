# SPDX-License-Identifier: Apache-2.0
"""What a machine shows, beside its Evidence, to be known by the server's inventory of devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from troth.errors import ConfigurationError
from troth.formats.base64url import encode_base64url
from troth.mesh.claim_certificate import ClaimKey, sign_claim
from troth.mesh.join_messages import ClaimMessage

__all__ = ["ActivatingAttester", "Onboarding", "read_claim", "read_join_token"]


@runtime_checkable
class ActivatingAttester(Protocol):
    """An Attester whose key can be activated; `TpmAttester` is one."""

    def activation_request(self) -> bytes:
        """Return what a Verifier needs to challenge this TPM about its attestation key."""
        ...

    def activate(self, challenge: bytes) -> bytes:
        """Return the answer to a challenge."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarding:
    """Proofs for a join without an SVID; renewals need none of them.

    Attributes:
        activate: have the TPM's attestation key activated.
        join_token: as an operator gave it, or "".
        claim_certificates: DER, the device's own first; none where it has none.
        claim_key: its private key, or None.
    """

    activate: bool = False
    join_token: str = field(default="", repr=False)
    claim_certificates: Sequence[bytes] = ()
    claim_key: ClaimKey | None = field(default=None, repr=False)

    def claim(self, *, svid_key: bytes, nonce: bytes) -> ClaimMessage | None:
        """Return the claim for one join, None where there is no certificate."""
        if self.claim_key is None:
            return None
        return ClaimMessage(
            certificates=tuple(encode_base64url(each) for each in self.claim_certificates),
            signature=encode_base64url(sign_claim(self.claim_key, svid_key=svid_key, nonce=nonce)),
        )


def read_join_token(path: Path) -> str:
    """Return the join token in a file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    return _read(path).decode("ascii", "replace").strip()


def read_claim(certificates: Path, key: Path) -> tuple[tuple[bytes, ...], ClaimKey]:
    """Return a claim certificate with its intermediates, in DER, and its private key, from PEM files.

    Raises:
        ConfigurationError: one cannot be read, the key is of another kind, or not the certificate's.
    """
    try:
        chain = x509.load_pem_x509_certificates(_read(certificates))
        private = load_pem_private_key(_read(key), password=None)
    except (ValueError, TypeError) as exc:
        raise ConfigurationError(
            source=f"{certificates}, {key}", accepted=f"PEM certificates and a PEM key ({exc})"
        ) from exc
    kinds = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)
    if not isinstance(private, kinds) or chain[0].public_key() != private.public_key():
        raise ConfigurationError(
            source=str(key),
            accepted=f"the EC, RSA or Ed25519 key of the certificate in {certificates}",
        )
    return tuple(each.public_bytes(Encoding.DER) for each in chain), private


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a readable file ({exc.strerror or exc})"
        ) from exc
