# SPDX-License-Identifier: Apache-2.0
"""Who is a member of a Logical TEE at a moment, and one digest of them all.

Members are nodes that meet the requirement of a class. A degraded node still runs what it was
given, until its connections end: it is counted apart and holds the floor down, but is no member
for anything new.

The digest is the root of a Merkle tree (RFC 9162 section 2.1.1, SHA-256). A leaf is the canonical
JSON of one member: names sorted, no spaces, UTF-8; times are whole seconds since 1970. Leaves are
sorted by these octets, so that a set has one digest::

    leaf   = SHA-256(0x00 || JSON)
    parent = SHA-256(0x01 || left || right)      an odd one out is paired as RFC 9162 says
    none   = SHA-256("")

Being a tree, it lets one member prove that it is in (`inclusion_proof`) without naming the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import msgspec

from troth.errors import ApiMisuseError, BindingError, DecodeError
from troth.formats.ar4si import TrustTier
from troth.formats.strict_json import encode_json
from troth.mesh.logical_tee import Epoch, LogicalTee, MemberClass
from troth.mesh.node import PERMISSIONS, NodeState
from troth.mesh.node_record import AppraisedEvidence, NodeRecord, ResultSummary
from troth.mesh.tier import Tier

__all__ = [
    "MAX_PROOF_STEPS",
    "InclusionProof",
    "Membership",
    "NotAMember",
    "TeeMember",
    "inclusion_proof",
    "membership_digest",
    "membership_of",
    "verify_inclusion",
]

MAX_PROOF_STEPS: Final = 40
"""Hashes in an inclusion proof: enough for 2^40 members."""

_FORMAT: Final = "inclusion proof"


class TeeMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One member in one class: a leaf of the tree.

    Attributes:
        member_class: the class.
        node_id, spiffe_id: who.
        generation: of the node's state; of two statements about it the higher one is newer.
        standing: "admitted" or "degraded".
        epoch: the newest accepted epoch that its result satisfies.
        tier, scheme, policy_id: of its result.
        result_digest: SHA-256 (hex) of its Attestation Result as signed, or "" where it has none.
        key_digest: SHA-256 (hex) of the SubjectPublicKeyInfo in its SVID: a peer that shows this
            key is this member.
        ends: when this stops being true unless it renews; whole seconds since 1970.
        insecure: why its Evidence must not count in production.
    """

    member_class: str
    node_id: str
    spiffe_id: str
    generation: int
    standing: Literal["admitted", "degraded"]
    epoch: int
    tier: Tier
    scheme: str
    policy_id: str
    result_digest: str
    key_digest: str
    ends: int
    insecure: tuple[str, ...] = ()

    def leaf(self) -> bytes:
        """Return the octets of the leaf."""
        return encode_json(msgspec.to_builtins(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAMember:
    """A node that a class names, and why it is not in it.

    Attributes:
        member_class, node_id: which.
        reason: a word: "state", "no_result", "no_svid", "not_affirming", "tier", "scheme",
            "policy", "too_old", "epoch".
        detail: a sentence for operators.
    """

    member_class: str
    node_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Who belongs to a Logical TEE at `at`.

    Attributes:
        tee: its definition.
        at: the moment.
        epochs: ids of the epochs accepted, newest first; empty: none has begun.
        members: sorted as the leaves are.
        others: nodes that a class names and that are not in it.
    """

    tee: LogicalTee
    at: datetime
    epochs: tuple[int, ...]
    members: tuple[TeeMember, ...]
    others: tuple[NotAMember, ...]

    @property
    def digest(self) -> str:
        """Root of the tree, hex."""
        return membership_digest(self.members)

    def of_class(self, name: str) -> tuple[TeeMember, ...]:
        """Return the members of a class, the degraded ones too."""
        return tuple(member for member in self.members if member.member_class == name)

    def find(self, node_id: str, member_class: str) -> TeeMember | None:
        """Return a node as a member of a class, or None."""
        for member in self.members:
            if member.node_id == node_id and member.member_class == member_class:
                return member
        return None

    def accepts(self, node_id: str, member_class: str) -> bool:
        """Say whether something new may be given to this node as a member of this class."""
        found = self.find(node_id, member_class)
        return found is not None and found.standing == "admitted"


class _NotMetError(Exception):
    """A requirement of a class is not met; never leaves this module."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def membership_of(tee: LogicalTee, nodes: Iterable[NodeRecord], *, now: datetime) -> Membership:
    """Compute the membership at `now` from one consistent reading of the registry.

    Does not verify results again: a record is what the registry holds after verification.
    """
    epochs = tee.epochs_in_force(now)
    members: list[TeeMember] = []
    others: list[NotAMember] = []
    for node in nodes:
        for each in tee.classes:
            if not each.names(entry_id=node.entry_id, spiffe_id=node.spiffe_id):
                continue
            try:
                members.append(_member(each, node, epochs, now))
            except _NotMetError as exc:
                others.append(
                    NotAMember(
                        member_class=each.name,
                        node_id=node.id,
                        reason=exc.reason,
                        detail=str(exc),
                    )
                )
    return Membership(
        tee=tee,
        at=now,
        epochs=tuple(epoch.id for epoch in epochs),
        members=tuple(sorted(members, key=TeeMember.leaf)),
        others=tuple(others),
    )


def _member(
    each: MemberClass, node: NodeRecord, epochs: Sequence[Epoch], now: datetime
) -> TeeMember:
    if PERMISSIONS[node.state].placement == "no":
        raise _NotMetError("state", f"it is {node.state.value}")
    if node.appraised is None:
        raise _NotMetError("no_result", "it has no Attestation Result")
    if node.svid is None or node.svid.deadline <= now:
        raise _NotMetError("no_svid", "its connections have ended: it has no SVID in force")
    result = node.appraised.result
    _require(each, result, node.appraised.scheme)
    epoch = next((each.id for each in epochs if result.epoch >= each.registry_epoch), None)
    if epoch is None:
        raise _NotMetError("epoch", f"its result is of registry epoch {result.epoch}")
    ends = node.svid.deadline
    if node.state is NodeState.ADMITTED:
        if result.status != TrustTier.AFFIRMING.word:
            raise _NotMetError("not_affirming", f"its result is {result.status}")
        ends = min(result.expires, result.issued + each.max_age)
        if ends <= now:
            raise _NotMetError("too_old", f"its result counts until {ends.isoformat()}")
    return _leaf(each, node, node.appraised, epoch=epoch, ends=ends)


def _require(each: MemberClass, result: ResultSummary, scheme: str) -> None:
    """Raise unless the result is of a kind that counts in the class; its age is not asked."""
    if result.tier < each.min_tier:
        raise _NotMetError("tier", f"its tier is {result.tier}, below {each.min_tier}")
    if scheme not in each.schemes:
        raise _NotMetError("scheme", f"scheme {scheme} does not count here")
    if result.policy_id not in each.policy_ids:
        raise _NotMetError("policy", f"policy {result.policy_id} does not count here")


def _leaf(
    each: MemberClass,
    node: NodeRecord,
    appraised: AppraisedEvidence,
    *,
    epoch: int,
    ends: datetime,
) -> TeeMember:
    result, ear = appraised.result, appraised.ear
    return TeeMember(
        member_class=each.name,
        node_id=node.id,
        spiffe_id=node.spiffe_id,
        generation=node.generation,
        standing="admitted" if node.state is NodeState.ADMITTED else "degraded",
        epoch=epoch,
        tier=result.tier,
        scheme=appraised.scheme,
        policy_id=result.policy_id,
        result_digest=hashlib.sha256(ear.encode()).hexdigest() if ear else "",
        key_digest=node.svid.key_digest if node.svid else "",
        ends=int(ends.timestamp()),
        insecure=result.insecure,
    )


# The tree


class InclusionProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """That one leaf is in a tree (RFC 9162 section 2.1.3).

    Attributes:
        member: what the leaf says.
        index: its place, from 0.
        size: leaves in the tree.
        path: hex of the hashes beside the way up.
    """

    member: TeeMember
    index: int
    size: int
    path: tuple[str, ...]


def membership_digest(members: Iterable[TeeMember]) -> str:
    """Return the root (hex) over a set of members in any order."""
    return _root(_leaf_hashes(members)).hex()


def inclusion_proof(members: Sequence[TeeMember], member: TeeMember) -> InclusionProof:
    """Return the proof that `member` is one of `members`.

    Raises:
        ApiMisuseError: it is none of them.
    """
    if member not in members:
        raise ApiMisuseError(f"node {member.node_id} is no member of {member.member_class}")
    hashes = _leaf_hashes(members)
    index = hashes.index(_leaf_hash(member))
    path = tuple(each.hex() for each in _path(hashes, index))
    return InclusionProof(member=member, index=index, size=len(hashes), path=path)


def verify_inclusion(proof: InclusionProof, *, root: str, size: int) -> TeeMember:
    """Return the member that a proof shows to be in the tree of `root` with `size` leaves.

    Raises:
        DecodeError: not a proof of such a tree.
        BindingError: it leads to another root.
    """
    if proof.size != size or not 0 <= proof.index < size or len(proof.path) > MAX_PROOF_STEPS:
        raise DecodeError(f"is not about a tree of {size} leaves", format=_FORMAT)
    path = [_octets(text) for text in proof.path]
    found = _climb(_leaf_hash(proof.member), proof.index, size, path)
    if found.hex() != root:
        raise BindingError(
            f"{_FORMAT}: node {proof.member.node_id} is not in this membership as it says",
            remedy="fetch result and proof again: the membership may have changed between them",
        )
    return proof.member


def _leaf_hashes(members: Iterable[TeeMember]) -> list[bytes]:
    return [_leaf_hash(member) for member in sorted(members, key=TeeMember.leaf)]


def _leaf_hash(member: TeeMember) -> bytes:
    return hashlib.sha256(b"\x00" + member.leaf()).digest()


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _root(hashes: Sequence[bytes]) -> bytes:
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    middle = _split(len(hashes))
    return _parent(_root(hashes[:middle]), _root(hashes[middle:]))


def _path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes beside the way from a leaf to the root, the lowest first."""
    if len(hashes) == 1:
        return []
    middle = _split(len(hashes))
    if index < middle:
        return [*_path(hashes[:middle], index), _root(hashes[middle:])]
    return [*_path(hashes[middle:], index - middle), _root(hashes[:middle])]


def _climb(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that a path leads to (RFC 9162 section 2.1.3.2)."""
    found, last = leaf, size - 1
    for beside in path:
        if last == 0:
            raise DecodeError("its path is too long", format=_FORMAT)
        if index & 1 or index == last:
            found = _parent(beside, found)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            found = _parent(found, beside)
        index, last = index >> 1, last >> 1
    if last:
        raise DecodeError("its path is too short", format=_FORMAT)
    return found


def _octets(text: str) -> bytes:
    try:
        octets = bytes.fromhex(text)
    except ValueError as exc:
        raise DecodeError("a hash is not hex", format=_FORMAT) from exc
    if len(octets) != hashlib.sha256().digest_size or octets.hex() != text:
        raise DecodeError("a hash is not SHA-256 in lower-case hex", format=_FORMAT)
    return octets
