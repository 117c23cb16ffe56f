# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.appraisal import IDENTITY, store_of
from support.intel import (
    AUTHORITY,
    COLLATERAL,
    IN_2023,
    IN_2026,
    UP_TO_DATE,
    of_2023,
    of_2026,
    tdx_collateral,
    trust_domain,
    verify_tdx,
)
from support.vectors import vectors
from support.vendor_evidence import CHALLENGE, NOW, UNCHECKED
from troth.endorsement.build import measured_corim
from troth.endorsement.intel_corim import tdx_corim
from troth.evidence import tdx
from troth.evidence.context import Collateral
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.corim.corim import Corim
from troth.testing.intel_authority import NEXT_UPDATE, level, module_level
from troth.testing.intel_quotes import SimulatedTrustDomain
from troth.verifier.finding import Finding
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import AssuranceTier, AttestationResult
from troth.verifier.verifier import Verifier

REPORT = tdx.SCHEME.decode(trust_domain().attest(CHALLENGE)).report
RTMRS = (REPORT.rtmr0, REPORT.rtmr1, REPORT.rtmr2, REPORT.rtmr3)
OTHER = b"\xee" * 48


def corim(**changes: Any) -> Corim:
    given = {
        "corim_id": "maker",
        "mr_td": REPORT.mr_td,
        "rtmrs": RTMRS,
        "td_attributes": REPORT.td_attributes,
        "roots": [AUTHORITY.root],
    }
    return tdx_corim(**{**given, **changes})


def appraise(
    domain: SimulatedTrustDomain | None = None,
    *corims: Corim,
    collateral: dict[str, bytes] | None = None,
    now: Any = NOW,
    **attributes: Any,
) -> AttestationResult:
    given = {
        "identity": IDENTITY,
        "endorsements": store_of(*(corims or (corim(),))),
        "collateral": Collateral(COLLATERAL if collateral is None else collateral),
        "allow_simulator": True,
    }
    return Verifier(**{**given, **attributes}).appraise(
        (domain or trust_domain()).attest(CHALLENGE), now=now, challenge=CHALLENGE
    )


def vector(result: AttestationResult) -> TrustworthinessVector:
    return result.submods["tdx"].vector


def finding(result: AttestationResult, claim: str) -> Finding:
    found = [each for each in result.findings if each.claim.startswith(claim)]
    assert len(found) == 1, [each.claim for each in result.findings]
    return found[0]


def with_fields(**fields: bytes) -> SimulatedTrustDomain:
    return trust_domain(fields=fields)


def with_bits(bits: int) -> SimulatedTrustDomain:
    return with_fields(td_attributes=(1 << 28 ^ bits).to_bytes(8, "little"))


@pytest.mark.parametrize("version", ["4", "5"])
def test_a_described_trust_domain_on_an_up_to_date_platform_is_affirmed(version: str) -> None:
    result = appraise(trust_domain(version=version))
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.CONFIDENTIAL
    assert vector(result) == TrustworthinessVector(
        instance_identity=2, executables=2, configuration=2, hardware=2, runtime_opaque=2
    )
    assert (result.component, result.layer) == ("vm", "hardware")
    assert len(result.submods["tdx"].matched) == 6
    assert result.submods["tdx"].findings == ()


def test_without_reference_values_nothing_is_affirmed() -> None:
    roots_only = tdx_corim(corim_id="roots", roots=[AUTHORITY.root])
    result = appraise(None, roots_only)
    assert result.status is TrustTier.WARNING
    assert result.tier < AssuranceTier.MEASURED
    assert vector(result).executables == 33
    assert "none provisioned" in finding(result, "mr_td").actual


def test_values_for_another_firmware_do_not_count() -> None:
    result = appraise(with_fields(mr_td=OTHER))
    assert vector(result).executables == 33
    assert OTHER.hex() in finding(result, "mr_td").expected


@pytest.mark.parametrize("register", ["rtmr0", "rtmr1", "rtmr2", "rtmr3"])
def test_a_register_that_differs_is_named(register: str) -> None:
    result = appraise(with_fields(**{register: OTHER}))
    assert result.status is TrustTier.WARNING
    assert vector(result).executables == 33
    found = finding(result, register)
    assert OTHER.hex() in found.actual
    assert "maker" in found.rule
    assert "event log" in found.remedy
    assert result.tier < AssuranceTier.MEASURED


def test_all_that_differs_is_reported_at_once() -> None:
    result = appraise(with_fields(rtmr1=OTHER, rtmr2=OTHER, mr_owner=OTHER))
    claims = [each.claim for each in result.findings]
    assert {"rtmr1", "rtmr2", "mr_owner"} <= set(claims)


