# SPDX-License-Identifier: Apache-2.0
"""The EAT Attestation Result, whatever dialect and encoding it came in.

Source: draft-ietf-rats-ear-03 section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from troth.errors import DecodeError
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.ear.troth_claims import TrothClaims

__all__ = ["PROFILE_IETF_03", "Ear", "EarSubmod", "VerifierId", "minimise"]

PROFILE_IETF_03: Final = "tag:ietf.org,2026:rats/ear#03"

_FORMAT: Final = "EAR"
# RFC 9711 section 4.1: a nonce has 8 to 64 octets.
_NONCE_SIZES: Final = range(8, 65)


@dataclass(frozen=True, slots=True)
class VerifierId:
    """Which Verifier appraised (draft-ietf-rats-ar4si-06 section 3.3).

    Attributes:
        developer: who makes the software, as a URI or name.
        build: which build of it.
    """

    developer: str
    build: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EarSubmod:
    """The appraisal of one Attester.

    Attributes:
        status: the overall tier; never better than the worst claim of `vector`.
        vector: the breakdown, or None where it makes no claim or was left out on request.
        policy_ids: the appraisal policies, in the order in which they were applied.
        profile: EAT profile of this appraisal, or "".
        nonce: the nonce found in the Evidence, not the one of the result; or None.
        key: DER SubjectPublicKeyInfo of the key that the Evidence vouches for, or None.
        troth: Troth's own claims.
        extensions: every other claim: those of known extensions under their draft-03 name, unknown
            ones under their own name or CBOR key. Read-only.

    Raises:
        DecodeError: one of the rules above, or of the draft, is broken.
    """

    status: TrustTier
    vector: TrustworthinessVector | None = None
    policy_ids: Sequence[str] = ()
    profile: str = ""
    nonce: bytes | None = None
    key: bytes | None = None
    troth: TrothClaims = field(default_factory=TrothClaims)
    extensions: Mapping[str | int, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy_ids", tuple(self.policy_ids))
        object.__setattr__(self, "extensions", MappingProxyType(dict(self.extensions)))
        if self.vector is not None and not any(True for _ in self.vector.items()):
            object.__setattr__(self, "vector", None)  # draft 03 has no empty vector
        worst = TrustTier.NONE if self.vector is None else self.vector.worst
        # Values of tier none are the same as no claim, so they do not hold the status down.
        if worst is not TrustTier.NONE and self.status.is_better_than(worst):
            raise DecodeError(
                f"status {self.status.word} is better than the worst claim of the vector, "
                f"{worst.word}",
                format=_FORMAT,
            )
        _check_nonce(self.nonce)
        if self.key is not None:
            _check_key(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ear:
    """One Attestation Result, for one Attester or a composite of several.

    An `Ear` is a statement that may or may not be signed; `verify_ear` gives one that was.

    Attributes:
        submods: label to appraisal; one or more.
        issued_at: when it was issued; whole seconds, UTC.
        verifier_id: who appraised.
        profile: the EAT profile that it came under; decides what `encode_ear` keeps.
        status: tier of the whole, or None; never better than that of any submod.
        expires_at, not_before: validity; whole seconds, UTC; or None.
        nonce: the nonce that the requester gave, or None.
        raw_evidence: the Evidence as submitted, or None.
        troth: Troth's own claims about the whole.
        extensions: every other claim; see `EarSubmod`.

    Raises:
        DecodeError: one of the rules above, or of the draft, is broken.
    """

    submods: Mapping[str, EarSubmod]
    issued_at: datetime
    verifier_id: VerifierId
    profile: str = PROFILE_IETF_03
    status: TrustTier | None = None
    expires_at: datetime | None = None
    not_before: datetime | None = None
    nonce: bytes | None = None
    raw_evidence: bytes | None = field(default=None, repr=False)
    troth: TrothClaims = field(default_factory=TrothClaims)
    extensions: Mapping[str | int, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "submods", MappingProxyType(dict(self.submods)))
        object.__setattr__(self, "extensions", MappingProxyType(dict(self.extensions)))
        if not self.submods:
            raise DecodeError("submods is empty: nothing was appraised", format=_FORMAT)
        least = TrustTier.least_trusted(submod.status for submod in self.submods.values())
        if self.status is not None and self.status.is_better_than(least):
            raise DecodeError(
                f"status {self.status.word} is better than that of a submod, {least.word}",
                format=_FORMAT,
            )
        _check_nonce(self.nonce)
        for time in (self.issued_at, self.expires_at, self.not_before):
            if time is not None and (time.tzinfo is None or time.microsecond):
                raise DecodeError("a time is not whole seconds with a zone", format=_FORMAT)

    @property
    def overall_status(self) -> TrustTier:
        """The least trusted of the top-level status and every submod's: what a decision rests on.

        Worst first: contraindicated, none, warning, affirming.
        """
        statuses = [submod.status for submod in self.submods.values()]
        return TrustTier.least_trusted(
            statuses if self.status is None else [*statuses, self.status]
        )

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Every distinct key (DER SubjectPublicKeyInfo) that a submod vouches for."""
        return _distinct(submod.key for submod in self.submods.values())

    @property
    def insecure(self) -> tuple[str, ...]:
        """Every distinct reason, from any place, why this result must not count in production."""
        claims = (self.troth, *(submod.troth for submod in self.submods.values()))
        return tuple(dict.fromkeys(reason for claim in claims for reason in claim.insecure))


def minimise(ear: Ear) -> Ear:
    """Return what a certificate has to carry of `ear`, and no more.

    Kept: profile, Verifier and its name (`iss`), times, statuses, vectors, keys, policy
    identifiers, and the Troth claims marked so. Dropped: the Evidence, whole or annotated, findings, boot session, nonces (both have
    served), policy claims and every extension that Troth does not know.

    The signature over `ear` does not cover the result: sign it again.

    Spec: draft-ietf-rats-ear-03 section 8 (privacy).
    """
    submods = {
        label: replace(
            submod, nonce=None, profile="", troth=submod.troth.minimised(), extensions={}
        )
        for label, submod in ear.submods.items()
    }
    return replace(
        ear,
        submods=submods,
        nonce=None,
        raw_evidence=None,
        troth=ear.troth.minimised(),
        extensions={name: value for name, value in ear.extensions.items() if name == "iss"},
    )


def _distinct(keys: Iterable[bytes | None]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(key for key in keys if key is not None))


def _check_nonce(nonce: bytes | None) -> None:
    if nonce is not None and len(nonce) not in _NONCE_SIZES:
        raise DecodeError(f"a nonce of {len(nonce)} octets, not 8 … 64", format=_FORMAT)


@lru_cache(maxsize=256)
def _check_key(key: bytes) -> None:
    """Refuse what is not exactly one SubjectPublicKeyInfo. Whether the key is strong is not asked."""
    try:
        public_key = serialization.load_der_public_key(key)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise DecodeError("akpub is not a SubjectPublicKeyInfo", format=_FORMAT) from exc
    again = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if again != key:  # one key must not have two spellings: keys are compared as octets
        raise DecodeError("akpub is not the DER spelling of its key", format=_FORMAT)
