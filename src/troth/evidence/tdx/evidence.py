# SPDX-License-Identifier: Apache-2.0
"""TDX Evidence, decoded: a quote, alone or as others wrap it.

It comes as the quote alone; as a report of the kernel's TSM interface in CBOR or JSON; or as
Trustee's guests send it, in JSON with the quote in base64 under "quote". The event logs that may
stand beside it there are not looked at: nothing in this scheme depends on them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.evidence.evidence import Evidence
from troth.evidence.intel.quote import Quote, decode_quote
from troth.evidence.tdx.report import TdReport
from troth.evidence.tsm_report import TsmReport, decode_tsm_report
from troth.formats.limits import Limits
from troth.formats.media_type import parse_media_type
from troth.formats.quoting import shown
from troth.formats.strict_json import decode_json_object

__all__ = ["LIMITS", "MEDIA_TYPES", "PROVIDER", "QUOTE_MEDIA_TYPE", "TdxEvidence", "decode"]

QUOTE_MEDIA_TYPE: Final = "application/vnd.intel.tdx.quote"
TRUSTEE_MEDIA_TYPE: Final = "application/vnd.confidential-containers.tdx-evidence+json"
MEDIA_TYPES: Final = (QUOTE_MEDIA_TYPE, TRUSTEE_MEDIA_TYPE)

PROVIDER: Final = "tdx_guest"
"""Name of the kernel's driver."""

LIMITS: Final = Limits(max_bytes=262_144, max_items=256, max_depth=4)
"""Evidence of Trustee's guests with its event logs, whose largest seen has 60 KB."""

_FORMAT: Final = "TDX quote"
_TRUSTEE_FORMAT: Final = "TDX Evidence of Trustee's"


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxEvidence(Evidence):
    """A quote and the report in it.

    Attributes:
        quote: the quote.
        report: its body, decoded.
    """

    quote: Quote
    report: TdReport


def decode(data: bytes, *, media_type: str = "") -> TdxEvidence:
    """Decode Evidence in any of its forms.

    Args:
        data: the Evidence, whole.
        media_type: that it came under; "" goes by the first octets.

    Raises:
        DecodeError: not TDX Evidence.
        UnsupportedError: a version or form that Troth does not take.
        LimitExceededError: a limit was crossed.
    """
    if len(data) > LIMITS.max_bytes:
        raise LimitExceededError(format=_FORMAT, limit="max_bytes", value=LIMITS.max_bytes)
    name = parse_media_type(media_type).name if media_type else ""
    if name == TRUSTEE_MEDIA_TYPE or (not name and data[:64].lstrip().startswith(b"{")):
        octets = _from_json(data)
    elif not name and TsmReport.recognises(data):
        octets = _from_tsm_report(data)
    else:
        octets = data
    quote = decode_quote(octets, format=_FORMAT)
    if quote.header.version == 3:
        raise UnsupportedError("it is of an SGX enclave", format=_FORMAT)
    return TdxEvidence(
        scheme="tdx",
        media_type=media_type or QUOTE_MEDIA_TYPE,
        raw=data,
        quote=quote,
        report=TdReport.decode(quote.body_type, quote.body),
    )


def _from_tsm_report(data: bytes) -> bytes:
    report = decode_tsm_report(data)
    if report.provider != PROVIDER:
        raise UnsupportedError(
            f"a TSM report by {shown(report.provider)}; expected {PROVIDER}", format=_FORMAT
        )
    return report.outblob


def _from_json(data: bytes) -> bytes:
    if TsmReport.recognises(data):
        return _from_tsm_report(data)
    members = decode_json_object(data, format=_TRUSTEE_FORMAT, limits=LIMITS)
    if "hcl_report" in members:
        raise UnsupportedError(
            "it is of a VM on Azure, where the quote vouches for a virtual TPM and the challenge "
            "stands in the TPM's own quote; Troth does not join the two",
            format=_TRUSTEE_FORMAT,
        )
    quote = members.get("quote")
    if not isinstance(quote, str):
        raise DecodeError('"quote" is not a text', format=_TRUSTEE_FORMAT)
    try:
        return base64.b64decode(quote, validate=True)
    except ValueError as exc:
        raise DecodeError(f'"quote" is not base64: {exc}', format=_TRUSTEE_FORMAT) from exc