def test_without_a_value_for_what_runs_after_boot_only_boot_is_approved() -> None:
    result = appraise(None, corim(rtmrs=RTMRS[:3]))
    assert vector(result).executables == 3
    assert result.status is TrustTier.AFFIRMING
    assert finding(result, "rtmr3").severity == "note"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_boot_register_that_nobody_describes_is_not_approved(count: int) -> None:
    result = appraise(None, corim(rtmrs=RTMRS[:count]))
    assert vector(result).executables == 33
    found = finding(result, f"rtmr{count}")
    assert found.severity == "warning"
    assert f"rtmr{count}" in found.remedy


def test_values_may_stand_in_integrity_registers_by_name_or_number() -> None:
    names: tuple[dict[int | str, list[bytes]], ...] = (
        {f"rtmr{index}": [value] for index, value in enumerate(RTMRS)},
        {index: [value] for index, value in enumerate(RTMRS)},
    )
    for registers in names:
        described = measured_corim(
            corim_id="registers",
            scheme="tdx",
            class_id=REPORT.mr_td,
            digests={"mr_td": [REPORT.mr_td]},
            registers=registers,
        )
        roots = tdx_corim(corim_id="roots", roots=[AUTHORITY.root])
        assert vector(appraise(None, described, roots)).executables == 2
        result = appraise(with_fields(rtmr2=OTHER), described, roots)
        assert vector(result).executables == 33
        finding(result, "rtmr2")


def test_a_value_about_a_field_that_no_report_has_never_matches() -> None:
    strange = measured_corim(
        corim_id="strange",
        scheme="tdx",
        class_id=REPORT.mr_td,
        digests={"mr_td": [REPORT.mr_td], "rtmr9": [OTHER]},
        registers={f"rtmr{index}": [value] for index, value in enumerate(RTMRS)},
    )
    result = appraise(None, strange, tdx_corim(corim_id="roots", roots=[AUTHORITY.root]))
    assert vector(result).executables == 33
    assert "no such field" in finding(result, "rtmr9").actual


def test_alternatives_stand_in_triples_of_their_own_and_are_not_mixed() -> None:
    second = corim(corim_id="second", rtmrs=(OTHER, OTHER, *RTMRS[2:]))
    assert vector(appraise(None, corim(), second)).executables == 2
    both = with_fields(rtmr0=OTHER, rtmr1=OTHER)
    assert vector(appraise(both, corim(), second)).executables == 2
    mixed = appraise(with_fields(rtmr0=OTHER), corim(), second)
    assert vector(mixed).executables == 33
    assert len([each for each in mixed.findings if each.claim.startswith("rtmr")]) == 1


def test_a_trust_domain_in_debug_mode_is_contraindicated() -> None:
    result = appraise(with_bits(1), corim(td_attributes=b""))
    assert result.status is TrustTier.CONTRAINDICATED
    assert vector(result).runtime_opaque == 96
    assert vector(result).hardware == 2
    found = finding(result, "td_attribute_flags.debug")
    assert "host can read" in found.actual
    assert result.tier is AssuranceTier.REGISTERED


def test_only_a_policy_that_says_so_takes_a_trust_domain_in_debug_mode() -> None:
    text = (
        "package troth.appraisal\nimport rego.v1\n"
        'default status := "contraindicated"\nstatus := "affirming"\n'
        'vector := {"runtime-opaque": 2, "configuration": 2}\n'
    )
    policy = AppraisalPolicy.from_text(text, name="debug.rego")
    result = appraise(with_bits(1), corim(td_attributes=b""), policy=policy)
    assert result.status is TrustTier.AFFIRMING


@pytest.mark.parametrize(
    ("bits", "claim", "runtime_opaque", "configuration"),
    [
        (1 << 4, "td_attribute_flags.debug", 96, None),
        (1 << 28, "td_attribute_flags.sept_ve_disable", 2, 96),
        (1 << 29, "td_attribute_flags.migratable", 2, 96),
        (1 << 20, "td_attributes", 2, 36),
    ],
)
def test_attributes_that_weaken_a_trust_domain_are_named(
    bits: int, claim: str, runtime_opaque: int, configuration: int | None
) -> None:
    result = appraise(with_bits(bits), corim(td_attributes=b""))
    assert vector(result).runtime_opaque == runtime_opaque
    assert vector(result).configuration == configuration
    finding(result, claim)
    assert result.status is not TrustTier.AFFIRMING


@pytest.mark.parametrize("bits", [1 << 30, 1 << 31, 1 << 63, 1 << 27, 1 << 62])
def test_attributes_that_do_not_weaken_it_are_not_held_against_it(bits: int) -> None:
    result = appraise(with_bits(bits), corim(td_attributes=b""))
    assert result.status is TrustTier.AFFIRMING


def test_described_attributes_are_compared() -> None:
    result = appraise(with_bits(1 << 63))
    assert vector(result).configuration == 32
    assert finding(result, "td_attributes").severity == "warning"


