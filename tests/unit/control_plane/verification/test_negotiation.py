# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.control_plane.verification.negotiation import Choice, negotiate

OFFERED = ("application/a+json", "application/b+cbor")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/a+json"),
        ("*/*", "application/a+json"),
        ("application/*", "application/a+json"),
        ("application/b+cbor", "application/b+cbor"),
        ("Application/B+CBOR", "application/b+cbor"),
        ("text/html, application/b+cbor;q=0.5", "application/b+cbor"),
        ("application/a+json;q=0.1, application/b+cbor;q=0.9", "application/b+cbor"),
        ("*/*;q=0.1, application/b+cbor", "application/b+cbor"),
        ("*/*, application/a+json;q=0", "application/b+cbor"),
        ('text/x;a="1,application/z", application/b+cbor', "application/b+cbor"),
        ("text/html", None),
        ("application/a+json;q=0", None),
        ("application/a+json;q=2", None),
        ("*/a+json", None),
        ("nonsense", None),
        (",,,", None),
    ],
)
def test_a_header_takes_what_it_prefers_of_what_is_offered(accept: str, chosen: str | None) -> None:
    found = negotiate(accept, OFFERED)
    assert (found.name if found else None) == chosen


def test_the_callers_parameters_are_handed_on() -> None:
    found = negotiate('application/b+cbor; profile="tag:x,2025:y"; q=0.5', OFFERED)
    assert found == Choice("application/b+cbor", {"profile": "tag:x,2025:y"})


@given(st.text(max_size=200))
def test_no_header_at_all_crashes_the_negotiation(accept: str) -> None:
    negotiate(accept, OFFERED)


def test_an_endless_header_takes_nothing() -> None:
    assert negotiate("application/a+json," * 1000, OFFERED) is None
