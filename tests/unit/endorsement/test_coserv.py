# SPDX-License-Identifier: Apache-2.0
"""CoSERV answers come from what is in force; answers of others are taken only as asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from conformance.endorsement_repository import CLASS, INSTANCE, NOW, good_corim, verified
from support.vectors import vectors
from troth.endorsement.coserv import answer, corim_from_answer, rims_from_answer
from troth.endorsement.store import EndorsementStore
from troth.errors import BindingError, FreshnessError, UnsupportedError
from troth.formats.cbor import Tag
from troth.formats.corim import (
    Corim,
    EnvironmentClass,
    KeyTriple,
    Measurement,
    MeasurementTriple,
    MeasurementValues,
    SignedCorim,
    Svn,
    Validity,
)
from troth.formats.coserv import (
    ArtifactType,
    Coserv,
    EnvironmentQuery,
    ResultType,
    RimKind,
    RimQuery,
    Selection,
)

HOUR = timedelta(hours=1)
AUTHORITY = (Tag(560, b"authority"),)
PSA = "tag:arm.com,2025:psa#1.0.0"
BY_CLASS = EnvironmentQuery(
    artifact=ArtifactType.REFERENCE_VALUES,
    classes=(Selection(EnvironmentClass(class_id=Tag(560, CLASS))),),
)
BY_INSTANCE = EnvironmentQuery(
    artifact=ArtifactType.TRUST_ANCHORS, instances=(Selection(Tag(550, INSTANCE)),)
)


def query(what: EnvironmentQuery | RimQuery, profile: str = PSA) -> Coserv:
    return Coserv(profile=profile, query=what)


def ask(store: EndorsementStore, asked: Coserv, *, now: datetime = NOW) -> Coserv:
    found = answer(asked, store, now=now, lifetime=HOUR, authorities=AUTHORITY)
    return Coserv.decode(found.encode())


@pytest.fixture
def store() -> EndorsementStore:
    made = EndorsementStore()
    made.provision(good_corim(), now=NOW, source="good.cbor")
    return made


class TestAnswers:
    def test_reference_values_of_a_class_are_the_provisioned_triples(
        self, store: EndorsementStore
    ) -> None:
        found = ask(store, query(BY_CLASS))
        assert found.query == BY_CLASS
        assert found.results is not None
        (quad,) = found.results.quads[0]
        assert quad.authorities == AUTHORITY
        assert isinstance(quad.triple, MeasurementTriple)
        assert [each.values.name for each in quad.triple.measurements] == ["bl2", "prot"]
        assert found.results.source_artifacts == ()
        assert found.results.expiry == NOW + HOUR

    def test_the_key_of_an_instance_is_found(self, store: EndorsementStore) -> None:
        found = ask(store, query(BY_INSTANCE))
        assert found.results is not None
        (quad,) = found.results.quads[3]
        assert isinstance(quad.triple, KeyTriple)
        assert quad.triple.keys[0].number == 554

    @pytest.mark.parametrize(
        "asked",
        [
            replace(BY_CLASS, classes=(Selection(EnvironmentClass(class_id=Tag(560, b"x"))),)),
            replace(BY_CLASS, classes=(Selection(EnvironmentClass(class_id=Tag(37, CLASS[:16]))),)),
            replace(
                BY_CLASS,
                classes=(Selection(EnvironmentClass(class_id=Tag(560, CLASS), vendor="X")),),
            ),
            replace(
                BY_CLASS, classes=(Selection(EnvironmentClass(class_id=Tag(560, CLASS), layer=1)),)
            ),
            replace(BY_CLASS, classes=(), instances=(Selection(Tag(550, INSTANCE)),)),
            replace(BY_INSTANCE, instances=(Selection(Tag(550, bytes(33))),)),
        ],
    )
    def test_another_environment_has_an_empty_answer(
        self, store: EndorsementStore, asked: EnvironmentQuery
    ) -> None:
        found = ask(store, query(asked))
        assert found.results is not None
        assert list(found.results.quads.values()) == [()]

    def test_selections_are_alternatives(self, store: EndorsementStore) -> None:
        other = bytes([7]) * 32
        store.provision(good_corim("other", implementation_id=other), now=NOW, source="b")
        selections = tuple(
            Selection(EnvironmentClass(class_id=Tag(560, each))) for each in (CLASS, other)
        )
        found = ask(store, query(replace(BY_CLASS, classes=selections)))
        assert found.results is not None
        assert len(found.results.quads[0]) == 2

    def test_values_under_another_profile_are_not_handed_out(self, store: EndorsementStore) -> None:
        found = ask(store, query(BY_CLASS, "http://arm.com/psa/iot/1"))
        assert found.results is not None
        assert found.results.quads[0] == ()

    @pytest.mark.parametrize("part", ["good/good:state#0", "good/good:state", "good"])
    def test_a_state_of_which_anything_was_withdrawn_is_not_handed_out(
        self, store: EndorsementStore, part: str
    ) -> None:
        store.withdraw(part, now=NOW)
        found = ask(store, query(replace(BY_CLASS, result_type=ResultType.BOTH)))
        assert found.results is not None
        assert found.results.quads[0] == ()
        assert found.results.source_artifacts == ()

    def test_source_artifacts_are_the_manifests_as_they_came(self) -> None:
        store = EndorsementStore()
        corim = verified(good_corim())
        store.provision(corim, now=NOW, source="good.cbor")
        source = ask(store, query(replace(BY_CLASS, result_type=ResultType.SOURCE)))
        both = ask(store, query(replace(BY_CLASS, result_type=ResultType.BOTH)))
        assert source.results is not None
        assert both.results is not None
        assert source.results.quads == {}
        assert len(both.results.quads[0]) == 1
        for results in (source.results, both.results):
            (record,) = results.source_artifacts
            assert (record.type, record.value) == ("application/rim+cose", corim.raw)

    def test_a_manifest_is_not_handed_out_when_another_part_of_it_was_withdrawn(self) -> None:
        first, second = good_corim("a"), good_corim("b", firmware=b"bl3")
        both_tags = replace(first, tags=(first.tags[0], second.tags[0]))
        store = EndorsementStore()
        store.provision(both_tags, now=NOW, source="a")
        store.withdraw("a/a:state", now=NOW)
        found = ask(store, query(replace(BY_CLASS, result_type=ResultType.BOTH)))
        assert found.results is not None
        (quad,) = found.results.quads[0]
        assert isinstance(quad.triple, MeasurementTriple)
        assert quad.triple.measurements[0].values.name == "bl3"
        assert found.results.source_artifacts == ()

    def test_an_answer_does_not_outlive_what_is_in_it(self) -> None:
        store = EndorsementStore()
        ends = NOW + timedelta(minutes=5)
        store.provision(good_corim(validity=Validity(None, ends)), now=NOW, source="a")
        found = ask(store, query(BY_CLASS))
        assert found.results is not None
        assert found.results.expiry == ends
        rims = ask(store, query(RimQuery(((RimKind.CORIM, "good"),))))
        assert rims.results is not None
        assert rims.results.expiry == ends

    @pytest.mark.parametrize(
        ("asked", "reason"),
        [
            (replace(BY_CLASS, artifact=ArtifactType.ENDORSED_VALUES), "endorsed values"),
            (replace(BY_CLASS, artifact=ArtifactType.TRUST_ANCHORS), "found by instance only"),
            (replace(BY_CLASS, classes=(), groups=(Selection(Tag(560, b"g")),)), "groups"),
            (
                replace(BY_CLASS, classes=(Selection(EnvironmentClass(vendor="ACME")),)),
                "a class without a class id",
            ),
            (
                replace(
                    BY_CLASS,
                    classes=(
                        Selection(
                            EnvironmentClass(class_id=Tag(560, CLASS)),
                            (Measurement(values=MeasurementValues(svn=Svn(1))),),
                        ),
                    ),
                ),
                "in a certain state",
            ),
        ],
    )
    def test_a_query_that_cannot_be_answered_is_refused_and_not_answered_in_part(
        self, store: EndorsementStore, asked: EnvironmentQuery, reason: str
    ) -> None:
        with pytest.raises(UnsupportedError, match=reason):
            ask(store, query(asked))

    def test_an_unknown_profile_is_refused(self, store: EndorsementStore) -> None:
        with pytest.raises(UnsupportedError, match=r"tag:example\.com"):
            ask(store, query(BY_CLASS, "tag:example.com,2026:x"))


class TestRims:
    def test_manifests_are_found_by_their_own_and_by_their_tags_identifiers(self) -> None:
        store = EndorsementStore()
        corim = verified(good_corim())
        store.provision(corim, now=NOW, source="a")
        asked = query(RimQuery(((RimKind.CORIM, "good"), (RimKind.COMID, "good:keys"))))
        found = ask(store, asked)
        assert found.results is not None
        assert found.results.rims is not None
        assert set(found.results.rims) == {"good", "good:keys"}
        (rim,) = rims_from_answer(found, asked, now=NOW)
        assert isinstance(rim, SignedCorim)
        assert rim.raw == corim.raw

    def test_what_is_unknown_expired_or_partly_withdrawn_is_left_out(
        self, store: EndorsementStore
    ) -> None:
        store.provision(good_corim("old", validity=Validity(None, NOW + HOUR)), now=NOW, source="b")
        store.withdraw("good/good:state#0", now=NOW)
        asked = query(RimQuery(tuple((RimKind.CORIM, each) for each in ("good", "old", "unknown"))))
        found = ask(store, asked, now=NOW + 2 * HOUR)
        assert found.results is not None
        assert found.results.rims == {}


class TestAnswersOfOthers:
    def test_an_answer_can_be_provisioned(self, store: EndorsementStore) -> None:
        ours = EndorsementStore()
        for asked in (query(BY_CLASS), query(BY_INSTANCE)):
            corim = corim_from_answer(ask(store, asked), asked, now=NOW)
            ours.provision(Corim.decode(corim.encode()), now=NOW, source="supply chain")
        snapshot = ours.snapshot(NOW)
        assert {value.name for value in snapshot.find("psa", class_id=CLASS)} == {"bl2", "prot"}
        assert snapshot.keys("psa", implementation_id=CLASS, instance_id=INSTANCE)
        assert not ours.snapshot(NOW + 2 * HOUR).find("psa", class_id=CLASS)

    def test_an_answer_to_another_question_is_refused(self, store: EndorsementStore) -> None:
        asked = query(BY_CLASS)
        good = ask(store, asked)
        other = query(replace(BY_CLASS, result_type=ResultType.BOTH))
        with pytest.raises(BindingError, match="another query"):
            corim_from_answer(good, other, now=NOW)
        with pytest.raises(BindingError, match="another query"):
            corim_from_answer(replace(good, profile="x"), asked, now=NOW)
        with pytest.raises(BindingError, match="without results"):
            corim_from_answer(asked, asked, now=NOW)

    def test_an_expired_answer_is_refused(self, store: EndorsementStore) -> None:
        asked = query(BY_CLASS)
        found = ask(store, asked)
        corim_from_answer(found, asked, now=NOW + HOUR)
        with pytest.raises(FreshnessError, match="expired"):
            corim_from_answer(found, asked, now=NOW + HOUR + timedelta(seconds=1))

    def test_an_empty_answer_is_no_corim(self) -> None:
        asked = query(BY_CLASS)
        with pytest.raises(UnsupportedError):
            corim_from_answer(ask(EndorsementStore(), asked), asked, now=NOW)

    def test_the_published_answers_can_be_provisioned(self) -> None:
        then = datetime(2026, 1, 28, 12, tzinfo=UTC)
        store = EndorsementStore()
        for name, values, anchors in (("rv", 13, 0), ("ta", 0, 1)):
            data = (vectors("coserv") / f"coserv_{name}_result.cbor").read_bytes()
            found = Coserv.decode(data)
            corim = corim_from_answer(found, replace(found, results=None), now=then)
            done = store.provision(corim, now=then, source=name)
            assert (len(done.reference_values), len(done.trust_anchors)) == (values, anchors)
        class_id = bytes.fromhex("7f454c46020101000000000000000000")
        class_id += bytes.fromhex("03003e00010000005058000000000000")
        found_values = store.snapshot(then).find("cca", class_id=class_id)
        assert [value.name for value in found_values][:2] == ["RSE_BL1_2", "RSE_BL2"]
        assert len({value.state for value in found_values}) == 13
