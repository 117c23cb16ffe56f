# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.members import APPRAISED, NOW, RESULT
from troth.errors import DecodeError
from troth.identity.selector import Selector
from troth.mesh.entry_index import EntryIndex
from troth.mesh.node import NodeState
from troth.mesh.node_record import NodeRecord
from troth.mesh.tier import Tier
from troth.mesh.workload_entry import (
    MAX_FEDERATES_WITH,
    MAX_WORKLOAD_SELECTORS,
    WorkloadEntry,
    node_properties,
    parse_trust_domain,
)

NODE = NodeRecord(
    id="n1",
    device="psa:signer:01",
    entry_id="e1",
    spiffe_id="spiffe://example.org/edge",
    name="self-chosen",
    state=NodeState.ADMITTED,
    reason=None,
    generation=3,
    registered_at=NOW,
    changed_at=NOW,
    appraised=APPRAISED,
)


def entries_for(node: NodeRecord, entries: list[WorkloadEntry]) -> tuple[WorkloadEntry, ...]:
    """Return the node's entries, found both ways."""
    view = EntryIndex(entries, revision=7).of(node)
    assert view.revision == 7
    found = view.all()
    for each in entries:
        assert view.find(each.id) == (each if each in found else None)
    assert view.find("unknown") is None
    return found


def entry(*selectors: str, **fields: Any) -> WorkloadEntry:
    values = {
        "id": "w1",
        "spiffe_id": "spiffe://example.org/web",
        "parent_id": "spiffe://example.org/edge",
        "selectors": tuple(map(Selector.decode, selectors or ("unix:uid:1000",))),
    } | fields
    return WorkloadEntry(**values)


def alias(*selectors: str, **fields: Any) -> WorkloadEntry:
    values = {
        "id": "a1",
        "spiffe_id": "spiffe://example.org/nodes/measured",
        "parent_id": "spiffe://example.org/troth/server",
    } | fields
    return entry(*(selectors or ("troth:tier:measured",)), **values)


def test_a_workload_hangs_below_the_spiffe_id_of_its_node() -> None:
    here = entry()
    elsewhere = entry(id="w2", parent_id="spiffe://example.org/core")
    assert entries_for(NODE, [here, elsewhere]) == (here,)


def test_a_workload_may_hang_below_one_node_alone() -> None:
    here = entry(parent_id="spiffe://example.org/troth/node/n1")
    other = entry(id="w2", parent_id="spiffe://example.org/troth/node/n2")
    assert entries_for(NODE, [here, other]) == (here,)


def test_a_workload_may_hang_below_an_alias_of_nodes() -> None:
    name = alias()
    below = entry(parent_id=name.spiffe_id)
    assert entries_for(NODE, [below, name]) == (below,)
    assert entries_for(NODE, [below, alias("troth:tier:confidential")]) == ()
    assert entries_for(NODE, [below]) == ()


def test_an_alias_is_no_workload() -> None:
    assert entries_for(NODE, [alias()]) == ()
    assert alias().is_alias
    assert not entry().is_alias


@pytest.mark.parametrize(
    "selector",
    [
        "troth:tier:measured",
        "troth:tier:identified",
        "troth:scheme:psa",
        "troth:policy:default",
        f"troth:policy_digest:{'d' * 64}",
        "troth:node:n1",
        "troth:entry:e1",
    ],
)
def test_selectors_of_the_node_are_the_servers_to_find_out(selector: str) -> None:
    here = entry("unix:uid:1", selector)
    assert entries_for(NODE, [here]) == (here,)
    assert here.node_selectors == {Selector.decode(selector)}
    assert here.process_selectors == {Selector("unix", "uid:1")}


@pytest.mark.parametrize(
    "selector",
    ["troth:tier:confidential", "troth:scheme:cca", "troth:policy:other", "troth:node:n2"],
)
def test_a_node_that_lacks_one_selector_does_not_run_the_workload(selector: str) -> None:
    assert entries_for(NODE, [entry("unix:uid:1", selector)]) == ()


def test_a_node_without_a_result_has_no_tier() -> None:
    never = replace(NODE, appraised=None)
    assert Selector("troth", "tier:registered") not in node_properties(never)


