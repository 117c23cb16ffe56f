# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from support.appraisal import NOW, corims_of, keys_only, verifier_of
from support.evidence import simulate
from troth.endorsement.build import Component, cca_platform_corim, cca_realm_corim
from troth.evidence.simulator import CcaOptions, SimulatedPlatform
from troth.formats.ar4si import TrustTier
from troth.formats.corim.corim import Corim
from troth.verifier.result import AssuranceTier, AttestationResult

CHALLENGE = b"c" * 64
KNOWN = simulate(CcaOptions(personalization_value=b"owner"))
PLATFORM, REALM = corims_of(KNOWN)


def appraised(platform: SimulatedPlatform, *corims: Corim) -> AttestationResult:
    verifier = verifier_of(*corims)
    return verifier.appraise(platform.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)


def options(**changes: object) -> SimulatedPlatform:
    return replace(KNOWN, options=replace(KNOWN.options, **changes))


def test_the_described_platform_and_realm_are_affirmed() -> None:
    result = appraised(KNOWN, PLATFORM, REALM)
    assert dict(result.submods["cca-platform"].vector.items()) == {
        "instance-identity": 2,
        "configuration": 2,
        "executables": 2,
        "hardware": 2,
        "runtime-opaque": 2,
        "storage-opaque": 2,
    }
    assert dict(result.submods["cca-realm"].vector.items()) == {
        "instance-identity": 2,
        "executables": 2,
    }
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.CONFIDENTIAL
    assert result.component == "realm"
    assert result.findings[:-1] == ()
    assert result.findings[-1].claim == "insecure"


@pytest.mark.parametrize(
    ("corims", "executables", "configuration", "realm"),
    [
        ([keys_only(KNOWN)], 33, 36, 33),
        ([PLATFORM], 2, 2, 33),
        ([keys_only(KNOWN), REALM], 33, 36, 2),
    ],
)
def test_each_part_needs_reference_values_of_its_own(
    corims: list[Corim], executables: int, configuration: int, realm: int
) -> None:
    result = appraised(KNOWN, *corims)
    platform = result.submods["cca-platform"]
    assert (platform.vector.executables, platform.vector.configuration) == (
        executables,
        configuration,
    )
    assert result.submods["cca-realm"].vector.executables == realm
    assert result.status is TrustTier.WARNING
    missing = [f for f in result.findings if f.actual == "none provisioned"]
    assert missing
    assert result.tier is AssuranceTier.IDENTIFIED


def test_another_configuration_is_a_warning_that_says_both() -> None:
    result = appraised(options(config=b"\xcf\xcf\xcf\x00"), PLATFORM, REALM)
    platform = result.submods["cca-platform"]
    assert (platform.vector.configuration, platform.vector.executables) == (32, 2)
    (finding,) = platform.findings
    assert finding.claim == "cca-platform-config"
    assert "cfcfcfcf" in finding.expected
    assert "cfcfcf00" in finding.actual


def masked(mask: bytes) -> Corim:
    reference = KNOWN.reference()
    return cca_platform_corim(
        corim_id="masked",
        implementation_id=reference.implementation_id,
        components=[
            Component(digest=c.digest, signer_id=c.signer_id, name=c.name)
            for c in reference.components
        ],
        config=reference.config,
        config_mask=mask,
    )


def test_only_the_configuration_bits_under_the_mask_count() -> None:
    keys = keys_only(KNOWN)
    changed = options(config=b"\xcf\xcf\xcf\x00")
    assert appraised(changed, keys, masked(b"\xff\xff\xff\x00"), REALM).status is (
        TrustTier.AFFIRMING
    )
    assert appraised(changed, keys, masked(b"\xff\xff\xff\x01"), REALM).status is TrustTier.WARNING


