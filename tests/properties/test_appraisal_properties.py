# SPDX-License-Identifier: Apache-2.0
"""Nothing that an Attester says is affirmed unless somebody described all of it."""

from __future__ import annotations

import string
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.appraisal import GOOD, NOW, case, corims_of, keys_only, verifier_of
from support.evidence import simulate
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedComponent, SimulatedPlatform
from troth.formats.ar4si import TrustTier, TrustworthinessVector, tier_of
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import Evaluation, is_builtin
from troth.verifier.rego_lint import lint
from troth.verifier.rego_source import RegoSource
from troth.verifier.result import AssuranceTier, AttestationResult

CHALLENGE = b"c" * 64
KNOWN_PSA, KNOWN_CCA = simulate(), simulate(CcaOptions())
KNOWN = {
    name: verifier_of(*corims_of(platform))
    for name, platform in (("psa", KNOWN_PSA), ("cca", KNOWN_CCA))
}
UNDESCRIBED = {
    name: verifier_of(keys_only(platform))
    for name, platform in (("psa", KNOWN_PSA), ("cca", KNOWN_CCA))
}

LIFECYCLES = st.integers(0, 6).flatmap(
    lambda high: st.integers(0, 255).map(lambda low: high << 12 | low)
)
TEXTS = st.text(string.ascii_letters + string.digits + '. -"\\', max_size=8)
DIGESTS = st.sampled_from([bytes(32), bytes(48), bytes(64)]) | st.binary(min_size=32, max_size=32)


def described(platform: SimulatedPlatform) -> st.SearchStrategy[SimulatedComponent]:
    return st.sampled_from(platform.options.components)


COMPONENTS = st.builds(
    SimulatedComponent,
    name=TEXTS,
    version=TEXTS,
    digest=DIGESTS,
    signer_id=DIGESTS,
    hash_algorithm=st.sampled_from(["", "sha-256", "sha-384", "md5"]),
)


@st.composite
def platforms(draw: st.DrawFn) -> SimulatedPlatform:
    """Draw a platform that may or may not be the known one."""
    known = draw(st.sampled_from([KNOWN_PSA, KNOWN_CCA]))
    parts = draw(
        st.just(known.options.components)
        | st.lists(described(known) | COMPONENTS, min_size=1, max_size=15).map(tuple)
    )
    changes: dict[str, object] = {
        "components": parts,
        "lifecycle": draw(st.just(0x3000) | LIFECYCLES),
    }
    if isinstance(known.options, CcaOptions):
        changes["config"] = draw(st.just(known.options.config) | st.binary(max_size=8))
        changes["rim"] = draw(st.just(known.options.rim) | DIGESTS)
        changes["rems"] = draw(st.just(known.options.rems) | st.tuples(*[DIGESTS] * 4))
        changes["personalization_value"] = draw(st.just(b"") | st.binary(max_size=64))
    return replace(known, options=replace(known.options, **changes))


def appraise(platform: SimulatedPlatform, *, known: bool) -> AttestationResult:
    verifier = (KNOWN if known else UNDESCRIBED)[platform.scheme]
    return verifier.appraise(platform.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)


@given(platforms())
@settings(max_examples=150, deadline=None)
def test_nothing_is_affirmed_without_reference_values(platform: SimulatedPlatform) -> None:
    result = appraise(platform, known=False)
    assert result.status is not TrustTier.AFFIRMING
    assert result.tier.rank <= AssuranceTier.IDENTIFIED.rank
    assert any(finding.severity != "note" for finding in result.findings)


def same_software(one: SimulatedPlatform, other: SimulatedPlatform) -> bool:
    def parts(platform: SimulatedPlatform) -> set[tuple[str, str, bytes]]:
        return {(c.name, c.version, c.digest) for c in platform.options.components}

    return parts(one) == parts(other)


@given(platforms())
@settings(max_examples=200, deadline=None)
def test_what_is_affirmed_is_all_described_and_secured(platform: SimulatedPlatform) -> None:
    known = KNOWN_PSA if isinstance(platform.options, PsaOptions) else KNOWN_CCA
    result = appraise(platform, known=True)
    as_described = same_software(platform, known) and platform.options.lifecycle >> 8 == 0x30
    if isinstance(platform.options, CcaOptions) and isinstance(known.options, CcaOptions):
        realm, described_realm = platform.options, known.options
        as_described = as_described and (
            realm.config == described_realm.config
            and realm.rim == described_realm.rim
            and realm.rems == described_realm.rems
            and realm.personalization_value.rstrip(b"\0") == b""
        )
    assert (result.status is TrustTier.AFFIRMING) == as_described
    speaks_against = [f for f in result.findings if f.severity != "note"]
    assert bool(speaks_against) != as_described
    assert all(f.expected and f.actual and f.rule and f.remedy for f in result.findings)


VALUES = st.none() | st.integers(-128, 127)
VECTORS = st.builds(
    TrustworthinessVector,
    instance_identity=VALUES,
    configuration=VALUES,
    executables=VALUES,
    hardware=VALUES,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
OUTCOMES = st.fixed_dictionaries(
    {"status": st.sampled_from(["affirming", "warning", "none", "contraindicated"]) | JSON},
    optional={
        "vector": st.dictionaries(st.sampled_from(["executables", "hardware", "x"]), VALUES) | JSON,
        "findings": st.lists(st.fixed_dictionaries({"claim": st.text(max_size=3)})) | JSON,
        "added_claims": JSON,
    },
)
POLICY = AppraisalPolicy.from_text(
    'package troth.appraisal\nstatus := "none"\nvector := {}\nfindings := []\nadded_claims := {}\n',
    name="any.rego",
)


class Answering:
    """An evaluator that answers anything."""

    def __init__(self, value: object) -> None:
        self.value = value

    def evaluate(self, *_: object) -> Evaluation:
        return Evaluation(value=self.value)


@given(OUTCOMES | JSON, VECTORS)
@settings(max_examples=300)
def test_no_outcome_of_a_policy_affirms_more_than_its_vector(
    outcome: object, vector: TrustworthinessVector
) -> None:
    verdict = POLICY.apply(case(vector=vector), Answering(outcome))
    if verdict.status is TrustTier.AFFIRMING:
        tiers = [tier_of(value) for _, value in verdict.vector.items()]
        assert TrustTier.AFFIRMING in tiers
        assert max(tiers) is TrustTier.AFFIRMING
        assert isinstance(outcome, dict)
        assert outcome["status"] == "affirming"


@given(
    st.text(max_size=200) | st.text('package troth.appraisal\n"`#{}[]():=_ifnotselvr', max_size=200)
)
@example("package troth.appraisal\n_[")
@example("package troth.appraisal\nn = m[")
def test_any_text_is_read_linted_and_never_affirms(text: str) -> None:
    source = RegoSource(text)
    lint(source, builtin=is_builtin)
    assert len(source.without_comments.encode("utf-8", "replace")) == len(
        text.encode("utf-8", "replace")
    )
    policy = AppraisalPolicy.from_text(text, name="any.rego")
    assert policy.apply(case(vector=GOOD), Answering({})).status is not TrustTier.AFFIRMING
