# SPDX-License-Identifier: Apache-2.0
"""Evidence and the step that it has reached.

`Evidence` is decoded and nothing in it is trusted. `VerifiedEvidence` is made only by a scheme's
`verify()`: its signatures lead to a trust anchor, its parts belong together, and its freshness
was either checked or explicitly left unchecked. Neither says that the measured software is
acceptable: that is appraisal (`troth.verifier`).

Source: RFC 9334 section 8 (conceptual messages).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from cryptography import x509

from troth.evidence.context import NO_CONTEXT, VerificationContext
from troth.formats.keys import VerificationKey

__all__ = [
    "ClaimsSet",
    "Evidence",
    "NonceMatched",
    "Scheme",
    "TrustAnchorSource",
    "Unchecked",
    "VerifiedEvidence",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One decoded piece of Evidence; each scheme extends it with its own tokens.

    Attributes:
        scheme: the scheme's one word, such as "psa".
        media_type: media type that the bytes came under or that the scheme gives them.
        raw: the bytes as received.
    """

    scheme: str
    media_type: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsSet:
    """The claims that one Attesting Environment makes, ready for JSON, Rego and people.

    Attributes:
        label: EAR submodule label, such as "psa", "cca-platform" or "cca-realm".
        component: what the claims are about: "platform", "realm", "vm", "enclave", "node".
        layer: who vouches for them: "hardware", "node_agent" or "control_plane".
        claims: names as in the scheme's specification; byte strings as lower-case hex.
    """

    label: str
    component: str
    layer: str
    claims: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class NonceMatched:
    """The Evidence carries exactly the challenge that the Verifier expected."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Freshness was, by an explicit choice, not checked. It shows in every result."""

    why: str


E_co = TypeVar("E_co", bound=Evidence, covariant=True)
E = TypeVar("E", bound=Evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEvidence(Generic[E_co]):
    """Authentic Evidence. Only a scheme's `verify()` makes one.

    Attributes:
        evidence: the scheme's own decoded form.
        claims_sets: one for each Attesting Environment, outermost (platform) first.
        freshness: what was established about it.
        implementation_id: identifies the class (product) of the Attester, else b"".
        instance_id: identifies this very Attester (UEID, chip id, AK name), else b"".
        signer: RFC 7638 SHA-256 thumbprint (hex) of the key, or SHA-256 of the certificate, that
            the chain of trust starts from.
        signer_is_device: `signer` is a key of this one device (a registered IAK, CPAK, AK), not a
            root that vouches for many. Such a key outlives instance ids, which some firmware
            changes with an update: the registry then knows the device by it.
        boot_session: changes with each boot where the scheme has such a claim, else b"".
        insecure: reasons why this Evidence must not count in production, such as a published
            test key or the platform simulator. Shown wherever the result shows.
    """

    evidence: E_co
    claims_sets: Sequence[ClaimsSet]
    freshness: NonceMatched | Unchecked
    implementation_id: bytes = b""
    instance_id: bytes = b""
    signer: str = ""
    signer_is_device: bool = False
    boot_session: bytes = b""
    insecure: Sequence[str] = ()


class TrustAnchorSource(Protocol):
    """Where `verify()` finds the keys that it may believe. An empty answer means refusal."""

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        """Return the attestation keys registered for this Attester (perhaps several)."""
        ...

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        """Return the root certificates that this scheme's chains may end at."""
        ...


class Scheme(Protocol[E]):
    """One kind of Evidence. The name is one word in five places (ARCHITECTURE.md).

    Attributes:
        name: the one word.
        media_types: every media type under which this Evidence travels; the first is written.
        challenge_size: octets of caller-controlled challenge that the Evidence carries.
        tier: assurance tier that the scheme can reach at best.
    """

    name: str
    media_types: Sequence[str]
    challenge_size: int
    tier: str

    def recognises(self, data: bytes) -> bool:
        """Say whether `data` looks like this scheme's Evidence, from its first octets only."""
        ...

    def decode(self, data: bytes, *, media_type: str = "") -> E:
        """Decode within the documented limits.

        Raises:
            DecodeError: or its subclasses, naming the part and the place.
        """
        ...

    def verify(
        self,
        evidence: E,
        *,
        trust_anchors: TrustAnchorSource,
        freshness: bytes | Unchecked,
        allow_test_keys: bool = False,
        allow_simulator: bool = False,
        context: VerificationContext = NO_CONTEXT,
    ) -> VerifiedEvidence[E]:
        """Establish authenticity; `freshness` is the expected challenge, or why not to check it.

        Raises:
            SignatureError, ChainError, FreshnessError, BindingError: refusals, final.
            UnavailableError: a document that the scheme needs is not in the context; nothing
                follows about the Attester.
        """
        ...
