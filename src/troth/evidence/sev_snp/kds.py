# SPDX-License-Identifier: Apache-2.0
"""What AMD's Key Distribution Service would be asked for to verify a report. Nobody is asked here.

Source: AMD document 57230 revision 0.51 section 4 (KDS interface); for Turin, whose chip ids have
8 octets and whose TCB has an FMC, the service itself.
"""

from __future__ import annotations

from typing import Final

from troth.errors import UnsupportedError
from troth.evidence.collateral_source import CollateralRequest
from troth.evidence.sev_snp.evidence import SevSnpEvidence
from troth.evidence.sev_snp.report import AttestationReport, SigningKey

__all__ = ["PRODUCTS", "wanted"]

PRODUCTS: Final = ("Milan", "Genoa", "Turin")

_PARAMETERS: Final = {
    "fmc": "fmcSPL",
    "bootloader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}
_TURIN_HWID_SIZE: Final = 8


def wanted(evidence: SevSnpEvidence, *, product: str = "") -> tuple[CollateralRequest, ...]:
    """Return what is needed besides the Evidence: the VCEK, its chain, and the revocation list.

    A VLEK is not among them: AMD gives it to the provider only, so it must come from the host.

    Args:
        evidence: decoded; what its certificates hold is not looked into.
        product: the product line, for a report of version 2, which does not say it.

    Raises:
        UnsupportedError: the product is not known, or the report does not name its chip.
    """
    report, present = evidence.report, evidence.certificates
    product = report.product or product
    if product not in PRODUCTS:
        raise UnsupportedError(
            f"the product line is {product or 'not in the report'}; known to AMD's Key "
            f"Distribution Service are {', '.join(PRODUCTS)}",
            format="SNP report",
            remedy="Give the certificates by a directory, or have the guest send them.",
        )
    kind = "vlek" if report.signing_key is SigningKey.VLEK else "vcek"
    requests: list[CollateralRequest] = []
    if kind == "vcek" and "VCEK" not in present:
        requests.append(_vcek(report, product))
    if not {"ASK", "ARK"} <= present.keys():
        requests.append(
            CollateralRequest(
                name=f"{kind}-{product}-chain.pem",
                path=f"/{kind}/v1/{product}/cert_chain",
                description=f"AMD's certificate chain for {kind.upper()}s of {product}",
            )
        )
    requests.append(
        CollateralRequest(
            name=f"{kind}-{product}.crl",
            path=f"/{kind}/v1/{product}/crl",
            description=f"AMD's revocation list for {product}",
            changes=True,
        )
    )
    return tuple(requests)


def _vcek(report: AttestationReport, product: str) -> CollateralRequest:
    if not report.chip_known:
        raise UnsupportedError(
            "the report does not name its chip, so its VCEK cannot be asked for",
            format="SNP report",
            remedy="Have the host switch MASK_CHIP_ID off, or have the guest send the VCEK.",
        )
    chip = report.chip_id[:_TURIN_HWID_SIZE] if product == "Turin" else report.chip_id
    parts = report.reported_tcb.parts
    levels = {name: parts[name] for name in _PARAMETERS if name in parts}
    query = "&".join(f"{_PARAMETERS[name]}={level:02d}" for name, level in levels.items())
    label = "-".join(f"{level:02d}" for level in levels.values())
    return CollateralRequest(
        name=f"vcek-{product}-{chip.hex()}-{label}.der",
        path=f"/vcek/v1/{product}/{chip.hex()}?{query}",
        description=f"VCEK of chip {chip.hex()} at TCB {report.reported_tcb}",
    )