def test_a_tier_includes_those_below_it() -> None:
    weak = replace(NODE, appraised=replace(APPRAISED, result=replace(RESULT, tier=Tier.IDENTIFIED)))
    tiers = {s.value for s in node_properties(weak) if s.value.startswith("tier:")}
    assert tiers == {"tier:registered", "tier:identified"}


def test_what_a_node_calls_itself_selects_nothing() -> None:
    assert not any("self-chosen" in selector.value for selector in node_properties(NODE))


@pytest.mark.parametrize(
    "text",
    [
        "unix:uid:0",
        "unix:user:www-data",
        "unix:supplementary_group:docker",
        "unix:path:/usr/bin/my prog",
        f"unix:sha256:{'0a' * 32}",
        "systemd:id:nginx@1.service",
        f"docker:container_id:{'ab' * 32}",
        "k8s:pod-uid:9eebccd2-12bf-40a6-b262-65fe0487d453",
    ],
)
def test_what_an_agent_finds_out_is_a_selector(text: str) -> None:
    assert entry(text).process_selectors == {Selector.decode(text)}


@pytest.mark.parametrize(
    "text",
    [
        "unix:uid:root",
        "unix:uid:01",
        "unix:uid:-1",
        "unix:uid",
        "unix:path:usr/bin/a",
        f"unix:sha256:{'0A' * 32}",
        f"unix:sha256:{'0a' * 31}",
        "unix:name:x",
        "systemd:id:nginx",
        "k8s:ns:default",
        "x:y",
    ],
)
def test_what_no_agent_finds_out_is_refused_by_field(text: str) -> None:
    with pytest.raises(DecodeError, match=r"^field selectors: "):
        entry(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spiffe_id", "spiffe://example.org"),
        ("spiffe_id", "spiffe://example.org/troth/server"),
        ("spiffe_id", "web"),
        ("parent_id", "spiffe://other.example/edge"),
        ("parent_id", "spiffe://example.org/web"),
        ("parent_id", "spiffe://example.org/troth/agent"),
        ("parent_id", ""),
        ("selectors", ()),
        ("selectors", (Selector("troth", "tier:measured"),)),
        ("selectors", (Selector("unix", "uid:1"), Selector("unix", "uid:1"))),
        (
            "selectors",
            tuple(Selector("unix", f"uid:{n}") for n in range(MAX_WORKLOAD_SELECTORS + 1)),
        ),
        ("x509_svid_ttl", timedelta(0)),
        ("x509_svid_ttl", timedelta(days=366)),
        ("jwt_svid_ttl", timedelta(seconds=1, milliseconds=5)),
        ("dns_names", ("Web.example.org",)),
        ("dns_names", ("*.example.org",)),
        ("federates_with", ("Other",)),
        ("federates_with", ("example.org",)),
        ("federates_with", tuple(f"d{n}" for n in range(MAX_FEDERATES_WITH + 1))),
        ("hint", "a\nb"),
        ("hint", "a" * 257),
    ],
)
def test_a_wrong_entry_is_refused_with_the_field(field: str, value: object) -> None:
    assert entry().hint == ""
    with pytest.raises(DecodeError, match=f"^field {field}: "):
        entry(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("selectors", (Selector("unix", "uid:1"),)),
        ("selectors", (Selector("troth", "tier:measured"), Selector("unix", "uid:1"))),
        ("selectors", ()),
        ("selectors", (Selector("troth", "tier:perfect"),)),
        ("x509_svid_ttl", timedelta(hours=1)),
        ("dns_names", ("a.example",)),
        ("federates_with", ("b.example",)),
    ],
)
def test_an_alias_names_nodes_and_nothing_else(field: str, value: object) -> None:
    with pytest.raises(DecodeError, match=f"^field {field}: "):
        alias(**{field: value})


def test_a_trust_domain_is_written_as_name_or_as_id() -> None:
    assert parse_trust_domain("b.example") == parse_trust_domain("spiffe://b.example")
    with pytest.raises(DecodeError):
        parse_trust_domain("spiffe://b.example/web")
    with pytest.raises(DecodeError):
        parse_trust_domain("B.example")


def test_entries_come_in_their_order_whatever_their_parents() -> None:
    name = alias()
    first = entry(id="z")
    second = entry(id="y", parent_id=name.spiffe_id)
    third = entry(id="x", parent_id="spiffe://example.org/troth/node/n1")
    assert entries_for(NODE, [first, second, third, name]) == (first, second, third)