def test_a_state_without_configuration_leaves_it_unseen() -> None:
    reference = KNOWN.reference()
    corim = cca_platform_corim(
        corim_id="plain",
        implementation_id=reference.implementation_id,
        components=[
            Component(digest=c.digest, signer_id=c.signer_id, name=c.name)
            for c in reference.components
        ],
    )
    platform = appraised(KNOWN, keys_only(KNOWN), corim, REALM).submods["cca-platform"]
    assert (platform.vector.configuration, platform.vector.executables) == (36, 2)
    assert platform.findings[0].claim == "cca-platform-config"


def test_changed_firmware_is_named() -> None:
    result = appraised(KNOWN.with_measurement(8, b"\xee" * 32), PLATFORM, REALM)
    platform = result.submods["cca-platform"]
    assert platform.vector.executables == 33
    assert [f.claim for f in platform.findings] == [
        "software-components[8] (RMM).measurement-value"
    ]
    assert result.submods["cca-realm"].status is TrustTier.AFFIRMING
    assert result.status is TrustTier.WARNING


@pytest.mark.parametrize("value", [0x0000, 0x2000, 0x4000, 0x5000, 0x6000])
def test_a_platform_that_is_not_secured_is_contraindicated(value: int) -> None:
    result = appraised(options(lifecycle=value), PLATFORM, REALM)
    assert result.status is TrustTier.CONTRAINDICATED
    assert result.submods["cca-platform"].vector.instance_identity == 96
    assert result.tier is AssuranceTier.REGISTERED
    assert result.findings[0].claim == "security-lifecycle"


def test_an_unknown_realm_is_a_warning() -> None:
    result = appraised(options(rim=hashlib.sha256(b"another").digest()), PLATFORM, REALM)
    realm = result.submods["cca-realm"]
    assert realm.vector.executables == 33
    assert realm.findings[0].claim == "cca-realm-initial-measurement"


def test_an_extended_register_is_a_warning_and_no_approval() -> None:
    """Veraison affirms with 3 here."""
    rems = (b"\x11" * 32, *KNOWN.options.rems[1:])
    realm = appraised(options(rems=rems), PLATFORM, REALM).submods["cca-realm"]
    assert realm.vector.executables == 33
    (finding,) = realm.findings
    assert finding.claim == "cca-realm-extensible-measurements[0]"
    assert "11" * 32 in finding.actual


def test_a_realm_of_another_owner_is_contraindicated() -> None:
    result = appraised(options(personalization_value=b"somebody else"), PLATFORM, REALM)
    realm = result.submods["cca-realm"]
    assert realm.vector.executables == 96
    assert realm.findings[0].claim == "cca-realm-personalization-value"
    assert result.status is TrustTier.CONTRAINDICATED


def test_every_difference_of_a_realm_is_reported() -> None:
    other = options(personalization_value=b"x", rems=(b"\x11" * 32, b"\x22" * 32) * 2)
    assert len(appraised(other, PLATFORM, REALM).submods["cca-realm"].findings) == 5


def test_a_short_personalization_value_is_compared_padded() -> None:
    realm = cca_realm_corim(
        corim_id="short", rim=KNOWN.options.rim, rems=KNOWN.options.rems, rpv=b"owner"
    )
    assert appraised(KNOWN, PLATFORM, realm).status is TrustTier.AFFIRMING


def test_registers_that_nobody_described_leave_approval_at_boot() -> None:
    realm = cca_realm_corim(corim_id="boot", rim=KNOWN.options.rim)
    result = appraised(KNOWN, PLATFORM, realm)
    assert result.submods["cca-realm"].vector.executables == 3
    assert result.status is TrustTier.AFFIRMING


def test_realm_states_are_alternatives_and_the_best_counts() -> None:
    other = cca_realm_corim(
        corim_id="other", rim=KNOWN.options.rim, rems=[b"\x99" * 32], rpv=b"someone"
    )
    assert appraised(KNOWN, PLATFORM, other, REALM).status is TrustTier.AFFIRMING
    assert appraised(KNOWN, PLATFORM, other).status is TrustTier.CONTRAINDICATED
