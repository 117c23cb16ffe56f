# SPDX-License-Identifier: Apache-2.0
"""AMD SEV-SNP endorsements: the fields of an attestation report by their numbers.

The profile names chips or providers, not virtual machines, as environments. Troth finds the
values of a virtual machine by what was launched, so the launch measurement (641) becomes the
class id here, as the RIM is for a realm; the profile's own class (the kind of signing key) is an
OID that every report of a kind shares and that selects nothing.

Source: draft-deeglaze-amd-sev-snp-corim-profile, "AMD SEV-SNP measurements", and the published
example under the older URI, whose instance id is the launch measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from troth.endorsement.profiles.generic import read_environment, read_keys, read_value
from troth.endorsement.profiles.profile import Drafts
from troth.endorsement.reference_value import Environment, ReferenceValue
from troth.formats.corim import tags
from troth.formats.corim.node import Node
from troth.formats.corim.triples import KeyTriple, MeasurementTriple

__all__ = ["FIELDS", "SEV_SNP_2024", "SEV_SNP_2025", "SevSnpProfile"]

FIELDS: Final = {
    "0": "version",
    "1": "guest_svn",
    "2": "policy",
    "3": "family_id",
    "4": "image_id",
    "5": "vmpl",
    "6": "current_tcb",
    "7": "platform_info",
    "640": "report_data",
    "641": "measurement",
    "642": "host_data",
    "643": "id_key_digest",
    "644": "author_key_digest",
    "645": "report_id",
    "646": "report_id_ma",
    "647": "reported_tcb",
    "648": "cpuid_fam_id",
    "649": "cpuid_mod_id",
    "650": "cpuid_step",
    "3328": "chip_id",
    "3329": "committed_tcb",
    "3330": "current_version",
    "3936": "committed_version",
    "3968": "launch_tcb",
}
"""Measurement key to the field's name in the SEV-SNP firmware ABI, in lower case."""


@dataclass(frozen=True, slots=True)
class SevSnpProfile:
    """Rules of the SEV-SNP profile."""

    uri: str
    scheme: str = "sev_snp"

    def read_reference(self, triple: MeasurementTriple, place: Node, drafts: Drafts) -> None:
        """Take the fields of one report; the launch measurement must be among them."""
        environment = read_environment(triple.environment, place)
        values: list[ReferenceValue] = []
        for index, measurement in enumerate(triple.measurements):
            at = place.child("measurements", None).element(index, None)
            value = read_value(measurement, environment, at, drafts)
            if value.key and value.key not in FIELDS:
                raise at.child("mkey", None).error(f"{value.key!r} is no field of a report")
            values.append(replace(value, key=FIELDS.get(value.key, "")))
        named = _environment(environment, values, place)
        for value in values:
            drafts.add(replace(value, environment=named))

    def read_attest_key(self, triple: KeyTriple, place: Node, drafts: Drafts) -> None:
        """Take AMD's root certificates, and keys."""
        read_keys(triple, place, drafts)


def _environment(
    environment: Environment, values: list[ReferenceValue], place: Node
) -> Environment:
    measurements = [value for value in values if value.key == "measurement"]
    if len(measurements) != 1:
        raise place.child("measurements", None).error(
            f"{len(measurements)} launch measurements (641); expected exactly one"
        )
    digest = measurements[0].digests.get("sha-384")
    if digest is None:
        raise place.child("measurements", None).error("the launch measurement has no sha-384")
    # The older example has the launch measurement as its instance.
    instance = environment.instance_id if environment.instance_id != digest else b""
    return replace(
        environment,
        class_id=digest,
        class_tag=tags.BYTES,
        instance_id=instance,
        instance_tag=tags.BYTES,
    )


SEV_SNP_2024: Final = SevSnpProfile("tag:amd.com,2024:snp-corim-profile")
SEV_SNP_2025: Final = SevSnpProfile("tag:amd.com,2025:snp-corim-profile")
