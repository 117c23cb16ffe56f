# SPDX-License-Identifier: Apache-2.0
"""The CCA scheme: from octets to authentic claims of a platform and of a realm on it.

The order of `verify()`, whose numbers the code wears; structure was checked by `decode()`:

1. the simulator is recognised;
2. certificates in the headers are refused;
3. the platform token is verified under the CPAKs registered for the platform;
4. the realm token is verified under the RAK that it carries itself;
5. the RAK is the one whose hash the platform signed: only now is it to be believed;
6. published test keys are recognised, CPAK and RAK;
7. the realm's challenge is compared.

Source: draft-ffm-rats-cca-token sections 4.10 (token binding) and 7 (verification); Arm RMM
Specification (DEN0137) section A7.2.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from troth.errors import BindingError, DecodeError, SignatureError
from troth.evidence.anchor import (
    ECDSA,
    anchor_thumbprint,
    refuse_certificate_chain,
    verify_under_anchors,
)
from troth.evidence.cca.evidence import CcaEvidence, decode
from troth.evidence.cca.platform_claims import PLATFORM_PROFILES, PlatformClaims
from troth.evidence.cca.realm_claims import REALM_2_0_0, REALM_HASHES, RealmClaims
from troth.evidence.claimed import Claimed
from troth.evidence.context import NO_CONTEXT, VerificationContext
from troth.evidence.evidence import (
    ClaimsSet,
    TrustAnchorSource,
    Unchecked,
    VerifiedEvidence,
)
from troth.evidence.freshness import check_freshness
from troth.evidence.insecure import refuse_published_key, refuse_simulator
from troth.formats import cbor
from troth.formats.cose import CoseKey
from troth.formats.eat import eat_media_type
from troth.formats.jwk import ec_thumbprint
from troth.formats.keys import VerificationKey, thumbprint

__all__ = ["CHALLENGE_SIZE", "CcaScheme"]

CHALLENGE_SIZE = 64
"""Octets of the realm's challenge; the RMM zero-pads a shorter one."""

_STARTS = (b"\xd9\x03\x8b", b"\xd9\x01\x8f")
"""Tags 907 and 399."""


