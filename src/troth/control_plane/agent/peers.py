# SPDX-License-Identifier: Apache-2.0
"""Which nodes this node's proxy may talk with, from what the feed says and by its own policy.

The feed is told apart from the truth: a member counts only with an Attestation Result that a
believed Verifier signed about the key in the member's SVID, and that key is pinned in the proxy.
So a server that lies about a state can withhold a peer, but cannot make one acceptable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from troth.errors import TrothError
from troth.mesh.event import Event, FeedMessage, Snapshot
from troth.mesh.member import Member
from troth.mesh.passport import Passport, TrustedVerifier, read_passport
from troth.mesh.peer_policy import Decision, Objection, Peer, PeerPolicy, authorize
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier, TierLifetimes

__all__ = ["JudgedPeer", "PeerTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPeer:
    """One member and this node's two decisions about it.

    Attributes:
        member: as the feed last had it.
        as_client: may it call this node?
        as_server: may this node call it?
        passport: its verified result, or None.
        objection: why the result could not be read, or "".
    """

    member: Member
    as_client: Decision
    as_server: Decision
    passport: Passport | None = None
    objection: str = ""

    @property
    def key_pin(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo that its SVID has to have, or b""."""
        return bytes.fromhex(self.member.key_digest)

    @property
    def deadline(self) -> datetime | None:
        """When the earlier of the two decisions lapses."""
        deadlines = [
            decision.deadline.at
            for decision in (self.as_client, self.as_server)
            if decision.admitted and decision.deadline is not None
        ]
        return min(deadlines, default=None)


class PeerTable:
    """What the feed said, and the decisions that follow from it at a given moment."""

    def __init__(
        self,
        *,
        own_node_id: str,
        clients: PeerPolicy,
        servers: PeerPolicy,
        lifetimes: dict[Tier, TierLifetimes] | None = None,
    ) -> None:
        """Start empty: nobody is known, nobody is admitted."""
        self.own_node_id = own_node_id
        self.verifiers: Sequence[TrustedVerifier] = ()
        self._clients = clients
        self._servers = servers
        self._lifetimes = lifetimes or dict(DEFAULT_LIFETIMES)
        self._members: dict[str, Member] = {}
        self._heard_at: datetime | None = None
        self._sequence = -1

    @property
    def sequence(self) -> int:
        """The last event number that was applied; -1 before the first snapshot."""
        return self._sequence

    def apply(self, message: FeedMessage, *, now: datetime) -> bool:
        """Take one message of the feed; say whether any member changed."""
        self._heard_at = now
        if isinstance(message, Snapshot):
            changed = {m.node_id: m for m in message.members} != self._members
            self._members = {member.node_id: member for member in message.members}
            self._sequence = message.sequence
            return changed
        if isinstance(message, Event):
            self._sequence = max(self._sequence, message.sequence)
            known = self._members.get(message.member.node_id)
            if known is not None and known.generation > message.member.generation:
                return False
            self._members[message.member.node_id] = message.member
            return known != message.member
        return False

    def judge(self, *, now: datetime) -> list[JudgedPeer]:
        """Decide about every other member, at `now`."""
        return [
            self._judge(member, now)
            for node_id, member in sorted(self._members.items())
            if node_id != self.own_node_id
        ]

    def next_change(self, judged: Sequence[JudgedPeer], *, now: datetime) -> datetime | None:
        """Return when a decision of `judged` lapses by itself: a deadline, or the feed's silence."""
        moments = [peer.deadline for peer in judged if peer.deadline is not None]
        if self._heard_at is not None:
            moments += [
                self._heard_at + self._feed_loss(peer)
                for peer in judged
                if peer.as_client.admitted or peer.as_server.admitted
            ]
        return min((moment for moment in moments if moment > now), default=None)

    def _judge(self, member: Member, now: datetime) -> JudgedPeer:
        passport: Passport | None = None
        objection = ""
        if member.ear:
            try:
                passport = self._passport(member, now)
            except TrothError as exc:
                objection = str(exc)
        peer = Peer(
            spiffe_id=member.spiffe_id,
            # Without a deadline there is no SVID, and what has no SVID has ended.
            svid_not_after=member.deadline or datetime.min.replace(tzinfo=now.tzinfo),
            state=member.state,
            result=passport.result if passport else None,
        )
        judged = JudgedPeer(
            member=member,
            as_client=authorize(peer, self._clients, now=now),
            as_server=authorize(peer, self._servers, now=now),
            passport=passport,
            objection=objection,
        )
        silence = self._silent_for(now)
        if silence is not None and silence >= self._feed_loss(judged):
            lost = Decision(
                admitted=False,
                objections=(
                    Objection(
                        rule=-1,
                        what="feed",
                        expected=f"heard within {self._feed_loss(judged).total_seconds():.0f} s",
                        actual=f"silent for {silence.total_seconds():.0f} s",
                    ),
                ),
            )
            return JudgedPeer(
                member=member,
                as_client=lost,
                as_server=lost,
                passport=passport,
                objection=objection,
            )
        return judged

    def _passport(self, member: Member, now: datetime) -> Passport:
        """Read the member's result; the key that it names must be the one the SVID has."""
        digest = bytes.fromhex(member.key_digest)
        return read_passport(member.ear, key_digest=digest, verifiers=self.verifiers, now=now)

    def _silent_for(self, now: datetime) -> timedelta | None:
        return None if self._heard_at is None else now - self._heard_at

    def _feed_loss(self, peer: JudgedPeer) -> timedelta:
        tier = peer.passport.result.tier if peer.passport else Tier.CONFIDENTIAL
        return self._lifetimes[tier].feed_loss
