# SPDX-License-Identifier: Apache-2.0
"""Decoders and verifiers of Evidence whose keys are certified by vendors."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from fuzz.harness import Target, files
from support.vendor_evidence import UNCHECKED, verify_with
from troth.errors import DecodeError, UnavailableError, VerificationError
from troth.evidence import nitro, sev_snp
from troth.evidence.certificates import VendorDocuments
from troth.evidence.sev_snp.certificate_table import (
    ARK,
    ASK,
    VCEK,
    decode_table,
    encode_table,
)
from troth.evidence.sev_snp.endorsement_key import decode_endorsement_key
from troth.evidence.sev_snp.report import REPORT_SIZE
from troth.evidence.tsm_report import TsmReport, decode_tsm_report

_REFUSALS = (DecodeError, VerificationError, UnavailableError)
_SNP_AT = datetime(2024, 1, 1, tzinfo=UTC)
_NITRO_AT = datetime(2022, 10, 13, 9, tzinfo=UTC)

_REPORTS = files("sev-snp/**/*.bin")
_CHAINS = files("sev-snp/**/*.pem")
_VEKS = [*files("sev-snp/**/*.der"), *files("sev-snp/**/*.testcer")]
_TABLES = [
    encode_table({VCEK: key, ASK: chain, ARK: b""}) for key in _VEKS[:3] for chain in _CHAINS[:2]
] or [encode_table({VCEK: b"leaf", ASK: b"intermediate", ARK: b"root"})]
_TSM = [
    report.to_cbor()
    for report in (
        TsmReport(provider="sev_guest", outblob=data, auxblob=_TABLES[0])
        for data in [*_REPORTS, bytes(REPORT_SIZE)]
    )
]
_TSM.append(b'{"provider": "sev_guest\\n", "outblob": "AAAA", "auxblob": "AAAA"}')
_SNP = [*_REPORTS, *(report + table for report in _REPORTS for table in _TABLES[:2]), *_TSM]
_NITRO = [
    *files("nitro/**/*doc-bytes"),
    *(base64.b64decode(text) for text in files("nitro/**/*doc-base64")),
]


def _endorsement_keys(data: bytes) -> None:
    documents = VendorDocuments()
    documents.add(data, source="fuzz", in_evidence=True)
    for pooled in documents.certificates:
        decode_endorsement_key(pooled)


def _verify_snp(data: bytes) -> object:
    collateral = {str(index): each for index, each in enumerate([*_VEKS, *_CHAINS])}
    return verify_with(
        data,
        "sev_snp",
        now=_SNP_AT,
        challenge=UNCHECKED,
        vendors=("amd",),
        collateral=collateral if len(data) <= REPORT_SIZE else None,
    )


VENDOR_TARGETS = [
    Target("sev-snp", lambda data: sev_snp.SCHEME.decode(data).report.to_json(), _SNP),
    Target("sev-snp-table", decode_table, _TABLES),
    Target("sev-snp-key", _endorsement_keys, [*_VEKS, *_CHAINS]),
    Target("sev-snp-verify", _verify_snp, _SNP, _REFUSALS),
    Target("tsm-report", decode_tsm_report, _TSM),
    Target("nitro", lambda data: nitro.SCHEME.decode(data).document.to_json(), _NITRO),
    Target(
        "nitro-verify",
        lambda data: verify_with(
            data, "nitro", now=_NITRO_AT, challenge=UNCHECKED, vendors=("aws",)
        ),
        _NITRO,
        _REFUSALS,
    ),
]
