# SPDX-License-Identifier: Apache-2.0
"""The exchange of one connection: messages and a clock reading in, messages and events out.

The owner of an `Exchange` moves its messages, does what its events ask for (make a proof, appraise
one), and lets application bytes pass only while `flowing`. Slow work happens outside, between an
event and the answer to it, so nothing here blocks.

What it guarantees: no bytes flow before both decisions; each context is used once; an answer to
another round, a message out of turn, or silence beyond its deadline ends the exchange; ended is
final. What it does not do: judge certificates, Evidence or results.

Spec: draft-fossati-seat-expat-03 (rounds, one context each); RFC 9261 section 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from troth.errors import ApiMisuseError, DecodeError, PeerError, TrothError, VerificationError
from troth.tls.core.binding import ChannelBinding, Proof, Request
from troth.tls.core.messages import (
    MAX_ROUNDS,
    Message,
    MessageKind,
    RequestParameters,
    Verdict,
    decode_message,
    encode_message,
)
from troth.tls.core.states import (
    ATTESTER_TABLE,
    FLOWING,
    RELYING_PARTY_TABLE,
    AttesterInput,
    AttesterState,
    RelyingPartyInput,
    RelyingPartyState,
)

__all__ = [
    "Appraise",
    "DecideIdentity",
    "Ended",
    "Event",
    "Exchange",
    "Opened",
    "Prove",
    "Renewed",
    "Timeouts",
]

CONTEXT_OCTETS = 32
MIN_CONTEXT_OCTETS = 16
MAX_CONTEXT_OCTETS = 255
# A request costs its receiver a proof. A peer may ask this often at once, then this often.
ROUND_BURST = 16
ROUNDS_PER_SECOND = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each kind of waiting may last, in seconds.

    Attributes:
        peer: for the peer's next message, before the connection is open.
        prove: for this side's own proof, likewise.
        appraise: for this side's own decision, a remote Verifier included.
        renewal: for the peer's proof while bytes flow. It is longer, because an application at
            the other end that does not read for a while must not lose its connection for it.
    """

    peer: float = 10.0
    prove: float = 10.0
    appraise: float = 10.0
    renewal: float = 60.0


@dataclass(frozen=True, slots=True)
class Prove:
    """The peer asked: answer with `proof_made` or `decline`."""

    round: int
    request: Request


@dataclass(frozen=True, slots=True)
class Appraise:
    """The peer answered: judge it and call `decide`, or `ask` once more."""

    round: int
    proof: Proof


@dataclass(frozen=True, slots=True)
class DecideIdentity:
    """This side asks for nothing: judge the peer's SVID alone and call `decide`."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Both sides have accepted: application bytes may flow."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """A later round was accepted by this side (`ours`) or by the peer."""

    ours: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """No bytes flow any more. `verdict` is what a peer may know; `why` is for this side's log."""

    verdict: Verdict
    why: str
    by_peer: bool


Event = Prove | Appraise | DecideIdentity | Opened | Renewed | Ended


