# SPDX-License-Identifier: Apache-2.0
"""The TPM 2.0 scheme: from octets to what a TPM quoted, and what its logs say of it.

The order of `verify()`, whose numbers the code wears; structure was checked by `decode()`:

1. the attestation key's public area, where it is given, is that of a restricted signing key;
2. the signature is verified under the key registered for its name, or under the key that its
   certificate vouches for, and only then is the quote looked at;
3. a public area that came along is that key's;
4. published test keys are recognised;
5. every register that was asked for is quoted;
6. the register values hash to the quoted digest;
7. the challenge is compared;
8. a certified key (Parsec) is the one that the certificate names, for the same challenge;
9. the logs lead to the quoted registers.

Source: TPM 2.0 Library, Part 1, section 31 (attestation); Part 3, section 18.4 (TPM2_Quote).
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from troth.errors import BindingError, DecodeError, SignatureError, UnsupportedError
from troth.evidence.anchor import anchor_thumbprint, verify_under_anchors
from troth.evidence.context import NO_CONTEXT, VerificationContext
from troth.evidence.evidence import (
    ClaimsSet,
    TrustAnchorSource,
    Unchecked,
)
from troth.evidence.freshness import check_freshness
from troth.evidence.insecure import refuse_published_key
from troth.evidence.tpm2.attestation_key import require_attestation_key, require_scheme
from troth.evidence.tpm2.certificates import verify_attestation_certificate
from troth.evidence.tpm2.claims import claims_of
from troth.evidence.tpm2.evidence import MEDIA_TYPE, STARTS, Tpm2Evidence, decode
from troth.evidence.tpm2.measurements import (
    VerifiedQuote,
    measurements_of,
    pcr_values,
    require_registers,
)
from troth.evidence.tpm2.other_forms import (
    ENACTTRUST_MEDIA_TYPE,
    PARSEC_MEDIA_TYPE,
    is_enacttrust,
    is_parsec,
)
from troth.formats.keys import VerificationKey, thumbprint
from troth.formats.tpm.attest import Certified
from troth.formats.verification_key import supported_public_key

__all__ = ["CHALLENGE_SIZE", "Tpm2Scheme"]

CHALLENGE_SIZE = 32
"""Octets of qualifyingData; every TPM with SHA-256 takes that many."""


@dataclass(frozen=True, slots=True)
class _Signer:
    """The key that a quote was verified under, and what vouches for it."""

    thumbprint: str
    anchor: str
    implementation_id: bytes = b""
    is_device: bool = True


class Tpm2Scheme:
    """Quotes of TPM 2.0. See docs/reference/schemes/tpm2.md.

    Args:
        required_pcrs: registers without which a quote is refused. None by default: a register
            that Reference Values describe and the quote leaves out is not affirmed either.
    """

    name: str = "tpm2"
    media_types: Sequence[str] = (MEDIA_TYPE, PARSEC_MEDIA_TYPE, ENACTTRUST_MEDIA_TYPE)
    challenge_size: int = CHALLENGE_SIZE
    tier: str = "measured"

    def __init__(self, *, required_pcrs: Collection[int] = ()) -> None:
        self._required_pcrs = frozenset(required_pcrs)

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` begins as one of the three forms does."""
        return data.startswith(STARTS) or is_parsec(data) or is_enacttrust(data)

    def decode(self, data: bytes, *, media_type: str = "") -> Tpm2Evidence:
        """Decode one piece of Evidence; see `troth.evidence.tpm2.evidence.decode`."""
        return decode(data, media_type=media_type)

    def verify(
        self,
        evidence: Tpm2Evidence,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedQuote:
        """Establish that the TPM that holds a known key quoted these registers, for this challenge.

        Says nothing about whether the values are acceptable, nor about what ran before the first
        measurement.

        Raises:
            SignatureError: no trust anchor, no key verifies, or one that need not be a TPM's or
                must not count.
            ChainError: the certificate of the key does not lead to a trusted root.
            BindingError: registers, logs or keys do not belong to the quote.
            FreshnessError: another challenge.
        """
        del allow_simulator  # this scheme has no simulator
        key = evidence.attestation_key
        if key is not None:
            require_attestation_key(key)  # (1)
            require_scheme(key, evidence.signature)
        signer = _verify_signature(evidence, trust_anchors, context)  # (2), (3)
        insecure = refuse_published_key(
            signer.thumbprint, role="AK", allowed=allow_test_keys
        )  # (4)
        require_registers(evidence.quoted.selection, self._required_pcrs)  # (5)
        values = pcr_values(evidence)  # (6)
        matched = check_freshness(evidence.quote.extra_data, freshness, claim="extraData")  # (7)
        _check_key_attestation(evidence)  # (8)
        measured = measurements_of(evidence, values)  # (9)
        clock = evidence.quote.clock
        return VerifiedQuote(
            evidence=evidence,
            measured=measured,
            claims_sets=(
                ClaimsSet(
                    label="tpm2",
                    component="node",
                    layer="hardware",
                    claims=claims_of(evidence, measured),
                ),
            ),
            freshness=matched,
            implementation_id=signer.implementation_id,
            instance_id=_instance_id(evidence),
            signer=signer.anchor,
            signer_is_device=signer.is_device and not insecure,
            boot_session=clock.reset_count.to_bytes(4) + clock.restart_count.to_bytes(4),
            insecure=insecure,
        )


@dataclass(frozen=True, slots=True)
class _Quote:
    """The quote, as `verify_under_anchors` wants it: with all that the same key has signed."""

    evidence: Tpm2Evidence
    format: str = "TPM quote"

    def verify(self, key: VerificationKey, *, algorithms: Collection[str]) -> None:
        del algorithms  # decoding has refused the weak ones
        evidence = self.evidence
        evidence.signature.verify(key, evidence.quote.raw, format=self.format)
        certified = evidence.key_attestation
        if certified is not None:
            certified.signature.verify(key, certified.attest.raw, format="TPM key attestation")


def _instance_id(evidence: Tpm2Evidence) -> bytes:
    """Return what the attestation key is registered by."""
    if evidence.key_id:
        return evidence.key_id
    key = evidence.attestation_key
    return evidence.quote.qualified_signer if key is None else key.name


def _verify_signature(
    evidence: Tpm2Evidence, trust_anchors: TrustAnchorSource, context: VerificationContext
) -> _Signer:
    instance_id = _instance_id(evidence)
    certified = _certified_key(evidence)
    if certified is not None:
        registered = trust_anchors.keys("tpm2", implementation_id=b"", instance_id=instance_id)
        if thumbprint(certified) not in {anchor_thumbprint(each) for each in registered}:
            return _verify_certified(evidence, certified, trust_anchors, context)
    key = verify_under_anchors(
        _Quote(evidence),
        scheme="tpm2",
        implementation_id=b"",
        instance_id=instance_id,
        trust_anchors=trust_anchors,
        algorithms=(),
    )
    own = anchor_thumbprint(key)
    _check_public_area(evidence, own)
    return _Signer(own, anchor=own)


def _certified_key(evidence: Tpm2Evidence) -> VerificationKey | None:
    if not evidence.certificates:
        return None
    leaf = evidence.certificates[0]
    try:
        material = supported_public_key(leaf.public_key(), format="certificate of the AK")
    except (ValueError, DecodeError, UnsupportedAlgorithm) as exc:
        raise SignatureError(f"the AK's certificate has no key that verifies: {exc}") from exc
    return VerificationKey(material, source="the AK's certificate")


def _verify_certified(
    evidence: Tpm2Evidence,
    key: VerificationKey,
    trust_anchors: TrustAnchorSource,
    context: VerificationContext,
) -> _Signer:
    root = verify_attestation_certificate(
        evidence.certificates, trust_anchors.certificates("tpm2"), context=context
    )
    _Quote(evidence).verify(key, algorithms=())
    own = thumbprint(key)
    _check_public_area(evidence, own)
    digest = root.fingerprint(hashes.SHA256())
    return _Signer(own, anchor=digest.hex(), implementation_id=digest, is_device=False)


def _check_public_area(evidence: Tpm2Evidence, signer: str) -> None:
    key = evidence.attestation_key  # (3)
    if key is None:
        return
    try:
        own = key.thumbprint
    except UnsupportedError as exc:
        raise SignatureError(f"the attestation key's public area: {exc}") from exc
    if own != signer:
        raise BindingError(
            "the public area in the Evidence is not that of the key that signed the quote",
            remedy="Send the public area of the attestation key itself.",
        )


def _check_key_attestation(evidence: Tpm2Evidence) -> None:
    certified = evidence.key_attestation
    if certified is None:
        return
    attested = certified.attest.attested
    if not isinstance(attested, Certified):
        raise BindingError("the key attestation does not certify a key")
    if not hmac.compare_digest(attested.name, certified.key.name):
        raise BindingError(
            f"the key attestation certifies {attested.name.hex()}, the public area beside it is "
            f"that of {certified.key.name.hex()}"
        )
    if not hmac.compare_digest(certified.attest.extra_data, evidence.quote.extra_data):
        raise BindingError("the key attestation was made for another challenge than the quote")
