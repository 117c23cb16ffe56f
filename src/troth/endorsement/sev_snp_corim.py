# SPDX-License-Identifier: Apache-2.0
"""Make a CoRIM for SEV-SNP guests, and for the roots of the chips that they run on.

What is built is read back by the rules of its profile before it is returned.

Source: draft-deeglaze-amd-sev-snp-corim-profile, "AMD SEV-SNP measurements".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from troth.endorsement.endorsements import endorsements_of
from troth.endorsement.profiles.sev_snp import FIELDS, SEV_SNP_2025
from troth.errors import ConfigurationError
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.comid import Comid
from troth.formats.corim.common import Validity
from troth.formats.corim.corim import Corim
from troth.formats.corim.environment import EnvironmentClass, EnvironmentMap
from troth.formats.corim.identifier import Digest
from troth.formats.corim.measurement import Measurement, MeasurementValues, RawValue, Svn
from troth.formats.corim.triples import KeyTriple, MeasurementTriple, Triples

__all__ = ["sev_snp_corim"]

_KEYS: Final = {name: int(key) for key, name in FIELDS.items()}
# 1.3.6.1.4.1.3704.3.1, "by chip", as the profile has it.
_BY_CHIP: Final = bytes.fromhex("2b060104019c780301")


def sev_snp_corim(
    *,
    corim_id: str,
    measurement: bytes = b"",
    policy: int | None = None,
    minimum_tcb: int | None = None,
    host_data: bytes = b"",
    id_key_digest: bytes = b"",
    vmpl: int | None = None,
    chip_id: bytes = b"",
    roots: Sequence[x509.Certificate] = (),
    validity: Validity | None = None,
) -> Corim:
    """Return a CoRIM with one reference state, root certificates, or both.

    A guest is affirmed only where measurement, policy and lowest TCB version are given.

    Args:
        corim_id: identifier of the CoRIM; unique, and what `withdraw` takes.
        measurement: the launch measurement, 48 octets; b"" makes no reference state.
        policy: the whole guest policy.
        minimum_tcb: lowest REPORTED_TCB, as the 64-bit number; compared part by part.
        host_data: what the host gave at launch, 32 octets; b"" for any.
        id_key_digest: of the key that signed the ID block, 48 octets; b"" for any.
        vmpl: that reports are asked for at; None for 0.
        chip_id: the only chip that the guest may run on, 64 octets; b"" for any.
        roots: AMD's root certificates that chains may end at.
        validity: when the CoRIM may be used.

    Raises:
        ConfigurationError: neither a measurement nor a root.
        DecodeError: an argument does not fit the profile.
    """
    comids: list[Comid] = []
    if measurement:
        values = {
            "measurement": _digest("sha-384", measurement),
            "policy": _number(policy, 8),
            "reported_tcb": None
            if minimum_tcb is None
            else MeasurementValues(svn=Svn(minimum_tcb, tags.MIN_SVN)),
            "host_data": _octets(host_data),
            "id_key_digest": _digest("sha-384", id_key_digest),
            "vmpl": _number(vmpl, 4),
        }
        measurements = tuple(
            Measurement(key=_KEYS[name], values=value)
            for name, value in values.items()
            if value is not None
        )
        state = MeasurementTriple(_environment(chip_id), measurements)
        comids.append(Comid(tag_id=f"{corim_id}:state", triples=Triples(reference=(state,))))
    if roots:
        keys = tuple(_root(root) for root in roots)
        comids.append(Comid(tag_id=f"{corim_id}:roots", triples=Triples(attest_key=keys)))
    if not comids:
        raise ConfigurationError(
            source=f"CoRIM {corim_id}", accepted="a launch measurement or a root certificate"
        )
    corim = Corim(
        corim_id=corim_id, tags=tuple(comids), profile=SEV_SNP_2025.uri, validity=validity
    )
    decoded = Corim.decode(corim.encode())
    endorsements_of(decoded, source=f"CoRIM {corim_id}")
    return decoded


def _environment(chip_id: bytes) -> EnvironmentMap:
    return EnvironmentMap(
        environment_class=EnvironmentClass(class_id=Tag(tags.OID, _BY_CHIP)),
        instance=Tag(tags.BYTES, chip_id) if chip_id else None,
    )


def _root(root: x509.Certificate) -> KeyTriple:
    environment = EnvironmentMap(
        environment_class=EnvironmentClass(
            vendor="Advanced Micro Devices", model=root.subject.rfc4514_string()
        )
    )
    pem = root.public_bytes(Encoding.PEM).decode()
    return KeyTriple(environment, (Tag(tags.CERTIFICATE, pem),))


def _digest(algorithm: str, value: bytes) -> MeasurementValues | None:
    return MeasurementValues(digests=(Digest(algorithm, value),)) if value else None


def _octets(value: bytes) -> MeasurementValues | None:
    return MeasurementValues(raw_value=RawValue(value)) if value else None


def _number(value: int | None, size: int) -> MeasurementValues | None:
    return None if value is None else _octets(value.to_bytes(size, "little"))
