# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from support.appraisal import NOW, UNCHECKED, corims_of, keys_only, verifier_of
from support.evidence import simulate
from troth.endorsement.build import Component, psa_corim
from troth.evidence.simulator import PsaOptions, SimulatedPlatform, default_component
from troth.formats.ar4si import TrustTier
from troth.formats.corim import Validity
from troth.formats.corim.corim import Corim
from troth.verifier.result import AssuranceTier, SubmodResult

CHALLENGE = b"c" * 64
KNOWN = simulate()


def appraised(platform: SimulatedPlatform, *corims: Corim) -> SubmodResult:
    verifier = verifier_of(*corims)
    result = verifier.appraise(platform.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)
    assert list(result.submods) == ["psa"]
    return result.submods["psa"]


def options(**changes: object) -> SimulatedPlatform:
    return replace(KNOWN, options=replace(KNOWN.options, **changes))


def components(*described: object, corim_id: str = "other") -> Corim:
    parts = [
        Component(digest=c.digest, signer_id=c.signer_id, name=c.name, version=c.version)  # type: ignore[attr-defined]
        for c in described
    ]
    return psa_corim(corim_id=corim_id, implementation_id=KNOWN.implementation_id, components=parts)


def test_the_described_device_is_affirmed() -> None:
    found = appraised(KNOWN, *corims_of(KNOWN))
    assert dict(found.vector.items()) == {
        "instance-identity": 2,
        "executables": 2,
        "hardware": 2,
        "runtime-opaque": 2,
        "storage-opaque": 2,
    }
    assert found.status is TrustTier.AFFIRMING
    assert found.findings == ()
    assert len(found.matched) == 4


def test_without_reference_values_nothing_is_affirmed() -> None:
    found = appraised(KNOWN, keys_only(KNOWN))
    assert found.status is TrustTier.WARNING
    assert found.vector.executables == 33
    (finding,) = found.findings
    assert finding.actual == "none provisioned"
    assert KNOWN.implementation_id.hex() in finding.expected
    assert finding.remedy


def test_values_for_another_product_do_not_help() -> None:
    other = simulate(PsaOptions(model="other"))
    found = appraised(KNOWN, keys_only(KNOWN), *corims_of(other))
    assert found.vector.executables == 33


def test_a_changed_measurement_is_named_with_both_values() -> None:
    changed = KNOWN.with_measurement(1, b"\xee" * 32)
    found = appraised(changed, *corims_of(KNOWN))
    assert found.status is TrustTier.WARNING
    (finding,) = found.findings
    expected = KNOWN.options.components[1]
    assert finding.claim == "software-components[1] (PRoT).measurement-value"
    assert expected.digest.hex() in finding.expected
    assert expected.version in finding.expected
    assert "ee" * 32 in finding.actual
    assert "file-0.corim" in finding.rule
    assert finding.severity == "warning"
    assert len(found.matched) == 3


def test_every_changed_component_is_reported_not_only_the_first() -> None:
    changed = KNOWN.with_measurement(0, b"\xee" * 32).with_measurement(3, b"\xdd" * 32)
    found = appraised(changed, *corims_of(KNOWN))
    assert [finding.claim for finding in found.findings] == [
        "software-components[0] (BL).measurement-value",
        "software-components[3] (App).measurement-value",
    ]


def test_an_undescribed_component_is_a_warning() -> None:
    extra = default_component("Extra", "1.0")
    found = appraised(options(components=(*KNOWN.options.components, extra)), *corims_of(KNOWN))
    assert found.vector.executables == 33
    (finding,) = found.findings
    assert finding.claim == "software-components[4] (Extra)"
    assert extra.digest.hex() in finding.actual


def test_a_described_component_that_was_not_measured_is_a_warning() -> None:
    """Veraison lets a subset pass."""
    found = appraised(options(components=KNOWN.options.components[:-1]), *corims_of(KNOWN))
    assert found.vector.executables == 33
    (finding,) = found.findings
    assert finding.actual == "not measured"
    assert "App" in finding.expected


def test_another_version_of_the_same_digest_is_a_warning() -> None:
    first, *others = KNOWN.options.components
    found = appraised(
        options(components=(replace(first, version="9.9"), *others)), *corims_of(KNOWN)
    )
    assert found.vector.executables == 33
    assert found.findings[0].claim == "software-components[0] (BL).version"


def test_another_signer_of_the_same_digest_is_noted_and_affirmed() -> None:
    first, *others = KNOWN.options.components
    found = appraised(
        options(components=(replace(first, signer_id=b"s" * 32), *others)), *corims_of(KNOWN)
    )
    assert found.status is TrustTier.AFFIRMING
    (note,) = found.findings
    assert note.severity == "note"
    assert note.claim == "software-components[0] (BL).signer-id"


