# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0 Evidence as JSON, Rego and people see it (docs/reference/schemes/tpm2.md).

The TPM's clock is left out: it differs in each quote, and verdicts about equal claims are reused.
"""

from __future__ import annotations

import hashlib

from troth.evidence.tpm2.evidence import Tpm2Evidence
from troth.evidence.tpm2.measurements import Measurements
from troth.formats.tpm.public import attribute_names

__all__ = ["claims_of"]


def claims_of(evidence: Tpm2Evidence, measured: Measurements) -> dict[str, object]:
    """Return the claims of verified Evidence."""
    quote, quoted = evidence.quote, evidence.quoted
    claims: dict[str, object] = {
        "nonce": quote.extra_data.hex(),
        "qualified-signer": quote.qualified_signer.hex(),
        "firmware-version": f"{quote.firmware_version:016x}",
        "reset-count": quote.clock.reset_count,
        "restart-count": quote.clock.restart_count,
        "clock-safe": quote.clock.safe,
        "pcr-selection": quoted.selection.to_json(),
        "pcr-digest": quoted.digest.hex(),
    }
    if measured.values:
        claims["pcrs"] = {
            bank: {str(register): value.hex() for register, value in registers.items()}
            for bank, registers in measured.values.items()
        }
    key = evidence.attestation_key
    if key is not None:
        claims["attestation-key"] = {
            "name": key.name.hex(),
            "attributes": list(attribute_names(key.attributes)),
        }
    if evidence.event_log is not None:
        claims["event-log"] = _event_log(evidence, measured)
    if evidence.ima_log is not None and measured.files is not None:
        claims["ima-log"] = {
            "entries": len(measured.files),
            "violations": sum(each.is_violation for each in measured.files),
            "boot-aggregate-matches": measured.is_boot_aggregate_right,
        }
    if evidence.key_attestation is not None:
        attested = evidence.key_attestation.key
        claims["attested-key"] = {
            "name": attested.name.hex(),
            "thumbprint": attested.thumbprint,
            "attributes": list(attribute_names(attested.attributes)),
        }
    return claims


def _event_log(evidence: Tpm2Evidence, measured: Measurements) -> dict[str, object]:
    log = evidence.event_log
    found: dict[str, object] = {
        "sha-256": hashlib.sha256(log.raw if log else b"").hexdigest(),
        "events": len(log.events) if log else 0,
        "explained-pcrs": sorted(measured.events),
        "debugger-allowed": measured.is_debugger_allowed,
    }
    if measured.secure_boot is not None:
        found["secure-boot"] = measured.secure_boot
    return found
