# SPDX-License-Identifier: Apache-2.0
"""Make CoRIMs from what is known of good nodes.

What is built is read back by the rules of its profile before it is returned, so a CoRIM that this
module returns can be provisioned. `Corim.encode()` gives the bytes, `sign_corim` signs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from troth.endorsement.endorsements import endorsements_of
from troth.endorsement.profiles import generic_uri
from troth.endorsement.profiles.cca import (
    CCA_PLATFORM_URI,
    CCA_REALM_URI,
    CONFIG,
    REMS,
    RIM,
    RPV,
)
from troth.endorsement.profiles.cca import COMPONENT as CCA_COMPONENT
from troth.endorsement.profiles.psa import COMPONENT as PSA_COMPONENT
from troth.endorsement.profiles.psa import PSA_URI
from troth.errors import ConfigurationError
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.comid import Comid
from troth.formats.corim.common import Validity
from troth.formats.corim.corim import Corim
from troth.formats.corim.environment import EnvironmentClass, EnvironmentMap
from troth.formats.corim.identifier import Digest
from troth.formats.corim.key_material import key_tag
from troth.formats.corim.measurement import Measurement, MeasurementValues, RawValue, Version
from troth.formats.corim.triples import KeyTriple, MeasurementTriple, Triples
from troth.formats.keys import VerificationKey, load_keys

__all__ = [
    "AttestKey",
    "Component",
    "NamedDigest",
    "cca_corims",
    "cca_platform_corim",
    "cca_realm_corim",
    "measured_corim",
    "psa_corim",
]

_BY_SIZE: Final = {32: "sha-256", 48: "sha-384", 64: "sha-512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One software component of a PSA or CCA platform.

    Attributes:
        digest: its measurement, 32, 48 or 64 octets.
        signer_id: digest of the key that signed it, 32, 48 or 64 octets.
        name: its type, such as "BL"; must be what the token says.
        version: must be what the token says, or "" to accept any.
        algorithm: "sha-256", "sha-384" or "sha-512"; "" goes by the length.
    """

    digest: bytes
    signer_id: bytes
    name: str = ""
    version: str = ""
    algorithm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestKey:
    """The attestation key of one instance.

    Attributes:
        instance_id: the instance; for PSA and CCA a UEID of 33 octets.
        key: the public key: a `VerificationKey`, or octets in any form that `load_keys` takes.
    """

    instance_id: bytes
    key: VerificationKey | bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDigest:
    """One digest of an ordered list, such as an event of a boot log or a measured file.

    Attributes:
        key: measurement key; several may have the same.
        digest: 32, 48 or 64 octets; the algorithm goes by the length.
        name: what it is of; "" for none.
    """

    key: str
    digest: bytes
    name: str = ""


def psa_corim(
    *,
    corim_id: str,
    implementation_id: bytes,
    components: Sequence[Component] = (),
    keys: Iterable[AttestKey] = (),
    vendor: str = "",
    model: str = "",
    validity: Validity | None = None,
) -> Corim:
    """Return a PSA CoRIM with one reference state, attestation keys, or both.

    Args:
        corim_id: identifier of the CoRIM; unique, and what `withdraw` takes.
        implementation_id: 32 octets.
        components: the whole of the device's updatable firmware; none makes no reference state.
        keys: the Initial Attestation Keys.
        vendor: name of the maker, for people.
        model: name of the product, for people.
        validity: when the CoRIM may be used.

    Raises:
        DecodeError: an argument does not fit the profile; the message names the member.
    """
    environment = _environment(implementation_id, vendor, model)
    measurements = tuple(_component(each, PSA_COMPONENT) for each in components)
    return _finish(
        corim_id, PSA_URI, environment, measurements=measurements, keys=keys, validity=validity
    )


