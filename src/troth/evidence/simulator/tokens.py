# SPDX-License-Identifier: Apache-2.0
"""Tokens in the form that firmware gives them: claims maps, envelopes, wrappers.

Written from the specifications, apart from the decoders: RFC 9783 sections 4 and 5; Arm RMM
Specification (DEN0137) sections A7.2.3.1 and A7.2.3.2; draft-ffm-rats-cca-token section 4. The
envelopes carry `alg` and nothing else, as t_cose in Trusted Firmware writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from troth.evidence.cca.evidence import (
    COLLECTION_TAG,
    EAT_CWT,
    PLATFORM_LABEL,
    REALM_LABEL,
)
from troth.evidence.cca.realm_claims import REALM_1_0_0, REALM_2_0_0, REALM_HASHES
from troth.evidence.psa.claims import PROFILES
from troth.evidence.simulator.options import CcaOptions, PsaOptions, SimulatedComponent
from troth.formats import cbor
from troth.formats.cose import CoseKey, mac0, sign1
from troth.formats.keys import VerificationKey
from troth.formats.signer import LocalSigner

__all__ = [
    "cca_token",
    "platform_claims",
    "psa_claims",
    "psa_token",
    "realm_attestation_key",
    "realm_claims",
]

Claims = dict[int, object]


def psa_claims(
    options: PsaOptions,
    *,
    implementation_id: bytes,
    instance_id: bytes,
    boot_seed: bytes,
    challenge: bytes,
) -> Claims:
    """Return the claims map of a PSA token."""
    keys = PROFILES[options.profile]
    claims: Claims = {
        keys.nonce: challenge,
        keys.instance_id: instance_id,
        keys.profile: options.profile,
        keys.client_id: options.client_id,
        keys.security_lifecycle: options.lifecycle,
        keys.implementation_id: implementation_id,
        # Where there are two keys for it, devices use the older one.
        keys.boot_seeds[-1]: boot_seed,
    }
    if options.components or keys.no_software_measurements is None:
        claims[keys.software_components] = _components(options.components)
    else:
        claims[keys.no_software_measurements] = 1
    if options.certification_reference:
        claims[keys.certification_reference] = options.certification_reference
    if options.verification_service_indicator:
        claims[keys.verification_service_indicator] = options.verification_service_indicator
    return claims


def psa_token(claims: Claims, key: ec.EllipticCurvePrivateKey | bytes, *, algorithm: str) -> bytes:
    """Return the token: COSE_Sign1, or COSE_Mac0 under a symmetric key."""
    payload = cbor.encode(claims)
    if isinstance(key, bytes):
        return mac0(payload, key, algorithm=algorithm)
    return sign1(payload, LocalSigner(key))


def platform_claims(
    options: CcaOptions, *, implementation_id: bytes, instance_id: bytes, rak: bytes
) -> Claims:
    """Return the claims map of a CCA platform token that vouches for the RAK octets `rak`."""
    claims: Claims = {
        10: hashlib.new(REALM_HASHES[options.rak_hash], rak).digest(),
        256: instance_id,
        265: options.platform_profile,
        2395: options.lifecycle,
        2396: implementation_id,
        2399: _components(options.components),
        2401: options.config,
        2402: "sha-256",
    }
    if options.verification_service_indicator:
        claims[2400] = options.verification_service_indicator
    return claims


def realm_claims(
    options: CcaOptions, *, instance_id: bytes, rak: bytes, challenge: bytes
) -> Claims:
    """Return the claims map of a CCA realm token."""
    claims: Claims = {
        10: challenge.ljust(64, b"\0"),
        44235: options.personalization_value.ljust(64, b"\0"),
        44236: _hash_of_size(len(options.rim)),
        44237: rak,
        44238: options.rim,
        44239: list(options.rems),
        44240: options.rak_hash,
    }
    if options.realm_profile:
        claims[265] = options.realm_profile
    if options.realm_profile == REALM_2_0_0:
        claims[256] = instance_id
        claims[44243] = 1 if options.private_memory else 0
    if options.realm_profile == REALM_1_0_0:
        claims[44241] = "private" if options.private_memory else "shared"
    return claims


def realm_attestation_key(key: ec.EllipticCurvePrivateKey, *, realm_profile: str) -> bytes:
    """Return the RAK as the realm's profile writes it: COSE_Key, or a raw point without one."""
    public = key.public_key()
    if realm_profile:
        return CoseKey.encode(VerificationKey(public))
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def cca_token(
    platform: Claims,
    realm: Claims,
    *,
    cpak: ec.EllipticCurvePrivateKey,
    rak: ec.EllipticCurvePrivateKey,
    wrapper_tag: int,
) -> bytes:
    """Return the token: both parts signed, in the wrapper of tag 907 or 399."""
    parts: dict[int, object] = {
        PLATFORM_LABEL: sign1(cbor.encode(platform), LocalSigner(cpak)),
        REALM_LABEL: sign1(cbor.encode(realm), LocalSigner(rak)),
    }
    if wrapper_tag != COLLECTION_TAG:
        parts = {label: [EAT_CWT, part] for label, part in parts.items()}
    return cbor.encode(cbor.Tag(wrapper_tag, parts))


def _components(components: Sequence[SimulatedComponent]) -> list[object]:
    return [_component(component) for component in components]


def _component(component: SimulatedComponent) -> Claims:
    attributes: Claims = {2: component.digest, 5: component.signer_id}
    for key, text in (
        (1, component.name),
        (4, component.version),
        (6, component.hash_algorithm),
    ):
        if text:
            attributes[key] = text
    return attributes


def _hash_of_size(size: int) -> str:
    return {32: "sha-256", 48: "sha-384", 64: "sha-512"}.get(size, "")