class Exchange:
    """The two machines of `states.py` on one channel.

    Attributes:
        flowing: whether application bytes may pass, in either direction. For reading.
    """

    def __init__(
        self,
        binding: ChannelBinding,
        demand: RequestParameters | None,
        *,
        random: Callable[[int], bytes],
        timeouts: Timeouts | None = None,
    ) -> None:
        """Prepare an exchange.

        Args:
            binding: ties it to its channel.
            demand: what this side asks of the peer; None where the SVID is enough.
            random: returns that many unpredictable octets.
            timeouts: how long to wait.
        """
        self._binding = binding
        self._demand = demand
        self._random = random
        self._timeouts = timeouts or Timeouts()
        self._relying_party = RelyingPartyState.START
        self._attester = AttesterState.WAITING
        self._outgoing: list[bytes] = []
        self._contexts: set[bytes] = set()
        self._asked: Request | None = None
        self._asked_round = -1
        self._proving_round = -1
        self._relying_party_deadline: float | None = None
        self._attester_deadline: float | None = None
        # Read for every piece of data, so it is kept beside the states that it follows from.
        self.flowing = False
        self._opened = False
        self._started = 0.0
        self._ended: Ended | None = None

    @property
    def binding(self) -> ChannelBinding:
        """What ties it to its channel."""
        return self._binding

    @property
    def ended(self) -> Ended | None:
        """Why the exchange is over, or None while it is not."""
        return self._ended

    @property
    def states(self) -> tuple[RelyingPartyState, AttesterState]:
        """Where the two machines stand."""
        return self._relying_party, self._attester

    def messages_to_send(self) -> list[bytes]:
        """Hand over what has to go to the peer, in order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which `poll` has to be called, or None."""
        deadlines = [
            deadline
            for deadline in (self._relying_party_deadline, self._attester_deadline)
            if deadline is not None
        ]
        return min(deadlines, default=None)

    def start(self, now: float) -> list[Event]:
        """Begin; `now` is a monotonic reading in seconds."""
        self._started = now
        self._attester_deadline = now + self._timeouts.peer
        if self._demand is None:
            self._relying_party_deadline = now + self._timeouts.appraise
            return [DecideIdentity()]
        return self.ask(now)

    def ask(
        self,
        now: float,
        demand: RequestParameters | None = None,
        context: bytes | None = None,
        within: float | None = None,
    ) -> list[Event]:
        """Ask the peer for proof: at the start, again later, or after a proof that was not enough.

        Args:
            now: monotonic reading.
            demand: other parameters for this and later rounds.
            context: a nonce of the Verifier's choice in place of a fresh random context; 16 to 255
                unpredictable octets.
            within: seconds that the answer may take; by default as `Timeouts` says.

        Raises:
            ApiMisuseError: nothing may be asked in this state, or the context is of another size
                or was used before.
        """
        if demand is not None:
            self._demand = demand
        if self._demand is None:
            raise ApiMisuseError("there is nothing to ask for: pass what the peer has to show")
        if self._ended is not None:
            raise ApiMisuseError("the exchange is over")
        if self._asked_round + 1 >= MAX_ROUNDS:
            return self._end(Verdict.REFUSED, "the connection has used up its rounds", tell=True)
        chosen = self._random(CONTEXT_OCTETS) if context is None else context
        if not MIN_CONTEXT_OCTETS <= len(chosen) <= MAX_CONTEXT_OCTETS:
            raise ApiMisuseError(f"a context has 16 to 255 octets, not {len(chosen)}")
        if chosen in self._contexts:
            raise ApiMisuseError("this context was used on this connection before")
        self._move_relying_party(RelyingPartyInput.ASK)
        self._contexts.add(chosen)
        self._asked = self._binding.make_request(chosen, self._demand)
        self._asked_round += 1
        self._send(MessageKind.REQUEST, self._asked_round, self._asked.raw)
        again = self._relying_party is RelyingPartyState.ASKED_AGAIN
        usual = self._timeouts.renewal if again else self._timeouts.peer
        self._relying_party_deadline = now + (usual if within is None else within)
        return []

    def awaits(self, round_: int) -> bool:
        """Say whether `decide` about this round would still count."""
        return self._ended is None and round_ == self._asked_round

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take one message from the peer. Whatever is wrong with it ends the exchange."""
        if self._ended is not None:
            return []
        try:
            message = decode_message(data)
            if message.kind is MessageKind.REQUEST:
                return self._on_request(message, now)
            if message.kind is MessageKind.PROOF:
                return self._on_proof(message, now)
            return self._on_decision(message)
        except DecodeError as exc:
            return self._end(Verdict.MALFORMED, str(exc), tell=True)
        except PeerError as exc:
            declined = exc.alert == "certificate_required"
            return self._end(
                Verdict.DECLINED if declined else Verdict.MALFORMED, str(exc), tell=True
            )
        except VerificationError as exc:
            return self._end(Verdict.REFUSED, str(exc), tell=True)

    def proof_made(self, round_: int, proof: bytes, now: float) -> list[Event]:
        """Answer `Prove`. A proof for a round that is no longer asked for is dropped."""
        if self._ended is not None or round_ != self._proving_round:
            return []
        self._move_attester(AttesterInput.PROOF_MADE)
        self._send(MessageKind.PROOF, round_, proof)
        if self._attester is AttesterState.PROVED:
            self._attester_deadline = now + self._timeouts.peer + self._timeouts.appraise
        return []

    def decline(self, round_: int, request: Request, why: str) -> list[Event]:
        """Answer `Prove` with an authenticated refusal; the exchange ends."""
        if self._ended is not None or round_ != self._proving_round:
            return []
        self._move_attester(AttesterInput.DECLINE)
        self._send(MessageKind.PROOF, round_, self._binding.decline(request))
        return self._end(Verdict.DECLINED, why, tell=False)

    def decide(self, round_: int, verdict: Verdict, why: str = "") -> list[Event]:
        """Answer `Appraise` or `DecideIdentity` (round -1). A late answer is dropped."""
        if not self.awaits(round_):
            return []
        if verdict is not Verdict.ACCEPTED:
            return self._end(verdict, why or "refused by this side's policy", tell=True)
        again = self._relying_party is RelyingPartyState.APPRAISING_AGAIN
        self._move_relying_party(RelyingPartyInput.ACCEPT)
        self._relying_party_deadline = None
        self._send(MessageKind.DECISION, max(round_, 0), bytes([Verdict.ACCEPTED]))
        return [Renewed(ours=True)] if again else self._opened_now()

    def refuse(self, verdict: Verdict, why: str) -> list[Event]:
        """End at once: a result lapsed, the peer was expelled, this side stops."""
        return self._end(verdict, why, tell=True)

    def poll(self, now: float) -> list[Event]:
        """Look at the clock."""
        if self._ended is not None:
            return []
        if self._relying_party_deadline is not None and now >= self._relying_party_deadline:
            verdict = (
                Verdict.UNAVAILABLE
                if self._relying_party
                in (RelyingPartyState.APPRAISING, RelyingPartyState.APPRAISING_AGAIN)
                else Verdict.TIMEOUT
            )
            return self._end(verdict, f"no progress while {self._relying_party.value}", tell=True)
        if self._attester_deadline is not None and now >= self._attester_deadline:
            return self._end(
                Verdict.TIMEOUT, f"no progress while {self._attester.value}", tell=True
            )
        return []

    # What the peer sends.

    def _on_request(self, message: Message, now: float) -> list[Event]:
        if message.round != self._proving_round + 1:
            raise DecodeError(
                f"request of round {message.round}, round {self._proving_round + 1} is next",
                format="exchange message",
            )
        if message.round >= ROUND_BURST + ROUNDS_PER_SECOND * (now - self._started):
            raise PeerError("the peer asks for proof too often", alert="access_denied")
        request = self._binding.read_request(message.body)
        # One set for both directions: the peer may not reflect our own context at us either.
        if request.context in self._contexts:
            raise PeerError("the peer uses a context a second time", alert="illegal_parameter")
        self._move_attester(AttesterInput.REQUEST)
        self._contexts.add(request.context)
        self._proving_round = message.round
        if self._attester is AttesterState.PROVING:
            self._attester_deadline = now + self._timeouts.prove
        return [Prove(message.round, request)]

    def _on_proof(self, message: Message, now: float) -> list[Event]:
        if self._asked is None or message.round != self._asked_round:
            raise PeerError(f"proof for round {message.round}, which was not asked")
        self._move_relying_party(RelyingPartyInput.PROOF)
        proof = self._binding.read_proof(self._asked, message.body)
        self._relying_party_deadline = now + self._timeouts.appraise
        return [Appraise(message.round, proof)]

    def _on_decision(self, message: Message) -> list[Event]:
        verdict = Verdict(message.body[0])
        if verdict is not Verdict.ACCEPTED:
            return self._end(verdict, f"the peer says: {verdict.name.lower()}", by_peer=True)
        if message.round != max(self._proving_round, 0):
            raise PeerError(f"decision about round {message.round}, which is not the open one")
        again = self._attester is AttesterState.PROVED_AGAIN
        self._move_attester(AttesterInput.PEER_ACCEPTS)
        self._attester_deadline = None
        return [Renewed(ours=False)] if again else self._opened_now()

    # The machines.

    def _move_relying_party(self, given: RelyingPartyInput) -> None:
        new = RELYING_PARTY_TABLE.get((self._relying_party, given))
        if new is None:
            self._out_of_turn(
                given in (RelyingPartyInput.PROOF, RelyingPartyInput.DECLINE),
                f"{given.value} while {self._relying_party.value}",
            )
        else:
            self._relying_party = new
            self._follow()

    def _move_attester(self, given: AttesterInput) -> None:
        new = ATTESTER_TABLE.get((self._attester, given))
        if new is None:
            from_peer = (
                AttesterInput.REQUEST,
                AttesterInput.PEER_ACCEPTS,
                AttesterInput.PEER_REFUSES,
            )
            self._out_of_turn(given in from_peer, f"{given.value} while {self._attester.value}")
        else:
            self._attester = new
            self._follow()

    def _follow(self) -> None:
        self.flowing = self._relying_party in FLOWING and self._attester in FLOWING

    @staticmethod
    def _out_of_turn(by_peer: bool, what: str) -> None:  # noqa: FBT001 - private, read at two calls
        error: TrothError = (
            PeerError(f"out of turn: {what}", alert="unexpected_message")
            if by_peer
            else ApiMisuseError(f"out of turn: {what}")
        )
        raise error

    def _opened_now(self) -> list[Event]:
        if self.flowing and not self._opened:
            self._opened = True
            return [Opened()]
        return []

    def _end(
        self, verdict: Verdict, why: str, *, tell: bool = False, by_peer: bool = False
    ) -> list[Event]:
        if self._ended is not None:
            return []
        self._relying_party = RelyingPartyState.ENDED
        self._attester = AttesterState.ENDED
        self._relying_party_deadline = self._attester_deadline = None
        self._follow()
        if tell:
            self._send(MessageKind.DECISION, max(self._asked_round, 0), bytes([verdict]))
        self._ended = Ended(verdict, why, by_peer)
        return [self._ended]

    def _send(self, kind: MessageKind, round_: int, body: bytes) -> None:
        self._outgoing.append(encode_message(Message(kind, round_, body)))
