# SPDX-License-Identifier: Apache-2.0
"""Registration entries: which SPIFFE ID the holder of some selectors gets.

A provisioned trust anchor says that a device is genuine. It does not say that the device belongs
to this trust domain, or as what: that is what an entry says. Both are needed to join.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from troth.errors import AuthorizationError, DecodeError
from troth.identity.selector import Selector
from troth.mesh.tier import Tier
from troth.verifier.result import AttestationResult

__all__ = [
    "MAX_SELECTORS",
    "RegistrationEntry",
    "device_key",
    "match_entry",
    "node_selector",
    "selects",
]

MAX_SELECTORS = 16

_HEX = re.compile(r"(?:[0-9a-f]{2}){1,128}")
_SCHEME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DEVICE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_CLAIM = re.compile(r"[^/=\s]{1,64}/[^=\s]{1,128}=\S{1,512}")
_FORMS = {
    "scheme": (_SCHEME, "scheme:NAME, such as scheme:psa"),
    "instance": (_HEX, "instance:HEX, the instance id in lower case"),
    "implementation": (_HEX, "implementation:HEX, the implementation id in lower case"),
    "device": (_DEVICE, "device:ID, the id of a device in the inventory"),
    "signer": (_HEX, "signer:HEX, the thumbprint of the attestation key in lower case"),
    "claim": (_CLAIM, "claim:LABEL/NAME=VALUE, such as claim:realm/cca-realm-hash-algo-id=sha-256"),
}
# A scheme, or a claim that software chooses, says nothing about which machine it is.
_IDENTIFYING = frozenset({"instance", "implementation", "signer", "device"})


def node_selector(text: str) -> Selector:
    """Read a selector of a node.

    Raises:
        DecodeError: not one; the message has the accepted forms.
    """
    kind, _, value = text.partition(":")
    if kind not in _FORMS:
        forms = "; ".join(form for _, form in _FORMS.values())
        raise DecodeError(f"{text[:64]!r} is none of: {forms}", format="selector")
    pattern, form = _FORMS[kind]
    if not pattern.fullmatch(value):
        raise DecodeError(f"{text[:64]!r} is not {form}", format="selector")
    return Selector(kind, value)


def selects(selector: Selector, result: AttestationResult, *, device_id: str = "") -> bool:
    """Say whether the device behind `result` has this property. Absent is never a match.

    `device_id` is its id in the inventory, "" where it is not in there.
    """
    match selector.type:
        case "scheme":
            return result.scheme == selector.value
        case "instance":
            return result.instance_id.hex() == selector.value
        case "implementation":
            return result.implementation_id.hex() == selector.value
        case "signer":
            return result.signer == selector.value
        case "device":
            return device_id == selector.value
        case "claim":
            return _selects_claim(selector.value, result)
        case _:
            return False


def _selects_claim(wanted: str, result: AttestationResult) -> bool:
    place, _, text = wanted.partition("=")
    label, _, name = place.partition("/")
    submod = result.submods.get(label)
    value = submod.claims.get(name) if submod is not None else None
    return isinstance(value, str | int) and str(value) == text


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationEntry:
    """Devices that have all `selectors` may join as `spiffe_id`.

    Attributes:
        id: the registry's name for it.
        spiffe_id: SPIFFE ID in the trust domain of the registry; the registry checks that.
        selectors: at least one of them names a machine or a product.
        min_tier: the weakest result that is admitted.
        hint: the operator's own words.
    """

    id: str
    spiffe_id: str
    selectors: tuple[Selector, ...]
    min_tier: Tier = Tier.MEASURED
    hint: str = ""

    def __post_init__(self) -> None:
        for selector in self.selectors:
            node_selector(str(selector))
        if not any(selector.type in _IDENTIFYING for selector in self.selectors):
            raise DecodeError(
                f"an entry for {self.spiffe_id} that any machine could meet",
                format="registration entry",
                remedy="add an instance, implementation or signer selector",
            )
        if len(self.selectors) > MAX_SELECTORS or len(set(self.selectors)) < len(self.selectors):
            raise DecodeError(
                f"expected at most {MAX_SELECTORS} different selectors", format="registration entry"
            )

    def selects(self, result: AttestationResult, *, device_id: str = "") -> bool:
        """Say whether the device behind `result` has every selector."""
        return all(selects(selector, result, device_id=device_id) for selector in self.selectors)


def match_entry(
    entries: Iterable[RegistrationEntry], result: AttestationResult, *, device_id: str = ""
) -> RegistrationEntry:
    """Return the entry for this device: of those that select it, the most specific one.

    Says nothing about the result's status: an entry is for a device, in whatever state it is.

    Raises:
        AuthorizationError: none selects it, or several equally specific ones do.
    """
    matching = [entry for entry in entries if entry.selects(result, device_id=device_id)]
    if not matching:
        known = [f"scheme:{result.scheme}"]
        if result.instance_id:
            known.append(f"instance:{result.instance_id.hex()}")
        if result.implementation_id:
            known.append(f"implementation:{result.implementation_id.hex()}")
        if result.signer:
            known.append(f"signer:{result.signer}")
        if device_id:
            known.append(f"device:{device_id}")
        raise AuthorizationError(
            f"no registration entry selects this device ({', '.join(known)})",
            remedy="create an entry with some of these selectors if the device belongs here",
        )
    most = max(len(entry.selectors) for entry in matching)
    best = [entry for entry in matching if len(entry.selectors) == most]
    if len(best) > 1:
        names = ", ".join(f"{entry.id} ({entry.spiffe_id})" for entry in best)
        raise AuthorizationError(
            f"several registration entries select this device equally: {names}",
            remedy="make one of them more specific, or delete the others",
        )
    return best[0]


def device_key(result: AttestationResult) -> str:
    """Return the name by which the registry knows the device behind `result`.

    The device's own attestation key where there is one, else its instance id: some firmware
    derives a new instance id from the same key after an update.

    Raises:
        AuthorizationError: the Evidence identifies no machine.
    """
    scheme = result.scheme
    if result.signer_is_device and result.signer:
        return f"{scheme}:signer:{result.signer}"
    if result.instance_id:
        return f"{scheme}:instance:{result.instance_id.hex()}"
    raise AuthorizationError(
        f"this {scheme} Evidence does not say which machine made it",
        remedy="only Evidence that names its device can join",
    )
