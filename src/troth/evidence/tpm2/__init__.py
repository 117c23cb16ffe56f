# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0: quotes of measured boot (docs/reference/schemes/tpm2.md)."""

from __future__ import annotations

from troth.evidence.evidence import Scheme
from troth.evidence.tpm2.evidence import MEDIA_TYPE, Tpm2Evidence, encode
from troth.evidence.tpm2.measurements import Measurements
from troth.evidence.tpm2.scheme import Tpm2Scheme

__all__ = ["MEDIA_TYPE", "SCHEME", "Measurements", "Tpm2Evidence", "Tpm2Scheme", "encode"]

SCHEME: Scheme[Tpm2Evidence] = Tpm2Scheme()
