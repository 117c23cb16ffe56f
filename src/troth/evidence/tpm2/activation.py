# SPDX-License-Identifier: Apache-2.0
"""Credential activation: does this attestation key live in the TPM with that endorsement key?

An attestation key (AK) says nothing about itself. The endorsement key (EK) is the TPM's identity,
known from its vendor's certificate or a register of devices, but it does not sign. So a Verifier
encrypts a secret for the EK and the AK's name; the TPM opens it only if an object of exactly that
name is loaded in it. Whoever answers with the secret has shown that the AK, with the attributes in
its name, lives in that TPM. From then on the AK may be registered.

Three messages: `ActivationRequest` → `ActivationChallenge` → the secret. The answer proves nothing
about the machine's state: a quote under the AK does. It must travel to the Verifier over a channel
that nobody can take the answer from.

Source: TPM 2.0 Library, Part 1, sections 9.5.3.3 and 24; TCG "TPM 2.0 Keys for Device Identity and
Attestation", version 1.0, section 6.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from troth.errors import (
    ApiMisuseError,
    BindingError,
    ChainError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
)
from troth.evidence.anchor import anchor_thumbprint
from troth.evidence.certificates import load_certificate
from troth.evidence.context import VerificationContext
from troth.evidence.evidence import TrustAnchorSource
from troth.evidence.tpm2.attestation_key import require_attestation_key
from troth.evidence.tpm2.certificates import verify_endorsement_certificate
from troth.formats import cbor
from troth.formats.keys import thumbprint
from troth.formats.limits import MAX_CERTIFICATES, Limits
from troth.formats.tpm.credential import Credential, decode_credential, make_credential
from troth.formats.tpm.public import (
    DECRYPT,
    FIXED_PARENT,
    FIXED_TPM,
    RESTRICTED,
    SIGN,
    TpmPublic,
    decode_public,
)
from troth.formats.verification_key import supported_public_key

__all__ = [
    "ACTIVATION_LIFETIME",
    "ActivatedKey",
    "ActivationChallenge",
    "ActivationRequest",
    "CredentialActivation",
    "verify_endorsement_key",
]

ACTIVATION_LIFETIME: Final = timedelta(minutes=2)
"""How long a challenge may be answered; the slowest TPM takes some ten seconds."""

_SECRET_SIZE: Final = 32
_LIMITS: Final = Limits(max_bytes=65_536, max_items=32, max_depth=2)
_REQUEST_FORM: Final = "troth-tpm2-activation/1"
_REQUEST, _CHALLENGE = "activation request", "activation challenge"
_EK_REQUIRED: Final = FIXED_TPM | FIXED_PARENT | RESTRICTED | DECRYPT


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRequest:
    """What an Attester sends to have its attestation key believed. Nothing in it is believed yet.

    Attributes:
        endorsement_key: public area of the EK.
        attestation_key: public area of the AK.
        certificates: of the EK in DER, leaf first; none where a register of devices knows it.
    """

    endorsement_key: TpmPublic
    attestation_key: TpmPublic
    certificates: Sequence[bytes] = ()

    def encode(self) -> bytes:
        """Return the message."""
        return cbor.encode(
            {
                0: _REQUEST_FORM,
                1: self.endorsement_key.raw,
                2: self.attestation_key.raw,
                3: list(self.certificates),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> ActivationRequest:
        """Decode the message, whole.

        Raises:
            DecodeError: not one.
            LimitExceededError: a limit was crossed.
        """
        value = cbor.decode(data, format=_REQUEST, limits=_LIMITS)
        if not isinstance(value, dict) or value.keys() != {0, 1, 2, 3}:
            raise DecodeError("is not a map of the members 0 to 3", format=_REQUEST)
        if value[0] != _REQUEST_FORM:
            raise DecodeError(f"member 0 is not {_REQUEST_FORM!r}", format=_REQUEST)
        endorsement, attestation, chain = value[1], value[2], value[3]
        if not isinstance(endorsement, bytes) or not isinstance(attestation, bytes):
            raise DecodeError("members 1 and 2 are not byte strings", format=_REQUEST)
        if not isinstance(chain, list) or not all(isinstance(each, bytes) for each in chain):
            raise DecodeError("member 3 is not an array of byte strings", format=_REQUEST)
        if len(chain) > MAX_CERTIFICATES:
            raise LimitExceededError(
                format=_REQUEST, limit="MAX_CERTIFICATES", value=MAX_CERTIFICATES
            )
        return cls(
            endorsement_key=decode_public(endorsement),
            attestation_key=decode_public(attestation),
            certificates=tuple(chain),
        )


@dataclass(frozen=True, slots=True)
class ActivationChallenge:
    """What the TPM has to open. Anybody may see it."""

    credential: Credential

    def encode(self) -> bytes:
        """Return the message: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""
        return self.credential.encode()

    @classmethod
    def decode(cls, data: bytes) -> ActivationChallenge:
        """Decode the message, whole.

        Raises:
            DecodeError: not one.
        """
        try:
            return cls(decode_credential(data))
        except DecodeError as exc:
            raise DecodeError(str(exc), format=_CHALLENGE) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivatedKey:
    """An attestation key that lives in a TPM. Only `CredentialActivation` makes one.

    Attributes:
        attestation_key: its public area; register the key under `attestation_key.name`.
        endorsement_key: of that TPM.
        vouched_by: what says whose TPM it is, as `verify_endorsement_key` returned it.
    """

    attestation_key: TpmPublic
    endorsement_key: TpmPublic
    vouched_by: str


