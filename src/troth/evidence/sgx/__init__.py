# SPDX-License-Identifier: Apache-2.0
"""Intel SGX: quotes of enclaves."""

from __future__ import annotations

from troth.evidence.evidence import Scheme
from troth.evidence.sgx.evidence import SgxEvidence
from troth.evidence.sgx.scheme import SgxScheme

__all__ = ["SCHEME", "SgxEvidence", "SgxScheme"]

SCHEME: Scheme[SgxEvidence] = SgxScheme()
