# SPDX-License-Identifier: Apache-2.0
"""The CoSERV codec on published answers, the draft's examples, and defects."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from support.signing import p256_signer
from support.vectors import vectors
from troth.errors import DecodeError, SignatureError
from troth.formats import cbor, cose
from troth.formats.cbor import Tag
from troth.formats.cmw import CmwRecord
from troth.formats.corim import EnvironmentClass, KeyTriple, MeasurementTriple
from troth.formats.coserv import (
    ArtifactType,
    Coserv,
    EnvironmentQuery,
    ResultType,
    RimKind,
    RimQuery,
    sign_coserv,
    verify_coserv,
)
from troth.formats.keys import VerificationKey

SIGNER = p256_signer("coserv")
KEY = VerificationKey(SIGNER.public_key)
PROFILE = "tag:example.com,2025:cc-platform#1.0.0"
CLASS = {0: Tag(560, b"\x00\x11\x22\x33"), 1: "Example Vendor", 2: "Example Model"}
EXPIRY = Tag(0, "2030-12-13T18:30:02Z")
TRIPLE = [{0: CLASS}, [{1: {2: [[1, b"\xaa"], [2, b"\xbb"]], 11: "Component A"}}]]
QUERY: dict[Any, Any] = {0: PROFILE, 1: {0: 2, 1: {0: [[CLASS]]}, 2: 0}}
ANSWER: dict[Any, Any] = {
    **QUERY,
    2: {0: [{1: [Tag(560, b"\xab\xcd\xef")], 2: TRIPLE}], 10: EXPIRY},
}


def decode(value: object) -> Coserv:
    return Coserv.decode(cbor.encode(value))


@pytest.mark.parametrize(
    ("name", "kind", "count", "triple"),
    [("rv", 0, 13, MeasurementTriple), ("ta", 3, 1, KeyTriple)],
)
def test_the_published_answers_survive_to_the_octet(
    name: str, kind: int, count: int, triple: type
) -> None:
    data = (vectors("coserv") / f"coserv_{name}_result.cbor").read_bytes()
    found = Coserv.decode(data)
    assert found.profile == "tag:arm.com,2023:cca_platform#1.0.0"
    assert found.results is not None
    assert len(found.results.quads[kind]) == count
    assert isinstance(found.results.quads[kind][0].triple, triple)
    assert found.results.quads[kind][0].authorities == (Tag(560, b"dummyauth"),)
    assert found.results.expiry.date().isoformat() == "2026-01-28"
    assert found.encode() == data


class TestTheExamplesOfTheDraft:
    def test_a_query_by_class(self) -> None:
        found = decode(QUERY)
        query = found.query
        assert isinstance(query, EnvironmentQuery)
        assert query.artifact is ArtifactType.REFERENCE_VALUES
        assert query.result_type is ResultType.COLLECTED
        (selection,) = query.classes
        assert isinstance(selection.environment, EnvironmentClass)
        assert selection.environment.vendor == "Example Vendor"
        assert found.results is None
        assert found.encode() == cbor.encode(QUERY)

    def test_a_query_by_two_instances(self) -> None:
        value = {0: PROFILE, 1: {0: 2, 1: {1: [[Tag(550, b"\x02DEADBE")], [Tag(560, b"x")]]}, 2: 2}}
        query = decode(value).query
        assert isinstance(query, EnvironmentQuery)
        assert len(query.instances) == 2
        assert query.result_type is ResultType.BOTH

    def test_a_query_about_a_state(self) -> None:
        value = {0: PROFILE, 1: {0: 2, 1: {0: [[CLASS, [{1: {11: "Component A"}}]]]}, 2: 1}}
        found = decode(value)
        assert isinstance(found.query, EnvironmentQuery)
        assert found.query.classes[0].measurements[0].values.name == "Component A"
        assert found.encode() == cbor.encode(value)

    def test_an_answer_by_class(self) -> None:
        found = decode(ANSWER)
        assert found.results is not None
        assert found.results.expiry == datetime(2030, 12, 13, 18, 30, 2, tzinfo=UTC)
        assert found.encode() == cbor.encode(ANSWER)

    def test_an_answer_with_source_artifacts(self) -> None:
        record = ["application/vnd.example.refvals", b"\xaf\xae\xad\xac"]
        query = {0: 2, 1: {0: [[CLASS]]}, 2: 1}
        value = {0: PROFILE, 1: query, 2: {10: EXPIRY, 11: [record, record]}}
        found = decode(value)
        assert found.results is not None
        assert found.results.source_artifacts == (CmwRecord(record[0], record[1]),) * 2  # type: ignore[arg-type]
        assert found.encode() == cbor.encode(value)

    def test_queries_and_answers_by_identifier(self) -> None:
        query = {3: [[2, "corim-acme-gizmo-1.0.0"], [0, bytes(16)]]}
        rims = {"corim-acme-gizmo-1.0.0": ["application/rim+cose", b"\xaa"]}
        value = {0: PROFILE, 1: query, 2: {5: rims, 10: EXPIRY}}
        found = decode(value)
        assert found.query == RimQuery(
            ((RimKind.CORIM, "corim-acme-gizmo-1.0.0"), (RimKind.COMID, bytes(16)))
        )
        assert found.results is not None
        assert found.results.rims is not None
        assert found.encode() == cbor.encode(value)

    def test_an_answer_that_knows_nothing(self) -> None:
        for query, results in (
            (QUERY[1], {0: [], 10: EXPIRY}),
            ({3: [[2, "x"]]}, {5: {}, 10: EXPIRY}),
            ({0: 0, 1: {0: [[CLASS]]}, 2: 0}, {1: [], 2: [], 10: EXPIRY}),
        ):
            value = {0: PROFILE, 1: query, 2: results}
            assert decode(value).encode() == cbor.encode(value)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ((3,), 1, "unknown key 3"),
        ((1, 0), 3, "artifact-type: 3; expected 0 to 2"),
        ((1, 2), 3, "result-type: 3"),
        ((1, 1), {}, "environment-selector: an empty map"),
        ((1, 1), {0: [[CLASS]], 1: [[Tag(560, b"x")]]}, "expected one of class, instance and"),
        ((1, 1, 0), [CLASS], r"class\[0\]: expected an array"),
        ((1, 1, 0, 0), [CLASS, [], 1], "expected .environment, . measurements."),
        ((1, 3), [[2, "x"]], "unknown key"),
        ((2, 10), "2030-12-13T18:30:02Z", "expiry: expected a tagged item"),
        ((2, 10), Tag(0, "2030-12-13"), "no RFC 3339"),
        ((2, 10), Tag(0, "2030-13-13T18:30:02Z"), "is no date"),
        ((2, 3), [], "unknown key 3"),
        ((2, 11), [["a/b", b"x"]], "unknown key 11"),
        ((2, 5), {}, "unknown key 5"),
        ((2, 0, 0, 1), [], r"rvq\[0\].authorities: an empty array"),
        ((2, 0, 0, 2), [{}], r"rvq\[0\].triple"),
    ],
)
def test_one_defect_is_named(path: tuple[Any, ...], value: object, reason: str) -> None:
    made = copy.deepcopy(ANSWER)
    at: Any = made
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(DecodeError, match=reason):
        decode(made)


def test_manifests_that_were_not_asked_for_are_refused() -> None:
    rims = {"other": ["application/rim+cose", b"\xaa"]}
    with pytest.raises(DecodeError, match="'other' that was not asked for"):
        decode({0: PROFILE, 1: {3: [[2, "x"]]}, 2: {5: rims, 10: EXPIRY}})


def test_a_query_in_another_encoding_is_refused() -> None:
    data = cbor.encode(QUERY)
    # The same map with its two keys in the other order.
    profile = cbor.encode(PROFILE)
    swapped = b"\xa2\x01" + cbor.encode(QUERY[1]) + b"\x00" + profile
    assert cbor.decode(swapped, format="x") == QUERY
    assert Coserv.decode(data).encode() == data
    with pytest.raises(DecodeError, match="not in deterministic encoding"):
        Coserv.decode(swapped)


class TestSignedAnswers:
    def test_a_signed_answer_verifies(self) -> None:
        answer = decode(ANSWER)
        signed = sign_coserv(answer, SIGNER)
        other = VerificationKey(p256_signer("x").public_key)
        assert verify_coserv(signed, [other, KEY]) == answer

    def test_another_key_or_none_is_refused(self) -> None:
        signed = sign_coserv(decode(ANSWER), SIGNER)
        for keys in ([], [VerificationKey(p256_signer("x").public_key)]):
            with pytest.raises(SignatureError):
                verify_coserv(signed, keys)

    def test_another_content_type_is_refused(self) -> None:
        for protected in ({}, {3: "application/rim+cbor"}):
            data = cose.sign1(cbor.encode(ANSWER), SIGNER, protected=protected)
            with pytest.raises(DecodeError, match="content type is not application/coserv"):
                verify_coserv(data, [KEY])