class CcaScheme:
    """Arm CCA attestation tokens. See docs/reference/schemes/cca.md."""

    name: str = "cca"
    media_types: Sequence[str] = (
        *(eat_media_type(profile) for profile in PLATFORM_PROFILES),
        'application/eat-collection; profile="http://arm.com/CCA-SSD/1.0.0"',
    )
    challenge_size: int = CHALLENGE_SIZE
    tier: str = "confidential"

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` starts with one of the two wrappers' tags."""
        return data.startswith(_STARTS)

    def decode(self, data: bytes, *, media_type: str = "") -> CcaEvidence:
        """Decode one token; see `troth.evidence.cca.evidence.decode`."""
        return decode(data, media_type=media_type)

    def claimed(self, evidence: CcaEvidence) -> Claimed:
        """Return what a token says of itself; nothing of it is verified."""
        platform, realm = evidence.platform.claims, evidence.realm.claims
        return Claimed(
            challenge=realm.challenge,
            challenge_claim="cca-realm-challenge",
            padded_to=CHALLENGE_SIZE,
            claims_sets=_claims_sets(platform, realm),
            implementation_id=platform.implementation_id,
            instance_id=platform.instance_id,
            boot_session=_boot_session(realm),
        )

    def verify(
        self,
        evidence: CcaEvidence,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedEvidence[CcaEvidence]:
        """Establish that this platform vouches for this realm, for this challenge.

        Says nothing about whether lifecycle and measurements are acceptable.

        Raises:
            SignatureError: no trust anchor, a signature does not verify, or a key that must not
                count.
            ChainError: a token relies on certificates.
            BindingError: the realm token is not of this platform.
            FreshnessError: another challenge.
        """
        del context  # its keys are registered one by one
        platform, realm = evidence.platform, evidence.realm
        identity = platform.claims
        insecure = refuse_simulator(identity.implementation_id, allowed=allow_simulator)  # (1)
        refuse_certificate_chain(platform.envelope)  # (2)
        refuse_certificate_chain(realm.envelope)
        cpak = verify_under_anchors(  # (3)
            platform.envelope,
            scheme=self.name,
            implementation_id=identity.implementation_id,
            instance_id=identity.instance_id,
            trust_anchors=trust_anchors,
            algorithms=ECDSA,
        )
        rak, rak_point = _realm_attestation_key(realm.claims)
        realm.envelope.verify(rak, algorithms=ECDSA)  # (4)
        _check_binding(identity, realm.claims)  # (5)
        signer = anchor_thumbprint(cpak)
        published = refuse_published_key(signer, role="CPAK", allowed=allow_test_keys)  # (6)
        insecure += published
        insecure += refuse_published_key(
            _point_thumbprint(rak, rak_point), role="RAK", allowed=allow_test_keys
        )
        matched = check_freshness(  # (7)
            realm.claims.challenge,
            freshness,
            claim="cca-realm-challenge",
            zero_pad_to=CHALLENGE_SIZE,
        )
        return VerifiedEvidence(
            evidence=evidence,
            claims_sets=_claims_sets(identity, realm.claims),
            freshness=matched,
            implementation_id=identity.implementation_id,
            instance_id=identity.instance_id,
            signer=signer,
            signer_is_device=not published,  # everybody has a published one
            boot_session=_boot_session(realm.claims),
            insecure=insecure,
        )


def _realm_attestation_key(claims: RealmClaims) -> tuple[VerificationKey, bytes]:
    """Return the RAK, and x and y one after the other where the claim has them so, else b""."""
    encoded, format_ = claims.public_key, "claim 44237 (cca-realm-public-key)"
    try:
        if not claims.profile:
            material = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), encoded)
            return VerificationKey(material, source="the realm token"), encoded[1:]
        value = cbor.decode(encoded, format=format_)
        key = CoseKey.from_value(value, format=format_)
    except (DecodeError, ValueError) as exc:
        raise SignatureError(f"CCA realm token: {format_} is no key: {exc}") from exc
    match value:
        case {-2: bytes() as x, -3: bytes() as y}:
            return key, x + y
    return key, b""


def _point_thumbprint(key: VerificationKey, point: bytes) -> str:
    """Return `thumbprint(key)`, from the coordinates where they are at hand.

    The key is another one in each token, and taking a public key apart costs a tenth of verifying
    with it.
    """
    material = key.material
    if not point or not isinstance(material, ec.EllipticCurvePublicKey):
        return thumbprint(key)
    half = len(point) // 2
    return ec_thumbprint(material.curve, point[:half], point[half:])


def _check_binding(platform: PlatformClaims, realm: RealmClaims) -> None:
    # The hash goes over the octets of the claim, whatever they encode (draft section 4.10).
    digest = hashlib.new(REALM_HASHES[realm.public_key_hash_algorithm], realm.public_key).digest()
    if not hmac.compare_digest(digest, platform.nonce):
        raise BindingError(
            f"the realm token is not of this platform: {realm.public_key_hash_algorithm} of its "
            f"public key is {digest.hex()}, the platform vouches for {platform.nonce.hex()}",
            remedy="Two tokens of different origin were put together, or the platform token is "
            "older than the realm's key: attest again.",
        )


def _claims_sets(platform: PlatformClaims, realm: RealmClaims) -> tuple[ClaimsSet, ClaimsSet]:
    return (
        ClaimsSet(
            label="cca-platform",
            component="platform",
            layer="hardware",
            claims=platform.to_json(),
        ),
        ClaimsSet(label="cca-realm", component="realm", layer="hardware", claims=realm.to_json()),
    )


def _boot_session(realm: RealmClaims) -> bytes:
    # Random for each realm that is created, and a realm boots once: DEN0137 A7.2.3.1.3. Older
    # profiles say nothing about the claim even where firmware sends it.
    return realm.instance_id if realm.profile == REALM_2_0_0 else b""
