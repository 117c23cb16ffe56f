# SPDX-License-Identifier: Apache-2.0
"""Appraisal of SGX quotes.

Reference Values are found by MRENCLAVE or by MRSIGNER. Values of one reference triple belong
together; of several triples, the nearest one counts.

================= ====== =================================================================
instance-identity 2      Intel certifies the platform's key
                  96     Intel has revoked the platform
executables       2      MRENCLAVE is as described, or MRSIGNER and the product id are, and
                         whatever else is described too, such as a lowest security version
                  33     otherwise, also without values
configuration     2      attributes, MISCSELECT and the configuration id are as described,
                         where they are described, and one of them is
                  32     one of them is not; or the platform's settings are not as advised
                  36     a configuration id is set, and no value speaks about it
hardware          2-96   the TCB status (`intel_platform`)
runtime-opaque    2      memory is encrypted with a key that only the processor has
                  96     the enclave is in debug mode: the host can read it
================= ====== =================================================================

Source: Intel SDM volume 3D, chapter 38 (ATTRIBUTES, MRENCLAVE, MRSIGNER);
draft-ietf-rats-ar4si-06 section 2.3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from troth.endorsement.matching import Measured
from troth.evidence.evidence import VerifiedEvidence
from troth.evidence.intel.enclave_report import EnclaveReport
from troth.evidence.intel.verification import VerifiedQuote
from troth.evidence.sgx.evidence import SgxEvidence
from troth.formats.ar4si import TrustworthinessVector
from troth.verifier.appraisers.appraisal import Appraisal, References
from troth.verifier.appraisers.described_state import DescribedState, nearest
from troth.verifier.appraisers.intel_platform import appraise_platform
from troth.verifier.appraisers.missing import no_reference_values
from troth.verifier.finding import Finding

__all__ = ["appraise"]

_ENCLAVE, _SIGNER, _PRODUCT, _SVN = "mr_enclave", "mr_signer", "isv_prod_id", "isv_svn"
_OF_SOFTWARE: Final = (_ENCLAVE, _SIGNER, _PRODUCT, _SVN, "isv_ext_prod_id", "isv_family_id")
_CONFIG: Final = "config_id"
_SETTINGS: Final = ("attributes", "misc_select", _CONFIG, "config_svn")

_REMEDIES: Final = {
    _ENCLAVE: "Install a described build of the enclave, or provision this one.",
    _SIGNER: "The enclave is signed by somebody else: find out by whom.",
    _SVN: "Update the enclave to a build with a higher security version.",
}


def appraise(
    verified: VerifiedEvidence[SgxEvidence], references: References
) -> Sequence[Appraisal]:
    """Appraise the one claims set of a quote."""
    if not isinstance(verified, VerifiedQuote):
        raise TypeError("SGX Evidence that SgxScheme.verify() did not make")
    report = verified.evidence.report
    (claims_set,) = verified.claims_sets
    label = claims_set.label
    found = [
        references.find("sgx", class_id=class_id, instance_id=verified.instance_id)
        for class_id in (report.mr_enclave, report.mr_signer)
    ]
    in_force = [value for values, _ in found for value in values]
    lapsed = [value for _, values in found for value in values]
    state = nearest(in_force, _measured(report))
    findings: list[Finding] = []
    if not in_force:
        missing = no_reference_values(
            _ENCLAVE,
            claim=_ENCLAVE,
            environment=f"MRENCLAVE {report.mr_enclave.hex()} or MRSIGNER {report.mr_signer.hex()}",
            lapsed=lapsed,
            submod=label,
        )
        findings.append(missing)
    findings += state.findings(submod=label, remedies=_REMEDIES)
    findings += _not_described(state, label) if in_force else ()
    runtime_opaque, configuration, own = _enclave(report, state, label)
    platform = appraise_platform(
        verified.platform, submod=label, report_contraindicated=runtime_opaque == 96
    )
    findings += (*own, *platform.findings)
    settings = [each for each in (configuration, platform.configuration) if each is not None]
    return (
        Appraisal(
            claims_set=claims_set,
            vector=TrustworthinessVector(
                instance_identity=platform.instance_identity,
                executables=_executables(state),
                configuration=max(settings, default=None),
                hardware=platform.hardware,
                runtime_opaque=runtime_opaque,
            ),
            findings=tuple(findings),
            matched=tuple(state.matched),
        ),
    )


def _executables(state: DescribedState) -> int:
    named = state.meets((_ENCLAVE,)) or state.meets((_SIGNER, _PRODUCT))
    return 2 if named and not state.differs(_OF_SOFTWARE) and not state.unreadable() else 33


def _measured(report: EnclaveReport) -> dict[str, Measured]:
    """Return the fields that values may speak about, in any form that suits them."""
    fields = {
        name: Measured(key=name, digests={"sha-256": octets}, raw_value=octets)
        for name, octets in ((_ENCLAVE, report.mr_enclave), (_SIGNER, report.mr_signer))
    }
    for name in ("attributes", "misc_select", _CONFIG, "isv_ext_prod_id", "isv_family_id"):
        fields[name] = Measured(key=name, raw_value=getattr(report, name))
    for name in (_PRODUCT, _SVN, "config_svn"):
        number: int = getattr(report, name)
        octets = number.to_bytes(2, "little")
        fields[name] = Measured(key=name, svn=number, integer=number, raw_value=octets)
    return fields


def _not_described(state: DescribedState, submod: str) -> list[Finding]:
    if state.describes(_ENCLAVE) or state.meets((_PRODUCT,)):
        if state.describes(_ENCLAVE) or state.describes(_SVN):
            return []
        return [
            Finding(
                claim=_SVN,
                expected="a lowest security version, as a Reference Value",
                actual="none provisioned: builds with known faults match as well",
                rule="MRSIGNER and the product id say nothing about the build",
                remedy="Have the Endorser add isv_svn with a minimum to the reference triple.",
                submod=submod,
                severity="note",
            )
        ]
    return [
        Finding(
            claim=f"{_ENCLAVE}, {_PRODUCT}",
            expected=f"Reference Values for {_ENCLAVE}, or for {_SIGNER} and {_PRODUCT}",
            actual="none that says which enclave of this signer is meant",
            rule="no Reference Values, no affirmation (RFC 9334 section 8.3)",
            remedy=f"Have the Endorser add {_PRODUCT} or {_ENCLAVE} to the reference triple.",
            submod=submod,
            severity="warning",
        )
    ]


def _enclave(
    report: EnclaveReport, state: DescribedState, submod: str
) -> tuple[int, int | None, list[Finding]]:
    """Return runtime-opaque, configuration, and what follows from how the enclave runs."""
    findings: list[Finding] = []
    runtime_opaque, configuration = 2, None
    if state.differs(_SETTINGS):
        configuration = 32
    elif any(state.describes(name) for name in _SETTINGS):
        configuration = 2
    if any(report.config_id) and not state.describes(_CONFIG):
        configuration = max(configuration or 0, 36)
        findings.append(
            Finding(
                claim=_CONFIG,
                expected="zero, or a Reference Value",
                actual=report.config_id.hex(),
                rule="the launcher's choice, on which the enclave may act",
                remedy=f"Provision a value for {_CONFIG}, or launch without it.",
                submod=submod,
                severity="warning",
            )
        )
    if report.flags["debug"]:
        runtime_opaque = 96
        findings.append(
            Finding(
                claim="attribute_flags.debug",
                expected="false",
                actual="true: the host can read and change the enclave's memory",
                rule="Intel SDM volume 3D section 38.7.1, DEBUG",
                remedy="Sign and launch the enclave for production.",
                submod=submod,
            )
        )
    return runtime_opaque, configuration, findings