def cca_platform_corim(
    *,
    corim_id: str,
    implementation_id: bytes,
    components: Sequence[Component] = (),
    config: bytes | None = None,
    config_mask: bytes | None = None,
    keys: Iterable[AttestKey] = (),
    vendor: str = "",
    model: str = "",
    validity: Validity | None = None,
) -> Corim:
    """Return a CCA platform CoRIM with one reference state, attestation keys, or both.

    Args:
        corim_id: identifier of the CoRIM.
        implementation_id: 32 octets.
        components: the whole of the platform's updatable firmware.
        config: the platform configuration, or None to say nothing about it.
        config_mask: which bits of it count; None for all.
        keys: the CCA Platform Attestation Keys.
        vendor: name of the maker, for people.
        model: name of the product, for people.
        validity: when the CoRIM may be used.

    Raises:
        DecodeError: an argument does not fit the profile; the message names the member.
    """
    environment = _environment(implementation_id, vendor, model)
    measurements = [_component(each, CCA_COMPONENT) for each in components]
    if config is not None:
        mask = config_mask if config_mask is not None else b"\xff" * len(config)
        measurements.append(
            Measurement(key=CONFIG, values=MeasurementValues(raw_value=RawValue(config, mask)))
        )
    return _finish(
        corim_id,
        CCA_PLATFORM_URI,
        environment,
        measurements=measurements,
        keys=keys,
        validity=validity,
    )


def cca_realm_corim(
    *,
    corim_id: str,
    rim: bytes,
    rems: Sequence[bytes] = (),
    rpv: bytes = b"",
    validity: Validity | None = None,
) -> Corim:
    """Return a CCA realm CoRIM.

    Args:
        corim_id: identifier of the CoRIM.
        rim: the initial measurement, 32, 48 or 64 octets.
        rems: the extensible measurements, up to four, in order; fewer leave the rest open.
        rpv: the personalization value, or b"" to accept any.
        validity: when the CoRIM may be used.

    Raises:
        ConfigurationError: more than four extensible measurements.
        DecodeError: an argument does not fit the profile; the message names the member.
    """
    if len(rems) > len(REMS):
        raise ConfigurationError(
            source="rems", value=str(len(rems)), accepted=f"at most {len(REMS)} measurements"
        )
    named = [(RIM, rim), *zip(REMS, rems, strict=False)]
    measurements = [
        Measurement(key=key, values=MeasurementValues(digests=(_digest(value),)))
        for key, value in named
    ]
    if rpv:
        values = MeasurementValues(raw_value=RawValue(rpv))
        measurements.append(Measurement(key=RPV, values=values))
    environment = _environment(rim, "", "")
    return _finish(
        corim_id, CCA_REALM_URI, environment, measurements=measurements, validity=validity
    )


def cca_corims(
    *,
    corim_id: str,
    implementation_id: bytes,
    components: Sequence[Component],
    rim: bytes,
    rems: Sequence[bytes] = (),
    rpv: bytes = b"",
    config: bytes | None = None,
    config_mask: bytes | None = None,
    keys: Iterable[AttestKey] = (),
    vendor: str = "",
    model: str = "",
    validity: Validity | None = None,
) -> tuple[Corim, Corim]:
    """Return a platform and a realm CoRIM, "<corim_id>-platform" and "<corim_id>-realm".

    The arguments are those of `cca_platform_corim` and `cca_realm_corim`.
    """
    platform = cca_platform_corim(
        corim_id=f"{corim_id}-platform",
        implementation_id=implementation_id,
        components=components,
        config=config,
        config_mask=config_mask,
        keys=keys,
        vendor=vendor,
        model=model,
        validity=validity,
    )
    realm = cca_realm_corim(
        corim_id=f"{corim_id}-realm", rim=rim, rems=rems, rpv=rpv, validity=validity
    )
    return platform, realm


