# SPDX-License-Identifier: Apache-2.0
"""What follows from an SNP report and its Reference Values, one difference at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from support.vectors import vectors
from support.vendor_evidence import CHALLENGE, NOW, verify_with
from troth.endorsement.sev_snp_corim import sev_snp_corim
from troth.endorsement.store import EndorsementStore
from troth.evidence.context import Collateral
from troth.formats.ar4si import TrustTier
from troth.formats.cbor import Tag
from troth.formats.corim import decode_any, tags
from troth.formats.corim.comid import Comid
from troth.formats.corim.corim import Corim
from troth.formats.corim.environment import EnvironmentClass, EnvironmentMap
from troth.formats.corim.measurement import Measurement, MeasurementValues, RawValue, Svn
from troth.formats.corim.triples import MeasurementTriple, Triples
from troth.mesh.registration_entry import device_key, node_selector, selects
from troth.testing.sev_snp import SimulatedSnpGuest
from troth.verifier.appraisers.appraisal import References
from troth.verifier.appraisers.sev_snp import appraise as appraise_report
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import AssuranceTier, AttestationResult, VerifierIdentity
from troth.verifier.verdict_cache import VerdictCache
from troth.verifier.verifier import Verifier

GUEST = SimulatedSnpGuest()
AUTHORITY = GUEST.authority
MEASUREMENT = b"\x11" * 48
TCB = GUEST.tcb_version.value
DESCRIBED = {"measurement": MEASUREMENT, "policy": 0x30000, "minimum_tcb": TCB}
DAY = timedelta(days=1)
FRESH_LIST = AUTHORITY.revocations(made=NOW - DAY, next_update=NOW + DAY)
STALE_LIST = AUTHORITY.revocations(made=NOW - 2 * DAY, next_update=NOW - DAY)
NOTHING = dict.fromkeys(DESCRIBED)


def verifier(*corims: Corim, crl: bytes | None = FRESH_LIST, **given: object) -> Verifier:
    store = EndorsementStore()
    roots = sev_snp_corim(corim_id="roots", roots=[AUTHORITY.ark])
    for corim in (roots, *corims):
        store.provision(corim, now=NOW, source=f"{corim.id}.corim")
    documents = {"crl": crl} if crl is not None else {}
    return Verifier(
        identity=VerifierIdentity(developer="test", build="1"),
        endorsements=store,
        allow_simulator=True,
        collateral=Collateral(documents),
        **given,
    )


def described(**changes: object) -> Corim:
    given = {**DESCRIBED, **changes}
    return sev_snp_corim(corim_id="maker", **{k: v for k, v in given.items() if v is not None})


def appraise(
    guest: SimulatedSnpGuest = GUEST, *corims: Corim, **given: object
) -> AttestationResult:
    return verifier(*(corims or (described(),)), **given).appraise(
        guest.attest(CHALLENGE), now=NOW, challenge=CHALLENGE
    )


def vector(result: AttestationResult) -> dict[str, int]:
    return dict(result.submods["sev_snp"].vector.to_json())


def findings(result: AttestationResult) -> dict[str, str]:
    """Claim to severity, of what is about the report itself."""
    return {each.claim: each.severity for each in result.submods["sev_snp"].findings}


GOOD = {
    "instance-identity": 2,
    "configuration": 2,
    "executables": 3,
    "hardware": 2,
    "runtime-opaque": 2,
}


def test_a_guest_that_is_wholly_described_is_affirmed_as_confidential() -> None:
    result = appraise()
    assert vector(result) == GOOD
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.CONFIDENTIAL
    assert findings(result) == {}
    assert len(result.submods["sev_snp"].matched) == 3


@pytest.mark.parametrize(
    ("fields", "changed", "claims"),
    [
        ({"policy": 0x20000}, {"configuration": 32}, {"policy": "warning"}),
        (
            {"policy": 0x30000 | 1 << 18},
            {"configuration": 32, "runtime-opaque": 32},
            {"policy": "warning", "policy_migrate_ma": "warning"},
        ),
        (
            {"policy": 0x30000 | 1 << 40},
            {"configuration": 32},
            {"policy": "warning"},
        ),
        ({"vmpl": 1}, {"configuration": 32}, {"vmpl": "warning"}),
        (
            {"committed_tcb": TCB - 1},
            {"hardware": 32},
            {"committed_tcb_bootloader": "warning"},
        ),
        ({"current_tcb": TCB - 1}, {"hardware": 32}, {"current_tcb_bootloader": "warning"}),
        ({"current_tcb": TCB + 1, "committed_tcb": TCB + 1}, {}, {}),
        ({"chip_id": b""}, {}, {"chip_id": "note"}),
        ({"platform_info": 0x05}, {}, {"platform_alias_check_complete": "note"}),
        ({"platform_info": 0x05, "version": 2}, {}, {}),
    ],
)
def test_one_difference_changes_what_depends_on_it(
    fields: Mapping[str, int | bytes], changed: Mapping[str, int], claims: Mapping[str, str]
) -> None:
    result = appraise(GUEST.with_fields(**fields))
    assert findings(result) == claims
    assert vector(result) == {**GOOD, **changed}
    expected = TrustTier.WARNING if changed else TrustTier.AFFIRMING
    assert result.status is expected


def test_debugging_is_contraindicated_even_where_the_policy_is_described() -> None:
    debug = GUEST.with_fields(policy=0xB0000)
    for corim in (described(), described(policy=0xB0000)):
        result = appraise(debug, corim)
        assert result.status is TrustTier.CONTRAINDICATED
        assert result.tier is AssuranceTier.REGISTERED
        assert findings(result)["policy_debug_allowed"] == "contraindicated"
        assert vector(result)["runtime-opaque"] == vector(result)["configuration"] == 96


def test_an_appraisal_policy_may_allow_debugging_explicitly() -> None:
    policy = AppraisalPolicy.from_text(
        """package troth.appraisal
