# SPDX-License-Identifier: Apache-2.0
"""The PSA scheme: from octets to authentic claims.

The order of `verify()`, whose numbers the code wears; structure was checked by `decode()`:

1. the simulator is recognised;
2. certificates in the headers are refused;
3. keys are looked up by implementation id and instance id, and the envelope verified under them;
4. published test keys are recognised;
5. the nonce is compared.

Source: RFC 9783 sections 4.6, 5.1 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence

from troth.evidence.anchor import (
    ECDSA,
    HMAC,
    anchor_thumbprint,
    refuse_certificate_chain,
    verify_under_anchors,
)
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
from troth.evidence.psa.claims import PROFILES, PsaClaims
from troth.evidence.psa.evidence import PsaEvidence, decode
from troth.formats.cose import Sign1

__all__ = ["PsaScheme"]

# Tags 18 and 17, in the shortest encoding and in the next longer one that a device may choose.
_STARTS = (b"\xd2\x84", b"\xd1\x84", b"\xd8\x12\x84", b"\xd8\x11\x84")


class PsaScheme:
    """PSA attestation tokens (RFC 9783). See docs/reference/schemes/psa.md."""

    name: str = "psa"
    media_types: Sequence[str] = (
        *(profile.media_type for profile in PROFILES.values()),
        "application/psa-attestation-token",
    )
    challenge_size: int = 64
    tier: str = "measured"

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` starts like a tagged COSE_Sign1 or COSE_Mac0.

        Other schemes' tokens may start so as well; the profile claim settles it in `decode()`.
        """
        return data.startswith(_STARTS)

    def decode(self, data: bytes, *, media_type: str = "") -> PsaEvidence:
        """Decode one token; see `troth.evidence.psa.evidence.decode`."""
        return decode(data, media_type=media_type)

    def claimed(self, evidence: PsaEvidence) -> Claimed:
        """Return what a token says of itself; nothing of it is verified."""
        claims = evidence.claims
        return Claimed(
            challenge=claims.nonce,
            challenge_claim="nonce",
            claims_sets=_claims_sets(claims),
            implementation_id=claims.implementation_id,
            instance_id=claims.instance_id,
            boot_session=claims.boot_seed,
        )

    def verify(
        self,
        evidence: PsaEvidence,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedEvidence[PsaEvidence]:
        """Establish that the device named in the token made it, for this challenge.

        Says nothing about whether lifecycle and measurements are acceptable.

        Raises:
            SignatureError: no trust anchor, no key verifies, or one that must not count.
            ChainError: the token relies on certificates.
            FreshnessError: another nonce.
        """
        del context  # its keys are registered one by one
        claims, envelope = evidence.claims, evidence.envelope
        insecure = refuse_simulator(claims.implementation_id, allowed=allow_simulator)  # (1)
        refuse_certificate_chain(envelope)  # (2)
        key = verify_under_anchors(  # (3)
            envelope,
            scheme=self.name,
            implementation_id=claims.implementation_id,
            instance_id=claims.instance_id,
            trust_anchors=trust_anchors,
            algorithms=ECDSA if isinstance(envelope, Sign1) else HMAC,
        )
        signer = anchor_thumbprint(key)
        published = refuse_published_key(signer, role="IAK", allowed=allow_test_keys)  # (4)
        matched = check_freshness(claims.nonce, freshness, claim="nonce")  # (5)
        return VerifiedEvidence(
            evidence=evidence,
            claims_sets=_claims_sets(claims),
            freshness=matched,
            implementation_id=claims.implementation_id,
            instance_id=claims.instance_id,
            signer=signer,
            signer_is_device=not published,  # everybody has a published one
            boot_session=claims.boot_seed,
            insecure=insecure + published,
        )


def _claims_sets(claims: PsaClaims) -> tuple[ClaimsSet, ...]:
    return (ClaimsSet(label="psa", component="node", layer="hardware", claims=claims.to_json()),)
