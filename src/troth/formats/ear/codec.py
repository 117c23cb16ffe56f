# SPDX-License-Identifier: Apache-2.0
"""EAR claims sets, unsigned: JSON or CBOR to `Ear` and back, in three dialects.

Source: draft-ietf-rats-ear-03 section 3; RFC 9711 section 7.2 (JSON and CBOR interoperability).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Final, Literal, TypeVar

from troth.errors import ApiMisuseError, DecodeError, UnsupportedError
from troth.formats import cbor
from troth.formats.ar4si import TrustTier
from troth.formats.ear.dialects import (
    CORE,
    EAT_PROFILE,
    EXP,
    EXTENSIONS,
    IAT,
    KEY_ATTESTATION,
    NBF,
    NONCE,
    POLICY,
    PROFILES,
    RAW_EVIDENCE,
    STATUS,
    SUBMODS,
    TROTH,
    VECTOR,
    VERIFIER_ID,
    Claim,
    Dialect,
    dialect_of,
)
from troth.formats.ear.encodings import (
    CBOR,
    JSON,
    Encoding,
    Label,
    known_labels,
    other_dialects_labels,
)
from troth.formats.ear.result import Ear, EarSubmod, VerifierId
from troth.formats.ear.troth_claims import TROTH_CLAIM_KEYS, TrothClaims
from troth.formats.limits import DEFAULT_LIMITS, Limits
from troth.formats.strict_json import decode_json, encode_json

__all__ = ["Wire", "decode_ear", "ear_claims", "ear_from_claims", "encode_ear"]

Wire = Literal["json", "cbor"]

_ENCODINGS: Final[Mapping[str, Encoding]] = {"json": JSON, "cbor": CBOR}
_AKPUB: Final = "akpub"

T = TypeVar("T")


def decode_ear(
    data: bytes, *, wire: Wire, format: str = "EAR", limits: Limits = DEFAULT_LIMITS
) -> Ear:
    """Decode a claims set. It is signed by nobody: see `verify_ear`.

    The dialect is that of `eat_profile`. Claims of another dialect beside it are refused, unknown
    ones are kept.

    Raises:
        DecodeError: not an EAR, or one that contradicts itself.
        UnsupportedError: an unknown profile.
    """
    if wire == "json":
        value = decode_json(data, format=format, limits=limits)
    else:
        value = cbor.decode(data, format=format, limits=limits)
    return ear_from_claims(value, wire=wire, format=format)


def encode_ear(ear: Ear, dialect: Dialect, *, wire: Wire = "json") -> bytes:
    """Encode a claims set reproducibly.

    Raises:
        UnsupportedError: the dialect or the encoding cannot carry a claim.
    """
    claims = ear_claims(ear, dialect, wire=wire)
    return encode_json(claims) if wire == "json" else cbor.encode(claims)


def ear_from_claims(value: object, *, wire: Wire, format: str = "EAR") -> Ear:
    """Read an EAR from a decoded claims set; raises as `decode_ear` does."""
    encoding = _ENCODINGS[wire]
    if not isinstance(value, dict):
        raise DecodeError("is not a map", format=format)
    profile = value.get(encoding.label(EAT_PROFILE, Dialect.IETF_03))
    if not isinstance(profile, str):
        raise DecodeError("has no eat_profile in text", format=format)
    claims = _Claims(value, encoding, dialect_of(profile), format)
    submods = claims.required(SUBMODS, claims.is_map)
    return Ear(
        profile=claims.required(EAT_PROFILE, claims.text),
        issued_at=claims.required(IAT, claims.time),
        verifier_id=claims.required(VERIFIER_ID, claims.verifier_id),
        submods={
            claims.text(label): _submod(appraisal, claims, f"{format} submod {label!r:.64}")
            for label, appraisal in submods.items()
        },
        status=claims.optional(STATUS, encoding.tier),
        expires_at=claims.optional(EXP, claims.time),
        not_before=claims.optional(NBF, claims.time),
        nonce=claims.optional(NONCE, claims.nonce),
        raw_evidence=claims.optional(RAW_EVIDENCE, claims.octets),
        troth=claims.troth(),
        extensions=claims.extensions(),
    )


def _submod(value: object, outer: _Claims, format: str) -> EarSubmod:
    if not isinstance(value, dict):
        raise DecodeError("is not a map", format=format)
    encoding = outer.encoding
    claims = _Claims(value, encoding, outer.dialect, format)
    try:
        return EarSubmod(
            status=claims.required(STATUS, encoding.tier),
            vector=claims.optional(VECTOR, encoding.vector),
            policy_ids=claims.optional(POLICY, claims.policy_ids) or (),
            profile=claims.optional(EAT_PROFILE, claims.text) or "",
            nonce=claims.optional(NONCE, claims.nonce),
            key=claims.optional(KEY_ATTESTATION, claims.akpub),
            troth=claims.troth(),
            extensions=claims.extensions(),
        )
    except UnsupportedError:
        raise
    except DecodeError as exc:
        if exc.format == format:
            raise
        raise DecodeError(str(exc), format=format) from exc


class _Claims:
    """The claims of one map, taken one by one; what is left over is unknown."""

    def __init__(
        self, value: Mapping[object, object], encoding: Encoding, dialect: Dialect, format: str
    ) -> None:
        self.encoding, self.dialect, self.format = encoding, dialect, format
        names = known_labels(encoding, dialect)
        foreign = other_dialects_labels(encoding, dialect)
        self._left: dict[Label, object] = {}  # by draft-03 name where there is one
        for label, claim in value.items():
            if not isinstance(label, str | int):
                raise self.error("a claim's label is neither text nor integer")
            if label in foreign:
                raise self.error(f"{label} belongs to another dialect than {dialect.value}")
            self._left[names.get(label, label)] = claim

    def optional(self, claim: Claim, read: Callable[[object], T]) -> T | None:
        value = self._left.pop(claim.name, _ABSENT)
        return None if value is _ABSENT else read(value)

    def required(self, claim: Claim, read: Callable[[object], T]) -> T:
        value = self._left.pop(claim.name, _ABSENT)
        if value is _ABSENT:
            raise self.error(f"has no {claim.json_label(self.dialect)}")
        return read(value)

    def troth(self) -> TrothClaims:
        made = self._left.keys() & TROTH_CLAIM_KEYS.keys()
        if not made:
            return _NO_TROTH
        return TrothClaims.from_values(
            {str(name): self._left.pop(name) for name in made}, format=self.format
        )

    def extensions(self) -> Mapping[Label, object]:
        """Return what has not been taken, known extensions under their draft-03 name."""
        return self._left

    def is_map(self, value: object) -> Mapping[object, object]:
        if not isinstance(value, dict):
            raise self.error("submods is not a map")
        return value

    def text(self, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(f"{value!r:.32} is not text")
        return value

    def time(self, value: object) -> datetime:
        return self.encoding.time(value, self.dialect, format=self.format)

    def nonce(self, value: object) -> bytes:
        return self.encoding.nonce(value, format=self.format)

    def octets(self, value: object) -> bytes:
        return self.encoding.octets(value, format=self.format)

    def verifier_id(self, value: object) -> VerifierId:
        developer, build = self.encoding.verifier_labels
        if not isinstance(value, dict) or value.keys() != {developer, build}:
            raise self.error("the Verifier's identity is not a developer and a build")
        return VerifierId(self.text(value[developer]), self.text(value[build]))

    def policy_ids(self, value: object) -> tuple[str, ...]:
        if self.dialect.dotted:
            return (self.text(value),)
        if not isinstance(value, list) or not value:
            raise self.error("ear_appraisal_policy_ids is not an array of one or more")
        return tuple(map(self.text, value))

    def akpub(self, value: object) -> bytes:
        if not isinstance(value, dict) or value.keys() != {_AKPUB}:
            raise self.error("the key attestation is not a map of akpub")
        return self.octets(value[_AKPUB])

    def error(self, message: str) -> DecodeError:
        return DecodeError(message, format=self.format)


_ABSENT: Final = object()
_NO_TROTH: Final = TrothClaims()


def ear_claims(ear: Ear, dialect: Dialect, *, wire: Wire = "json") -> dict[Label, object]:
    """Return the claims set to encode or sign; raises as `encode_ear` does."""
    out = _Output(_ENCODINGS[wire], dialect, "EAR", _FIELDS)
    same_dialect = PROFILES.get(ear.profile) is dialect  # an alias stays as it is
    out.put(EAT_PROFILE, ear.profile if same_dialect else dialect.value)
    out.put(IAT, int(ear.issued_at.timestamp()))
    developer, build = out.encoding.verifier_labels
    identity = {developer: ear.verifier_id.developer, build: ear.verifier_id.build}
    out.put(VERIFIER_ID, identity)
    out.put(SUBMODS, {label: _submod_claims(s, out, label) for label, s in ear.submods.items()})
    out.status(ear.status)
    for claim, time in ((EXP, ear.expires_at), (NBF, ear.not_before)):
        out.put(claim, None if time is None else int(time.timestamp()))
    out.nonce(ear.nonce)
    if ear.raw_evidence is not None:
        out.put(RAW_EVIDENCE, out.encoding.octets_value(ear.raw_evidence))
    out.troth(ear.troth)
    out.extensions(ear.extensions)
    return out.claims


def _submod_claims(submod: EarSubmod, outer: _Output, label: str) -> dict[Label, object]:
    out = _Output(outer.encoding, outer.dialect, f"EAR submod {label!r:.64}", _SUBMOD_FIELDS)
    out.status(submod.status)
    if submod.vector is not None:
        out.put(VECTOR, out.encoding.vector_value(submod.vector))
    out.policy_ids(submod.policy_ids)
    out.put(EAT_PROFILE, submod.profile or None)
    out.nonce(submod.nonce)
    if submod.key is not None:
        out.put(KEY_ATTESTATION, {_AKPUB: out.encoding.octets_value(submod.key)})
    out.troth(submod.troth)
    out.extensions(submod.extensions)
    return out.claims


@cache
def _taken(encoding: Encoding, dialect: Dialect, fields: frozenset[Claim]) -> frozenset[Label]:
    """Return the labels that an extension of such a map must not have."""
    own = {encoding.label(claim, dialect) for claim in fields}
    return frozenset(other_dialects_labels(encoding, dialect) | own)


class _Output:
    """One map of claims in the making."""

    def __init__(
        self, encoding: Encoding, dialect: Dialect, format: str, fields: frozenset[Claim]
    ) -> None:
        self.encoding, self.dialect, self.format = encoding, dialect, format
        self._taken = _taken(encoding, dialect, fields)
        self.claims: dict[Label, object] = {}

    def put(self, claim: Claim, value: object | None) -> None:
        if value is not None:
            self.claims[self.encoding.label(claim, self.dialect)] = value

    def status(self, tier: TrustTier | None) -> None:
        self.put(STATUS, None if tier is None else self.encoding.tier_value(tier))

    def nonce(self, nonce: bytes | None) -> None:
        self.put(NONCE, None if nonce is None else self.encoding.nonce_value(nonce))

    def policy_ids(self, policy_ids: Sequence[str]) -> None:
        if not policy_ids:
            return
        if not self.dialect.dotted:
            self.put(POLICY, list(policy_ids))
        elif len(policy_ids) == 1:
            self.put(POLICY, policy_ids[0])
        else:
            raise UnsupportedError(
                f"{len(policy_ids)} appraisal policies; this dialect carries one",
                format=self.format,
                remedy="write this result in the draft-ietf-rats-ear-03 dialect",
            )

    def troth(self, claims: TrothClaims) -> None:
        values = claims.to_values(binary=self.encoding.binary)
        for claim in TROTH:
            self.put(claim, values.get(claim.name))

    def extensions(self, extensions: Mapping[Label, object]) -> None:
        for name, value in extensions.items():
            claim = _CLAIM_BY_NAME.get(name)
            label = name if claim is None else self.encoding.label(claim, self.dialect)
            format = f"{self.format} {label!r:.64}"
            if label in self._taken:
                raise ApiMisuseError(f"{format}: a claim with a field of its own, not an extension")
            if isinstance(label, int) and not self.encoding.binary:
                raise UnsupportedError("is a CBOR key without a JSON name", format=format)
            self.claims[label] = self.encoding.extension_value(value, format=format)


_CLAIM_BY_NAME: Final[Mapping[Label, Claim]] = {claim.name: claim for claim in (*CORE, *EXTENSIONS)}
_BOTH: Final = frozenset({EAT_PROFILE, STATUS, NONCE, *TROTH})
_FIELDS: Final = _BOTH | {IAT, EXP, NBF, VERIFIER_ID, RAW_EVIDENCE, SUBMODS}
_SUBMOD_FIELDS: Final = _BOTH | {VECTOR, POLICY, KEY_ATTESTATION}
