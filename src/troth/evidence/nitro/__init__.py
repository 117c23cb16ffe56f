# SPDX-License-Identifier: Apache-2.0
"""AWS Nitro Enclaves attestation documents."""

from __future__ import annotations

from troth.evidence.evidence import Scheme
from troth.evidence.nitro.document import NitroDocument, NitroEvidence, decode_document
from troth.evidence.nitro.scheme import NitroScheme

__all__ = ["SCHEME", "NitroDocument", "NitroEvidence", "NitroScheme", "decode_document"]

SCHEME: Scheme[NitroEvidence] = NitroScheme()