import rego.v1
default status := "contraindicated"
status := "affirming" if input.claims.policy_debug_allowed
vector := {"runtime-opaque": 2, "configuration": 2}
""",
        name="lab.rego",
    )
    debug = GUEST.with_fields(policy=0xB0000)
    result = appraise(debug, described(policy=0xB0000), policy=policy)
    assert result.status is TrustTier.AFFIRMING
    assert "policy_debug_allowed" in findings(result)


def test_a_migration_agent_is_taken_where_the_policy_is_described() -> None:
    guest = GUEST.with_fields(policy=0x30000 | 1 << 18, report_id_ma=b"m" * 32)
    assert vector(appraise(guest, described(policy=0x30000 | 1 << 18))) == GOOD
    assert "bound to 6d6d" in str(appraise(guest).findings)


def test_a_vmpl_is_taken_where_it_is_described() -> None:
    assert vector(appraise(GUEST.with_fields(vmpl=1), described(vmpl=1))) == GOOD
    result = appraise(GUEST.with_fields(vmpl=2), described(vmpl=1))
    assert vector(result)["configuration"] == 32
    assert findings(result) == {"vmpl": "warning"}


@pytest.mark.parametrize("part", ["bootloader", "tee", "snp", "microcode"])
def test_a_tcb_that_is_behind_is_told_part_by_part(part: str) -> None:
    newer = replace(GUEST, tcb={**GUEST.tcb, part: GUEST.tcb[part] + 1})
    result = appraise(GUEST, described(minimum_tcb=newer.tcb_version.value))
    assert findings(result) == {f"reported_tcb_{part}": "warning"}
    assert vector(result) == {**GOOD, "hardware": 32}
    assert vector(appraise(newer)) == GOOD


def test_every_part_that_is_behind_is_told() -> None:
    newer = replace(GUEST, tcb={name: level + 1 for name, level in GUEST.tcb.items()})
    result = appraise(GUEST, described(minimum_tcb=newer.tcb_version.value))
    assert len(findings(result)) == 4
    (microcode,) = (f for f in result.findings if f.claim == "reported_tcb_microcode")
    assert (microcode.expected, microcode.actual) == ("at least 220", "219: below the minimum")


@pytest.mark.parametrize(
    ("missing", "changed", "claims"),
    [
        ("policy", {"configuration": 36}, {"policy": "warning"}),
        ("minimum_tcb", {"hardware": 32}, {"reported_tcb": "warning"}),
    ],
)
def test_what_no_value_describes_is_not_affirmed(
    missing: str, changed: Mapping[str, int], claims: Mapping[str, str]
) -> None:
    result = appraise(GUEST, described(**{missing: None}))
    assert vector(result) == {**GOOD, **changed}
    assert findings(result) == claims
    assert result.status is TrustTier.WARNING


def test_without_values_nothing_of_the_guest_is_affirmed() -> None:
    result = appraise(GUEST, described(measurement=b"\x12" * 48))
    assert vector(result) == {**GOOD, "executables": 33, "configuration": 36, "hardware": 32}
    assert findings(result) == {"measurement": "warning", "reported_tcb": "warning"}
    assert result.submods["sev_snp"].matched == ()


@pytest.mark.parametrize(
    ("value", "field", "claim"),
    [
        ("host_data", "host_data", "configuration"),
        ("id_key_digest", "id_key_digest", "executables"),
    ],
)
def test_what_is_described_besides_must_be_so(value: str, field: str, claim: str) -> None:
    size = 32 if field == "host_data" else 48
    corim = described(**{value: b"v" * size})
    assert vector(appraise(GUEST.with_fields(**{field: b"v" * size}), corim)) == GOOD
    result = appraise(GUEST.with_fields(**{field: b"w" * size}), corim)
    assert vector(result) == {**GOOD, claim: 33 if claim == "executables" else 32}
    assert findings(result) == {field: "warning"}


def test_values_for_one_chip_are_for_no_other() -> None:
    ours, theirs = described(chip_id=GUEST.hwid), described(chip_id=bytes(range(2, 66)))
    assert vector(appraise(GUEST, ours)) == GOOD
    assert findings(appraise(GUEST, theirs))["measurement"] == "warning"


def test_values_for_a_provider_are_found_by_its_name() -> None:
    guest = SimulatedSnpGuest(csp_id="CN=cloud.example").with_fields(chip_id=b"")
    assert vector(appraise(guest, described(chip_id=b"CN=cloud.example"))) == GOOD
    assert vector(appraise(guest, described(chip_id=b"CN=other.example")))["executables"] == 33


def test_of_several_descriptions_the_nearest_counts() -> None:
    older = sev_snp_corim(corim_id="older", **{**DESCRIBED, "policy": 0x20000, "minimum_tcb": 0})
    result = appraise(GUEST, older, described())
    assert vector(result) == GOOD
    assert all(each.startswith("maker/") for each in result.submods["sev_snp"].matched)


def test_descriptions_are_not_mixed() -> None:
    """Policy from one and TCB from the other: nobody vouched for the mixture."""
    first = sev_snp_corim(
        corim_id="a", measurement=MEASUREMENT, policy=0x30000, minimum_tcb=TCB + 1
    )
    second = sev_snp_corim(corim_id="b", measurement=MEASUREMENT, policy=0x20000, minimum_tcb=TCB)
    assert appraise(GUEST, first, second).status is TrustTier.WARNING


class TestRevocation:
    def test_no_list_is_noted(self) -> None:
        result = appraise(crl=None)
        assert findings(result) == {"revocation": "note"}
        assert result.status is TrustTier.AFFIRMING

    def test_a_stale_list_is_indeterminate_and_not_contraindicated(self) -> None:
        result = appraise(crl=STALE_LIST)
        assert findings(result) == {"revocation": "warning"}
        assert "indeterminate" in result.findings[0].actual
        assert vector(result) == {**GOOD, "configuration": 36}

    def test_a_list_within_the_operators_grace_is_noted(self) -> None:
        found = verify_with(
            GUEST.attest(CHALLENGE),
            "sev_snp",
            AUTHORITY.ark,
            collateral={"crl": STALE_LIST},
            grace=DAY,
        )
        (appraisal,) = appraise_report(found, References(EndorsementStore().snapshot(NOW), NOW))
        (finding,) = (each for each in appraisal.findings if each.claim == "revocation")
        assert finding.severity == "note"
        assert "within the grace" in finding.actual
        over = {"grace": DAY - timedelta(seconds=1), "collateral": {"crl": STALE_LIST}}
        found = verify_with(GUEST.attest(CHALLENGE), "sev_snp", AUTHORITY.ark, **over)
        assert found.claims_sets[0].claims["revocation"] == "stale"

    def test_a_policy_may_insist_on_a_list_or_grant_grace(self) -> None:
        strict = AppraisalPolicy.from_text(
            """package troth.appraisal
