# SPDX-License-Identifier: Apache-2.0
"""The registry port for workloads and federation; the rules of `troth.mesh.registry` hold here too."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.federation import Federation
from troth.mesh.registration_entry import RegistrationEntry
from troth.mesh.workload_entry import WorkloadEntry

__all__ = ["WorkloadRegistry"]


class WorkloadRegistry(Protocol):
    """Durable registration of workloads and of foreign trust domains.

    Two numbers tell readers whether to read again: they grow with every change and never go back.
    """

    # Entries

    def workload_entries(self) -> tuple[WorkloadEntry, ...]:
        """Return all entries for workloads and all aliases, oldest first."""
        ...

    def entries_revision(self) -> int:
        """Return the number of the present set of entries."""
        ...

    def create_workload_entry(self, entry: WorkloadEntry, *, actor: str, at: datetime) -> int:
        """Add an entry and return the new revision.

        Raises:
            ConflictError: its id is taken, or an entry is the same in parent, identity and
                selectors.
        """
        ...

    def replace_workload_entry(self, entry: WorkloadEntry, *, actor: str, at: datetime) -> int:
        """Put an entry in the place of the one with its id, and return the new revision.

        Raises:
            ConflictError: there is none of that id, or another one is the same as this.
        """
        ...

    def delete_workload_entry(self, entry_id: str, *, actor: str, at: datetime) -> int:
        """Delete an entry and return the new revision.

        Raises:
            ConflictError: there is none of that id.
        """
        ...

    def amend_entry(self, entry: RegistrationEntry, *, actor: str, at: datetime) -> None:
        """Change the floor and the hint of the node entry with this id to those of `entry`.

        Raises:
            ConflictError: there is none of that id, or it is for other devices or another identity.
        """

    # Federation

    def federations(self) -> tuple[Federation, ...]:
        """Return the foreign trust domains, by name."""
        ...

    def bundles_revision(self) -> int:
        """Return the number of the present set of bundles, our own included."""
        ...

    def put_federation(self, federation: Federation, *, actor: str, at: datetime) -> int:
        """Add or replace a foreign trust domain and return the new revision."""
        ...

    def delete_federation(self, trust_domain: TrustDomain, *, actor: str, at: datetime) -> int:
        """Stop believing a trust domain and return the new revision.

        Raises:
            ConflictError: it is not one of those believed, or entries federate with it.
        """
        ...

    def store_bundle(self, bundle: TrustBundle, *, at: datetime) -> int:
        """Note that this is the bundle of its trust domain as of `at`; return the revision.

        Raises:
            ConflictError: the trust domain is not believed any more.
        """
        ...

    def number_own_bundle(self, digest: str) -> int:
        """Return the sequence number of our own bundle, given the digest of its keys.

        A digest other than the last one gets the next number, and a new revision.
        """
        ...
