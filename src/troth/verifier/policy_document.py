# SPDX-License-Identifier: Apache-2.0
"""The input documents that policies of each vocabulary see.

A document holds only members that the policy's text mentions: building it is the larger part of
an evaluation's cost. Nonces are left out unless the text speaks of nonces or challenges, and the
time unless it asks for the time. So a policy that mentions neither gives the same verdict for
equal claims, which is what makes a verdict cache sound.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from troth.evidence.evidence import NonceMatched
from troth.formats.ar4si import CLAIM_NAMES
from troth.verifier.case import AppraisalCase
from troth.verifier.rego_source import RegoSource
from troth.verifier.trustee_claims import TRUSTEE_SHAPES

__all__ = [
    "TIME_MEMBERS",
    "TROTH_MEMBERS",
    "VERAISON_MEMBERS",
    "mentions_nonce",
    "troth_document",
    "trustee_document",
    "veraison_document",
    "without_nonces",
]

_Builder = Callable[[AppraisalCase, bool], object]

TIME_MEMBERS: Final = frozenset({"now", "now_ns"})

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NONCE_WORDS: Final = ("nonce", "challenge", "report_data")


def mentions_nonce(source: RegoSource) -> bool:
    """Say whether the policy's text speaks of a nonce or challenge, in a name or a string."""
    return any(part in word.lower() for word in source.words() for part in _NONCE_WORDS)


def troth_document(
    case: AppraisalCase, members: frozenset[str], *, nonce: bool
) -> dict[str, object]:
    """Return the document of `package troth.appraisal` (docs/reference/policy.md)."""
    return {name: TROTH_MEMBERS[name](case, nonce) for name in members & TROTH_MEMBERS.keys()}


def veraison_document(
    case: AppraisalCase, members: frozenset[str], *, nonce: bool
) -> dict[str, object]:
    """Return the document that Veraison's policy hook gives: its names, base64 for octets."""
    return {name: VERAISON_MEMBERS[name](case, nonce) for name in members & VERAISON_MEMBERS.keys()}


def trustee_document(case: AppraisalCase, *, nonce: bool) -> dict[str, object]:
    """Return the document that Trustee gives: the claims under the name of the TEE."""
    shape = TRUSTEE_SHAPES.get(case.scheme)
    if shape is not None:
        return {case.scheme: shape(_claims(case.claims_set.claims, nonce))}
    return {_TRUSTEE_NAMES.get(case.scheme, case.scheme): _veraison_evidence(case, nonce)}


def without_nonces(claims: Mapping[str, object]) -> dict[str, object]:
    """Return the claims but for nonces and challenges, known by their names."""
    return {name: value for name, value in claims.items() if not name.endswith(_NONCE_WORDS)}


def _claims(claims: Mapping[str, object], nonce: bool) -> Mapping[str, object]:  # noqa: FBT001 - private, and the table below calls it so
    return claims if nonce else without_nonces(claims)


def _freshness(case: AppraisalCase, nonce: bool) -> dict[str, object]:  # noqa: FBT001 - as above
    if not isinstance(case.freshness, NonceMatched):
        return {"checked": False, "why": case.freshness.why}
    if not nonce:
        return {"checked": True}
    return {"checked": True, "nonce": case.freshness.nonce.hex()}


def _vector(case: AppraisalCase) -> dict[str, int]:
    return {name: getattr(case.vector, attribute) or 0 for name, attribute in CLAIM_NAMES.items()}


def _nanoseconds(now: datetime) -> int:
    since = now - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


TROTH_MEMBERS: Final[Mapping[str, _Builder]] = {
    "scheme": lambda case, _: case.scheme,
    "submod": lambda case, _: case.claims_set.label,
    "component": lambda case, _: case.claims_set.component,
    "layer": lambda case, _: case.claims_set.layer,
    "claims": lambda case, nonce: _claims(case.claims_set.claims, nonce),
    "evidence": lambda case, nonce: {
        label: _claims(claims, nonce) for label, claims in case.evidence.items()
    },
    "vector": lambda case, _: _vector(case),
    "status": lambda case, _: case.status.word,
    "findings": lambda case, _: [finding.to_json() for finding in case.findings],
    "matched": lambda case, _: list(case.matched),
    "freshness": _freshness,
    "insecure": lambda case, _: list(case.insecure),
    "implementation_id": lambda case, _: case.implementation_id.hex(),
    "instance_id": lambda case, _: case.instance_id.hex(),
    "signer": lambda case, _: case.signer,
    "boot_session": lambda case, _: case.boot_session.hex(),
    "reference_epoch": lambda case, _: case.reference_epoch,
    "now": lambda case, _: case.now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "now_ns": lambda case, _: _nanoseconds(case.now),
}
"""What `input` may hold, and how it is made."""