def test_a_service_trust_domain_is_contraindicated() -> None:
    result = appraise(with_fields(mr_service_td=OTHER))
    assert vector(result).configuration == 96
    assert OTHER.hex() in finding(result, "mr_service_td").actual


@pytest.mark.parametrize("name", ["mr_config_id", "mr_owner", "mr_owner_config"])
def test_what_the_launcher_chose_has_to_be_described(name: str) -> None:
    result = appraise(with_fields(**{name: OTHER}))
    assert vector(result).configuration == 36
    assert finding(result, name).severity == "warning"
    described = appraise(with_fields(**{name: OTHER}), corim(**{name: OTHER}))
    assert described.status is TrustTier.AFFIRMING
    another = appraise(with_fields(**{name: b"\x11" * 48}), corim(**{name: OTHER}))
    assert vector(another).configuration == (32 if name == "mr_config_id" else 96)


@pytest.mark.parametrize("field", ["mr_signer_seam", "seam_attributes"])
def test_a_module_that_is_not_intels_is_contraindicated(field: str) -> None:
    result = appraise(with_fields(**{field: b"\1"}))
    assert result.status is TrustTier.CONTRAINDICATED
    assert "TDX module" in finding(result, field).remedy


def test_a_module_that_intel_does_not_describe_is_contraindicated() -> None:
    result = appraise(with_fields(tee_tcb_svn=bytes([6, 9, 3]), tee_tcb_svn2=bytes([6, 9, 3])))
    assert vector(result).hardware == 96
    assert "dcap-qvl" in finding(result, "qvl_objection").actual


@pytest.mark.parametrize(
    ("status", "hardware", "configuration", "tier"),
    [
        ("UpToDate", 2, None, TrustTier.AFFIRMING),
        ("SWHardeningNeeded", 32, None, TrustTier.WARNING),
        ("ConfigurationNeeded", 2, 32, TrustTier.WARNING),
        ("ConfigurationAndSWHardeningNeeded", 32, 32, TrustTier.WARNING),
        ("OutOfDate", 96, None, TrustTier.CONTRAINDICATED),
        ("OutOfDateConfigurationNeeded", 96, 32, TrustTier.CONTRAINDICATED),
        ("Revoked", 96, None, TrustTier.CONTRAINDICATED),
    ],
)
def test_each_tcb_status_has_its_meaning(
    status: str, hardware: int, configuration: int | None, tier: TrustTier
) -> None:
    advised = {**UP_TO_DATE, "tcbStatus": status, "advisoryIDs": ["INTEL-SA-00615"]}
    result = appraise(None, corim(td_attributes=b""), collateral=tdx_collateral(advised))
    assert vector(result).hardware == hardware
    assert vector(result).configuration == configuration
    assert vector(result).instance_identity == (96 if status == "Revoked" else 2)
    assert result.status is tier
    if status != "UpToDate":
        found = finding(result, "tcb_status")
        assert status in found.actual
        assert "INTEL-SA-00615" in found.actual
        assert "FMSPC 90c06f000000, evaluation 18" in found.rule


def test_the_component_that_is_behind_is_named_with_what_to_do() -> None:
    platform = AUTHORITY.platform(cpu_svn=(2, 3, 2, 2, 4, 1, 0, 5), pce_svn=13)
    result = appraise(trust_domain(platform=platform))
    assert result.status is TrustTier.CONTRAINDICATED
    assert vector(result).hardware == 96
    found = finding(result, "sgxtcbcomponents[0]")
    assert found.claim == "sgxtcbcomponents[0] (BIOS: Early Microcode Update)"
    assert found.expected == "at least 3, for the UpToDate level of 2026-06-01"
    assert found.actual == "2"
    assert "BIOS" in found.remedy
    assert "INTEL-SA-01036" in finding(result, "tcb_status").actual


def test_a_platform_below_every_level_says_all_that_is_behind() -> None:
    platform = AUTHORITY.platform(cpu_svn=(1, 1), pce_svn=0)
    result = appraise(trust_domain(platform=platform))
    claims = [each.claim for each in result.findings]
    assert len([claim for claim in claims if claim.startswith("sgxtcbcomponents")]) == 7
    assert "pcesvn (Provisioning Certification Enclave)" in claims


def test_a_trust_domain_that_was_launched_before_an_update_is_told_to_launch_again() -> None:
    result = appraise(with_fields(tee_tcb_svn=bytes([6, 1, 2])))
    assert vector(result).hardware == 32
    assert "TDRelaunchAdvised" in finding(result, "tcb_status").actual
    assert "Launch the trust domain again" in finding(result, "tcb_status").remedy


