# SPDX-License-Identifier: Apache-2.0
"""The registry port: who is a member, why, and in which order that came about.

Every writing method is one transaction: all of it is on disk when the method returns, or nothing
of it ever was. A transition is one statement guarded by the node's generation and state, and
comes with one row in the hash-chained state log and one event in the feed.

Methods block; whoever has an event loop calls them from a thread. Every method may raise
UnavailableError (disk full, read-only, locked, damaged): then nothing was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from troth.mesh.admission import Step
from troth.mesh.device_registry import DeviceRegistry
from troth.mesh.event import Event, Snapshot
from troth.mesh.logical_tee_registry import LogicalTeeRegistry
from troth.mesh.member import Service
from troth.mesh.node import Facts, NodeState
from troth.mesh.node_record import AppraisedEvidence, IssuedSvid, NodeRecord
from troth.mesh.placement_registry import PlacementRegistry
from troth.mesh.registration_entry import RegistrationEntry
from troth.mesh.workload_registry import WorkloadRegistry
from troth.verifier.finding import Finding
from troth.verifier.recorded import RecordedAppraisal

__all__ = [
    "Change",
    "Delivery",
    "JoinRefusal",
    "JoinSession",
    "LogHead",
    "LogRow",
    "NewNode",
    "ProvisionedCorim",
    "Registry",
    "Withdrawal",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSession:
    """A nonce that one Evidence may answer.

    Attributes:
        id: names the session in the URL.
        nonce: what the challenge is derived from.
        node_name: what the node calls itself; a label.
        address: where the request came from, for operators.
        created, expires: its life, aware UTC.
    """

    id: str
    nonce: bytes
    node_name: str
    address: str
    created: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRefusal:
    """A join that was refused, kept so that `troth explain` can say why.

    Attributes:
        id: what the node is told.
        at: when.
        code: the class of error that the node is told; "unavailable" says that nothing was
            decided: a document of a vendor was missing.
        message, remedy: for operators.
        stage: "decode", "activate", "verify", "appraise", "entry" or "admit".
        node_id: the node, where it could be told authentically, else "".
        node_name, address, scheme: as far as known; labels.
        evidence_digest: SHA-256 (hex) of the Evidence, or "".
        findings: everything that the Verifier held against it.
    """

    id: str
    at: datetime
    code: str
    message: str
    stage: str
    remedy: str = ""
    node_id: str = ""
    node_name: str = ""
    address: str = ""
    scheme: str = ""
    evidence_digest: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """A node that authentic Evidence shows for the first time; fields as in `NodeRecord`."""

    id: str
    device: str
    entry_id: str
    spiffe_id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Transitions of one node, applied together or not at all.

    Attributes:
        node_id, generation: the node as the caller saw it.
        steps: rows of the transition table, in order.
        facts: what is established.
        actor: who does it: "server", "node <id>" or "operator <uid>".
        at: aware UTC.
        new_node: register this node first (`generation` is then 0).
        require_epoch: refuse unless the registry is still at this epoch.
        require_device: refuse unless this device of the inventory is still approved; "" for none.
        appraised: what to remember as the node's last Evidence.
        services: what to remember as the node's services.
        entry_id: the registration entry that it joins by, where that may have changed.
        connections_end: end of the grace of a node that is degraded; brings its deadline forward
            and never moves it back.
        refusal: what to remember of a refused join.
        details: further lines for the state log.
        also: changes of other nodes that belong to it: applied with it or not at all.
    """

    node_id: str
    generation: int
    steps: tuple[Step, ...]
    actor: str
    at: datetime
    facts: Facts = field(default_factory=Facts)
    new_node: NewNode | None = None
    require_epoch: int | None = None
    require_device: str = ""
    appraised: AppraisedEvidence | None = None
    services: tuple[Service, ...] | None = None
    entry_id: str | None = None
    connections_end: datetime | None = None
    refusal: JoinRefusal | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    also: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionedCorim:
    """A CoRIM that the Verifier may believe.

    Attributes:
        id: its own identifier, as the Endorsement store writes it.
        digest: SHA-256 (hex) of its bytes.
        source: file name or the like, for messages.
        data: the bytes.
        provisioned_at: when; `provisioned_by`: who.
        withdrawn: the CoRIM as a whole is withdrawn.
        scheme: the scheme that it is about, where it does not say so itself, else "".
        retires_at: end of its overlap with the one that replaced it, or None.
    """

    id: str
    digest: str
    source: str
    data: bytes = field(repr=False)
    provisioned_at: datetime
    provisioned_by: str
    withdrawn: bool = False
    scheme: str = ""
    retires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Endorsements that are believed no longer.

    Attributes:
        parts: identifiers of Reference Values, keys or tags, as `ReferenceValue.id`.
        corims: digests of whole CoRIMs.
        actor, at: who and when.
        why: the operator's words.
    """

    actor: str
    at: datetime
    parts: tuple[str, ...] = ()
    corims: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One row of the state log: canonical JSON text, chained by SHA-256."""

    sequence: int
    previous: str
    entry: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """The end of the log. Keep one elsewhere: a log cut off before it is then noticed."""

    sequence: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How far an event has come among the agents of nodes that may read the feed.

    Attributes:
        sequence: the event's number.
        acknowledged: nodes whose agent has applied it.
        waiting: nodes whose agent has not, and whose lease runs.
        lapsed: nodes whose agent has not been heard of for its whole lease: their proxies have
            closed what they could not be told about.
    """

    sequence: int
    acknowledged: tuple[str, ...]
    waiting: tuple[str, ...]
    lapsed: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Say whether nobody is left who acts on older knowledge."""
        return not self.waiting


