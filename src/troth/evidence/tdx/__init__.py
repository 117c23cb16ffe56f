# SPDX-License-Identifier: Apache-2.0
"""Intel TDX: quotes of trust domains."""

from __future__ import annotations

from troth.evidence.evidence import Scheme
from troth.evidence.tdx.evidence import TdxEvidence
from troth.evidence.tdx.report import TdReport
from troth.evidence.tdx.scheme import TdxScheme

__all__ = ["SCHEME", "TdReport", "TdxEvidence", "TdxScheme"]

SCHEME: Scheme[TdxEvidence] = TdxScheme()