def measured_corim(
    *,
    corim_id: str,
    scheme: str,
    class_id: bytes,
    digests: Mapping[str, Sequence[bytes]] | None = None,
    registers: Mapping[int | str, Sequence[bytes]] | None = None,
    listed: Sequence[NamedDigest] = (),
    keys: Iterable[AttestKey] = (),
    vendor: str = "",
    model: str = "",
    validity: Validity | None = None,
) -> Corim:
    """Return a CoRIM for a scheme without an endorsement profile of its own.

    Args:
        corim_id: identifier of the CoRIM.
        scheme: "tpm2", "sev_snp", "tdx", "nitro" or "example".
        class_id: the octets by which the scheme's appraiser finds its values.
        digests: measurement key ("measurement", "mrtd", …) to its digests, one for each hash
            algorithm; the algorithm goes by the length.
        registers: register (PCR number, or name) to its digests, likewise.
        listed: further measurements, in this order.
        keys: attestation keys of instances.
        vendor: name of the maker, for people.
        model: name of the product, for people.
        validity: when the CoRIM may be used.

    Raises:
        DecodeError: an argument does not fit; the message names the member.
    """
    measurements = [
        Measurement(key=key, values=MeasurementValues(digests=_digests(values)))
        for key, values in (digests or {}).items()
    ]
    if registers:
        named = {register: _digests(values) for register, values in registers.items()}
        measurements.append(Measurement(values=MeasurementValues(registers=named)))
    measurements += (
        Measurement(
            key=each.key,
            values=MeasurementValues(digests=(_digest(each.digest),), name=each.name or None),
        )
        for each in listed
    )
    environment = _environment(class_id, vendor, model)
    uri = generic_uri(scheme)
    return _finish(
        corim_id,
        uri,
        environment,
        measurements=measurements,
        keys=keys,
        validity=validity,
        instance_tag=tags.BYTES,
    )


def _finish(
    corim_id: str,
    profile: str,
    environment: EnvironmentMap,
    *,
    measurements: Sequence[Measurement],
    keys: Iterable[AttestKey] = (),
    validity: Validity | None,
    instance_tag: int = tags.UEID,
) -> Corim:
    key_triples = tuple(_key_triple(environment, each, instance_tag) for each in keys)
    comids: list[Comid] = []
    # Two tags, so that the state can be withdrawn and the keys stay.
    if measurements:
        state = (MeasurementTriple(environment, tuple(measurements)),)
        comids.append(Comid(tag_id=f"{corim_id}:state", triples=Triples(reference=state)))
    if key_triples:
        comids.append(Comid(tag_id=f"{corim_id}:keys", triples=Triples(attest_key=key_triples)))
    if not comids:
        raise ConfigurationError(
            source=f"CoRIM {corim_id}", accepted="at least one measurement or attestation key"
        )
    corim = Corim(corim_id=corim_id, tags=tuple(comids), profile=profile, validity=validity)
    decoded = Corim.decode(corim.encode())
    endorsements_of(decoded, source=f"CoRIM {corim_id}")
    return decoded


def _key_triple(environment: EnvironmentMap, key: AttestKey, instance_tag: int) -> KeyTriple:
    material = key.key
    if isinstance(material, bytes):
        loaded = load_keys(material, source=f"key of {key.instance_id.hex()}")
        if len(loaded) != 1:
            raise ConfigurationError(
                source=f"key of {key.instance_id.hex()}",
                value=f"{len(loaded)} keys",
                accepted="exactly one",
            )
        material = loaded[0]
    if isinstance(material.material, bytes):
        raise ConfigurationError(
            source=f"key of {key.instance_id.hex()}",
            value="a symmetric key",
            accepted="a public key, since a CoRIM is public",
        )
    instance = Tag(instance_tag, key.instance_id)
    subject = EnvironmentMap(environment_class=environment.environment_class, instance=instance)
    return KeyTriple(subject, (key_tag(material.material),))


def _environment(class_id: bytes, vendor: str, model: str) -> EnvironmentMap:
    return EnvironmentMap(
        environment_class=EnvironmentClass(
            class_id=Tag(tags.BYTES, class_id), vendor=vendor or None, model=model or None
        )
    )


def _component(component: Component, key: str) -> Measurement:
    return Measurement(
        key=key,
        values=MeasurementValues(
            version=Version(component.version) if component.version else None,
            digests=(_digest(component.digest, component.algorithm),),
            name=component.name or None,
            crypto_keys=(Tag(tags.BYTES, component.signer_id),),
        ),
    )


def _digests(values: Sequence[bytes]) -> tuple[Digest, ...]:
    return tuple(_digest(value) for value in values)


def _digest(value: bytes, algorithm: str = "") -> Digest:
    name = algorithm or _BY_SIZE.get(len(value), "")
    if not name:
        raise ConfigurationError(
            source="digest", value=value.hex(), accepted="32, 48 or 64 octets (SHA-2)"
        )
    return Digest(name, value)