def test_states_are_alternatives() -> None:
    old, new = (
        KNOWN.options.components,
        tuple(default_component(c.name, "3.0") for c in KNOWN.options.components),
    )
    both = [keys_only(KNOWN), components(*old, corim_id="old"), components(*new, corim_id="new")]
    assert appraised(KNOWN, *both).status is TrustTier.AFFIRMING
    assert appraised(options(components=new), *both).status is TrustTier.AFFIRMING


def test_states_are_not_mixed() -> None:
    old = KNOWN.options.components
    new = tuple(default_component(c.name, "3.0") for c in old)
    both = [keys_only(KNOWN), components(*old, corim_id="old"), components(*new, corim_id="new")]
    found = appraised(options(components=(*old[:2], *new[2:])), *both)
    assert found.vector.executables == 33
    assert found.findings


def test_the_nearest_state_is_the_one_compared_with() -> None:
    near = KNOWN.options.components
    far = tuple(default_component(c.name, "0.1") for c in near)
    both = [keys_only(KNOWN), components(*far, corim_id="far"), components(*near, corim_id="near")]
    found = appraised(KNOWN.with_measurement(0, b"\xee" * 32), *both)
    assert len(found.findings) == 1
    assert "near/" in found.findings[0].rule


def test_a_component_known_from_another_state_is_hinted_at() -> None:
    described, extra = KNOWN.options.components, default_component("Extra", "1.0")
    both = [
        keys_only(KNOWN),
        components(*described, corim_id="here"),
        components(extra, corim_id="there"),
    ]
    found = appraised(options(components=(*described, extra)), *both)
    assert "there/" in found.findings[0].remedy


def test_values_that_have_lapsed_do_not_count() -> None:
    def valid(begin: int, end: int) -> Corim:
        reference = KNOWN.reference()
        return psa_corim(
            corim_id="dated",
            implementation_id=reference.implementation_id,
            components=[
                Component(digest=c.digest, signer_id=c.signer_id, name=c.name)
                for c in reference.components
            ],
            validity=Validity(NOW + timedelta(days=begin), NOW + timedelta(days=end)),
        )

    assert appraised(KNOWN, keys_only(KNOWN), valid(-1, 1)).status is TrustTier.AFFIRMING
    assert appraised(KNOWN, keys_only(KNOWN), valid(1, 2)).status is TrustTier.WARNING


@pytest.mark.parametrize("value", [0x0000, 0x1000, 0x2000, 0x4000, 0x40FF, 0x5000, 0x6000])
def test_every_lifecycle_but_secured_is_contraindicated(value: int) -> None:
    found = appraised(options(lifecycle=value), *corims_of(KNOWN))
    assert found.status is TrustTier.CONTRAINDICATED
    assert (found.vector.instance_identity, found.vector.runtime_opaque) == (96, 96)
    assert found.vector.storage_opaque == 96
    assert found.vector.executables == 2
    (finding,) = found.findings
    assert finding.claim == "security-lifecycle"
    assert f"{value:#06x}" in finding.actual
    assert "secured" in finding.expected


@pytest.mark.parametrize("value", [0x3000, 0x3001, 0x30FF])
def test_the_implementations_octet_of_a_secured_lifecycle_is_free(value: int) -> None:
    assert appraised(options(lifecycle=value), *corims_of(KNOWN)).status is TrustTier.AFFIRMING


def test_a_bad_lifecycle_does_not_hide_bad_software() -> None:
    bad = replace(
        KNOWN.with_measurement(0, b"\xee" * 32),
        options=replace(KNOWN.with_measurement(0, b"\xee" * 32).options, lifecycle=0x4000),
    )
    assert len(appraised(bad, *corims_of(KNOWN)).findings) == 2


def test_a_device_that_measured_nothing_is_not_affirmed() -> None:
    silent = options(profile="PSA_IOT_PROFILE_1", components=())
    found = appraised(silent, *corims_of(KNOWN))
    assert found.vector.executables == 33
    assert len(found.findings) == 4


def test_tiers_follow_from_what_was_shown() -> None:
    def tier(platform: SimulatedPlatform, *corims: Corim) -> AssuranceTier:
        verifier = verifier_of(*corims)
        return verifier.appraise(platform.attest(CHALLENGE), now=NOW, challenge=UNCHECKED).tier

    assert tier(KNOWN, *corims_of(KNOWN)) is AssuranceTier.MEASURED
    assert tier(KNOWN, keys_only(KNOWN)) is AssuranceTier.IDENTIFIED
    assert tier(options(lifecycle=0x4000), *corims_of(KNOWN)) is AssuranceTier.REGISTERED
