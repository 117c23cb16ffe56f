# SPDX-License-Identifier: Apache-2.0
"""Verifiers that know simulated platforms, and hand-made cases for Appraisal Policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from troth.endorsement.build import AttestKey, Component, cca_corims, psa_corim
from troth.endorsement.store import EndorsementStore
from troth.evidence.evidence import ClaimsSet, NonceMatched, Unchecked
from troth.evidence.simulator import SimulatedPlatform
from troth.formats.ar4si import TrustworthinessVector
from troth.formats.corim.corim import Corim
from troth.verifier.case import AppraisalCase
from troth.verifier.result import VerifierIdentity
from troth.verifier.verifier import Verifier

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
UNCHECKED = Unchecked("this test is not about freshness")
IDENTITY = VerifierIdentity(developer="test", build="1", name="test-verifier")
GOOD = TrustworthinessVector(instance_identity=2, executables=2, hardware=2, runtime_opaque=2)


def corims_of(
    platform: SimulatedPlatform, *, corim_id: str = "maker", keys: bool = True
) -> list[Corim]:
    """Return what the maker of `platform` would endorse of it as it is."""
    reference = platform.reference()
    components = [
        Component(digest=c.digest, signer_id=c.signer_id, name=c.name, version=c.version)
        for c in reference.components
    ]
    attest_keys = [
        AttestKey(instance_id=reference.instance_id, key=reference.public_key_pem.encode())
    ]
    if platform.scheme == "psa":
        return [
            psa_corim(
                corim_id=corim_id,
                implementation_id=reference.implementation_id,
                components=components,
                keys=attest_keys if keys else (),
            )
        ]
    return list(
        cca_corims(
            corim_id=corim_id,
            implementation_id=reference.implementation_id,
            components=components,
            config=reference.config,
            rim=reference.rim,
            rems=reference.rems,
            rpv=reference.personalization_value,
            keys=attest_keys if keys else (),
        )
    )


def keys_only(platform: SimulatedPlatform, *, corim_id: str = "keys") -> Corim:
    """Return a CoRIM with the platform's attestation key and no Reference Value."""
    reference = platform.reference()
    key = AttestKey(instance_id=reference.instance_id, key=reference.public_key_pem.encode())
    if platform.scheme == "psa":
        return psa_corim(
            corim_id=corim_id, implementation_id=reference.implementation_id, keys=[key]
        )
    return cca_corims(
        corim_id=corim_id,
        implementation_id=reference.implementation_id,
        components=[],
        rim=reference.rim,
        keys=[key],
    )[0]


def store_of(*corims: Corim) -> EndorsementStore:
    """Return a store with these provisioned."""
    store = EndorsementStore()
    for index, corim in enumerate(corims):
        store.provision(corim, now=NOW, source=f"file-{index}.corim")
    return store


def verifier_of(*corims: Corim, **attributes: Any) -> Verifier:
    """Return a Verifier that knows what these CoRIMs say and takes the simulator."""
    given = {"identity": IDENTITY, "endorsements": store_of(*corims), "allow_simulator": True}
    return Verifier(**{**given, **attributes})


def case(
    claims: Mapping[str, object] | None = None,
    *,
    vector: TrustworthinessVector = GOOD,
    nonce: bytes | None = b"n" * 32,
    **changes: Any,
) -> AppraisalCase:
    """Return a case about a PSA device with these claims."""
    said = {"security-lifecycle": "secured", "nonce": (b"n" * 32).hex(), **(claims or {})}
    made = AppraisalCase(
        scheme="psa",
        claims_set=ClaimsSet(label="psa", component="node", layer="hardware", claims=said),
        evidence={"psa": said},
        vector=vector,
        findings=(),
        matched=("maker/tag#0",),
        freshness=NonceMatched(nonce) if nonce is not None else UNCHECKED,
        insecure=(),
        implementation_id=b"i" * 32,
        instance_id=b"\x01" + b"u" * 32,
        signer="ab" * 32,
        boot_session=b"",
        reference_epoch="epoch-1",
        now=NOW,
    )
    return replace(made, **changes)
