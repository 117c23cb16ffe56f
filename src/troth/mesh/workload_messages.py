# SPDX-License-Identifier: Apache-2.0
"""What an agent and the server say to each other about workloads. JSON on the wire.

The agent authenticates with its node's SVID. It is told which workloads its node may run, asks for
SVIDs for keys that it made, and hands both to the processes that it recognises.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from troth.identity.jwt_svid import MAX_AUDIENCE_CHARACTERS, MAX_AUDIENCES

__all__ = [
    "MAX_BATCH",
    "AgentEntry",
    "EntriesReply",
    "JwtSvidReply",
    "JwtSvidRequest",
    "SvidBatchReply",
    "SvidBatchRequest",
    "SvidOutcome",
    "SvidRequest",
    "WitReply",
    "WitRequest",
]

MAX_BATCH = 250
"""SVIDs asked for at once: about 50 ms of the server's time."""

_EntryId = Annotated[str, Meta(min_length=1, max_length=64)]


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Unknown members are errors: a misspelt one must not go unnoticed."""


class AgentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has to know of an entry.

    Attributes:
        id: names it in requests.
        spiffe_id: who the workload is.
        selectors: those that are about the process, "type:value".
        federates_with: trust domains whose bundles it gets.
        hint: for the workload.
        form: changes when something changes that is in its X.509-SVID, which then is issued anew.
    """

    id: str
    spiffe_id: str
    selectors: tuple[str, ...]
    federates_with: tuple[str, ...] = ()
    hint: str = ""
    form: str = ""


class EntriesReply(msgspec.Struct, frozen=True, kw_only=True):
    """The workloads of the asking node, in the order in which they are handed out."""

    revision: int
    entries: tuple[AgentEntry, ...]


class SvidRequest(_Message, frozen=True, kw_only=True):
    """One X.509-SVID wanted: for which entry, and a certificate request (DER) with the key."""

    entry_id: _EntryId
    csr: bytes


class SvidBatchRequest(_Message, frozen=True, kw_only=True):
    """X.509-SVIDs wanted."""

    requests: Annotated[tuple[SvidRequest, ...], Meta(min_length=1, max_length=MAX_BATCH)]


class SvidOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one request.

    Attributes:
        entry_id: which.
        svid: the chain as DER, leaf first; empty where it was refused.
        error: the class of the refusal, or "".
    """

    entry_id: str
    svid: bytes = b""
    error: str = ""


class SvidBatchReply(msgspec.Struct, frozen=True, kw_only=True):
    """The outcomes, in the order of the requests."""

    outcomes: tuple[SvidOutcome, ...]


class JwtSvidRequest(_Message, frozen=True, kw_only=True):
    """One JWT-SVID wanted: for which entry, and for whom."""

    entry_id: _EntryId
    audience: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_AUDIENCE_CHARACTERS)], ...],
        Meta(min_length=1, max_length=MAX_AUDIENCES),
    ]


class JwtSvidReply(msgspec.Struct, frozen=True, kw_only=True):
    """The token."""

    token: str


class WitRequest(_Message, frozen=True, kw_only=True):
    """One Workload Identity Token wanted.

    Attributes:
        entry_id: for which entry; "" for the asking node itself.
        csr: a certificate request (DER) with the key, whose signature shows that it is held.
    """

    entry_id: Annotated[str, Meta(max_length=64)]
    csr: bytes


class WitReply(msgspec.Struct, frozen=True, kw_only=True):
    """The token, and the Attestation Result (EAR as JWT) for the same key, which ends no earlier."""

    token: str
    result: str
