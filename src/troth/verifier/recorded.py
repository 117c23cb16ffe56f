# SPDX-License-Identifier: Apache-2.0
"""Appraisals on record: what the policy was asked and what it concluded, to be asked again.

A record holds claims and the appraiser's conclusion, not the Evidence: nobody can present it as
Evidence, and a policy needs no more. Equal appraisals of one device are one record with a count:
a fleet that attests every few minutes says the same over and over. What makes them equal is
everything but nonces and times.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from troth.errors import DecodeError, LimitExceededError
from troth.verifier.case import AppraisalCase
from troth.verifier.case_document import CaseDocument, FindingDocument
from troth.verifier.conclusion import Conclusion, Judgement
from troth.verifier.policy_document import without_nonces
from troth.verifier.result import AssuranceTier, SubmodResult

__all__ = [
    "MAX_RECORD_BYTES",
    "RecordedAppraisal",
    "RecordedConclusion",
    "RecordedNode",
    "RecordedSubmod",
    "decode_body",
    "encode_body",
]

MAX_RECORD_BYTES: Final = 1_048_576
"""Octets of one record's JSON. An appraisal with more is not recorded."""


class RecordedSubmod(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """What one claims set came to."""

    status: str
    vector: dict[str, int] = {}
    findings: list[FindingDocument] = []
    added_claims: dict[str, object] = {}

    @classmethod
    def of(cls, submod: SubmodResult) -> RecordedSubmod:
        """Return a submod as a record."""
        return cls(
            status=submod.status.word,
            vector=submod.vector.to_json(),
            findings=[FindingDocument.of(finding) for finding in submod.findings],
            added_claims=dict(submod.added_claims),
        )


class RecordedConclusion(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """What one policy concluded; fields as in `Conclusion`."""

    policy_id: str
    policy_digest: str
    status: str
    tier: AssuranceTier
    submods: dict[str, RecordedSubmod] = {}
    failed: bool = False

    @classmethod
    def of(cls, conclusion: Conclusion) -> RecordedConclusion:
        """Return a conclusion as a record."""
        return cls(
            policy_id=conclusion.policy_id,
            policy_digest=conclusion.policy_digest,
            status=conclusion.status.word,
            tier=conclusion.tier,
            submods={each.label: RecordedSubmod.of(each) for each in conclusion.submods},
            failed=conclusion.failed,
        )


class RecordedNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A node that the device of a record is, where it is a member's; labels for people.

    Attributes:
        node_id, name, spiffe_id: which.
        min_tier: the weakest tier that its registration entry admits.
    """

    node_id: str
    name: str
    spiffe_id: str
    min_tier: AssuranceTier


class RecordedAppraisal(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """One record.

    Attributes:
        id: digest (hex) of everything that makes appraisals equal.
        first, last: when the first and the last of these equal appraisals were made, aware UTC.
        count: how many there were.
        device: the machine, as the registry knows it; "" where the Evidence does not say.
        spiffe_id: the role that it asked for, "" where none was found for it.
        best: the highest tier that the scheme can reach.
        cases: what the policy was asked, of the last of them.
        outcome: what the enforced policy concluded.
        candidate: what the audited one did, where there was one.
        nodes: who the device is, where the reader was told.
    """

    id: str
    first: datetime
    last: datetime
    count: int = 1
    device: str = ""
    spiffe_id: str = ""
    best: AssuranceTier
    cases: list[CaseDocument]
    outcome: RecordedConclusion
    candidate: RecordedConclusion | None = None
    nodes: list[RecordedNode] = []

    @classmethod
    def of(
        cls, judgement: Judgement, *, device: str, now: datetime, spiffe_id: str = ""
    ) -> RecordedAppraisal:
        """Return the record of one appraisal."""
        at = now.astimezone(UTC)
        cases = [CaseDocument.of(case) for case in judgement.cases]
        candidate = judgement.candidate
        record = cls(
            id="",
            first=at,
            last=at,
            device=device,
            spiffe_id=spiffe_id,
            best=judgement.best,
            cases=cases,
            outcome=RecordedConclusion.of(judgement.conclusion),
            candidate=None if candidate is None else RecordedConclusion.of(candidate),
        )
        return msgspec.structs.replace(record, id=_identity(record))

    @property
    def scheme(self) -> str:
        """The scheme's one word."""
        return self.cases[0].scheme if self.cases else ""

    def appraisal_cases(self) -> Sequence[AppraisalCase]:
        """Return what a policy is to be asked.

        Raises:
            DecodeError: the record was damaged.
        """
        return [case.case(now=self.last) for case in self.cases]


class _Body(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What of a record is stored as one piece."""

    best: AssuranceTier
    cases: list[CaseDocument]
    outcome: RecordedConclusion
    candidate: RecordedConclusion | None = None


def encode_body(record: RecordedAppraisal) -> bytes:
    """Return what of a record is stored as one piece: cases and conclusions.

    Raises:
        LimitExceededError: it is longer than `MAX_RECORD_BYTES`.
    """
    body = _Body(
        best=record.best, cases=record.cases, outcome=record.outcome, candidate=record.candidate
    )
    encoded = msgspec.json.encode(body)
    if len(encoded) > MAX_RECORD_BYTES:
        raise LimitExceededError(
            format="recorded appraisal", limit="MAX_RECORD_BYTES", value=MAX_RECORD_BYTES
        )
    return zlib.compress(encoded)


def decode_body(
    stored: bytes,
    *,
    record_id: str,
    first: datetime,
    last: datetime,
    count: int,
    device: str,
    spiffe_id: str,
) -> RecordedAppraisal:
    """Return the record whose body was stored.

    Raises:
        DecodeError: it is not what `encode_body` made.
    """
    inflate = zlib.decompressobj()
    try:
        encoded = inflate.decompress(stored, MAX_RECORD_BYTES)
        body = msgspec.json.decode(encoded, type=_Body)
    except (zlib.error, msgspec.DecodeError) as exc:
        raise DecodeError(str(exc), format="recorded appraisal") from exc
    return RecordedAppraisal(
        id=record_id,
        first=first,
        last=last,
        count=count,
        device=device,
        spiffe_id=spiffe_id,
        best=body.best,
        cases=body.cases,
        outcome=body.outcome,
        candidate=body.candidate,
    )


def _identity(record: RecordedAppraisal) -> str:
    plain = msgspec.structs.replace(
        record,
        first=_NEVER,
        last=_NEVER,
        cases=[
            msgspec.structs.replace(
                case,
                nonce="",
                now=None,
                claims=without_nonces(case.claims),
                others={label: without_nonces(each) for label, each in case.others.items()},
            )
            for case in record.cases
        ],
    )
    return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()


_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
