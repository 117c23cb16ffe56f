# SPDX-License-Identifier: Apache-2.0
"""Resources in files, and the schema that says what they may hold."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from troth.errors import DecodeError
from troth.mesh.logical_tee import LogicalTee
from troth.mesh.resources import RESOURCES, read_resource, render_schema, resources_schema

PUBLISHED = Path(__file__).parents[3] / "docs" / "reference" / "resources.schema.json"
EXAMPLES: dict[str, dict[str, Any]] = {
    "TrustDomain": {
        "name": "partner.example",
        "endpoint_url": "https://bundles.partner.example/",
        "profile": "https_web",
    },
    "Device": {"id": "press-7", "identities": ["ek:" + "ab" * 32], "approved": True},
    "Entry": {"spiffe_id": "spiffe://example.org/edge", "selectors": ["instance:01ab"]},
    "LogicalTEE": {
        "name": "claims",
        "trust_domain": "example.org",
        "owner": "insurer",
        "classes": [
            {
                "name": "gateway",
                "min_tier": "measured",
                "schemes": ["psa"],
                "policy_ids": ["default"],
                "max_age_seconds": 3600,
                "proxy_placement": "in_member",
                "entries": ["edge"],
            }
        ],
        "epochs": [{"id": 1, "not_before": "2026-11-26T00:00:00Z", "registry_epoch": 0}],
    },
}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("TrustDomain", {"profile": "spiffe"}, "profile"),
    ("TrustDomain", {"colour": "red"}, "colour"),
    ("Device", {"identities": ["ek:short"]}, "SHA256"),
    ("Device", {"id": "Press 7"}, "Press 7"),
    ("Entry", {"x509_svid_ttl": -1}, "x509_svid_ttl"),
    ("LogicalTEE", {"classes": []}, "classes"),
    ("LogicalTEE", {"epochs": [{"id": 0, "not_before": "2026-11-26T00:00:00Z"}]}, "epochs"),
]


def test_the_published_schema_is_what_the_structs_say() -> None:
    assert PUBLISHED.read_text() == render_schema(), (
        "write it anew: python -m troth.mesh.resources > docs/reference/resources.schema.json"
    )


def test_every_kind_has_an_example() -> None:
    assert EXAMPLES.keys() == RESOURCES.keys()


@pytest.mark.parametrize("kind", EXAMPLES)
def test_what_is_read_is_what_the_schema_allows(kind: str) -> None:
    assert isinstance(read_resource(kind, EXAMPLES[kind]), RESOURCES[kind])
    validator = jsonschema_rs.Draft202012Validator(resources_schema())
    assert validator.is_valid({"kind": kind, **EXAMPLES[kind]})
    assert not validator.is_valid(EXAMPLES[kind])
    assert not validator.is_valid({"kind": "Placement", **EXAMPLES[kind]})
    assert not validator.is_valid({"kind": kind, "colour": "red", **EXAMPLES[kind]})


@pytest.mark.parametrize(("kind", "change", "named"), WRONG)
def test_what_is_wrong_is_refused_by_its_field(
    kind: str, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(DecodeError, match=named):
        read_resource(kind, EXAMPLES[kind] | change)


def test_numbers_and_times_may_be_written_as_texts() -> None:
    (epoch,) = EXAMPLES["LogicalTEE"]["epochs"]
    written = {key: str(value) for key, value in epoch.items()}
    tee = read_resource("LogicalTEE", EXAMPLES["LogicalTEE"] | {"epochs": [written]})
    assert isinstance(tee, LogicalTee)
    assert tee.epochs[0].not_before == datetime(2026, 11, 26, tzinfo=UTC)
    assert tee == read_resource("LogicalTEE", EXAMPLES["LogicalTEE"])


def test_patterns_are_those_of_json_schema() -> None:
    text = render_schema()
    assert "\\\\A" not in text
    assert "\\\\Z" not in text
