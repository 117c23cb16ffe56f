# SPDX-License-Identifier: Apache-2.0
"""Step 2 of a scheme: the Scheme port, whose `verify()` alone makes VerifiedEvidence.

Write the order of checks down here, and let the code wear the numbers:

1. the envelope verifies under a key that is registered for this device;
2. the key is not a published test key;
3. the challenge is the expected one.

A scheme that has a simulator, certificates or several tokens has more; see `psa` and `cca`.
"""

from __future__ import annotations

from collections.abc import Sequence

from troth.evidence.anchor import ECDSA, anchor_thumbprint, verify_under_anchors
from troth.evidence.context import NO_CONTEXT, VerificationContext
from troth.evidence.evidence import ClaimsSet, TrustAnchorSource, Unchecked, VerifiedEvidence
from troth.evidence.example.evidence import CHALLENGE_SIZE, MEDIA_TYPE, ExampleEvidence, decode
from troth.evidence.freshness import check_freshness
from troth.evidence.insecure import refuse_published_key

__all__ = ["ExampleScheme"]


class ExampleScheme:
    """The made-up scheme."""

    name: str = "example"
    media_types: Sequence[str] = (MEDIA_TYPE,)
    challenge_size: int = CHALLENGE_SIZE
    tier: str = "measured"

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` starts as this scheme's Evidence does; cheap, and never raises."""
        return data.startswith(b"\x82\x67example")

    def decode(self, data: bytes, *, media_type: str = "") -> ExampleEvidence:
        """Decode one piece of Evidence; see `troth.evidence.example.evidence.decode`."""
        return decode(data, media_type=media_type)

    def verify(
        self,
        evidence: ExampleEvidence,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedEvidence[ExampleEvidence]:
        """Establish that the device named in the Evidence made it, for this challenge.

        Raises:
            SignatureError: no trust anchor, none verifies, or a published key.
            FreshnessError: another challenge.
        """
        del allow_simulator, context  # no simulator, and no certificates
        claims = evidence.claims
        instance_id = claims.serial.encode()
        key = verify_under_anchors(  # (1)
            evidence.envelope,
            scheme=self.name,
            implementation_id=b"",
            instance_id=instance_id,
            trust_anchors=trust_anchors,
            algorithms=ECDSA,
        )
        signer = anchor_thumbprint(key)
        insecure = refuse_published_key(signer, role="device key", allowed=allow_test_keys)  # (2)
        matched = check_freshness(claims.challenge, freshness, claim="challenge")  # (3)
        return VerifiedEvidence(
            evidence=evidence,
            claims_sets=(
                ClaimsSet(
                    label="example", component="node", layer="hardware", claims=claims.to_json()
                ),
            ),
            freshness=matched,
            instance_id=instance_id,
            signer=signer,
            signer_is_device=not insecure,
            insecure=insecure,
        )
