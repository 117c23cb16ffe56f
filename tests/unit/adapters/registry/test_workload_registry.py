# SPDX-License-Identifier: Apache-2.0
"""What the registry promises about workloads and foreign trust domains."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.members import NOW, SPIFFE_ID
from support.postgres import Store
from support.x509 import sign, signing
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.errors import ConflictError
from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh import federation as federations
from troth.mesh.federation import EndpointProfile, Federation
from troth.mesh.registration_entry import RegistrationEntry, node_selector
from troth.mesh.tier import Tier
from troth.mesh.workload_entry import WorkloadEntry

OTHER = TrustDomain("other.example")
CA = sign(signing(uris=("spiffe://other.example",)))
BUNDLE = TrustBundle(trust_domain=OTHER, x509_authorities=[CA], sequence=7)
BY = {"actor": "operator 0", "at": NOW}


def entry(name: str = "w1", uid: int = 1000, **fields: Any) -> WorkloadEntry:
    values = {
        "id": name,
        "spiffe_id": "spiffe://example.org/web",
        "parent_id": SPIFFE_ID,
        "selectors": (Selector("unix", f"uid:{uid}"),),
    } | fields
    return WorkloadEntry(**values)


FULL = entry(
    selectors=(Selector("unix", "uid:1"), Selector("troth", "tier:measured")),
    x509_svid_ttl=timedelta(minutes=3),
    jwt_svid_ttl=timedelta(seconds=90),
    dns_names=("web.example.org",),
    federates_with=("other.example",),
    hint="external",
)


def kinds(registry: SqlRegistry) -> list[str]:
    return [row.entry.split('"kind":"')[1].split('"')[0] for row in _rows(registry)]


def _rows(registry: SqlRegistry) -> Any:
    return registry.log_rows(after=0, limit=100)


def test_entries_come_back_as_they_were_and_in_their_order(registry: SqlRegistry) -> None:
    registry.create_workload_entry(FULL, **BY)
    registry.create_workload_entry(entry("a0"), **BY)
    assert registry.workload_entries() == (FULL, entry("a0"))


def test_entries_outlive_the_server(registry: SqlRegistry, store: Store) -> None:
    registry.create_workload_entry(FULL, **BY)
    again = SqlRegistry(store.url)
    assert again.workload_entries() == (FULL,)
    assert again.entries_revision() == 1
    again.close()


def test_every_change_of_the_entries_has_a_number_and_a_row_in_the_log(
    registry: SqlRegistry,
) -> None:
    assert registry.entries_revision() == 0
    assert registry.create_workload_entry(entry(), **BY) == 1
    assert registry.replace_workload_entry(entry(hint="new"), **BY) == 2
    assert registry.delete_workload_entry("w1", **BY) == 3
    assert registry.entries_revision() == 3
    assert registry.workload_entries() == ()
    assert kinds(registry) == [
        "workload_entry_created",
        "workload_entry_replaced",
        "workload_entry_deleted",
    ]
    registry.verify_log()


def test_a_replaced_entry_keeps_its_place(registry: SqlRegistry) -> None:
    registry.create_workload_entry(entry("b"), **BY)
    registry.create_workload_entry(entry("a", 2), **BY)
    changed = entry("b", hint="changed")
    registry.replace_workload_entry(changed, **BY)
    assert registry.workload_entries() == (changed, entry("a", 2))


def test_an_id_is_taken_once_among_nodes_and_workloads(registry: SqlRegistry) -> None:
    node = RegistrationEntry(
        id="e1", spiffe_id=SPIFFE_ID, selectors=(node_selector("instance:01"),)
    )
    registry.create_entry(node, **BY)
    registry.create_workload_entry(entry(), **BY)
    for name in ("e1", "w1"):
        with pytest.raises(ConflictError, match="already"):
            registry.create_workload_entry(entry(name, 2), **BY)
    assert registry.entries_revision() == 1


def test_no_two_entries_say_the_same(registry: SqlRegistry) -> None:
    registry.create_workload_entry(entry(), **BY)
    with pytest.raises(ConflictError, match="'w1' has the same"):
        registry.create_workload_entry(entry("w2", hint="other"), **BY)
    registry.create_workload_entry(entry("w2", 2), **BY)
    with pytest.raises(ConflictError, match="'w1' has the same"):
        registry.replace_workload_entry(entry("w2"), **BY)
    assert registry.workload_entries() == (entry(), entry("w2", 2))


def test_what_is_not_there_is_neither_replaced_nor_deleted(registry: SqlRegistry) -> None:
    with pytest.raises(ConflictError):
        registry.replace_workload_entry(entry(), **BY)
    with pytest.raises(ConflictError):
        registry.delete_workload_entry("w1", **BY)
    assert registry.entries_revision() == 0
    assert kinds(registry) == []


def test_the_floor_of_a_node_entry_may_change_but_not_whom_it_is_for(
    registry: SqlRegistry,
) -> None:
    node = RegistrationEntry(
        id="e1", spiffe_id=SPIFFE_ID, selectors=(node_selector("instance:01"),)
    )
    registry.create_entry(node, **BY)
    changed = replace(node, min_tier=Tier.CONFIDENTIAL, hint="strict")
    registry.amend_entry(changed, **BY)
    assert registry.entries() == (changed,)
    for other in (
        replace(changed, selectors=(node_selector("instance:02"),)),
        replace(changed, spiffe_id="spiffe://example.org/other"),
        replace(changed, id="e2"),
    ):
        with pytest.raises(ConflictError):
            registry.amend_entry(other, **BY)
    assert registry.entries() == (changed,)


def federation(**fields: Any) -> Federation:
    values: dict[str, Any] = {"trust_domain": OTHER, "bundle": BUNDLE, "refreshed_at": NOW}
    return Federation(**(values | fields))


def test_foreign_trust_domains_come_back_as_they_were(registry: SqlRegistry) -> None:
    full = federation(
        endpoint_url="https://other.example:8443/bundle",
        profile=EndpointProfile.HTTPS_SPIFFE,
        endpoint_spiffe_id=SpiffeId.decode("spiffe://other.example/spire/server"),
    )
    web = Federation(
        trust_domain=TrustDomain("a.example"),
        endpoint_url="https://a.example/",
        profile=EndpointProfile.HTTPS_WEB,
    )
    assert registry.put_federation(full, **BY) == 1
    assert registry.put_federation(web, **BY) == 2
    assert registry.federations() == (web, full)


def test_a_fetched_bundle_is_news_only_where_it_differs(registry: SqlRegistry) -> None:
    registry.put_federation(federation(), **BY)
    later = NOW + timedelta(minutes=5)
    assert registry.store_bundle(BUNDLE, at=later) == 1
    assert registry.federations()[0].refreshed_at == later
    newer = replace(BUNDLE, sequence=8)
    assert registry.store_bundle(newer, at=later) == 2
    assert registry.federations()[0].bundle == newer
    assert kinds(registry) == ["federation_set", "bundle_fetched"]


def test_a_bundle_of_a_stranger_is_not_stored(registry: SqlRegistry) -> None:
    with pytest.raises(ConflictError):
        registry.store_bundle(BUNDLE, at=NOW)
    assert registry.federations() == ()


def test_a_trust_domain_that_entries_federate_with_stays(registry: SqlRegistry) -> None:
    registry.put_federation(federation(), **BY)
    registry.create_workload_entry(FULL, **BY)
    with pytest.raises(ConflictError, match="'w1' federates"):
        registry.delete_federation(OTHER, **BY)
    registry.delete_workload_entry("w1", **BY)
    assert registry.delete_federation(OTHER, **BY) == 2
    assert registry.federations() == ()
    with pytest.raises(ConflictError):
        registry.delete_federation(OTHER, **BY)


def test_there_are_so_many_foreign_trust_domains_and_no_more(
    registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("troth.adapters.registry.workload_rows.MAX_FEDERATIONS", 1)
    assert federations.MAX_FEDERATIONS == 256
    registry.put_federation(federation(), **BY)
    registry.put_federation(federation(), **BY)
    with pytest.raises(ConflictError):
        registry.put_federation(
            federation(
                trust_domain=TrustDomain("third.example"),
                bundle=replace(BUNDLE, trust_domain=TrustDomain("third.example")),
            ),
            **BY,
        )


def test_our_own_bundle_gets_the_next_number_when_its_keys_change(registry: SqlRegistry) -> None:
    assert registry.number_own_bundle("a") == 1
    assert registry.number_own_bundle("a") == 1
    assert registry.bundles_revision() == 1
    assert registry.number_own_bundle("b") == 2
    assert registry.number_own_bundle("a") == 3
    assert registry.bundles_revision() == 3