import rego.v1
default status := "contraindicated"
status := input.status if input.claims.revocation == "current"
""",
            name="strict.rego",
        )
        assert appraise(policy=strict).status is TrustTier.AFFIRMING
        assert appraise(policy=strict, crl=None).status is TrustTier.CONTRAINDICATED
        lenient = AppraisalPolicy.from_text(
            """package troth.appraisal
import rego.v1
default status := "contraindicated"
status := "affirming"
default vector := {}
vector := {"configuration": 2} if {
	input.claims.revocation == "stale"
	input.claims.revocation_next_update_ns + 172800000000000 > input.now_ns
}
""",
            name="lenient.rego",
        )
        assert appraise(policy=lenient, crl=STALE_LIST).status is TrustTier.AFFIRMING
        older = AUTHORITY.revocations(made=NOW - 9 * DAY, next_update=NOW - 3 * DAY)
        assert appraise(policy=lenient, crl=older).status is TrustTier.WARNING


class TestPublishedNotations:
    """Numbers as octets stand in CoRIMs in the report's order and in the opposite one."""

    def corim(self, **values: MeasurementValues) -> Corim:
        keys = {"policy": 2, "vmpl": 5, "platform_info": 7, "measurement": 641}
        measured = {
            name: Measurement(key=keys[name], values=value) for name, value in values.items()
        }
        base = described()
        (triple,) = base.tags[0].triples.reference
        kept = [m for m in triple.measurements if m.key not in {x.key for x in measured.values()}]
        environment = EnvironmentMap(
            environment_class=EnvironmentClass(class_id=Tag(tags.BYTES, b"any"))
        )
        changed = MeasurementTriple(environment, (*kept, *measured.values()))
        comid = Comid(tag_id="tag", triples=Triples(reference=(changed,)))
        return Corim(corim_id="maker", tags=(comid,), profile=base.profile)

    @pytest.mark.parametrize("order", ["little", "big"])
    @pytest.mark.parametrize(
        ("name", "value", "size"),
        [("policy", 0x30000, 8), ("platform_info", 0x25, 8), ("vmpl", 1, 4)],
    )
    def test_a_number_is_read_in_either_order(
        self, order: str, name: str, value: int, size: int
    ) -> None:
        guest = GUEST.with_fields(vmpl=1 if name == "vmpl" else 0)
        raw = MeasurementValues(raw_value=RawValue(value.to_bytes(size, order)))
        assert vector(appraise(guest, self.corim(**{name: raw}))) == GOOD
        other = MeasurementValues(raw_value=RawValue((value + 1).to_bytes(size, order)))
        result = appraise(guest, self.corim(**{name: other}))
        assert findings(result) == {name: "warning"}
        shown = next(f for f in result.findings if f.claim == name)
        assert shown.expected == f"{value + 1:#x}"
        assert shown.actual == f"{value:#x}: the selected bits differ"

    @pytest.mark.parametrize("order", ["little", "big"])
    @pytest.mark.parametrize("bit", [18, 19, 21])
    def test_a_mask_selects_the_same_bit_in_either_order(self, order: str, bit: int) -> None:
        """A mask read the wrong way round would select nothing, and anything would match."""
        mask = (1 << bit | 1 << 17).to_bytes(8, order)
        raw = MeasurementValues(raw_value=RawValue((1 << 17).to_bytes(8, order), mask))
        corim = self.corim(policy=raw)
        assert "policy" not in findings(appraise(GUEST, corim))
        assert "policy" in findings(appraise(GUEST.with_fields(policy=0x30000 | 1 << bit), corim))

    @pytest.mark.parametrize("order", ["little", "big"])
    def test_a_mask_of_bits_that_must_be_zero_selects_them_in_either_order(
        self, order: str
    ) -> None:
        mask = (1 << 18).to_bytes(8, order)
        raw = MeasurementValues(raw_value=RawValue(bytes(8), mask))
        corim = self.corim(policy=raw)
        assert "policy" not in findings(appraise(GUEST, corim))
        assert "policy" in findings(appraise(GUEST.with_fields(policy=0x30000 | 1 << 18), corim))

    def test_where_the_order_does_not_show_both_must_hold(self) -> None:
        mask = (1 << 18 | 1 << 33).to_bytes(8, "little")
        corim = self.corim(policy=MeasurementValues(raw_value=RawValue(bytes(8), mask)))
        assert "policy" not in findings(appraise(GUEST, corim))
        for bit in (18, 25):
            assert "policy" in findings(
                appraise(GUEST.with_fields(policy=0x30000 | 1 << bit), corim)
            )

    def test_the_published_sample_describes_another_guest(self) -> None:
        sample = decode_any((vectors("corim") / "corim-sevsnp-valid.cbor").read_bytes())
        assert appraise(GUEST, sample).submods["sev_snp"].matched == ()

    def test_the_published_sample_is_compared_field_by_field(self) -> None:
        sample = decode_any((vectors("corim") / "corim-sevsnp-valid.cbor").read_bytes())
        measurement = bytes.fromhex(
            "7699e6ac12ccdfd1dfac70e649ce1f046cb2afbb003438f4"
            "cdddfe2ccbe182fa5ffbe8dcdb930454324e10c52c788980"
        )
        reported = {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}
        current = {"bootloader": 3, "tee": 0, "snp": 14, "microcode": 211}
        guest = replace(GUEST, tcb=reported).with_fields(
            measurement=measurement,
            platform_info=1,
            current_tcb=replace(GUEST, tcb=current).tcb_version.value,
            current_version=bytes([8, 55, 1]),
            committed_version=bytes([8, 55, 1]),
        )
        found = findings(appraise(guest, sample))
        # All but the chip, which is one of its maker's, and what differs in each report.
        assert found.pop("version, report_data, report_id, report_id_ma") == "note"
        assert found.pop("chip_id") == "contraindicated"
        assert found.pop("platform_alias_check_complete") == "note"
        assert set(found) == {"current_tcb_bootloader", "current_tcb_snp"}

    def test_a_security_version_without_comparison_never_matches(self) -> None:
        corim = self.corim(policy=MeasurementValues(svn=Svn(0x30000)))
        assert findings(appraise(GUEST, corim))["policy"] == "warning"


def test_equal_reports_are_concluded_about_once_whatever_their_challenge() -> None:
    cache = VerdictCache()
    chosen = verifier(described(), cache=cache)
    for challenge in (bytes([each]) * 64 for each in range(3)):
        result = chosen.appraise(GUEST.attest(challenge), now=NOW, challenge=challenge)
        assert result.submods["sev_snp"].claims["report_data"] == challenge.hex()
    assert (cache.hits, cache.misses) == (2, 1)


def test_an_ear_of_a_guest_is_made() -> None:
    ear = appraise().to_ear(annotate=True)
    assert ear.submods["sev_snp"].status is TrustTier.AFFIRMING


def test_replicas_of_a_guest_on_one_chip_are_two_nodes() -> None:
    first, second = appraise(), appraise(GUEST.with_fields(report_id=b"\x33" * 32))
    assert device_key(first) == f"sev_snp:instance:{'22' * 32}"
    assert device_key(second) != device_key(first)
    chip = node_selector(f"claim:sev_snp/chip_id={GUEST.hwid.hex()}")
    assert selects(chip, first)
    assert selects(chip, second)
    other = appraise(replace(GUEST, hwid=bytes(range(2, 66))))
    assert not selects(chip, other)