class Registry(WorkloadRegistry, DeviceRegistry, LogicalTeeRegistry, PlacementRegistry, Protocol):
    """Durable membership of one trust domain."""

    def close(self) -> None:
        """Give up the database; nothing is lost."""

    # Joining

    def open_session(self, session: JoinSession, *, max_open: int) -> None:
        """Remember a nonce.

        Raises:
            UnavailableError: `max_open` sessions are open already.
        """

    def take_session(self, session_id: str, *, now: datetime) -> JoinSession:
        """Return the session and use it up, whatever comes of it.

        Raises:
            FreshnessError: unknown, used or expired.
        """
        ...

    def look_at_session(self, session_id: str, *, now: datetime) -> JoinSession:
        """Return the session without using it up; raises as `take_session`."""
        ...

    def find_node(self, *, device: str, spiffe_id: str) -> NodeRecord | None:
        """Return the node of this device in this role."""
        ...

    def find_node_by_key(self, key_digest: str) -> NodeRecord | None:
        """Return the node that got an SVID for this key once, whatever its state is now."""
        ...

    def boot_replaced(self, node_id: str, boot_session: bytes) -> bool:
        """Say whether the node was in this boot session once and in a later one since."""
        ...

    def apply(
        self, change: Change, *, issue: Callable[[NodeRecord], IssuedSvid] | None = None
    ) -> NodeRecord:
        """Apply `change`; then, before it is committed, let `issue` make an SVID for the node.

        What `issue` returned may be handed out only after this method has returned.

        Raises:
            ConflictError: generation, state or epoch are not what the caller saw.
            AuthorizationError: a required fact is not established, or the resulting state allows
                no SVID, or the key belongs to another node.
        """
        ...

    def record_refusal(self, refusal: JoinRefusal) -> None:
        """Remember a refused join that is no node's."""

    # Reading

    def node(self, node_id: str) -> NodeRecord:
        """Return one node.

        Raises:
            ConflictError: there is none of that name.
        """
        ...

    def nodes(self) -> tuple[NodeRecord, ...]:
        """Return all nodes, oldest first."""
        ...

    def lapsed(self, now: datetime, *, limit: int) -> tuple[NodeRecord, ...]:
        """Return admitted nodes whose deadline has passed."""
        ...

    def stalled(self, since: datetime, *, limit: int) -> tuple[NodeRecord, ...]:
        """Return nodes that have been attesting or attested since `since` or longer."""
        ...

    def count_by_state(self) -> Mapping[NodeState, int]:
        """Return how many nodes there are in each state; states without any are left out."""
        ...

    def refusal(self, refusal_id: str) -> JoinRefusal | None:
        """Return a refused join, or None where it is unknown or forgotten."""
        ...

    def refusals(self, *, limit: int) -> tuple[JoinRefusal, ...]:
        """Return the newest refused joins, newest first."""
        ...

    # Registration entries

    def entries(self) -> tuple[RegistrationEntry, ...]:
        """Return all registration entries."""
        ...

    def create_entry(self, entry: RegistrationEntry, *, actor: str, at: datetime) -> None:
        """Add an entry.

        Raises:
            ConflictError: its id is taken.
        """

    def delete_entry(self, entry_id: str, *, actor: str, at: datetime) -> tuple[str, ...]:
        """Delete an entry, quarantine the nodes that joined by it, and return their ids.

        Raises:
            ConflictError: there is none of that id.
        """
        ...

    # Endorsements

    @property
    def epoch(self) -> int:
        """Number of the set of endorsements and policy in force."""

    def corims(self) -> tuple[ProvisionedCorim, ...]:
        """Return all CoRIMs, the withdrawn ones too, in the order in which they came."""
        ...

    def withdrawn_parts(self) -> tuple[str, ...]:
        """Return the identifiers of all Reference Values, keys and tags that were withdrawn."""
        ...

    def provision(
        self,
        corim: ProvisionedCorim,
        *,
        replaces: str = "",
        overlap_until: datetime | None = None,
        withdraws: Sequence[str] = (),
    ) -> int:
        """Add a CoRIM and return the new epoch; one that is in force already changes nothing.

        What was withdrawn out of an earlier CoRIM of its id does not concern it.

        Args:
            corim: the CoRIM.
            replaces: digest of one that goes in the same transaction: at once, or
            overlap_until: at this time.
            withdraws: tags of others that it declares to replace.

        Raises:
            ConflictError: there is none of that digest to replace.
        """
        ...

    def withdraw(
        self,
        withdrawal: Withdrawal,
        changes: Sequence[Change],
        *,
        require_epoch: int,
        require_sequence: int,
    ) -> int:
        """Withdraw, apply what follows for nodes, and return the new epoch.

        Raises:
            ConflictError: the epoch or any node has changed since `require_epoch` and
                `require_sequence` (the feed's last number) were read: appraise again.
        """
        ...

    def adopt_policy(self, *, policy_id: str, digest: str, actor: str, at: datetime) -> int:
        """Write down the Appraisal Policy in force; a new one starts a new epoch, returned."""
        ...

    # Appraisals on record

    def record_appraisals(self, records: Sequence[RecordedAppraisal]) -> None:
        """Remember appraisals; those of a known id are counted with it and replace its content."""

    def appraisals(
        self, *, since: datetime, after: str, limit: int
    ) -> tuple[RecordedAppraisal, ...]:
        """Return records last seen at `since` or later, by id, those after the id `after`.

        Each names the nodes that its device is in its role, where these are known.
        """
        ...

    def prune_appraisals(self, *, before: datetime, keep: int) -> None:
        """Forget records last seen before that time, and all but the newest `keep`."""

    # Feed

    def events(self, *, after: int, limit: int) -> tuple[Event, ...]:
        """Return the events after number `after`, in order.

        Raises:
            ConflictError: they are not kept any more, or `after` is in the future.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Return all members and the number of the last event that they include."""
        ...

    def last_event_of(self, node_id: str) -> int:
        """Return the number of the last event about a node, or 0 where none is kept."""
        ...

    def acknowledge(self, node_id: str, *, sequence: int, lease_until: datetime) -> None:
        """Note that a node's agent has applied everything up to `sequence` (-1: nothing yet)."""

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard`, in any thread, whenever events or acknowledgements may have come.

        At least for those of other servers on the same database, until `close`. It may be called
        for nothing, and a call may be lost: whoever listens looks by itself now and then too.
        """

    def delivery(self, sequence: int, *, now: datetime) -> Delivery:
        """Say who has applied event `sequence`."""
        ...

    # Housekeeping and audit

    def prune(self, *, now: datetime, keep_events: int, keep_refusals: int) -> None:
        """Forget used and expired sessions, old events, old refusals and expired SVIDs."""

    def log_rows(self, *, after: int, limit: int) -> tuple[LogRow, ...]:
        """Return rows of the state log, in order."""
        ...

    def verify_log(self, *, head: LogHead | None = None) -> LogHead:
        """Verify the whole state log, and that each node stands where the log says.

        Says nothing about rows cut off from the end, unless `head` is one kept elsewhere.

        Raises:
            VerificationError: naming the first row that is not what was written.
        """
        ...
