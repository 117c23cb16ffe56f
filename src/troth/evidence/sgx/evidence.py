# SPDX-License-Identifier: Apache-2.0
"""SGX Evidence, decoded: a quote of version 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from troth.errors import UnsupportedError
from troth.evidence.evidence import Evidence
from troth.evidence.intel.enclave_report import EnclaveReport
from troth.evidence.intel.quote import Quote, decode_quote

__all__ = ["MEDIA_TYPES", "SgxEvidence", "decode"]

MEDIA_TYPES: Final = ("application/vnd.intel.sgx.quote",)

_FORMAT: Final = "SGX quote"


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxEvidence(Evidence):
    """A quote and the report in it.

    Attributes:
        quote: the quote.
        report: its body, decoded.
    """

    quote: Quote
    report: EnclaveReport


def decode(data: bytes, *, media_type: str = "") -> SgxEvidence:
    """Decode one quote.

    Args:
        data: the quote, whole.
        media_type: that it came under; "" where it came under none.

    Raises:
        DecodeError: not a quote.
        UnsupportedError: a version or certification that Troth does not take, or of TDX.
        LimitExceededError: a limit was crossed.
    """
    quote = decode_quote(data, format=_FORMAT)
    if quote.header.version != 3:
        raise UnsupportedError("it is of a TDX trust domain", format=_FORMAT)
    return SgxEvidence(
        scheme="sgx",
        media_type=media_type or MEDIA_TYPES[0],
        raw=data,
        quote=quote,
        report=EnclaveReport.decode(quote.body, format="SGX report"),
    )
