# SPDX-License-Identifier: Apache-2.0
"""Workloads and foreign trust domains as rows, and the part of the registry port about them."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from troth.adapters.registry import state_log
from troth.adapters.registry.database import Database
from troth.adapters.registry.schema import counters, entries
from troth.adapters.registry.workload_schema import (
    BUNDLES,
    ENTRIES,
    OWN_BUNDLE,
    federations,
    workload_entries,
)
from troth.errors import ConflictError
from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.federation import MAX_FEDERATIONS, EndpointProfile, Federation
from troth.mesh.registration_entry import RegistrationEntry
from troth.mesh.workload_entry import WorkloadEntry
from troth.mesh.workload_registry import WorkloadRegistry

__all__ = ["SqlWorkloadRegistry"]


class _EntryBody(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of an entry but its id; lifetimes in seconds, 0 for the default."""

    spiffe_id: str
    parent_id: str
    selectors: tuple[str, ...]
    x509_svid_ttl: int = 0
    jwt_svid_ttl: int = 0
    dns_names: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()
    hint: str = ""


class _FederationBody(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a federation but its trust domain; "" for what there is not."""

    bundle: str = ""
    endpoint_url: str = ""
    profile: str = ""
    endpoint_spiffe_id: str = ""
    refreshed_at: datetime | None = None


class SqlWorkloadRegistry(WorkloadRegistry):
    """The part of `SqlRegistry` that knows workloads and foreign trust domains."""

    _database: Database

    # Entries

    def workload_entries(self) -> tuple[WorkloadEntry, ...]:
        """Return all entries for workloads and all aliases, oldest first."""
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(workload_entries).order_by(workload_entries.c.position)
            )
            return tuple(_entry_from(row.id, row.body) for row in found)

    def entries_revision(self) -> int:
        """Return the number of the present set of entries."""
        with self._database.read() as connection:
            return _number(connection, ENTRIES)

    def create_workload_entry(self, entry: WorkloadEntry, *, actor: str, at: datetime) -> int:
        """Add an entry and return the new revision."""
        with self._database.write() as connection:
            _refuse_taken(connection, entry)
            _refuse_same(connection, entry)
            position = state_log.next_number(connection, ENTRIES)
            connection.execute(
                sa.insert(workload_entries).values(
                    id=entry.id, position=position, digest=_digest(entry), body=_body(entry)
                )
            )
            _log_entry(connection, "workload_entry_created", entry, actor=actor, at=at)
            return position

    def replace_workload_entry(self, entry: WorkloadEntry, *, actor: str, at: datetime) -> int:
        """Put an entry in the place of the one with its id."""
        with self._database.write() as connection:
            _refuse_same(connection, entry)
            changed = connection.execute(
                sa.update(workload_entries)
                .where(workload_entries.c.id == entry.id)
                .values(digest=_digest(entry), body=_body(entry))
                .returning(workload_entries.c.id)
            ).one_or_none()
            if changed is None:
                raise _no_entry(entry.id)
            _log_entry(connection, "workload_entry_replaced", entry, actor=actor, at=at)
            return state_log.next_number(connection, ENTRIES)

    def delete_workload_entry(self, entry_id: str, *, actor: str, at: datetime) -> int:
        """Delete an entry and return the new revision."""
        with self._database.write() as connection:
            gone = connection.execute(
                sa.delete(workload_entries)
                .where(workload_entries.c.id == entry_id)
                .returning(workload_entries.c.id)
            ).one_or_none()
            if gone is None:
                raise _no_entry(entry_id)
            data = {"entry_id": entry_id}
            state_log.append(connection, "workload_entry_deleted", actor=actor, at=at, data=data)
            return state_log.next_number(connection, ENTRIES)

    def amend_entry(self, entry: RegistrationEntry, *, actor: str, at: datetime) -> None:
        """Change the floor and the hint of a node entry."""
        with self._database.write() as connection:
            row = connection.execute(
                sa.select(entries).where(entries.c.id == entry.id)
            ).one_or_none()
            if row is None:
                raise _no_entry(entry.id)
            selectors = msgspec.json.decode(row.selectors, type=list[str])
            same = set(selectors) == set(map(str, entry.selectors))
            if not same or row.spiffe_id != entry.spiffe_id:
                raise ConflictError(
                    f"node entry {entry.id!r} is for other devices or another identity",
                    remedy="delete it and create another; its nodes then join anew",
                )
            connection.execute(
                sa.update(entries)
                .where(entries.c.id == entry.id)
                .values(min_tier=entry.min_tier.value, hint=entry.hint)
            )
            data = {"entry_id": entry.id, "min_tier": entry.min_tier.value, "hint": entry.hint}
            state_log.append(connection, "entry_amended", actor=actor, at=at, data=data)

    # Federation

    def federations(self) -> tuple[Federation, ...]:
        """Return the foreign trust domains, by name."""
        with self._database.read() as connection:
            found = connection.execute(sa.select(federations).order_by(federations.c.trust_domain))
            return tuple(_federation_from(row.trust_domain, row.body) for row in found)

    def bundles_revision(self) -> int:
        """Return the number of the present set of bundles, our own included."""
        with self._database.read() as connection:
            return _number(connection, BUNDLES)

    def put_federation(self, federation: Federation, *, actor: str, at: datetime) -> int:
        """Add or replace a foreign trust domain."""
        name = federation.trust_domain.name
        values = {"body": _federation_body(federation)}
        with self._database.write() as connection:
            known = connection.execute(
                sa.update(federations)
                .where(federations.c.trust_domain == name)
                .values(values)
                .returning(federations.c.trust_domain)
            ).one_or_none()
            if known is None:
                _refuse_more(connection)
                connection.execute(sa.insert(federations).values(trust_domain=name, **values))
            data = {
                "trust_domain": name,
                "endpoint_url": federation.endpoint_url,
                "profile": federation.profile.value if federation.profile else "",
                "endpoint_spiffe_id": str(federation.endpoint_spiffe_id or ""),
                "bundle": _bundle_digest(federation.bundle),
            }
            state_log.append(connection, "federation_set", actor=actor, at=at, data=data)
            return state_log.next_number(connection, BUNDLES)

    def delete_federation(self, trust_domain: TrustDomain, *, actor: str, at: datetime) -> int:
        """Stop believing a trust domain."""
        name = trust_domain.name
        with self._database.write() as connection:
            for row in connection.execute(sa.select(workload_entries)):
                if name in _entry_from(row.id, row.body).federates_with:
                    raise ConflictError(
                        f"entry {row.id!r} federates with {name}",
                        remedy="change or delete the entries that do, then try again",
                    )
            gone = connection.execute(
                sa.delete(federations)
                .where(federations.c.trust_domain == name)
                .returning(federations.c.trust_domain)
            ).one_or_none()
            if gone is None:
                raise _no_federation(trust_domain)
            data = {"trust_domain": name}
            state_log.append(connection, "federation_deleted", actor=actor, at=at, data=data)
            return state_log.next_number(connection, BUNDLES)

    def store_bundle(self, bundle: TrustBundle, *, at: datetime) -> int:
        """Note a bundle that was fetched."""
        with self._database.write() as connection:
            body = connection.execute(
                sa.select(federations.c.body).where(
                    federations.c.trust_domain == bundle.trust_domain.name
                )
            ).scalar_one_or_none()
            if body is None:
                raise _no_federation(bundle.trust_domain)
            known = msgspec.json.decode(body, type=_FederationBody)
            fetched = bundle.encode().decode()
            changed = msgspec.structs.replace(known, bundle=fetched, refreshed_at=at)
            connection.execute(
                sa.update(federations)
                .where(federations.c.trust_domain == bundle.trust_domain.name)
                .values(body=msgspec.json.encode(changed).decode())
            )
            if fetched == known.bundle:
                return _number(connection, BUNDLES)
            data = {
                "trust_domain": bundle.trust_domain.name,
                "bundle": _bundle_digest(bundle),
                "sequence": bundle.sequence or 0,
            }
            state_log.append(connection, "bundle_fetched", actor="server", at=at, data=data)
            return state_log.next_number(connection, BUNDLES)

    def number_own_bundle(self, digest: str) -> int:
        """Return the sequence number of our own bundle."""
        with self._database.write() as connection:
            row = connection.execute(
                sa.select(counters).where(counters.c.name == OWN_BUNDLE).with_for_update()
            ).one()
            if row.digest == digest:
                return int(row.value)
            connection.execute(
                sa.update(counters)
                .where(counters.c.name == OWN_BUNDLE)
                .values(value=row.value + 1, digest=digest)
            )
            state_log.next_number(connection, BUNDLES)
            return int(row.value) + 1


def _number(connection: Connection, name: str) -> int:
    number: int = connection.execute(
        sa.select(counters.c.value).where(counters.c.name == name)
    ).scalar_one()
    return number


def _refuse_taken(connection: Connection, entry: WorkloadEntry) -> None:
    for table in (entries, workload_entries):
        taken = connection.execute(
            sa.select(table.c.id).where(table.c.id == entry.id)
        ).one_or_none()
        if taken is not None:
            raise ConflictError(
                f"there is a registration entry {entry.id!r} already",
                remedy="choose another id, or replace that entry",
            )


def _refuse_same(connection: Connection, entry: WorkloadEntry) -> None:
    same = connection.execute(
        sa.select(workload_entries.c.id).where(
            workload_entries.c.digest == _digest(entry), workload_entries.c.id != entry.id
        )
    ).one_or_none()
    if same is not None:
        raise ConflictError(
            f"entry {same.id!r} has the same parent_id, spiffe_id and selectors",
            remedy="change that entry, or delete it first",
        )


def _refuse_more(connection: Connection) -> None:
    count = connection.execute(sa.select(sa.func.count()).select_from(federations)).scalar_one()
    if count >= MAX_FEDERATIONS:
        raise ConflictError(f"{MAX_FEDERATIONS} trust domains are federated with already")


def _no_entry(entry_id: str) -> ConflictError:
    return ConflictError(f"there is no registration entry {entry_id!r}", remedy="list the entries")


def _no_federation(trust_domain: TrustDomain) -> ConflictError:
    return ConflictError(
        f"there is no bundle of trust domain {trust_domain}", remedy="list the bundles"
    )


def _log_entry(
    connection: Connection, kind: str, entry: WorkloadEntry, *, actor: str, at: datetime
) -> None:
    data = {
        "entry_id": entry.id,
        "spiffe_id": entry.spiffe_id,
        "parent_id": entry.parent_id,
        "selectors": [str(selector) for selector in entry.selectors],
        "federates_with": list(entry.federates_with),
    }
    state_log.append(connection, kind, actor=actor, at=at, data=data)


def _digest(entry: WorkloadEntry) -> str:
    parts = [entry.parent_id, entry.spiffe_id, *sorted(map(str, entry.selectors))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _body(entry: WorkloadEntry) -> str:
    body = _EntryBody(
        spiffe_id=entry.spiffe_id,
        parent_id=entry.parent_id,
        selectors=tuple(map(str, entry.selectors)),
        x509_svid_ttl=_seconds(entry.x509_svid_ttl),
        jwt_svid_ttl=_seconds(entry.jwt_svid_ttl),
        dns_names=entry.dns_names,
        federates_with=entry.federates_with,
        hint=entry.hint,
    )
    return msgspec.json.encode(body).decode()


def _seconds(ttl: timedelta | None) -> int:
    return 0 if ttl is None else int(ttl.total_seconds())


def _entry_from(entry_id: str, text: str) -> WorkloadEntry:
    body = msgspec.json.decode(text, type=_EntryBody)
    return WorkloadEntry(
        id=entry_id,
        spiffe_id=body.spiffe_id,
        parent_id=body.parent_id,
        selectors=tuple(map(Selector.decode, body.selectors)),
        x509_svid_ttl=timedelta(seconds=body.x509_svid_ttl) or None,
        jwt_svid_ttl=timedelta(seconds=body.jwt_svid_ttl) or None,
        dns_names=body.dns_names,
        federates_with=body.federates_with,
        hint=body.hint,
    )


def _federation_body(federation: Federation) -> str:
    body = _FederationBody(
        bundle=federation.bundle.encode().decode() if federation.bundle else "",
        endpoint_url=federation.endpoint_url,
        profile=federation.profile.value if federation.profile else "",
        endpoint_spiffe_id=str(federation.endpoint_spiffe_id or ""),
        refreshed_at=federation.refreshed_at,
    )
    return msgspec.json.encode(body).decode()


def _federation_from(name: str, text: str) -> Federation:
    body = msgspec.json.decode(text, type=_FederationBody)
    domain = TrustDomain(name)
    endpoint_id = body.endpoint_spiffe_id
    return Federation(
        trust_domain=domain,
        bundle=TrustBundle.decode(body.bundle.encode(), trust_domain=domain)
        if body.bundle
        else None,
        endpoint_url=body.endpoint_url,
        profile=EndpointProfile(body.profile) if body.profile else None,
        endpoint_spiffe_id=SpiffeId.decode(endpoint_id) if endpoint_id else None,
        refreshed_at=body.refreshed_at,
    )


def _bundle_digest(bundle: TrustBundle | None) -> str:
    return hashlib.sha256(bundle.encode()).hexdigest() if bundle is not None else ""
