# SPDX-License-Identifier: Apache-2.0
"""What an exchange asks for, done: proofs made, peers judged, time watched, results renewed.

The driver owns the tasks and timers of one exchange and nothing of its channel. Whoever owns the
channel hands it the peer's messages and sends what it gives: `AttestedConnection` for TLS in this
process, a node agent for the gate in its proxy.

The clock of a deadline is the wall's, since results and certificates speak of it, and the
monotonic one beside it: whichever passes first ends the connection. So setting the wall clock back
gains nothing, and a machine that slept does not find its connections still open.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import structlog

from troth.clock import Clock, system_random
from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    TrothError,
    UnavailableError,
)
from troth.mesh.deadline import REFRESH_FRACTION, Deadline
from troth.tls.core.binding import ChannelBinding
from troth.tls.core.exchange import (
    Appraise,
    DecideIdentity,
    Ended,
    Event,
    Exchange,
    Opened,
    Prove,
    Renewed,
    Timeouts,
)
from troth.tls.core.messages import Model, Verdict
from troth.tls.judge import Judge
from troth.tls.peer import AttestedPeer, ChannelPeer
from troth.tls.prover import Prover
from troth.tls.verdicts import verdict_of

__all__ = ["AttestationRefusedError", "ChannelOwner", "ExchangeDriver", "ExchangeOptions"]

_log = structlog.get_logger("troth.tls")

_GRACE_SECONDS = 1.0
# A wall clock that is stepped is noticed within this.
_LOOK_SECONDS = 30.0
# Near its deadline a connection does not ask more often than this.
_LEAST_RENEWAL_SECONDS = 1.0
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.5, 30.0


class AttestationRefusedError(AuthorizationError):
    """No connection came about, or it was ended, by a decision or for want of one.

    Attributes:
        verdict: the coarse class, also told to the peer.
        by_peer: whether the other side decided so.
    """

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.why)
        self.verdict = ended.verdict
        self.by_peer = ended.by_peer


class ChannelOwner(Protocol):
    """Whoever carries the exchange's messages. Called from the event loop, never reentrantly."""

    def send_message(self, message: bytes) -> None:
        """Send one message to the peer, after all earlier ones."""
        ...

    def exchange_opened(self, peer: AttestedPeer) -> None:
        """Both sides have accepted: application bytes may pass."""
        ...

    def exchange_renewed(self, peer: AttestedPeer) -> None:
        """A later proof was accepted; its deadline counts now."""
        ...

    def exchange_ended(self, ended: Ended) -> None:
        """No application byte may pass any more; the last message has been handed over."""
        ...

    async def writable(self) -> None:
        """Return when the peer takes what was sent: who does not read gets no more proofs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOptions:
    """What the exchanges of one kind share.

    Attributes:
        judge: decides about peers.
        prover: makes this side's proofs.
        clock: time.
        timeouts: how long to wait.
    """

    judge: Judge
    prover: Prover
    clock: Clock
    timeouts: Timeouts


class ExchangeDriver:
    """Runs one exchange. Needs a running event loop."""

    def __init__(
        self, options: ExchangeOptions, binding: ChannelBinding, owner: ChannelOwner
    ) -> None:
        """Prepare; nothing is sent before `start`."""
        self._options = options
        self._binding = binding
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._exchange = Exchange(
            binding,
            options.judge.demand(),
            random=system_random,
            timeouts=_with_grace(options.timeouts),
        )
        self._peer: ChannelPeer | None = None
        self._identity_waits = False
        self._judged: AttestedPeer | None = None
        self._asked_for_evidence = False
        self._rounds = asyncio.Lock()
        self._renewal: asyncio.Future[AttestedPeer] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._lapse: asyncio.TimerHandle | None = None
        self._renew_at: asyncio.TimerHandle | None = None

    @property
    def flowing(self) -> bool:
        """Whether application bytes may pass."""
        return self._exchange.flowing

    @property
    def ended(self) -> Ended | None:
        """Why the exchange is over, or None."""
        return self._exchange.ended

    @property
    def peer(self) -> AttestedPeer:
        """Who the peer is and what was last proved.

        Raises:
            ApiMisuseError: nothing was decided yet.
        """
        if self._judged is None:
            raise ApiMisuseError("nothing is known of the peer before the connection is open")
        return self._judged

    def start(self, peer: ChannelPeer | None = None) -> None:
        """Begin. `peer` may follow by `see_peer`, but before the peer's first proof."""
        if peer is not None:
            self.see_peer(peer)
        if self._exchange.ended is None:
            self._handle(self._exchange.start(self._loop.time()))

    def see_peer(self, peer: ChannelPeer) -> None:
        """Tell whom TLS showed, as soon as it is known; whom no proof could help is refused."""
        self._peer = peer
        if objections := self._options.judge.objections(peer, now=self._options.clock.now()):
            self.refuse(Verdict.REFUSED, objections)
        elif self._identity_waits:
            self._identity_waits = False
            self._decide_identity()

    def receive(self, message: bytes) -> None:
        """Take one message from the peer."""
        self._handle(self._exchange.receive(message, self._loop.time()))

    def refuse(self, verdict: Verdict, why: str) -> None:
        """End at once, for a reason of this side's."""
        self._handle(self._exchange.refuse(verdict, why))

    def fail(self, error: TrothError) -> None:
        """End at once, for what went wrong on the channel."""
        self.refuse(verdict_of(error), str(error))

    async def reattest(self) -> AttestedPeer:
        """Ask the peer for a new proof while bytes flow; waits for a round that is running.

        Raises:
            AttestationRefusedError: the peer was refused or gave none; the connection is closed.
            UnavailableError: the policy keeps the connection though no decision could be had.
            ApiMisuseError: the policy asks the peer for nothing, or the exchange is not open.
        """
        return await self._round(within=None)

    def stop(self) -> None:
        """The channel is gone: stop everything. Says nothing to anybody."""
        for handle in (self._timer, self._lapse, self._renew_at):
            if handle is not None:
                handle.cancel()
        for task in self._tasks:
            task.cancel()
        self._exchange.refuse(Verdict.UNAVAILABLE, "the connection is gone")
        if self._exchange.ended is not None:
            self._settle(None, AttestationRefusedError(self._exchange.ended))

    # Events.

    def _handle(self, events: list[Event]) -> None:
        # Our decision has to be on its way before anything that it allows.
        for message in self._exchange.messages_to_send():
            self._owner.send_message(message)
        self._arm()
        for event in events:
            if isinstance(event, Prove):
                self._prove(event)
            elif isinstance(event, Appraise):
                self._appraise(event)
            elif isinstance(event, DecideIdentity):
                self._decide_identity()
            elif isinstance(event, Opened):
                self._owner.exchange_opened(self.peer)
            elif isinstance(event, Renewed):
                if event.ours:
                    self._settle(self.peer, None)
                    self._owner.exchange_renewed(self.peer)
            else:
                self._end(event)

    def _decide_identity(self) -> None:
        if self._peer is None:
            self._identity_waits = True
            return
        now = self._options.clock.now()
        try:
            judged = self._options.judge.judge_identity(self._peer, now=now)
        except TrothError as exc:
            self.fail(exc)
            return
        self._conclude(-1, judged)

    def _prove(self, event: Prove) -> None:
        # While bytes flow the peer's reading sets the pace; see `ChannelOwner.writable`.
        if not self._exchange.flowing:
            try:
                proof = self._options.prover.prove_at_once(event.request, self._binding)
            except TrothError as exc:
                self._handle(self._exchange.decline(event.round, event.request, str(exc)))
                return
            if proof is not None:
                self._proved(event, proof)
                return
        self._spawn(self._prove_in_time(event))

    def _proved(self, event: Prove, proof: bytes) -> None:
        self._handle(self._exchange.proof_made(event.round, proof, self._loop.time()))

    async def _prove_in_time(self, event: Prove) -> None:
        wait = _FIRST_RETRY_SECONDS
        while True:
            if self._exchange.flowing:
                await self._owner.writable()
            try:
                async with asyncio.timeout(self._options.timeouts.prove):
                    proof = await self._options.prover.prove(event.request, self._binding)
            except TimeoutError:
                why: TrothError = UnavailableError("this side's Attester took too long")
            except TrothError as exc:
                why = exc
            else:
                self._proved(event, proof)
                return
            if not isinstance(why, UnavailableError) or not self._exchange.flowing:
                self._handle(self._exchange.decline(event.round, event.request, str(why)))
                return
            # The peer's last decision stands until its deadline, so a device that is busy now is
            # no reason to end the connection.
            _log.warning("no proof yet", why=str(why), retry_after_seconds=wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LAST_RETRY_SECONDS)

    def _appraise(self, event: Appraise) -> None:
        if self._peer is None:
            self.fail(ApiMisuseError("a proof came before its channel said whose it is"))
            return
        try:
            judged = self._options.judge.judge_at_once(
                self._peer, event.proof, self._binding, now=self._options.clock.now()
            )
        except TrothError as exc:
            self._not_judged(event, exc)
            return
        if judged is not None:
            self._judge_said(event, judged)
        else:
            self._spawn(self._appraise_in_time(event, self._peer))

    async def _appraise_in_time(self, event: Appraise, peer: ChannelPeer) -> None:
        try:
            async with asyncio.timeout(self._options.timeouts.appraise):
                judged = await self._options.judge.judge(
                    peer, event.proof, self._binding, now=self._options.clock.now()
                )
        except TimeoutError:
            self._indeterminate(event.round, "the Verifier did not answer in time")
        except UnavailableError as exc:
            self._indeterminate(event.round, str(exc))
        except TrothError as exc:
            self._not_judged(event, exc)
        else:
            self._judge_said(event, judged)

    def _judge_said(self, event: Appraise, judged: AttestedPeer) -> None:
        if judged.decision.admitted or not self._ask_for_evidence():
            self._conclude(event.round, judged)

    def _not_judged(self, event: Appraise, why: TrothError) -> None:
        if not self._ask_for_evidence():
            self._handle(self._exchange.decide(event.round, verdict_of(why), str(why)))

    def _ask_for_evidence(self) -> bool:
        """Follow a passport that was not enough by one background check, where that may help."""
        judge = self._options.judge
        if (
            judge.policy.model != "any"
            or not judge.can_check
            or self._asked_for_evidence
            or self._exchange.ended is not None
        ):
            return False
        self._asked_for_evidence = True
        demand = judge.demand(Model.BACKGROUND_CHECK)
        self._handle(self._exchange.ask(self._loop.time(), demand))
        return True

    def _indeterminate(self, round_: int, why: str) -> None:
        keep = self._options.judge.policy.on_indeterminate == "keep"
        if not keep or not self._exchange.flowing:
            self._handle(self._exchange.decide(round_, Verdict.UNAVAILABLE, why))
            return
        # The last decision and its deadline stand; this round ends without a better one.
        _log.warning("connection kept without a new decision", why=why, **self._names())
        self._settle(None, UnavailableError(why))
        self._handle(self._exchange.decide(round_, Verdict.ACCEPTED))

    def _conclude(self, round_: int, judged: AttestedPeer) -> None:
        if not self._exchange.awaits(round_):
            return
        deadline = judged.decision.deadline
        if not judged.decision.admitted or deadline is None:
            why = "; ".join(str(objection) for objection in judged.decision.objections)
            self._handle(self._exchange.decide(round_, Verdict.REFUSED, why))
            return
        self._judged = judged
        self._watch(deadline)
        self._handle(self._exchange.decide(round_, Verdict.ACCEPTED))

    def _end(self, ended: Ended) -> None:
        _log.info(
            "connection ended",
            verdict=ended.verdict.name.lower(),
            why=ended.why,
            by_peer=ended.by_peer,
            **self._names(),
        )
        self.stop()
        self._owner.exchange_ended(ended)

    def _names(self) -> dict[str, str]:
        peer = str(self._peer.spiffe_id) if self._peer else ""
        return {"peer": peer, "role": self._binding.role.value}

    # Renewal.

    async def _round(self, *, within: float | None) -> AttestedPeer:
        async with self._rounds:
            if self._exchange.ended is not None:
                raise AttestationRefusedError(self._exchange.ended)
            if not self._exchange.flowing:
                raise ApiMisuseError("only an open connection can attest again")
            demand = self._options.judge.demand()
            if demand is None:
                raise ApiMisuseError(
                    "this side's policy is svid_only: it asks the peer for nothing"
                )
            renewal = self._loop.create_future()
            self._renewal = renewal
            self._asked_for_evidence = False
            self._handle(self._exchange.ask(self._loop.time(), demand, within=within))
            return await asyncio.shield(renewal)

    async def _renew(self) -> None:
        deadline = self.peer.deadline
        if deadline is None or self._exchange.ended is not None:
            return
        if not self._exchange.flowing:
            self._schedule_renewal()
            return
        left = (deadline - self._options.clock.now()).total_seconds()
        try:
            # Nothing is lost before the deadline, so the peer has as long as that.
            await self._round(within=max(left, 0))
        except AttestationRefusedError:
            return
        except UnavailableError:
            # The policy kept the connection; ask again for as long as the last result allows.
            self._schedule_renewal()

    def _schedule_renewal(self) -> None:
        if self._renew_at is not None:
            self._renew_at.cancel()
            self._renew_at = None
        deadline = self.peer.deadline
        policy = self._options.judge.policy
        if deadline is None or not policy.renew or policy.model == "svid_only":
            return
        left = (deadline - self._options.clock.now()).total_seconds()
        if left <= _LEAST_RENEWAL_SECONDS:
            return
        wait = left * REFRESH_FRACTION * (0.9 + 0.2 * random.random())  # noqa: S311 - spreads load
        self._renew_at = self._loop.call_later(
            max(wait, _LEAST_RENEWAL_SECONDS), self._spawn_renewal
        )

    def _spawn_renewal(self) -> None:
        self._spawn(self._renew())

    def _settle(self, peer: AttestedPeer | None, failure: TrothError | None) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is None or renewal.done():
            return
        if peer is not None:
            renewal.set_result(peer)
        elif failure is not None:
            renewal.set_exception(failure)
            renewal.exception()  # looked at here, so that nobody has to wait for it

    # Time.

    def _watch(self, deadline: Deadline) -> None:
        left = (deadline.at - self._options.clock.now()).total_seconds()
        self._look_later(deadline, self._loop.time() + left, left)
        self._schedule_renewal()

    def _look(self, deadline: Deadline, monotonic: float) -> None:
        wall = (deadline.at - self._options.clock.now()).total_seconds()
        self._look_later(deadline, monotonic, min(wall, monotonic - self._loop.time()))

    def _look_later(self, deadline: Deadline, monotonic: float, left: float) -> None:
        if self._lapse is not None:
            self._lapse.cancel()
        if left <= 0:
            self.refuse(Verdict.REFUSED, f"lapsed: {deadline.because}")
            return
        self._lapse = self._loop.call_later(
            min(left, _LOOK_SECONDS), self._look, deadline, monotonic
        )

    def _arm(self) -> None:
        # A timer that comes too early looks again; most of them are never needed at all.
        at = self._exchange.next_deadline()
        if at is None or (self._timer is not None and self._timer.when() <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._poll)

    def _poll(self) -> None:
        self._timer = None
        self._handle(self._exchange.poll(self._loop.time()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("defect in an exchange", exc_info=error, **self._names())
            self.refuse(Verdict.UNAVAILABLE, f"defect: {type(error).__name__}")


@lru_cache(maxsize=16)
def _with_grace(usual: Timeouts) -> Timeouts:
    """The exchange's own deadlines are the backstop of those kept here, which know the reason."""
    return replace(
        usual, prove=usual.prove + _GRACE_SECONDS, appraise=usual.appraise + _GRACE_SECONDS
    )