# Veraison's own names: scheme, and the claims as its JSON serialisations spell them.
_VERAISON_SCHEMES: Final = {"psa": "PSA_IOT", "cca": "ARM_CCA"}
_VERAISON_SUBMODS: Final = {
    "psa": "PSA_IOT",
    "cca-platform": "CCA_SSD_PLATFORM",
    "cca-realm": "CCA_REALM",
}
_VERAISON_GROUPS: Final = {"cca-platform": "platform", "cca-realm": "realm"}
_TRUSTEE_NAMES: Final = {"sev_snp": "snp"}
_LIFECYCLE: Final = "security-lifecycle"
_LIFECYCLE_VALUE: Final = "security-lifecycle-value"
_VERAISON_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "psa": {
        "profile": "eat-profile",
        "nonce": "psa-nonce",
        "instance-id": "psa-instance-id",
        "implementation-id": "psa-implementation-id",
        "client-id": "psa-client-id",
        _LIFECYCLE_VALUE: "psa-security-lifecycle",
        "software-components": "psa-software-components",
        "boot-seed": "psa-boot-seed",
        "certification-reference": "psa-certification-reference",
        "verification-service-indicator": "psa-verification-service-indicator",
    },
    "cca-platform": {
        "profile": "cca-platform-profile",
        "nonce": "cca-platform-challenge",
        "instance-id": "cca-platform-instance-id",
        "implementation-id": "cca-platform-implementation-id",
        _LIFECYCLE_VALUE: "cca-platform-lifecycle",
        "software-components": "cca-platform-sw-components",
        "verification-service-indicator": "cca-platform-service-indicator",
    },
    "cca-realm": {"profile": "cca-realm-profile"},
}
_OCTETS: Final = frozenset(
    {"nonce", "instance-id", "implementation-id", "boot-seed", "measurement-value", "signer-id"}
    | {"cca-platform-config", "cca-realm-challenge", "cca-realm-personalization-value"}
    | {"cca-realm-public-key", "cca-realm-initial-measurement", "cca-realm-instance-id"}
    | {"cca-realm-extensible-measurements", "cca-realm-devices-token-hash"}
)


def _veraison_evidence(case: AppraisalCase, nonce: bool) -> dict[str, object]:  # noqa: FBT001 - as above
    groups: dict[str, object] = {}
    for label, claims in case.evidence.items():
        translated = _veraison_claims(label, claims, nonce=nonce)
        group = _VERAISON_GROUPS.get(label)
        if group is None:
            groups.update(translated)
        else:
            groups[group] = translated
    return groups


def _veraison_claims(label: str, claims: Mapping[str, object], *, nonce: bool) -> dict[str, object]:
    names = _VERAISON_NAMES.get(label, {})
    return {
        names.get(name, name): _in_base64(name, value)
        for name, value in _claims(claims, nonce).items()
        if not (name == _LIFECYCLE and _LIFECYCLE_VALUE in claims)
    }


def _in_base64(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _in_base64(key, member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_in_base64(name, member) for member in value]
    if name in _OCTETS and isinstance(value, str):
        return base64.b64encode(bytes.fromhex(value)).decode()
    return value


def _session(case: AppraisalCase, nonce: bool) -> dict[str, object]:  # noqa: FBT001 - as above
    if not nonce or not isinstance(case.freshness, NonceMatched):
        return {}
    return {"nonce": base64.urlsafe_b64encode(case.freshness.nonce).decode().rstrip("=")}


VERAISON_MEMBERS: Final[Mapping[str, _Builder]] = {
    "scheme": lambda case, _: _VERAISON_SCHEMES.get(case.scheme, case.scheme.upper()),
    "submod": lambda case, _: _VERAISON_SUBMODS.get(case.claims_set.label, case.claims_set.label),
    "evidence": _veraison_evidence,
    "endorsements": lambda case, _: [{"id": matched} for matched in case.matched],
    "result": lambda case, _: {
        "ear.status": case.status.word,
        "ear.trustworthiness-vector": _vector(case),
    },
    "session": _session,
}
"""What Veraison's policy hook may hold, and how it is made."""
