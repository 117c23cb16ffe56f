# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from troth import errors
from troth.control_plane.server.problem import STATUS, TITLES, problem_for
from troth.errors import (
    ConfigurationError,
    DecodeError,
    LimitExceededError,
    SignatureError,
    TrothError,
    UnavailableError,
)


def _all_errors() -> list[type[TrothError]]:
    found = [getattr(errors, name) for name in errors.__all__]
    return [kind for kind in found if issubclass(kind, TrothError)]


@pytest.mark.parametrize("kind", _all_errors())
def test_every_error_class_has_a_status_and_its_code_a_title(kind: type[TrothError]) -> None:
    assert any(base in STATUS for base in kind.__mro__)
    assert kind.code in TITLES


def test_a_peer_is_told_the_class_and_an_operator_the_cause() -> None:
    exc = SignatureError("the key of row 7 does not fit", remedy="provision the key")
    stranger = problem_for(exc, operator=False)
    assert stranger.status_code == 403
    assert b"row 7" not in stranger.body
    assert b"provision" not in stranger.body
    assert json.loads(stranger.body)["code"] == "not_authentic"
    operator = json.loads(problem_for(exc, operator=True, refusal="r1").body)
    assert operator["detail"] == "the key of row 7 does not fit"
    assert operator["remedy"] == "provision the key"
    assert operator["refusal"] == "r1"


def test_the_most_derived_class_decides() -> None:
    too_large = LimitExceededError(format="x", limit="max_bytes", value=1)
    assert problem_for(too_large, operator=False).status_code == 413
    assert problem_for(DecodeError("x", format="x"), operator=False).status_code == 400
    misconfigured = ConfigurationError(source="file", accepted="something")
    assert problem_for(misconfigured, operator=False).status_code == 500


def test_what_is_down_says_when_to_come_back() -> None:
    down = problem_for(UnavailableError("x", retry_after_seconds=0.2), operator=False)
    assert down.status_code == 503
    assert down.headers["retry-after"] == "1"
    assert "retry-after" not in problem_for(UnavailableError("x"), operator=False).headers
