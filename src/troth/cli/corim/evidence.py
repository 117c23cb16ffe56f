# SPDX-License-Identifier: Apache-2.0
"""CoRIMs from the Evidence of a node that is known to be good."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cryptography import x509

from troth.cli.corim.tpm2 import tpm2_corim
from troth.cli.corim.vendor import VendorFiles, vendor_corim
from troth.endorsement.build import (
    AttestKey,
    Component,
    cca_platform_corim,
    cca_realm_corim,
    psa_corim,
)
from troth.errors import SignatureError, UnsupportedError
from troth.evidence.cca.evidence import CcaEvidence
from troth.evidence.evidence import Evidence, Unchecked
from troth.evidence.psa.evidence import PsaEvidence
from troth.evidence.registry import detect, scheme
from troth.evidence.software_component import SoftwareComponent
from troth.evidence.tpm2 import Tpm2Evidence
from troth.formats.corim import Corim, Validity
from troth.formats.corim.tags import HASH_SIZES, hash_name
from troth.formats.keys import VerificationKey

__all__ = ["LEAVE_OUT", "GoodNode", "read_evidence"]

LEAVE_OUT = ("version", "config", "rems", "rpv", "events", "files", "host-data", "rtmr3")
"""What of the Evidence may be left out of the Reference Values."""


# Their attestation keys are certified by a vendor, not registered one by one.
_CERTIFIED = frozenset({"nitro", "sev_snp", "sgx", "tdx"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodNode:
    """Evidence of a node that is known to be good, and how its CoRIMs are to be made.

    Attributes:
        evidence: decoded, and verified unless the operator waived that.
        insecure: reasons why the node must not count in production.
        keys: the keys that it verified under; none where it was not verified.
        instance_id: what they are registered by, where it was verified.
    """

    evidence: Evidence
    insecure: Sequence[str]
    keys: Sequence[VerificationKey]
    instance_id: bytes = b""

    def corims(
        self,
        *,
        corim_id: str,
        with_key: bool,
        leave_out: Collection[str],
        vendor: str,
        model: str,
        validity: Validity | None,
        class_id: bytes = b"",
        registers: Sequence[int] | None = None,
    ) -> list[Corim]:
        """Return one CoRIM, for CCA two (platform, realm).

        `class_id` and `registers` are for a TPM, whose Evidence does not name its class.

        Raises:
            UnsupportedError: another scheme.
        """
        evidence = self.evidence
        if isinstance(evidence, PsaEvidence):
            claims = evidence.claims
            return [
                psa_corim(
                    corim_id=corim_id,
                    implementation_id=claims.implementation_id,
                    components=_components(claims.software_components, "", leave_out),
                    keys=self._attest_keys(claims.instance_id) if with_key else (),
                    vendor=vendor,
                    model=model,
                    validity=validity,
                )
            ]
        if isinstance(evidence, CcaEvidence):
            platform, realm = evidence.platform.claims, evidence.realm.claims
            components = _components(
                platform.software_components, platform.hash_algorithm, leave_out
            )
            return [
                cca_platform_corim(
                    corim_id=f"{corim_id}-platform",
                    implementation_id=platform.implementation_id,
                    components=components,
                    config=None if "config" in leave_out else platform.config,
                    keys=self._attest_keys(platform.instance_id) if with_key else (),
                    vendor=vendor,
                    model=model,
                    validity=validity,
                ),
                cca_realm_corim(
                    corim_id=f"{corim_id}-realm",
                    rim=realm.initial_measurement,
                    rems=() if "rems" in leave_out else realm.extensible_measurements,
                    rpv=b"" if "rpv" in leave_out else realm.personalization_value,
                    validity=validity,
                ),
            ]
        if isinstance(evidence, Tpm2Evidence):
            return [
                tpm2_corim(
                    evidence,
                    corim_id=corim_id,
                    class_id=class_id,
                    registers=registers,
                    leave_out=leave_out,
                    keys=self._attest_keys(self.instance_id) if with_key else (),
                    vendor=vendor,
                    model=model,
                    validity=validity,
                )
            ]
        corim = vendor_corim(
            evidence,
            corim_id=corim_id,
            leave_out=leave_out,
            vendor=vendor,
            model=model,
            validity=validity,
        )
        if corim is not None:
            return [corim]
        raise UnsupportedError(
            f"Reference Values are not made from {evidence.scheme} Evidence",
            format="Evidence",
            remedy="Describe the values in a file and use --from.",
        )

    def _attest_keys(self, instance_id: bytes) -> list[AttestKey]:
        return [AttestKey(instance_id=instance_id, key=key) for key in self.keys]


def read_evidence(
    data: bytes,
    *,
    scheme_name: str,
    keys: Sequence[VerificationKey] | None,
    allow_test_keys: bool,
    allow_simulator: bool,
    vendor_files: VendorFiles | None = None,
) -> GoodNode:
    """Decode Evidence and verify it under one of `keys`, or up to a vendor's root.

    Freshness is not checked: the Evidence was recorded, and nobody's admission depends on it.

    Args:
        data: the token.
        scheme_name: the scheme, or "" to go by the first octets.
        keys: the node's attestation keys, or None not to verify.
        allow_test_keys: take Evidence under a published test key.
        allow_simulator: take Evidence of the simulator.
        vendor_files: what chains of certificates are verified with, where they are.

    Raises:
        DecodeError: not Evidence of the scheme.
        VerificationError: not made under one of the keys.
        UnavailableError: a vendor's document is missing.
    """
    chosen = scheme(scheme_name or detect(data))
    evidence = chosen.decode(data)
    if keys is None:
        return GoodNode(evidence=evidence, insecure=("not verified",), keys=())
    if vendor_files is not None and chosen.name in _CERTIFIED:
        found = vendor_files.verify(chosen, evidence, allow_simulator=allow_simulator)
        return GoodNode(evidence=found.evidence, insecure=tuple(found.insecure), keys=())
    # One key at a time, to know under which of them it verified.
    refusals: list[str] = []
    last: SignatureError | None = None
    for key in keys:
        try:
            verified = chosen.verify(
                evidence,
                trust_anchors=_OneKey(key),
                freshness=Unchecked("recorded to make Reference Values from"),
                allow_test_keys=allow_test_keys,
                allow_simulator=allow_simulator,
            )
        except SignatureError as exc:
            refusals.append(str(exc))
            last = exc
        else:
            return GoodNode(
                evidence=verified.evidence,
                insecure=tuple(verified.insecure),
                keys=(key,),
                instance_id=verified.instance_id,
            )
    raise SignatureError("; ".join(refusals) or "no key", remedy=last.remedy if last else "")


@dataclass(frozen=True, slots=True)
class _OneKey:
    """A trust anchor source that knows one key, whoever is asked about."""

    key: VerificationKey

    def keys(
        self,
        scheme: str,  # noqa: ARG002 - the port's signature
        *,
        implementation_id: bytes,  # noqa: ARG002 - as above
        instance_id: bytes,  # noqa: ARG002 - as above
    ) -> Sequence[VerificationKey]:
        return (self.key,)

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:  # noqa: ARG002 - as above
        return ()


def _components(
    components: Sequence[SoftwareComponent], algorithm: str, leave_out: Collection[str]
) -> list[Component]:
    return [
        Component(
            digest=each.measurement_value,
            signer_id=each.signer_id,
            name=each.measurement_type,
            version="" if "version" in leave_out else each.version,
            algorithm=_algorithm(each, algorithm),
        )
        for each in components
    ]


def _algorithm(component: SoftwareComponent, default: str) -> str:
    stated = component.measurement_desc or default
    return hash_name(stated) if hash_name(stated) in HASH_SIZES else ""
