# SPDX-License-Identifier: Apache-2.0
"""Appraisal of Nitro attestation documents.

Reference Values are found by PCR 0, the measurement of the enclave's image: they describe
registers, by number. Values of one reference triple belong together.

================= ====== ================================================================
hardware          2      always: AWS's hypervisor signed the document
instance-identity 2      always, unless
                  97     PCR 4 (parent instance) is not the described one
executables       3      PCR 0, and PCR 1, 2 and 8 where described, are as described; what
                         the enclave loads later is not measured
                  33     otherwise, also without values
configuration     2      PCR 3 (role of the parent instance) or others are as described
                  32     one of them is not
                  96     the enclave is in debug mode
                  none   no value speaks about them
runtime-opaque    2      the parent instance cannot see in
                  96     the enclave is in debug mode: its console is open, and its image
                         is not measured
================= ====== ================================================================

Source: AWS Nitro Enclaves User Guide, "Cryptographic attestation" (what the PCRs are);
draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from troth.endorsement.matching import Measured, Mismatch, compare
from troth.endorsement.reference_value import ReferenceValue
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.nitro.document import NitroDocument, NitroEvidence
from troth.formats.ar4si import TrustworthinessVector
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.appraisers.missing import no_reference_values
from troth.verifier.appraisers.software_components import by_state
from troth.verifier.finding import Finding

__all__ = ["appraise"]

_IMAGE, _INSTANCE = 0, 4
_OF_SOFTWARE: Final = frozenset({0, 1, 2, 8})
_NAMES: Final = {
    0: "enclave image",
    1: "kernel and boot",
    2: "application",
    3: "role of the parent instance",
    4: "parent instance",
    8: "key that signed the image",
}
_ALGORITHMS: Final = {32: "sha-256", 48: "sha-384", 64: "sha-512"}


def appraise(
    verified: VerifiedEvidence[NitroEvidence], references: References
) -> Sequence[Appraisal]:
    """Appraise the one claims set of a document."""
    document = verified.evidence.document
    (claims_set,) = verified.claims_sets
    findings = _debug_mode(document)
    in_force, lapsed = references.find(
        "nitro", class_id=verified.implementation_id, instance_id=verified.instance_id
    )
    state = _State(document, ())
    if in_force:
        states = [_State(document, values) for values in by_state(in_force).values()]
        state = min(states, key=lambda each: len(each.mismatches))
        findings += [_differs(value, mismatch) for value, mismatch in state.mismatches]
    else:
        findings.append(
            no_reference_values(
                "PCR",
                claim="pcrs[0]",
                environment=f"PCR 0 {verified.implementation_id.hex()}",
                lapsed=lapsed,
                submod="nitro",
            )
        )
    software = _IMAGE in state.described and not state.differing & _OF_SOFTWARE
    return (
        Appraisal(
            claims_set=claims_set,
            vector=TrustworthinessVector(
                hardware=2,
                instance_identity=97 if _INSTANCE in state.differing else 2,
                executables=3 if software and not document.debug_mode else 33,
                configuration=96 if document.debug_mode else state.configuration,
                runtime_opaque=96 if document.debug_mode else 2,
            ),
            findings=tuple(findings),
            matched=tuple(state.matched),
        ),
    )


class _State:
    """One description of an enclave against its registers."""

    def __init__(self, document: NitroDocument, values: Sequence[ReferenceValue]) -> None:
        self.matched: list[str] = []
        self.mismatches: list[tuple[ReferenceValue, Mismatch]] = []
        self.described: set[int | str] = set()
        self.differing: set[int | str] = set()
        registers: dict[int | str, dict[str, bytes]] = {
            index: {_ALGORITHMS[len(value)]: value} for index, value in document.pcrs.items()
        }
        for value in values:
            self.described |= value.registers.keys()
            found = compare(value, Measured(key=value.key, registers=registers))
            self.mismatches += ((value, mismatch) for mismatch in found)
            if not found:
                self.matched.append(value.id)
            elif any(not each.attribute.startswith("register ") for each in found):
                # Something that a document does not say: then nothing of it is as described.
                self.differing |= {_IMAGE, "other"}
            self.differing |= {
                register
                for register in value.registers
                if any(each.attribute == f"register {register}" for each in found)
            }

    @property
    def configuration(self) -> int | None:
        """Value of the claim, but for debug mode."""
        others = self.described - _OF_SOFTWARE
        if self.differing - _OF_SOFTWARE - {_INSTANCE}:
            return 32
        return 2 if others else None


def _debug_mode(document: NitroDocument) -> list[Finding]:
    if not document.debug_mode:
        return []
    return [
        Finding(
            claim="debug_mode",
            expected="false",
            actual="true: PCR 0 is zero, so the image is not measured, and its console is open",
            rule='AWS Nitro Enclaves User Guide, "Cryptographic attestation"',
            remedy="Start the enclave without --debug-mode.",
            submod="nitro",
        )
    ]


def _differs(value: ReferenceValue, mismatch: Mismatch) -> Finding:
    source = f" ({value.source})" if value.source else ""
    kind, _, number = mismatch.attribute.partition(" ")
    register = int(number) if kind == "register" and number.isdecimal() else None
    claim = mismatch.attribute if register is None else f"pcrs[{register}]"
    name = f" ({_NAMES[register]})" if register in _NAMES and register is not None else ""
    return Finding(
        claim=f"{claim}{name}",
        expected=mismatch.expected,
        actual=f"{mismatch.actual}: {mismatch.why}",
        rule=f"Reference Value {value.id}{source}",
        remedy="If this enclave is meant to run so, provision its Reference Value; if not, find "
        "out what changed.",
        submod="nitro",
        severity="contraindicated" if register == _INSTANCE else "warning",
    )
