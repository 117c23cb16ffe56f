# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for EARs, and one EAR for tests that need just any."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import strategies as st

from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.ear import PROFILES, Ear, EarSubmod, TrothClaims, VerifierId
from troth.formats.keys import spki

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)

# Made once: what is tested is the encoding, not the generator.
_KEYS = [
    spki(ec.generate_private_key(ec.SECP256R1()).public_key()),
    spki(ec.generate_private_key(ec.SECP384R1()).public_key()),
    spki(ed25519.Ed25519PrivateKey.generate().public_key()),
]

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_name = st.text(st.characters(min_codepoint=0x61, max_codepoint=0x7A), min_size=1, max_size=8)
_value = st.integers(-128, 127)
_seconds = st.integers(0, 4_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
_nonce = st.binary(min_size=8, max_size=64)
_json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=5,
)
_extensions = st.dictionaries(
    _name.map(lambda name: f"x-{name}")
    | st.sampled_from(["iss", "sub", "ear_veraison_policy_claims", "ear_teep_claims"]),
    _json_values,
    max_size=3,
)
troth_claims = st.builds(
    TrothClaims,
    scheme=_text,
    tier=_text,
    component=_text,
    layer=_text,
    policy_digest=_text,
    epoch=_text,
    insecure=st.lists(_text, max_size=2),
    boot_session=st.binary(max_size=8),
    findings=st.lists(st.dictionaries(_text, _text, max_size=2), max_size=2),
)
vectors = st.builds(
    TrustworthinessVector,
    **dict.fromkeys(
        [
            "instance_identity",
            "configuration",
            "executables",
            "file_system",
            "hardware",
            "runtime_opaque",
            "storage_opaque",
            "sourced_data",
        ],
        st.none() | _value,
    ),
    others=st.dictionaries(_name.map(lambda name: f"new-{name}"), _value, max_size=2),
)


@st.composite
def submods(draw: st.DrawFn) -> EarSubmod:
    vector = draw(st.none() | vectors)
    worst = TrustTier.NONE if vector is None else vector.worst
    allowed = [
        tier for tier in TrustTier if worst is TrustTier.NONE or not tier.is_better_than(worst)
    ]
    return EarSubmod(
        status=draw(st.sampled_from(allowed)),
        vector=vector,
        policy_ids=draw(st.lists(_text, max_size=1)),
        profile=draw(_text),
        nonce=draw(st.none() | _nonce),
        key=draw(st.none() | st.sampled_from(_KEYS)),
        troth=draw(troth_claims),
        extensions=draw(_extensions),
    )


@st.composite
def ears(draw: st.DrawFn) -> Ear:
    parts = draw(st.dictionaries(_text, submods(), min_size=1, max_size=2))
    least = TrustTier.least_trusted(part.status for part in parts.values())
    statuses = [tier for tier in TrustTier if not tier.is_better_than(least)]
    return Ear(
        submods=parts,
        issued_at=draw(_seconds),
        verifier_id=VerifierId(draw(_text), draw(_text)),
        profile=draw(st.sampled_from(sorted(PROFILES))),
        status=draw(st.none() | st.sampled_from(statuses)),
        expires_at=draw(st.none() | _seconds),
        not_before=draw(st.none() | _seconds),
        nonce=draw(st.none() | _nonce),
        raw_evidence=draw(st.none() | st.binary(max_size=20)),
        troth=draw(troth_claims),
        extensions=draw(_extensions),
    )


def plain_ear(key: bytes | None = None, **changes: object) -> Ear:
    """Return an affirming result of one PSA device, valid for an hour from `NOW`."""
    result = Ear(
        submods={
            "psa": EarSubmod(
                status=TrustTier.AFFIRMING,
                vector=TrustworthinessVector(instance_identity=2, executables=2, hardware=2),
                policy_ids=["policy:psa"],
                key=key,
                troth=TrothClaims(scheme="psa", tier="measured"),
            )
        },
        issued_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        verifier_id=VerifierId("https://troth.example", "troth 0.1"),
    )
    return replace(result, **changes)
