# SPDX-License-Identifier: Apache-2.0
"""Reference Values from the Evidence of a good guest or enclave whose key a vendor certifies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import click
from cryptography import x509

from troth.cli.inputs import Rfc3339, read_certificates, read_collateral
from troth.clock import SystemClock
from troth.endorsement.build import measured_corim
from troth.endorsement.intel_corim import sgx_corim, tdx_corim
from troth.endorsement.sev_snp_corim import sev_snp_corim
from troth.errors import ConfigurationError
from troth.evidence.context import Collateral, VerificationContext
from troth.evidence.evidence import Evidence, Scheme, Unchecked, VerifiedEvidence
from troth.evidence.nitro import NitroEvidence
from troth.evidence.sev_snp import SevSnpEvidence
from troth.evidence.sgx import SgxEvidence
from troth.evidence.tdx import TdxEvidence
from troth.evidence.tdx.report import UNDER_DEBUG
from troth.evidence.vendors import VENDOR_ROOTS
from troth.formats.corim import Corim, Validity
from troth.formats.keys import VerificationKey

__all__ = ["VendorFiles", "vendor_corim", "vendor_options"]

F = TypeVar("F", bound=Callable[..., Any])

# PCRs that say what the enclave is; 3 and 4 say where it runs.
_OF_THE_IMAGE: Final = (0, 1, 2, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorFiles:
    """What a chain of certificates is verified with.

    Attributes:
        roots: certificates that the operator believes.
        context: time, collateral, vendors.
    """

    roots: Sequence[x509.Certificate]
    context: VerificationContext

    @classmethod
    def of(
        cls,
        key_file: str | None,
        *,
        trust_vendors: Sequence[str],
        collateral: str | None,
        at: datetime | None,
    ) -> VendorFiles:
        """Read what the command line names.

        Raises:
            ConfigurationError: something cannot be read.
        """
        return cls(
            roots=read_certificates(key_file) if key_file is not None else (),
            context=VerificationContext(
                now=at or SystemClock().now(),
                collateral=read_collateral(collateral) if collateral is not None else Collateral(),
                vendors=frozenset(trust_vendors),
            ),
        )

    def verify(
        self, scheme: Scheme[Any], evidence: Evidence, *, allow_simulator: bool
    ) -> VerifiedEvidence[Any]:
        """Verify Evidence but for its freshness.

        Raises:
            VerificationError: not authentic.
            UnavailableError: a document is missing.
        """
        return scheme.verify(
            evidence,
            trust_anchors=_Roots(self.roots),
            freshness=Unchecked("recorded to make Reference Values from"),
            allow_simulator=allow_simulator,
            context=self.context,
        )


@dataclass(frozen=True, slots=True)
class _Roots:
    """A trust anchor source of root certificates."""

    roots: Sequence[x509.Certificate]

    def keys(
        self,
        scheme: str,  # noqa: ARG002 - the port's signature
        *,
        implementation_id: bytes,  # noqa: ARG002 - as above
        instance_id: bytes,  # noqa: ARG002 - as above
    ) -> Sequence[VerificationKey]:
        return ()

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:  # noqa: ARG002 - as above
        return self.roots


def vendor_options(command: F) -> F:
    """Add the options that certified keys need."""
    for option in (
        click.option("--at", type=Rfc3339(), metavar="TIME", help="When the Evidence was made."),
        click.option("--collateral", metavar="DIR", help="Directory with the vendor's documents."),
        click.option(
            "--trust-vendor",
            "trust_vendors",
            type=click.Choice(sorted(VENDOR_ROOTS)),
            multiple=True,
            help="Believe the roots that this vendor of hardware publishes.",
        ),
    ):
        command = option(command)
    return command


def vendor_corim(
    evidence: Evidence,
    *,
    corim_id: str,
    leave_out: Collection[str],
    vendor: str,
    model: str,
    validity: Validity | None,
) -> Corim | None:
    """Return the CoRIM for a guest or an enclave; None for another scheme.

    Of an SNP guest: the launch measurement, the policy, the TCB version as the lowest, the level
    that the report was asked for at, and the ID key and the host's data if there are any. Of a
    trust domain: MRTD, the RTMRs and the attributes, and what its launcher chose if there is any.
    Of an enclave of Nitro's: the registers of its image, and not where it runs. Of an enclave of
    SGX's: its measurement, signer and product, and its version as the lowest.

    Raises:
        ConfigurationError: the guest or enclave can be debugged: its values must not be approved.
    """
    if isinstance(evidence, SevSnpEvidence):
        report = evidence.report
        _refuse_debugging(report.policy.debug_allowed)
        return sev_snp_corim(
            corim_id=corim_id,
            measurement=report.measurement,
            policy=report.policy.value,
            minimum_tcb=report.reported_tcb.value,
            host_data=b"" if "host-data" in leave_out else _unless_zero(report.host_data),
            id_key_digest=_unless_zero(report.id_key_digest),
            vmpl=report.vmpl or None,
            validity=validity,
        )
    if isinstance(evidence, NitroEvidence):
        document = evidence.document
        _refuse_debugging(document.debug_mode)
        return measured_corim(
            corim_id=corim_id,
            scheme="nitro",
            class_id=document.pcrs[0],
            registers={
                index: [document.pcrs[index]]
                for index in _OF_THE_IMAGE
                if any(document.pcrs.get(index, b""))
            },
            vendor=vendor,
            model=model,
            validity=validity,
        )
    if isinstance(evidence, TdxEvidence):
        return _trust_domain(evidence, corim_id, leave_out, validity)
    if isinstance(evidence, SgxEvidence):
        own = evidence.report
        _refuse_debugging(own.flags["debug"])
        return sgx_corim(
            corim_id=corim_id,
            mr_enclave=own.mr_enclave,
            mr_signer=own.mr_signer,
            isv_prod_id=own.isv_prod_id,
            minimum_isv_svn=own.isv_svn,
            config_id=_unless_zero(own.config_id),
            validity=validity,
        )
    return None


def _trust_domain(
    evidence: TdxEvidence, corim_id: str, leave_out: Collection[str], validity: Validity | None
) -> Corim:
    report = evidence.report
    _refuse_debugging(bool(report.attributes & UNDER_DEBUG))
    rtmrs = [report.rtmr0, report.rtmr1, report.rtmr2]
    if "rtmr3" not in leave_out:
        rtmrs.append(report.rtmr3)
    hosts = "host-data" in leave_out
    return tdx_corim(
        corim_id=corim_id,
        mr_td=report.mr_td,
        rtmrs=rtmrs,
        td_attributes=report.td_attributes,
        mr_config_id=b"" if hosts else _unless_zero(report.mr_config_id),
        mr_owner=b"" if hosts else _unless_zero(report.mr_owner),
        mr_owner_config=b"" if hosts else _unless_zero(report.mr_owner_config),
        validity=validity,
    )


def _refuse_debugging(allowed: bool) -> None:  # noqa: FBT001 - private
    if allowed:
        raise ConfigurationError(
            source="--evidence",
            value="of a guest or enclave that can be debugged",
            accepted="Evidence of one that runs as it will in production",
        )


def _unless_zero(octets: bytes) -> bytes:
    return octets if any(octets) else b""
