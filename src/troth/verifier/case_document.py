# SPDX-License-Identifier: Apache-2.0
"""One appraisal case as a document: in the test cases that operators write, and in records.

What an operator tests a policy with and what a server records of an appraisal have one form, so
that a recorded appraisal can become a test case as it is (docs/reference/policy.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from troth.errors import DecodeError
from troth.evidence.evidence import ClaimsSet, NonceMatched, Unchecked
from troth.formats.ar4si import CLAIM_NAMES, TrustworthinessVector
from troth.formats.ar4si_values import value_of_tag
from troth.verifier.case import AppraisalCase
from troth.verifier.finding import Finding

__all__ = ["CaseDocument", "FindingDocument", "vector_of"]

_FORMAT = "policy case"
_DEFAULT_NONCE = "00" * 32


class FindingDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A finding, as results spell it (`Finding`)."""

    claim: str
    expected: str = ""
    actual: str = ""
    rule: str = ""
    remedy: str = ""
    submod: str = ""
    severity: str = "contraindicated"

    @classmethod
    def of(cls, finding: Finding) -> FindingDocument:
        """Return a finding as a document."""
        return cls(**finding.to_json())

    def finding(self) -> Finding:
        """Return the finding."""
        return Finding(**msgspec.structs.asdict(self))


class CaseDocument(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """What a policy is asked about one claims set. Octets are hexadecimal.

    Attributes:
        scheme: the scheme's one word.
        claims: of this claims set.
        submod: its label; empty for the scheme's word.
        component, layer: what the claims are about, and who vouches for them.
        others: label to claims of the other claims sets of the same Evidence.
        vector: the appraiser's conclusion, claim name to value or tag; none is made by default.
        findings: what led to it.
        matched: ids of the Reference Values that matched.
        nonce: the challenge that the Evidence carries.
        unchecked: why freshness was not checked; empty where it was.
        insecure: reasons why the Evidence must not count in production.
        implementation_id, instance_id, signer, boot_session, reference_epoch: as policies see them.
        now: the appraisal's clock reading, with its zone; None for that of the test.
    """

    scheme: str
    claims: dict[str, object] = {}
    submod: str = ""
    component: str = "node"
    layer: str = "hardware"
    others: dict[str, dict[str, object]] = {}
    vector: dict[str, int | str] = {}
    findings: list[FindingDocument] = []
    matched: list[str] = []
    nonce: str = _DEFAULT_NONCE
    unchecked: str = ""
    insecure: list[str] = []
    implementation_id: str = ""
    instance_id: str = ""
    signer: str = ""
    boot_session: str = ""
    reference_epoch: str = ""
    now: datetime | None = None

    @classmethod
    def of(cls, case: AppraisalCase) -> CaseDocument:
        """Return a case as a document."""
        own, fresh = case.claims_set, case.freshness
        return cls(
            scheme=case.scheme,
            claims=dict(own.claims),
            submod=own.label,
            component=own.component,
            layer=own.layer,
            others={label: dict(c) for label, c in case.evidence.items() if label != own.label},
            vector={**case.vector.to_json()},
            findings=[FindingDocument.of(finding) for finding in case.findings],
            matched=list(case.matched),
            nonce=fresh.nonce.hex() if isinstance(fresh, NonceMatched) else "",
            unchecked="" if isinstance(fresh, NonceMatched) else fresh.why,
            insecure=list(case.insecure),
            implementation_id=case.implementation_id.hex(),
            instance_id=case.instance_id.hex(),
            signer=case.signer,
            boot_session=case.boot_session.hex(),
            reference_epoch=case.reference_epoch,
            now=case.now.astimezone(UTC),
        )

    def case(self, *, now: datetime) -> AppraisalCase:
        """Return the case; `now` where the document says no time.

        Raises:
            DecodeError: octets that are not hexadecimal, an unknown claim or tag, or a time
                without a zone.
        """
        label = self.submod or self.scheme
        if self.now is not None and self.now.tzinfo is None:
            raise DecodeError("now has no time zone", format=_FORMAT)
        return AppraisalCase(
            scheme=self.scheme,
            claims_set=ClaimsSet(
                label=label, component=self.component, layer=self.layer, claims=self.claims
            ),
            evidence={**self.others, label: self.claims},
            vector=vector_of(self.vector),
            findings=tuple(finding.finding() for finding in self.findings),
            matched=tuple(self.matched),
            freshness=Unchecked(self.unchecked)
            if self.unchecked
            else NonceMatched(_octets("nonce", self.nonce)),
            insecure=tuple(self.insecure),
            implementation_id=_octets("implementation_id", self.implementation_id),
            instance_id=_octets("instance_id", self.instance_id),
            signer=self.signer,
            boot_session=_octets("boot_session", self.boot_session),
            reference_epoch=self.reference_epoch,
            now=self.now or now,
        )


def vector_of(members: Mapping[str, int | str]) -> TrustworthinessVector:
    """Return the vector whose claims have these values or tags.

    Raises:
        DecodeError: a claim that does not exist, or a value that it cannot have.
    """
    values: dict[str, int] = {}
    for name, value in members.items():
        if name not in CLAIM_NAMES:
            raise DecodeError(f"{name!r} is none of {', '.join(CLAIM_NAMES)}", format=_FORMAT)
        number = value_of_tag(name, value) if isinstance(value, str) else value
        if number is None:
            raise DecodeError(f"{value!r} is no value of {name}", format=_FORMAT)
        values[name] = number
    return TrustworthinessVector.from_json(values)


def _octets(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise DecodeError(f"{name} is not hexadecimal", format=_FORMAT) from exc
