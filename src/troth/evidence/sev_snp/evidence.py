# SPDX-License-Identifier: Apache-2.0
"""SNP Evidence, decoded: a report, and the certificates that came with it.

It comes as the report alone, as the report with the host's certificate table after it, or as a
report of the kernel's TSM interface in CBOR or JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from troth.errors import LimitExceededError, UnsupportedError
from troth.evidence.evidence import Evidence
from troth.evidence.sev_snp.certificate_table import decode_table
from troth.evidence.sev_snp.report import REPORT_SIZE, AttestationReport, decode_report
from troth.evidence.tsm_report import (
    TSM_REPORT_CBOR,
    TSM_REPORT_JSON,
    TsmReport,
    decode_tsm_report,
)
from troth.formats.media_type import parse_media_type
from troth.formats.quoting import shown

__all__ = [
    "MAX_EVIDENCE_BYTES",
    "MEDIA_TYPES",
    "PROVIDER",
    "REPORT_MEDIA_TYPE",
    "SevSnpEvidence",
    "decode",
]

MAX_EVIDENCE_BYTES: Final = 65_536
"""Octets of one piece of Evidence: the report has 1184, the host's table at most 16 KiB."""

REPORT_MEDIA_TYPE: Final = "application/vnd.amd.sev-snp.attestation-report"

MEDIA_TYPES: Final = (TSM_REPORT_CBOR, TSM_REPORT_JSON, REPORT_MEDIA_TYPE)

PROVIDER: Final = "sev_guest"
"""Name of the kernel's driver."""

_FORMAT: Final = "SNP Evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class SevSnpEvidence(Evidence):
    """A report and certificates. That they belong together is for `verify()` to establish.

    Attributes:
        report: the report, decoded.
        report_bytes: the report, which is what the signature covers.
        certificates: what the host's table holds, by name: "VCEK", "VLEK", "ASK", "ARK", "CRL".
    """

    report: AttestationReport
    report_bytes: bytes = field(repr=False)
    certificates: Mapping[str, bytes] = field(repr=False)


def decode(data: bytes, *, media_type: str = "") -> SevSnpEvidence:
    """Decode Evidence in any of its forms. Certificates are not looked into.

    Args:
        data: the Evidence, whole.
        media_type: that it came under; "" goes by the first octets.

    Raises:
        DecodeError: not SNP Evidence.
        UnsupportedError: a TSM report of another kind of VM, or a version not known.
        LimitExceededError: a limit was crossed.
    """
    if len(data) > MAX_EVIDENCE_BYTES:
        raise LimitExceededError(
            format=_FORMAT, limit="MAX_EVIDENCE_BYTES", value=MAX_EVIDENCE_BYTES
        )
    name = parse_media_type(media_type).name if media_type else ""
    if name in {TSM_REPORT_CBOR, TSM_REPORT_JSON} or (not name and TsmReport.recognises(data)):
        tsm = decode_tsm_report(data, media_type=name)
        if tsm.provider != PROVIDER:
            raise UnsupportedError(
                f"a TSM report by {shown(tsm.provider)}; expected {PROVIDER}",
                format=_FORMAT,
                remedy="Send its outblob as it is, under the media type of its own scheme.",
            )
        report, table = tsm.outblob, tsm.auxblob
        media_type = media_type or TSM_REPORT_CBOR
    else:
        report, table = data[:REPORT_SIZE], data[REPORT_SIZE:]
    return SevSnpEvidence(
        scheme="sev_snp",
        media_type=media_type or REPORT_MEDIA_TYPE,
        raw=data,
        report=decode_report(report),
        report_bytes=report,
        certificates=decode_table(table),
    )
