# SPDX-License-Identifier: Apache-2.0
"""The states of an exchange, as two small machines and one table each.

Theory of operation
-------------------
Each end of a connection plays two parts at once, and the parts do not know each other:

- as **Relying Party** it may ask the peer for proof, appraises what comes, and tells the peer its
  decision;
- as **Attester** it waits for the peer's request, makes proof, and waits for the peer's decision.

A side whose policy is content with the peer's SVID asks for nothing and tells its decision at
once. Application bytes flow, in either direction, only while both parts are in a state marked
`flowing`: then this side has accepted the peer, and knows that the peer has accepted it.

Re-attestation walks the second half of each machine: bytes keep flowing while it runs, and a
refusal ends the connection. So does silence towards the side that asked; towards the side that
proves, silence ends nothing, since the peer's last decision about it stands. Every (state, input) pair that the tables do not hold is a
protocol error and ends it too. ENDED is final.

The diagram in docs/explanation/exchange.md is drawn from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

__all__ = [
    "ATTESTER_TABLE",
    "FLOWING",
    "RELYING_PARTY_TABLE",
    "AttesterInput",
    "AttesterState",
    "RelyingPartyInput",
    "RelyingPartyState",
    "mermaid",
]


class _Fixed(Enum):
    """Hashes as the one object that a member is: these are keys of tables on the data path."""

    __hash__ = object.__hash__


class RelyingPartyState(_Fixed):
    """What this side thinks of the peer."""

    START = "start"
    ASKED = "asked"
    APPRAISING = "appraising"
    ACCEPTED = "accepted"
    ASKED_AGAIN = "asked_again"
    APPRAISING_AGAIN = "appraising_again"
    ENDED = "ended"


class RelyingPartyInput(_Fixed):
    """What moves the Relying Party's machine."""

    ASK = "ask"
    PROOF = "proof"
    DECLINE = "decline"
    ACCEPT = "accept"
    REFUSE = "refuse"
    TIMEOUT = "timeout"


class AttesterState(_Fixed):
    """What the peer thinks of this side, as far as this side knows."""

    WAITING = "waiting"
    PROVING = "proving"
    PROVED = "proved"
    CONFIRMED = "confirmed"
    PROVING_AGAIN = "proving_again"
    PROVED_AGAIN = "proved_again"
    ENDED = "ended"


class AttesterInput(_Fixed):
    """What moves the Attester's machine."""

    REQUEST = "request"
    PROOF_MADE = "proof_made"
    DECLINE = "decline"
    PEER_ACCEPTS = "peer_accepts"
    PEER_REFUSES = "peer_refuses"
    TIMEOUT = "timeout"


_R, _RI = RelyingPartyState, RelyingPartyInput
_A, _AI = AttesterState, AttesterInput

RELYING_PARTY_TABLE: Mapping[tuple[RelyingPartyState, RelyingPartyInput], RelyingPartyState] = (
    MappingProxyType(
        {
            (_R.START, _RI.ASK): _R.ASKED,
            # Content with the SVID: a decision without a question.
            (_R.START, _RI.ACCEPT): _R.ACCEPTED,
            (_R.START, _RI.REFUSE): _R.ENDED,
            (_R.START, _RI.TIMEOUT): _R.ENDED,
            (_R.ASKED, _RI.PROOF): _R.APPRAISING,
            (_R.ASKED, _RI.DECLINE): _R.ENDED,
            (_R.ASKED, _RI.TIMEOUT): _R.ENDED,
            (_R.APPRAISING, _RI.ACCEPT): _R.ACCEPTED,
            (_R.APPRAISING, _RI.REFUSE): _R.ENDED,
            (_R.APPRAISING, _RI.TIMEOUT): _R.ENDED,
            # One background check may follow a passport that was not enough.
            (_R.APPRAISING, _RI.ASK): _R.ASKED,
            (_R.ACCEPTED, _RI.ASK): _R.ASKED_AGAIN,
            (_R.ACCEPTED, _RI.REFUSE): _R.ENDED,
            (_R.ACCEPTED, _RI.TIMEOUT): _R.ENDED,
            (_R.ASKED_AGAIN, _RI.PROOF): _R.APPRAISING_AGAIN,
            (_R.ASKED_AGAIN, _RI.DECLINE): _R.ENDED,
            (_R.ASKED_AGAIN, _RI.REFUSE): _R.ENDED,
            (_R.ASKED_AGAIN, _RI.TIMEOUT): _R.ENDED,
            (_R.APPRAISING_AGAIN, _RI.ACCEPT): _R.ACCEPTED,
            (_R.APPRAISING_AGAIN, _RI.REFUSE): _R.ENDED,
            (_R.APPRAISING_AGAIN, _RI.TIMEOUT): _R.ENDED,
            (_R.APPRAISING_AGAIN, _RI.ASK): _R.ASKED_AGAIN,
        }
    )
)

ATTESTER_TABLE: Mapping[tuple[AttesterState, AttesterInput], AttesterState] = MappingProxyType(
    {
        (_A.WAITING, _AI.REQUEST): _A.PROVING,
        (_A.WAITING, _AI.PEER_ACCEPTS): _A.CONFIRMED,
        (_A.WAITING, _AI.PEER_REFUSES): _A.ENDED,
        (_A.WAITING, _AI.TIMEOUT): _A.ENDED,
        (_A.PROVING, _AI.PROOF_MADE): _A.PROVED,
        (_A.PROVING, _AI.DECLINE): _A.ENDED,
        (_A.PROVING, _AI.PEER_REFUSES): _A.ENDED,
        (_A.PROVING, _AI.TIMEOUT): _A.ENDED,
        (_A.PROVED, _AI.PEER_ACCEPTS): _A.CONFIRMED,
        (_A.PROVED, _AI.PEER_REFUSES): _A.ENDED,
        (_A.PROVED, _AI.REQUEST): _A.PROVING,
        (_A.PROVED, _AI.TIMEOUT): _A.ENDED,
        (_A.CONFIRMED, _AI.REQUEST): _A.PROVING_AGAIN,
        (_A.CONFIRMED, _AI.PEER_REFUSES): _A.ENDED,
        (_A.PROVING_AGAIN, _AI.PROOF_MADE): _A.PROVED_AGAIN,
        (_A.PROVING_AGAIN, _AI.DECLINE): _A.ENDED,
        (_A.PROVING_AGAIN, _AI.PEER_REFUSES): _A.ENDED,
        (_A.PROVED_AGAIN, _AI.PEER_ACCEPTS): _A.CONFIRMED,
        (_A.PROVED_AGAIN, _AI.PEER_REFUSES): _A.ENDED,
        (_A.PROVED_AGAIN, _AI.REQUEST): _A.PROVING_AGAIN,
    }
)

# Application bytes may move while the Relying Party's and the Attester's state are both in here.
FLOWING: frozenset[RelyingPartyState | AttesterState] = frozenset(
    {
        _R.ACCEPTED,
        _R.ASKED_AGAIN,
        _R.APPRAISING_AGAIN,
        _A.CONFIRMED,
        _A.PROVING_AGAIN,
        _A.PROVED_AGAIN,
    }
)


def mermaid(table: Mapping[tuple[Enum, Enum], Enum]) -> str:
    """Draw one of the tables as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table))[0].value}"]
    lines += [
        f"    {old.value} --> {new.value}: {given.value}" for (old, given), new in table.items()
    ]
    lines.append("    ended --> [*]")
    return "\n".join(lines)
