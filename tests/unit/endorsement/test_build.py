# SPDX-License-Identifier: Apache-2.0
"""Built CoRIMs obey their profile, and what does not fit is refused while building."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import serialization

from support.signing import p256_signer
from troth.endorsement.build import (
    AttestKey,
    Component,
    cca_corims,
    cca_realm_corim,
    measured_corim,
    psa_corim,
)
from troth.endorsement.endorsements import endorsements_of
from troth.errors import ConfigurationError, DecodeError
from troth.formats.corim import Corim, Validity
from troth.formats.keys import VerificationKey

DIGEST = sha256(b"x").digest()
CLASS = bytes(range(32))
UEID = b"\x01" + bytes(32)
COMPONENT = Component(digest=DIGEST, signer_id=DIGEST, name="BL", version="1.0")
PEM = p256_signer("build").public_key.public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def test_a_psa_corim_holds_what_it_was_made_from() -> None:
    validity = Validity(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    corim = psa_corim(
        corim_id="acme-1",
        implementation_id=CLASS,
        components=[COMPONENT],
        keys=[AttestKey(instance_id=UEID, key=PEM)],
        vendor="ACME",
        model="RoadRunner",
        validity=validity,
    )
    found = endorsements_of(Corim.decode(corim.encode()), source="test")
    (value,) = found.reference_values
    assert value.id == "acme-1/acme-1:state#0"
    assert (value.name, value.version, value.signer_ids) == ("BL", "1.0", (DIGEST,))
    assert (value.environment.class_id, value.environment.vendor) == (CLASS, "ACME")
    assert (value.not_before, value.not_after) == (validity.not_before, validity.not_after)
    (anchor,) = found.trust_anchors
    assert anchor.id == "acme-1/acme-1:keys#key0"
    assert anchor.environment.instance_id == UEID


def test_the_bytes_are_the_same_each_time() -> None:
    def make() -> bytes:
        return psa_corim(corim_id="c", implementation_id=CLASS, components=[COMPONENT]).encode()

    assert make() == make()


def test_keys_alone_and_values_alone_are_corims() -> None:
    keys = [AttestKey(instance_id=UEID, key=PEM)]
    assert len(psa_corim(corim_id="c", implementation_id=CLASS, keys=keys).tags) == 1
    assert len(psa_corim(corim_id="c", implementation_id=CLASS, components=[COMPONENT]).tags) == 1
    with pytest.raises(ConfigurationError, match="at least one measurement or attestation key"):
        psa_corim(corim_id="c", implementation_id=CLASS)


def test_a_cca_node_takes_two_corims() -> None:
    platform, realm = cca_corims(
        corim_id="node",
        implementation_id=CLASS,
        components=[COMPONENT],
        rim=DIGEST,
        rems=[DIGEST, bytes(32)],
        rpv=b"owner",
        config=b"\xcf\xcf",
        config_mask=b"\xff\x00",
        keys=[AttestKey(instance_id=UEID, key=PEM)],
    )
    assert (platform.id, realm.id) == ("node-platform", "node-realm")
    values = endorsements_of(platform, source="test").reference_values
    assert [value.key for value in values] == ["cca.software-component", "cca.platform-config"]
    assert values[1].raw_mask == b"\xff\x00"
    values = endorsements_of(realm, source="test").reference_values
    assert [value.key for value in values] == ["cca.rim", "cca.rem0", "cca.rem1", "cca.rpv"]
    assert {value.environment.class_id for value in values} == {DIGEST}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"implementation_id": bytes(31)}, "31 octets; an implementation id has 32"),
        ({"keys": [AttestKey(instance_id=bytes(33), key=PEM)]}, "the first is 01"),
        ({"components": [Component(digest=DIGEST, signer_id=b"x")]}, "has 32, 48 or 64"),
        (
            {"components": [Component(digest=DIGEST, signer_id=DIGEST, algorithm="sha-512")]},
            "a sha-512 digest of 32 octets",
        ),
    ],
)
def test_what_does_not_fit_the_profile_is_refused(
    arguments: dict[str, object], reason: str
) -> None:
    good: dict[str, object] = {"implementation_id": CLASS, "components": [COMPONENT]}
    with pytest.raises(DecodeError, match=reason):
        psa_corim(corim_id="c", **(good | arguments))  # type: ignore[arg-type]


def test_a_digest_of_an_unknown_length_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="32, 48 or 64 octets"):
        psa_corim(
            corim_id="c",
            implementation_id=CLASS,
            components=[Component(digest=bytes(20), signer_id=DIGEST)],
        )
    with pytest.raises(ConfigurationError):
        measured_corim(corim_id="c", scheme="tdx", class_id=b"x", digests={"mrtd": [b"x"]})


def test_more_than_four_rems_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most 4"):
        cca_realm_corim(corim_id="c", rim=DIGEST, rems=[DIGEST] * 5)


@pytest.mark.parametrize("key", [PEM + PEM, VerificationKey(bytes(32))])
def test_a_key_must_be_one_public_key(key: bytes | VerificationKey) -> None:
    with pytest.raises(ConfigurationError, match="key of 01"):
        psa_corim(
            corim_id="c", implementation_id=CLASS, keys=[AttestKey(instance_id=UEID, key=key)]
        )