@dataclass(slots=True)
class CredentialActivation:
    """The Verifier's side of one activation: made for one request, answered once.

    Attributes:
        challenge: goes to the Attester.
        expires: until when the answer is taken.
    """

    challenge: ActivationChallenge
    expires: datetime
    _outcome: ActivatedKey = field(repr=False)
    _secret: bytes = field(repr=False)
    _is_spent: bool = False

    @classmethod
    def begin(
        cls,
        request: ActivationRequest,
        *,
        trust_anchors: TrustAnchorSource,
        context: VerificationContext,
        random: Callable[[int], bytes],
        lifetime: timedelta = ACTIVATION_LIFETIME,
    ) -> CredentialActivation:
        """Return an activation whose challenge only the known TPM of the request can answer.

        Args:
            request: as received.
            trust_anchors: registered EKs, and roots of their certificates.
            context: with the time.
            random: gives that many octets; the secret comes from it.
            lifetime: how long the answer is taken.

        Raises:
            SignatureError: the AK is not a restricted signing key, the EK not a restricted
                decryption key, or nothing vouches for the EK.
            ChainError, BindingError: as `verify_endorsement_key`.
            DecodeError, UnsupportedError: a key that Troth does not take.
        """
        require_attestation_key(request.attestation_key)
        _require_endorsement_key(request.endorsement_key)
        vouched_by = verify_endorsement_key(request, trust_anchors=trust_anchors, context=context)
        secret = random(_SECRET_SIZE)
        credential = make_credential(
            request.endorsement_key, request.attestation_key.name, secret, random=random
        )
        return cls(
            challenge=ActivationChallenge(credential),
            expires=context.time + lifetime,
            _outcome=ActivatedKey(
                attestation_key=request.attestation_key,
                endorsement_key=request.endorsement_key,
                vouched_by=vouched_by,
            ),
            _secret=secret,
        )

    def complete(self, answer: bytes, *, now: datetime) -> ActivatedKey:
        """Return the proof that the answer is the TPM's. A second answer is never looked at.

        Raises:
            BindingError: it is not: the key does not live in that TPM.
            FreshnessError: too late.
            ApiMisuseError: it was answered before.
        """
        if self._is_spent:
            raise ApiMisuseError("an activation is answered once")
        self._is_spent = True
        if now > self.expires:
            raise FreshnessError(
                f"the activation was to be answered until {self.expires:%FT%TZ}",
                remedy="Ask for a new challenge.",
            )
        if not hmac.compare_digest(answer, self._secret):
            raise BindingError(
                "the answer is not the secret: the attestation key does not live in the TPM with "
                "that endorsement key",
                remedy="Activate on the machine itself, with the key that the request names.",
            )
        return self._outcome


def verify_endorsement_key(
    request: ActivationRequest, *, trust_anchors: TrustAnchorSource, context: VerificationContext
) -> str:
    """Establish whose TPM the endorsement key belongs to; return what vouches for that.

    It is registered itself, with its name as instance id; or its certificate leads to a root of
    the scheme.

    Returns:
        RFC 7638 thumbprint of the registered EK, or SHA-256 of the root certificate, in hex.

    Raises:
        SignatureError: neither.
        ChainError: the certificate does not lead to a root.
        BindingError: the certificate is another key's.
    """
    key = request.endorsement_key
    registered = trust_anchors.keys("tpm2", implementation_id=b"", instance_id=key.name)
    if key.thumbprint in {anchor_thumbprint(each) for each in registered}:
        return key.thumbprint
    if not request.certificates:
        raise SignatureError(
            f"endorsement key {key.name.hex()} is not registered, and has no certificate",
            remedy="Provision the key in a CoRIM with its name as the instance, or the vendor's "
            "root certificate.",
        )
    chain = [
        load_certificate(each, format="certificate of the EK") for each in request.certificates
    ]
    root = verify_endorsement_certificate(
        chain, trust_anchors.certificates("tpm2"), context=context
    )
    if _certified_thumbprint(chain[0]) != key.thumbprint:
        raise BindingError("the certificate is not the endorsement key's")
    return root.fingerprint(hashes.SHA256()).hex()


def _require_endorsement_key(key: TpmPublic) -> None:
    missing = key.missing(_EK_REQUIRED)
    if missing or key.attributes & SIGN:
        raise SignatureError(
            "the endorsement key is not a restricted decryption key of one TPM"
            + (f": it lacks {', '.join(missing)}" if missing else ": it may sign"),
            remedy="Send the endorsement key that the vendor's template makes (tpm2_createek).",
        )


def _certified_thumbprint(certificate: x509.Certificate) -> str:
    try:
        key = supported_public_key(certificate.public_key(), format="certificate of the EK")
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ChainError(f"the EK's certificate has no key that Troth takes: {exc}") from exc
    return thumbprint(key)
