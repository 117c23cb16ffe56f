# SPDX-License-Identifier: Apache-2.0
"""Verification of an envelope under the keys that are registered for its Attester."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from troth.errors import ChainError, SignatureError
from troth.evidence.evidence import TrustAnchorSource
from troth.formats.cose import X5CHAIN, Mac0, Sign1
from troth.formats.keys import VerificationKey, thumbprint

__all__ = [
    "ECDSA",
    "HMAC",
    "MAX_CANDIDATE_KEYS",
    "SignedMessage",
    "anchor_thumbprint",
    "refuse_certificate_chain",
    "verify_under_anchors",
]

ECDSA = frozenset({"ES256", "ES384", "ES512"})
HMAC = frozenset({"HMAC 256/256", "HMAC 384/384", "HMAC 512/512"})

MAX_CANDIDATE_KEYS = 16
"""Keys of one Attester that are tried; an outsider who knows its id can cause that many."""

_X5BAG, _X5T, _X5U = 32, 34, 35
_CERTIFICATE_HEADERS = {X5CHAIN: "x5chain", _X5BAG: "x5bag", _X5T: "x5t", _X5U: "x5u"}

_THUMBPRINTS_MAX = 1024
_thumbprints: dict[int, tuple[VerificationKey, str]] = {}


class SignedMessage(Protocol):
    """Something signed: a COSE envelope, or what a scheme has in its place."""

    @property
    def format(self) -> str:
        """What it is, for messages."""
        ...

    def verify(self, key: VerificationKey, *, algorithms: Collection[str]) -> object:
        """Verify it under one key.

        Raises:
            SignatureError: the key does not fit, or did not sign it.
        """
        ...


def refuse_certificate_chain(message: Sign1 | Mac0) -> None:
    """Refuse an envelope that asks for its key to be found through certificates.

    A certified attestation key is only as good as the path validation and the revocation check
    behind it (RFC 9783 section 5); ignoring the chain would hide that the device relies on it.

    Raises:
        ChainError: a header parameter of RFC 9360 is there.
    """
    for label, name in _CERTIFICATE_HEADERS.items():
        if label in message.protected or label in message.unprotected:
            raise ChainError(
                f"{message.format}: header {label} ({name}) offers a certificate for the "
                "attestation key; Troth verifies registered keys only",
                remedy="Register the attestation key itself as a trust anchor, and have the "
                "device leave the certificates out.",
            )


def verify_under_anchors(
    message: SignedMessage,
    *,
    scheme: str,
    implementation_id: bytes,
    instance_id: bytes,
    trust_anchors: TrustAnchorSource,
    algorithms: Collection[str],
) -> VerificationKey:
    """Return the registered key that `message` verifies under; each is tried.

    Raises:
        SignatureError: no key is registered, too many are, or none verifies.
    """
    keys = trust_anchors.keys(scheme, implementation_id=implementation_id, instance_id=instance_id)
    identity = f"instance id {instance_id.hex()}, implementation id {implementation_id.hex()}"
    if not keys:
        raise SignatureError(
            f"{message.format}: no trust anchor for {identity}",
            remedy="Provision a CoRIM whose attest-key triple names this instance, or check that "
            "the right device answered.",
        )
    if len(keys) > MAX_CANDIDATE_KEYS:
        raise SignatureError(
            f"{message.format}: {len(keys)} trust anchors for {identity}; at most "
            f"MAX_CANDIDATE_KEYS={MAX_CANDIDATE_KEYS} are tried",
            remedy="Withdraw the ones that are out of use.",
        )
    refusals = []
    for key in keys:
        try:
            message.verify(key, algorithms=algorithms)
        except SignatureError as exc:
            refusals.append(exc)
        else:
            return key
    if len(refusals) == 1:
        raise SignatureError(f"{refusals[0]} ({identity})", remedy=_REMEDY) from refusals[0]
    reasons = "; ".join(str(refusal) for refusal in refusals)
    raise SignatureError(
        f"{message.format}: none of the {len(keys)} trust anchors for {identity} fits: {reasons}",
        remedy=_REMEDY,
    )


_REMEDY = "Check that the registered key is the device's; a wrong one looks like a forged token."


def anchor_thumbprint(key: VerificationKey) -> str:
    """Return the RFC 7638 thumbprint of a registered key, in hex.

    It is remembered for as long as the source hands out the same object: taking a public key apart
    costs a third of verifying with it. Keys that come with Evidence do not belong in here.
    """
    known = _thumbprints.get(id(key))
    if known is not None and known[0] is key:
        return known[1]
    value = thumbprint(key)
    if len(_thumbprints) >= _THUMBPRINTS_MAX:
        _thumbprints.clear()
    # Holding the key keeps its id from being given to another.
    _thumbprints[id(key)] = (key, value)
    return value
