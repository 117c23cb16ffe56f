# SPDX-License-Identifier: Apache-2.0
"""Troth's own EAR claims: the one place where their names, keys and meaning are written down.

All dialects spell them alike. A receiver that does not know them ignores them, as
draft-ietf-rats-ear-03 section 4 wants. They may stand in an appraisal (a submod) and, where they
are about the whole result, at the top level. CBOR keys are from the private space below -65536.

==================== ======= ======================= ==================================== ===========
JSON name            CBOR    type                    meaning                              certificate
==================== ======= ======================= ==================================== ===========
troth_scheme         -81000  text                    evidence scheme ("psa", "cca" …)     yes
troth_tier           -81001  text                    assurance tier, "registered" …       yes
                                                     "confidential"
troth_component      -81002  text                    what was appraised: "platform",      yes
                                                     "realm", "vm", "node" …
troth_layer          -81003  text                    who vouches: "hardware",             yes
                                                     "node_agent", "control_plane"
troth_policy_digest  -81004  text                    "sha-256:" and the hex digest of     yes
                                                     the appraisal policy
troth_epoch          -81005  text                    epoch of the Reference Values        yes
troth_insecure       -81006  array of text           why this must not count in           yes
                                                     production (test key, simulator)
troth_boot_session   -81007  hex text, CBOR bytes    changes with each boot               no
troth_findings       -81008  array of maps of text   what the Verifier holds against      no
                                                     the Evidence
==================== ======= ======================= ==================================== ===========

"certificate": whether `minimise` keeps the claim for an X.509-SVID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from troth.errors import DecodeError

__all__ = ["TROTH_CLAIM_KEYS", "TrothClaims"]

TROTH_CLAIM_KEYS: Final[Mapping[str, int]] = {
    "troth_scheme": -81000,
    "troth_tier": -81001,
    "troth_component": -81002,
    "troth_layer": -81003,
    "troth_policy_digest": -81004,
    "troth_epoch": -81005,
    "troth_insecure": -81006,
    "troth_boot_session": -81007,
    "troth_findings": -81008,
}

_TEXTS: Final = {
    "troth_scheme": "scheme",
    "troth_tier": "tier",
    "troth_component": "component",
    "troth_layer": "layer",
    "troth_policy_digest": "policy_digest",
    "troth_epoch": "epoch",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrothClaims:
    """Troth's claims about an appraisal or a whole result; empty means not claimed.

    The words in `scheme`, `tier`, `component` and `layer` are not checked here: a Relying Party
    that does not know one must treat it as if it were not there.

    Attributes:
        scheme, tier, component, layer, policy_digest, epoch, insecure, boot_session, findings: see
            the table above.
    """

    scheme: str = ""
    tier: str = ""
    component: str = ""
    layer: str = ""
    policy_digest: str = ""
    epoch: str = ""
    insecure: Sequence[str] = ()
    boot_session: bytes = b""
    findings: Sequence[Mapping[str, str]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "insecure", tuple(self.insecure))
        object.__setattr__(self, "findings", tuple(self.findings))

    def minimised(self) -> TrothClaims:
        """Return the part that a certificate carries."""
        return replace(self, boot_session=b"", findings=())

    def to_values(self, *, binary: bool) -> dict[str, object]:
        """Return the claims that are made, by JSON name; octets stay octets if `binary`."""
        values: dict[str, object] = {
            name: getattr(self, attribute) for name, attribute in _TEXTS.items()
        }
        values["troth_insecure"] = list(self.insecure)
        values["troth_boot_session"] = self.boot_session if binary else self.boot_session.hex()
        values["troth_findings"] = [dict(finding) for finding in self.findings]
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_values(cls, values: Mapping[str, object], *, format: str) -> TrothClaims:
        """Read the claims from their decoded values, by JSON name; octets or hex for octets.

        Raises:
            DecodeError: a claim of another type than the table says.
        """
        texts: dict[str, str] = {}
        for name, attribute in _TEXTS.items():
            texts[attribute] = _text(values.get(name, ""), name, format)
        return cls(
            **texts,
            insecure=[
                _text(reason, "troth_insecure", format)
                for reason in _array(values.get("troth_insecure", []), "troth_insecure", format)
            ],
            boot_session=_octets(values.get("troth_boot_session", b""), format),
            findings=[
                _finding(finding, format)
                for finding in _array(values.get("troth_findings", []), "troth_findings", format)
            ],
        )


def _text(value: object, name: str, format: str) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"{name} is not text", format=format)
    return value


def _array(value: object, name: str, format: str) -> list[object]:
    if not isinstance(value, list):
        raise DecodeError(f"{name} is not an array", format=format)
    return value


def _octets(value: object, format: str) -> bytes:
    if isinstance(value, bytes):
        return value
    text = _text(value, "troth_boot_session", format)
    try:
        octets = bytes.fromhex(text)
    except ValueError as exc:
        raise DecodeError("troth_boot_session is not hex", format=format) from exc
    if octets.hex() != text:  # fromhex skips white space and takes capitals
        raise DecodeError("troth_boot_session is not lower-case hex", format=format)
    return octets


def _finding(value: object, format: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise DecodeError("troth_findings holds something else than maps", format=format)
    return {
        _text(name, "troth_findings", format): _text(text, "troth_findings", format)
        for name, text in value.items()
    }
