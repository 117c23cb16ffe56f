# SPDX-License-Identifier: Apache-2.0
"""Results in the vocabulary of Veraison: its names of submods and of annotated claims.

Relying Parties that were written for Veraison look for `submods["PSA_IOT"]` and, in it, for
`ear.veraison.annotated-evidence` with Veraison's claim names and base64 for octets. Troth's own
claims stand beside them; such readers ignore what they do not know.

Source: veraison/services (6b88102), its expected results; veraison/psatoken and veraison/ccatoken.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from troth.formats.ear import Ear, EarSubmod
from troth.verifier.result import AttestationResult

__all__ = ["SUBMODS", "annotated_evidence", "troth_label", "veraison_ear"]

SUBMODS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "psa": "PSA_IOT",
        "cca": "ARM_CCA",  # where there was no appraisal
        "cca-platform": "CCA_SSD_PLATFORM",
        "cca-realm": "CCA_REALM",
        "sev_snp": "SEVSNP",
        "evidence": "ERROR",  # where no scheme was found
    }
)
"""Veraison's name of a submod by Troth's."""

_TROTH_LABELS: Final = {theirs: ours for ours, theirs in SUBMODS.items()}


def veraison_ear(result: AttestationResult, *, annotate: bool = True) -> Ear:
    """Return the result as an EAR with Veraison's names, ready to be signed.

    Args:
        result: any result.
        annotate: add the claims themselves, as Veraison does. They identify the device.
    """
    ear = result.to_ear()
    return replace(
        ear,
        submods={
            SUBMODS.get(label, label): _annotated(submod, label, result) if annotate else submod
            for label, submod in ear.submods.items()
        },
    )


def troth_label(submod: str) -> str:
    """Return Troth's name of a submod that Veraison named; others stay as they are."""
    return _TROTH_LABELS.get(submod, submod)


def _annotated(submod: EarSubmod, label: str, result: AttestationResult) -> EarSubmod:
    claims = result.submods[label].claims
    if not claims:
        return submod
    annotation: dict[str | int, object] = {
        "ear_veraison_annotated_evidence": annotated_evidence(label, claims)
    }
    return replace(submod, extensions={**submod.extensions, **annotation})


def annotated_evidence(label: str, claims: Mapping[str, object]) -> dict[str, object]:
    """Return the claims of one claims set as Veraison spells them.

    Claims that its decoders do not know are left out; a claims set that Veraison has no names for
    is returned as it is.
    """
    names = _NAMES.get(label)
    if names is None:
        return dict(claims)
    return {
        name: convert(claims[ours]) for ours, (name, convert) in names.items() if ours in claims
    }


def _same(value: object) -> object:
    return value


def _octets(value: object) -> object:
    if isinstance(value, list):
        return [_octets(each) for each in value]
    return base64.b64encode(bytes.fromhex(str(value))).decode("ascii")


def _components(value: object) -> object:
    return [
        {
            name: _octets(part) if name in {"measurement-value", "signer-id"} else part
            for name, part in component.items()
            if name != "unrecognised"
        }
        for component in (value if isinstance(value, list) else [])
    ]


_Names = Mapping[str, tuple[str, Callable[[object], object]]]

_NAMES: Final[Mapping[str, _Names]] = {
    "psa": {
        "profile": ("eat-profile", _same),
        "client-id": ("psa-client-id", _same),
        "security-lifecycle-value": ("psa-security-lifecycle", _same),
        "implementation-id": ("psa-implementation-id", _octets),
        "boot-seed": ("psa-boot-seed", _octets),
        "certification-reference": ("psa-certification-reference", _same),
        "software-components": ("psa-software-components", _components),
        "nonce": ("psa-nonce", _octets),
        "instance-id": ("psa-instance-id", _octets),
        "verification-service-indicator": ("psa-verification-service-indicator", _same),
    },
    "cca-platform": {
        "profile": ("cca-platform-profile", _same),
        "nonce": ("cca-platform-challenge", _octets),
        "implementation-id": ("cca-platform-implementation-id", _octets),
        "instance-id": ("cca-platform-instance-id", _octets),
        "cca-platform-config": ("cca-platform-config", _octets),
        "security-lifecycle-value": ("cca-platform-lifecycle", _same),
        "software-components": ("cca-platform-sw-components", _components),
        "verification-service-indicator": ("cca-platform-service-indicator", _same),
        "cca-platform-hash-algo-id": ("cca-platform-hash-algo-id", _same),
    },
    "cca-realm": {
        "profile": ("cca-realm-profile", _same),
        "cca-realm-challenge": ("cca-realm-challenge", _octets),
        "cca-realm-personalization-value": ("cca-realm-personalization-value", _octets),
        "cca-realm-initial-measurement": ("cca-realm-initial-measurement", _octets),
        "cca-realm-extensible-measurements": ("cca-realm-extensible-measurements", _octets),
        "cca-realm-hash-algo-id": ("cca-realm-hash-algo-id", _same),
        "cca-realm-public-key": ("cca-realm-public-key", _octets),
        "cca-realm-public-key-hash-algo-id": ("cca-realm-public-key-hash-algo-id", _same),
    },
}