def test_an_old_quoting_enclave_and_an_old_module_are_named() -> None:
    collateral = tdx_collateral(
        level((3,), 13, (0,)),
        qe_levels=[module_level(8), module_level(4, status="OutOfDate")],
        modules={"TDX_01": [module_level(7), module_level(6, status="OutOfDate")]},
    )
    result = appraise(collateral=collateral)
    assert finding(result, "qe.isvsvn").expected.startswith("at least 8")
    assert finding(result, "tdxModule.isvsvn").expected.startswith("at least 7")


def test_debug_mode_does_not_hide_an_old_platform() -> None:
    platform = AUTHORITY.platform(cpu_svn=(2, 3, 2, 2, 4, 1, 0, 5))
    domain = trust_domain(platform=platform, fields={"td_attributes": b"\1\0\0\x10"})
    result = appraise(domain)
    for claim in ("td_attribute_flags.debug", "tcb_status", "sgxtcbcomponents[0]"):
        finding(result, claim)


def test_collateral_within_the_grace_leaves_a_note() -> None:
    late = NEXT_UPDATE + timedelta(days=1)
    result = appraise(now=late, grace=timedelta(days=2))
    assert result.status is TrustTier.AFFIRMING
    found = finding(result, "collateral_stale")
    assert found.severity == "note"
    assert "ran out 2026-12-20" in found.actual


def test_a_root_from_a_corim_counts_and_another_does_not() -> None:
    assert appraise(None, corim()).status is TrustTier.AFFIRMING
    with pytest.raises(Exception, match="no trust anchor"):
        appraise(None, corim(roots=[]))


PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "schemes" / "tdx.md"


def test_the_documented_policy_takes_an_older_platform_and_nothing_worse() -> None:
    (text,) = re.findall(r"```rego\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    policy = AppraisalPolicy.from_text(text, name="older.rego")
    assert policy.lint() == []
    assert appraise(policy=policy).status is TrustTier.AFFIRMING
    older = AUTHORITY.platform(cpu_svn=(2, 3, 2, 2, 4, 1, 0, 5))
    result = appraise(trust_domain(platform=older), policy=policy)
    assert (vector(result).hardware, result.status) == (32, TrustTier.WARNING)
    for worse in (
        trust_domain(platform=AUTHORITY.platform(cpu_svn=(1,))),
        trust_domain(platform=older, fields={"td_attributes": b"\1\0\0\x10"}),
    ):
        assert appraise(worse, policy=policy).status is TrustTier.CONTRAINDICATED


def test_every_claim_is_documented() -> None:
    (claims_set,) = verify_tdx(trust_domain().attest(CHALLENGE)).claims_sets
    table = PAGE.read_text("utf-8").partition("## Claims")[2].partition("\n## ")[0]
    rows = re.findall(
        r"^\| (`[^|]+) \|", table.replace("`rtmr0` … `rtmr3`", _RTMR_NAMES), re.MULTILINE
    )
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set(claims_set.claims)


_RTMR_NAMES = ", ".join(f"`rtmr{index}`" for index in range(4))


def real(name: str, documents: dict[str, bytes], now: Any) -> AttestationResult:
    data = (vectors("tdx") / name).read_bytes()
    if "SPR" in name:
        data = data[:4935]
    verifier = Verifier(
        identity=IDENTITY,
        endorsements=store_of(),
        collateral=Collateral(documents),
        vendors=frozenset({"intel"}),
    )
    return verifier.appraise(data, now=now, challenge=UNCHECKED)


def test_a_real_trust_domain_in_debug_mode_is_contraindicated() -> None:
    result = real("trustee/tdx_quote_4.dat", of_2023(), IN_2023)
    assert result.status is TrustTier.CONTRAINDICATED
    finding(result, "td_attribute_flags.debug")


def test_a_real_early_platform_says_what_is_behind() -> None:
    result = real("go-tdx-guest/tdx_prod_quote_SPR_E4.dat", of_2023(), IN_2023)
    assert result.status is TrustTier.CONTRAINDICATED
    finding(result, "sgxtcbcomponents[7] (OS/VMM: SEAMLDR ACM)")
    assert "SEAM loader" in finding(result, "sgxtcbcomponents[7]").remedy
    finding(result, "td_attribute_flags.sept_ve_disable")


def test_a_real_trust_domain_is_affirmed_where_it_is_described() -> None:
    data = (vectors("tdx") / "go-tdx-guest" / "quote_v5_sample.dat").read_bytes()
    report = tdx.SCHEME.decode(data).report
    described = tdx_corim(
        corim_id="real",
        mr_td=report.mr_td,
        rtmrs=(report.rtmr0, report.rtmr1, report.rtmr2, report.rtmr3),
    )
    verifier = Verifier(
        identity=IDENTITY,
        endorsements=store_of(described),
        collateral=Collateral(of_2026()),
        vendors=frozenset({"intel"}),
    )
    result = verifier.appraise(data, now=IN_2026, challenge=report.report_data)
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.CONFIDENTIAL
    assert result.insecure == ()
