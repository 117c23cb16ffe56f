# SPDX-License-Identifier: Apache-2.0
"""Claim certificates: a device shows the certificate that its maker gave it (IDevID) or its owner.

The device signs a statement over the nonce of its join session and the key that it wants an SVID
for, so that the proof serves this join and no other. The certificate says which device it is; what
state the device is in, only its Evidence says.

Source: IEEE 802.1AR-2018, sections 6 and 8 (IDevID certificates); RFC 5280, section 6 (paths).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import verification

from troth.errors import ChainError, LimitExceededError, SignatureError, UnsupportedError
from troth.evidence.certificates import load_certificate
from troth.evidence.challenge import derive_challenge
from troth.formats.keys import spki
from troth.formats.limits import MAX_CERTIFICATES
from troth.formats.verification_key import supported_public_key
from troth.mesh.device import DeviceIdentity, IdentityKind, key_identity

__all__ = ["CLAIM_LABEL", "Claim", "ClaimKey", "sign_claim", "verify_claim"]

CLAIM_LABEL: Final = b"troth device claim v1"
"""Label of the statement (`derive_challenge`): a signature over it serves nothing else."""

ClaimKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
"""Private keys that a claim may be signed with."""

_WHAT: Final = "claim certificate"
_STATEMENT_SIZE: Final = 64
_MAX_INTERMEDIATES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a device sends. Nothing in it is believed yet.

    Attributes:
        certificates: DER, the device's own first.
        signature: over the statement: ECDSA with the curve's hash (DER), RSA-PSS with SHA-256 and
            a salt as long, or Ed25519.
    """

    certificates: Sequence[bytes]
    signature: bytes = field(repr=False)


def sign_claim(key: ClaimKey, *, svid_key: bytes, nonce: bytes) -> bytes:
    """Return the signature of a claim.

    Args:
        key: of the claim certificate.
        svid_key: DER SubjectPublicKeyInfo that an SVID is asked for.
        nonce: of the join session.
    """
    statement = derive_challenge(CLAIM_LABEL, svid_key, nonce, _STATEMENT_SIZE)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(statement, ec.ECDSA(_curve_hash(key.curve)))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(statement, _pss(), hashes.SHA256())
    return key.sign(statement)


def verify_claim(
    claim: Claim,
    *,
    roots: Sequence[x509.Certificate],
    svid_key: bytes,
    nonce: bytes,
    now: datetime,
) -> DeviceIdentity:
    """Return the identity of the device that holds the key of a certificate under `roots`.

    Does NOT check revocation: take a device out of the inventory instead. Does not look at names
    in the certificate: the inventory knows the key.

    Raises:
        ChainError: no root is configured, or none vouches for the certificate.
        SignatureError: its key did not sign this join's statement.
        UnsupportedError: a key of another kind.
        LimitExceededError: too many certificates.
        DecodeError: not certificates.
    """
    if len(claim.certificates) > MAX_CERTIFICATES:
        raise LimitExceededError(format=_WHAT, limit="MAX_CERTIFICATES", value=MAX_CERTIFICATES)
    if not claim.certificates or not roots:
        raise ChainError(
            "a claim without a certificate"
            if roots
            else "no root of claim certificates is trusted",
            remedy="Set onboarding.claim_roots to the roots of the device makers.",
        )
    chain = [load_certificate(each, format=_WHAT) for each in claim.certificates]
    _verify_path(chain, roots, now)
    statement = derive_challenge(CLAIM_LABEL, svid_key, nonce, _STATEMENT_SIZE)
    try:
        key = supported_public_key(chain[0].public_key(), format=_WHAT)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UnsupportedError(f"a key that Troth does not take: {exc}", format=_WHAT) from exc
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(claim.signature, statement, ec.ECDSA(_curve_hash(key.curve)))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(claim.signature, statement, _pss(), hashes.SHA256())
        else:
            key.verify(claim.signature, statement)
    except InvalidSignature as exc:
        raise SignatureError(
            "the key of the claim certificate did not sign the claim for this join",
            remedy="Sign over the nonce of this session and the key of this certificate request.",
        ) from exc
    return key_identity(IdentityKind.CERTIFICATE, spki(key))


def _verify_path(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime
) -> None:
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(roots)))
        .time(now.astimezone(UTC))
        .max_chain_depth(_MAX_INTERMEDIATES)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        path = verifier.verify(chain[0], list(chain[1:])).chain
    except (verification.VerificationError, ValueError, x509.DuplicateExtension) as exc:
        raise ChainError(
            f"no valid path from the claim certificate to a trusted root: {exc}",
            remedy="Send the intermediates along, and compare issuers and dates with the roots.",
        ) from exc
    if len(path) < 2:
        raise ChainError("the claim certificate is itself among the roots")


def _require_cert_sign(
    policy: verification.Policy, certificate: x509.Certificate, usage: x509.KeyUsage
) -> None:
    del policy, certificate
    if not usage.key_cert_sign:
        raise ValueError("a signing certificate lacks keyCertSign")


def _require_signing(
    policy: verification.Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    del policy, certificate
    if usage is not None and not usage.digital_signature:
        raise ValueError("the certificate is not for signing")


# An IDevID certificate names a serial number in its subject, and rules for names of servers do not
# fit it.
_LEAF_POLICY: Final = verification.ExtensionPolicy.permit_all().may_be_present(
    x509.KeyUsage, verification.Criticality.AGNOSTIC, _require_signing
)
_CA_POLICY: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)
    .require_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _require_cert_sign)
)


def _curve_hash(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    if curve.key_size <= 256:
        return hashes.SHA256()
    return hashes.SHA384() if curve.key_size <= 384 else hashes.SHA512()


def _pss() -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)
